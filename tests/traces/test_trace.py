"""The trace file: exact round trips, equal bytes, lazy reading, one line for whatever is wrong."""

import hashlib
import json
import os
import struct
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from traces.samples import arrays, network, signed, split, trace

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.traces.draft import make_trace, recording
from accsim.traces.header import wanted
from accsim.traces.pattern import TRACED, Traced, named, obeyed
from accsim.traces.trace import read_trace, write_trace


@pytest.fixture
def path(tmp_path):
    return write_trace(tmp_path / "tiny.trace", trace())


def test_everything_comes_back_as_it_was(path):
    found, given = read_trace(path), arrays()
    found.verify()
    assert found.workload == network()
    assert found.steps == 2
    assert found.inputs == {"image": (2, 3, 5, 5)}
    assert found.facts == {"accuracy": {"top1": 0.761}, "note": "a fact, of any JSON"}
    assert found.provenance.license == "Apache-2.0"
    for name, mask in given["masks"].items():
        np.testing.assert_array_equal(found.weight_mask(name), mask)
    for name, values in given["weights"].items():
        np.testing.assert_array_equal(found.weights(name), values)
        assert found.weights(name).dtype == values.dtype
    for (name, step), mask in given["activations"].items():
        np.testing.assert_array_equal(found.activation_mask(name, step), mask)
    assert found.activation_density("fc").tolist() == [0.25, 1.0]
    assert found.activation_density("block/conv")[1] == given["activations"]["block/conv", 1].mean()


def test_what_was_not_recorded_is_none(path):
    found = read_trace(path)
    assert found.weights("heads") is None
    assert found.weight_mask("scores") is None
    assert found.activation_mask("fc", 0) is None
    assert found.activation_density("scores") is None  # step 0 is missing


def test_weights_without_a_mask_are_kept_where_not_zero(path):
    values = arrays()["weights"]["fc"]
    np.testing.assert_array_equal(read_trace(path).weight_mask("fc"), values != 0)


def test_equal_content_gives_equal_bytes_in_any_order_of_making(path, tmp_path):
    given = arrays()
    about = {"facts": trace().facts, "inputs": trace().inputs, "provenance": trace().provenance}
    with recording(tmp_path / "other.trace", network(), **about) as draft:
        draft.densities("fc", given["densities"]["fc"])
        for (name, step), mask in reversed(given["activations"].items()):
            draft.activation_mask(name, step, np.asfortranarray(mask))
        for name, values in reversed(given["weights"].items()):
            draft.weights(name, values.astype(values.dtype.newbyteorder(">")))
        for name, mask in reversed(given["masks"].items()):
            draft.mask(name, mask)
    again = write_trace(tmp_path / "again.trace", read_trace(path))
    assert path.read_bytes() == again.read_bytes() == (tmp_path / "other.trace").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.trace", "other.trace", "tiny.trace"]
    assert read_trace(path).digest == trace().digest != trace(seed=1).digest


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "float16", "float32", "bfloat16", "float8_e4m3fn"]
)
def test_weights_of_every_type_come_back_bit_for_bit(kind, tmp_path):
    dtype = np.dtype(getattr(ml_dtypes, kind, kind))
    values = (np.arange(35).reshape(7, 5) - 9).clip(0 if kind == "uint8" else -9).astype(dtype)
    made = make_trace(accsim.gemm(2, 7, 5), weights={"gemm": values}, masks={"gemm": values != 0})
    found = read_trace(write_trace(tmp_path / "a.trace", made)).weights("gemm")
    assert found.dtype == dtype
    assert found.tobytes() == values.tobytes()


def test_written_by_hand_from_the_documentation(tmp_path):
    """The bytes as docs/traces.md describes them, without accsim."""
    mask = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=bool)
    raw = bytes([0b10100111, 0b00000000])
    header = {
        "format": "accsim-trace", "version": 1,
        "workload": {"name": "hand", "layers": [{
            "name": "fc", "pattern": "traced",
            "op": {"kind": "linear", "in_features": 3, "out_features": 3, "tokens": 4},
        }]},
        "arrays": {"mask/fc": {
            "type": "BITS", "shape": [3, 3], "sha256": hashlib.sha256(raw).hexdigest(),
        }},
    }  # fmt: skip
    text = json.dumps(header, indent=1)
    top = json.dumps({
        "__metadata__": {
            "accsim": text, "accsim_sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
        "mask/fc": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
    }).encode()  # fmt: skip
    path = tmp_path / "hand.trace"
    path.write_bytes(struct.pack("<Q", len(top)) + top + raw)
    found = read_trace(path)
    found.verify()
    assert found.weight_mask("fc").tolist() == mask.tolist()


def test_a_gigabyte_opens_in_milliseconds_and_is_not_read(tmp_path):
    """A sparse file of 64 layers of 16 MiB stands for it; its bytes are never touched."""
    net = accsim.spec.workload.Workload(
        name="large",
        layers=[accsim.gemm(1, 4096, 4096, name=f"l{i}").layers[0] for i in range(64)],
    )
    size = 2**24
    none = {"type": "I8", "shape": [4096, 4096], "sha256": "0" * 64}
    header = {"format": "accsim-trace", "version": 1, "workload": net.model_dump(mode="json")}
    header["arrays"] = {f"weights/l{i}": none for i in range(64)}
    table = {
        f"weights/l{i}": {
            "dtype": "I8", "shape": [4096, 4096], "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(64)
    }  # fmt: skip
    path = tmp_path / "large.trace"
    top = signed(table, header, b"")
    path.write_bytes(top)
    with open(path, "ab") as handle:
        handle.truncate(len(top) + 64 * size)
    begin = time.perf_counter()
    found = read_trace(path)
    assert time.perf_counter() - begin < 0.5
    with pytest.raises(InputError, match="array 'weights/l3': its bytes are not those written"):
        found.weights("l3")


def test_every_byte_of_the_data_is_covered(path):
    """Flip one bit of each data byte: every one is noticed, and named."""
    raw = path.read_bytes()
    _, _, data = split(raw)
    for at in range(len(raw) - len(data), len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(InputError, match=r"sha256 differs|must be 0"):
            read_trace(path).verify()


def test_every_length_short_of_the_whole_is_refused(path):
    raw = path.read_bytes()
    for length in [*range(0, 60), *range(60, len(raw), 37), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(InputError):
            read_trace(path)


def edited(path, change):
    """Rewrite a trace with its two headers changed, digests made to fit."""
    table, header, data = split(path.read_bytes())
    header = change(table, header) or header
    path.write_bytes(signed(table, header, data))
    return path


def setting(*keys, to):
    def change(table, header):
        at = header
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = to

    return change


HOSTILE = {
    "later version": (setting("version", to=2), "version must be 1; got 2"),
    "other format": (setting("format", to="zip"), "format must be 'accsim-trace'"),
    "unknown key": (setting("wieghts", to=1), "unknown key 'wieghts'"),
    "huge layer": (
        setting("workload", "layers", 0, "op", "in_channels", to=10**18),
        "header: workload.layers.0.op.conv2d.in_channels: .* less than or equal to 100000000",
    ),
    "no layer": (setting("workload", "layers", to=[]), "workload.layers"),
    "pattern": (setting("workload", "layers", 0, "pattern", to="9:4"), "1 <= n <= m"),
    "no word": (setting("workload", "layers", 0, "pattern", to={"a": [1]}), "pattern"),
    "steps": (setting("steps", to=1), "array 'activations/1/.*' *: the step must be .* below 1"),
    "digest": (setting("arrays", "mask/heads", "sha256", to="x"), "arrays.mask/heads.sha256"),
    "shape": (
        setting("arrays", "mask/heads", "shape", to=[4, 4]),
        r"array 'mask/heads': shape must be \[4, 3\] or \[3, 4, 3\]; got \[4, 4\]",
    ),
    "type": (setting("arrays", "mask/heads", "type", to="U8"), "type must be one of BITS"),
    "traversal": (
        setting("arrays", "../../etc/passwd", to={"type": "U8", "shape": [1], "sha256": "0" * 64}),
        "must be named mask, weights, activations, density, extra",
    ),
    "of no weights": (
        setting("arrays", "mask/scores", to={"type": "BITS", "shape": [], "sha256": "0" * 64}),
        "the layer multiplies two activations",
    ),
    "in one header only": (
        setting("arrays", "extra/x", to={"type": "U8", "shape": [1], "sha256": "0" * 64}),
        "'extra/x' must be in both headers",
    ),
    "traced, no mask": (
        setting("workload", "layers", 1, "pattern", to="traced"), None,
    ),
    "NaN": (lambda t, h: '{"format": NaN}', "finite numbers; got NaN"),
    "infinity": (lambda t, h: '{"format": 1e999}', "finite numbers; got 1e999"),
    "digits": (lambda t, h: '{"format": %s}' % ("9" * 5000), "header holds 9999"),
    "twice": (lambda t, h: '{"format": 1, "format": 2}', "'format' stands twice"),
    "deep": (lambda t, h: "[" * 100_000, "nest at most 16 levels"),
    "less deep": (lambda t, h: "[" * 20 + "]" * 20, "nest at most 16 levels"),
    "newline": (setting("workload", "name", to="a\nb"), "without control characters"),
    "surrogate": (setting("workload", "name", to="\ud800"), "without control characters"),
    "a list": (lambda t, h: "[]", "format must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_one_line(case, path):
    change, message = HOSTILE[case]
    edited(path, change)
    if message is None:
        read_trace(path).verify()  # fc has weights: that is mask enough
        return
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def entry(**changes):
    def change(table, header):
        table["mask/heads"] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry(dtype="O"), "dtype must be one of BOOL"),
        (entry(dtype=["U8"]), "dtype must be one of"),
        (entry(shape=[2**62]), "data_offsets must span 4611686018427387904 bytes"),
        (entry(shape=[True]), "shape must be at most 8 whole numbers"),
        (entry(shape=[1] * 9), "shape must be at most 8"),
        (entry(data_offsets=[-5, 0]), "data_offsets must be two"),
        (entry(data_offsets=[0, 5]), "must start at byte"),  # on top of another
        (entry(data_offsets=[10**6, 10**6 + 5]), "must start at byte"),
        (entry(extra=1), "must hold dtype, shape and data_offsets"),
        (entry(dtype="I8"), r"'mask/heads' must be U8 \[5\]; got I8 \[5\]"),
        (lambda t, h: t.pop("mask/heads") and None, "must be .* bytes as its header says|start at"),
    ],
)
def test_hostile_tables_are_one_line(change, message, path):
    edited(path, change)
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)


def test_a_header_must_fit_its_digest(path):
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"0.761", b"0.861"))
    with pytest.raises(InputError, match="accsim_sha256 is not the sha256 of its text"):
        read_trace(path)


def test_bits_after_the_last_are_zero_whatever_the_digest_says(path):
    table, header, data = split(path.read_bytes())
    start, stop = table["mask/heads"]["data_offsets"]
    raw = data[start : stop - 1] + bytes([data[stop - 1] | 1])
    header["arrays"]["mask/heads"]["sha256"] = hashlib.sha256(raw).hexdigest()
    path.write_bytes(signed(table, header, data[:start] + raw + data[stop:]))
    with pytest.raises(InputError, match="'mask/heads': the bits after the last element must be 0"):
        read_trace(path).verify()


def test_every_array_is_aligned_to_its_elements(path):
    sizes = {"U8": 1, "I8": 1, "F32": 4, "F64": 8}
    raw = path.read_bytes()
    table, _, data = split(raw)
    for name, array in table.items():
        if name != "__metadata__":
            assert (len(raw) - len(data) + array["data_offsets"][0]) % sizes[array["dtype"]] == 0


def test_masks_of_runs_need_weights_of_runs():
    net = network().select("heads")
    made = make_trace(
        net, masks={"heads": np.ones((3, 4, 3), bool)}, weights={"heads": np.ones((4, 3), np.int8)}
    )
    with pytest.raises(InputError, match="must be zero where the mask prunes"):
        made.verify()


def test_a_header_length_of_any_size_allocates_nothing(path):
    raw = path.read_bytes()
    for length in (0, 1, 2**24 + 1, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + raw[8:])
        with pytest.raises(InputError, match="header length must be from 2"):
            read_trace(path)


def test_no_plain_file_and_no_file_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.trace")
    with pytest.raises(InputError, match="must be a plain file"):
        read_trace(tmp_path / "pipe.trace")
    with pytest.raises(InputError, match="no such file"):
        read_trace(tmp_path / "none.trace")
    with pytest.raises(InputError, match="cannot be written"):
        write_trace(tmp_path / "none" / "a.trace", trace())


def test_a_mask_that_breaks_its_claim_is_refused():
    mask = accsim.pattern("2:4").mask(np.arange(96.0).reshape(16, 6) + 1)
    make_trace(accsim.gemm(1, 16, 6).prune("2:4"), masks={"gemm": mask}).verify()
    mask[8, 5] = True
    made = make_trace(accsim.gemm(1, 16, 6).prune("2:4"), masks={"gemm": mask})
    message = "layer 'gemm': the mask is not 2:4: group 2 .* of column 5 keeps 3 > 2"
    for ask in (made.verify, made.check_patterns, lambda: made.weight_mask("gemm")):
        with pytest.raises(InputError, match=message):
            ask()


def test_a_wide_mask_is_checked_piece_by_piece(monkeypatch):
    monkeypatch.setattr("accsim.traces.trace.PIECE_ELEMENTS", 32)
    mask = np.zeros((16, 6), dtype=bool)
    mask[:3, 5] = True
    made = make_trace(accsim.gemm(1, 16, 6).prune("2:4"), masks={"gemm": mask})
    with pytest.raises(InputError, match=r"column 1 keeps 3 > 2 \(columns counted from 4\)"):
        made.verify()


def test_a_weight_that_the_mask_prunes_is_found():
    values = np.ones((4, 4), dtype=np.float32)
    made = make_trace(
        accsim.gemm(1, 4, 4).prune(TRACED), masks={"gemm": np.eye(4, dtype=bool)},
        weights={"gemm": values},
    )  # fmt: skip
    with pytest.raises(InputError, match="must be zero where the mask prunes"):
        made.verify()
    nan = make_trace(accsim.gemm(1, 4, 4), weights={"gemm": values * np.float32("nan")})
    with pytest.raises(InputError, match="must hold finite numbers"):
        nan.weights("gemm")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"masks": {"gemn": np.ones((4, 4), bool)}}, "no layer 'gemn', did you mean 'gemm'"),
        ({"masks": {"gemm": np.ones((4, 5), bool)}}, r"must have shape \[4, 4\]; got \[4, 5\]"),
        ({"masks": {"gemm": np.ones((4, 4))}}, "must be of type bool; got float64"),
        ({"weights": {"gemm": np.ones((4, 4))}}, "must be of type int8, uint8.*; got float64"),
        ({"weights": {"gemm": np.ones((4, 4), "c8")}}, "got complex64"),
        ({"facts": {"x": float("nan")}}, "must be plain JSON"),
        ({"facts": {"x": object()}}, "must be plain JSON"),
        ({"provenance": {"licence": "MIT"}}, "unknown key 'licence' in 'provenance', did you mean"),
        ({"inputs": {"x": (0,)}}, "inputs.x"),
        ({"densities": {"gemm": [0.5, 2.0]}}, None),
    ],
)
def test_what_is_wrong_is_said_when_it_is_recorded(given, message):
    net = accsim.gemm(1, 4, 4)
    if message is None:
        with pytest.raises(InputError, match="densities from 0 to 1"):
            make_trace(net, **given).verify()
        return
    with pytest.raises(InputError, match=message):
        make_trace(net, **given)


def test_a_traced_layer_needs_its_mask():
    with pytest.raises(InputError, match="'gemm' is traced: the trace must hold its mask"):
        make_trace(accsim.gemm(1, 4, 4).prune(TRACED))


def test_extra_arrays_are_kept_for_their_owner(tmp_path):
    with recording(tmp_path / "a.trace", accsim.gemm(1, 4, 4)) as draft:
        draft.extra("router/choice", np.arange(6, dtype=np.int64).reshape(2, 3))
        draft.extra("flags", np.array([True, False, True]))
    found = read_trace(tmp_path / "a.trace")
    assert found.extra("router/choice").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.extra("flags").tolist() == [True, False, True]
    with pytest.raises(InputError, match="no extra array 'flag', did you mean 'flags'"):
        found.extra("flag")


def test_a_recording_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), recording(tmp_path / "a.trace", accsim.gemm(1, 4, 4)):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_shapes_wanted():
    conv, fc, heads, scores = network()
    assert wanted("activations", conv)[1] == ((2, 5, 5, 3),)
    assert wanted("activations", fc)[1] == ((3, 8),)
    assert wanted("weights", heads)[1] == ((4, 3), (3, 4, 3))
    assert wanted("activations", scores)[1] == ((3, 4), (4, 3, 4))


def test_the_pattern_traced():
    assert named("traced") is TRACED
    assert named("2:4") == NM(2, 4)
    assert Traced.parse("traced") == TRACED
    assert Traced.parse("trace") is None
    assert str(TRACED) == "traced"
    weights = np.array([[1.5, 0.0], [-0.0, -2.0]], dtype=np.float32)
    mask = TRACED.mask(weights)
    assert mask.tolist() == [[True, False], [False, True]]
    assert (TRACED.metadata_bits(mask), TRACED.stored(mask), TRACED.check(mask)) == (4, 2, [])
    assert TRACED.kept(4, 4) is None
    assert TRACED.block_bound(4) is None


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "4:8", "dense"])
def test_the_tightest_rule_a_mask_obeys_is_found(pattern):
    weights = np.random.default_rng(1).standard_normal((64, 64))
    assert obeyed(accsim.pattern(pattern).mask(weights)) == accsim.pattern(pattern)
    assert obeyed(np.tri(64, dtype=bool)) == TRACED


def test_the_example_of_the_documentation_writes_a_trace(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text(encoding="utf-8")
    code = page.split("without accsim\n\n```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(
        code.replace('open("mine.trace", "wb").write', 'Path("mine.trace").write_bytes'),
        {"Path": Path},
    )
    found = read_trace("mine.trace")
    found.verify()
    expected = np.random.default_rng(0).random((512, 128)) < 0.1
    np.testing.assert_array_equal(found.weight_mask("fc"), expected)
