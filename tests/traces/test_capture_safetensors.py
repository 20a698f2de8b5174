"""Weights of safetensors files → traces; the compressed layouts, and files that lie."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.files.workload import load_workload
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload
from accsim.traces.capture.safetensors_file import capture_safetensors

NAMES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16",
         "float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}  # fmt: skip


def put(path, tensors, **metadata):
    """Write a safetensors file by hand."""
    table, raw = {"__metadata__": metadata} if metadata else {}, b""
    for name, values in tensors.items():
        piece = np.ascontiguousarray(values).tobytes()
        offsets = [len(raw), len(raw) + len(piece)]
        table[name] = {"dtype": NAMES[str(values.dtype)], "shape": list(values.shape),
                       "data_offsets": offsets}  # fmt: skip
        raw += piece
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + raw)
    return path


def network(*layers):
    return Workload(name="net", layers=layers)


def linear(name, k, n, **more):
    return Layer(name=name, op=Linear(in_features=k, out_features=n), **more)


def sparse(rng, *shape, keep=0.4):
    values = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < keep, values, 0).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_linear_and_convolution_weights_are_lowered(tmp_path, rng):
    fc, conv = sparse(rng, 6, 8), sparse(rng, 4, 3, 2, 5, keep=0.6)
    deep, line = sparse(rng, 4, 1, 3, 3), sparse(rng, 5, 2, 3)
    tensors = {"model.fc.weight": fc, "model.conv.weight": conv, "model.deep.weight": deep,
               "model.line.weight": line, "model.fc.bias": fc[0],
               "model.norm.weight": fc[0]}  # fmt: skip
    net = network(
        Layer(name="conv", op=Conv2d(in_channels=3, out_channels=4, size=9, kernel=(2, 5))),
        Layer(name="deep", op=Conv2d(in_channels=4, out_channels=4, size=9, kernel=3, groups=4)),
        Layer(name="line", op=Conv2d(in_channels=2, out_channels=5, size=(1, 9), kernel=(1, 3))),
        Layer(name="scores", op=Matmul(t=3, k=4, n=3)),
        linear("fc", 8, 6, dtype="bf16"),
    )
    trace = capture_safetensors(put(tmp_path / "w.safetensors", tensors), net, weights=True)
    trace.verify()
    assert np.array_equal(trace.weights("fc"), fc.T)
    assert np.array_equal(trace.weight_mask("fc"), fc.T != 0)
    assert trace.weights("conv")[(1 * 5 + 3) * 3 + 2, 1] == conv[1, 2, 1, 3]
    assert trace.weights("deep").shape == (4, 9, 1)
    assert trace.weights("deep")[2, 5, 0] == deep[2, 0, 1, 2]
    assert trace.weights("line")[2 * 2 + 1, 4] == line[4, 1, 2]
    assert trace.workload.layer("fc").dtype == "bf16"
    assert [str(trace.workload.layer(x).pattern) for x in ("conv", "scores")] == ["traced", "dense"]


def test_bf16_and_patterns_and_few_zeros(tmp_path, rng):
    import ml_dtypes

    half = (rng.standard_normal((8, 16)) + 9).astype(ml_dtypes.bfloat16)
    half[:, 2::4] = half[:, 1::4] = 0
    nearly = rng.standard_normal((20, 10)).astype(np.float16) + 9
    nearly[3, 3] = 0
    file = put(tmp_path / "w.safetensors", {"a.weight": half, "b.weight": nearly})
    net = network(linear("a", 16, 8), linear("b", 10, 20))
    trace = capture_safetensors(file, net, weights=True)
    assert [str(layer.pattern) for layer in trace.workload] == ["2:4", "dense"]
    assert trace.weights("a").dtype == ml_dtypes.bfloat16
    strict = capture_safetensors(file, net, dense_from=1)
    assert np.argwhere(~strict.weight_mask("b")).tolist() == [[3, 3]]


def test_which_way_linear_weights_lie(tmp_path, rng):
    wide, square = sparse(rng, 8, 6), sparse(rng, 6, 6)
    file = put(tmp_path / "w.safetensors", {"a.weight": wide, "s.weight": square})
    gpt2 = capture_safetensors(file, network(linear("a", 8, 6), linear("s", 6, 6)), weights=True)
    assert np.array_equal(gpt2.weights("s"), square)
    torch = capture_safetensors(file, network(linear("a", 6, 8), linear("s", 6, 6)), weights=True)
    assert np.array_equal(torch.weights("s"), square.T)
    both = {"a.weight": wide, "b.weight": wide.T, "s.weight": square}
    file = put(tmp_path / "both.safetensors", both)
    net = network(linear("a", 8, 6), linear("b", 8, 6), linear("s", 6, 6))
    with pytest.raises(InputError, match="say rows = n or k"):
        capture_safetensors(file, net)
    with pytest.raises(InputError, match=r"'b' must have shape \[8, 6\]; got \[6, 8\]"):
        capture_safetensors(file, net, rows="k")


def compressed(dense, prefix, *, two_four=False):
    """The layouts, element by element."""
    bits = np.zeros((dense.shape[0], -(-dense.shape[1] // 8)), np.uint8)
    values, offsets = [], []
    for i, row in enumerate(dense):
        offsets.append(len(values))
        for j, value in enumerate(row):
            if value != 0:
                bits[i, j // 8] |= 1 << (j % 8)
                values.append(value)
    made = {f"{prefix}.bitmask": bits, f"{prefix}.shape": np.array(dense.shape, np.int64)}
    packed = np.array(values, dense.dtype)
    if two_four:
        made[f"{prefix}.shape"] = made[f"{prefix}.shape"].reshape(2, 1)
        return made | {f"{prefix}.compressed": packed.reshape(dense.shape[0], -1)}
    offsets = np.array(offsets, np.int64)
    return made | {f"{prefix}.compressed": packed, f"{prefix}.row_offsets": offsets}


def test_compressed_layouts_are_what_their_dense_tensors_are(tmp_path, rng):
    free = sparse(rng, 5, 13)
    half = rng.standard_normal((4, 12)).astype(np.float32)
    half[:, 0::4] = half[:, 3::4] = 0
    net = network(linear("free", 13, 5), linear("half", 12, 4))
    tensors = compressed(free, "m.free.weight") | compressed(half, "m.half", two_four=True)
    packed = capture_safetensors(put(tmp_path / "c.safetensors", tensors), net, weights=True)
    plain = {"free.weight": free, "half.weight": half}
    dense = capture_safetensors(put(tmp_path / "d.safetensors", plain), net, weights=True)
    for layer in ("free", "half"):
        assert np.array_equal(packed.weights(layer), dense.weights(layer))
        assert np.array_equal(packed.weight_mask(layer), dense.weight_mask(layer))
    assert str(packed.workload.layer("half").pattern) == "2:4"


def broken(free, key, change):
    tensors = compressed(free, "a")
    tensors[f"a.{key}"] = change(tensors[f"a.{key}"].copy())
    return tensors


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("compressed", lambda x: x[:-1], "must hold 8 values; got 7"),
        ("row_offsets", lambda x: x + 1, "must count the bits of each row"),
        ("bitmask", lambda x: x | 0x80, "bits past the last column must be 0"),
        ("bitmask", lambda x: x[:, :0], r"must be U8 \[4, 1\]"),
        ("bitmask", lambda x: x.astype(np.int32), r"must be U8 \[4, 1\]"),
        ("shape", lambda x: -x, "must be rows and columns"),
        ("shape", lambda x: x * 2**40, "must have at most"),
        ("shape", lambda x: x[:1], "must be rows and columns"),
    ],
)
def test_compressed_tensors_that_lie_are_refused(tmp_path, key, change, message):
    free = np.tile(np.float32([1, 2, 0, 0, 0, 0, 0]), (4, 1))
    file = put(tmp_path / "w.safetensors", broken(free, key, change))
    with pytest.raises(InputError, match=message):
        capture_safetensors(file, network(linear("a", 7, 4)), weights=True)


def test_names_are_mapped(tmp_path, rng):
    w = sparse(rng, 4, 6)
    tensors = {f"x.h.{i}.{word}.weight": w + i for i in (0, 1) for word in ("q", "up")}
    file = put(tmp_path / "w.safetensors", tensors)
    layers = [linear(f"{i}.{word}", 6, 4) for i in (0, 1) for word in ("query", "up")]
    with pytest.raises(InputError, match=r"has no tensors of '0.query', '1.query'; its tensors"):
        capture_safetensors(file, network(*layers))
    trace = capture_safetensors(
        file, network(*layers), names={"*.query": "x.h.*.q.weight"}, weights=True
    )
    assert np.array_equal(trace.weights("1.query"), (w + 1).T)
    some = capture_safetensors(file, network(*layers), partial=True)
    assert [some.has("mask", layer) for layer in some.workload] == [False, True, False, False]
    with pytest.raises(InputError, match=r"no layer '\*.qwery', did you mean '"):
        capture_safetensors(file, network(*layers), names={"*.qwery": "x"})
    with pytest.raises(InputError, match=r"has no tensor 'x.h.7.q.weight', did you mean 'x.h"):
        capture_safetensors(file, network(*layers), names={"0.query": "x.h.7.q"})


def test_an_index_names_files_beside_it(tmp_path, rng):
    w = sparse(rng, 4, 6)
    put(tmp_path / "1.safetensors", {"a.weight": w})
    put(tmp_path / "2.safetensors", {"b.weight": w})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "1.safetensors",
                                                "b.weight": "2.safetensors"}}))  # fmt: skip
    net = network(linear("a", 6, 4), linear("b", 6, 4))
    assert capture_safetensors(index, net).has("mask", "b")
    index.write_text(json.dumps({"weight_map": {"a.weight": "../1.safetensors"}}))
    with pytest.raises(InputError, match="must name files beside it"):
        capture_safetensors(index, net)


def test_what_cannot_be_read_is_one_line(tmp_path, rng):
    w = sparse(rng, 4, 6)
    net = network(linear("a", 6, 4))
    cases = {
        "packed integers": {"a.weight_packed": np.zeros((4, 1), np.int32)},
        r"must have shape \[4, 6\]|must have shape \[6, 4\]": {"a.weight": w[:3]},
        "must hold weights; got int64": {"a.weight": w.astype(np.int64)},
        "needs its 'compressed'": {"a.bitmask": np.zeros((4, 1), np.uint8)},
    }
    for message, tensors in cases.items():
        file = put(tmp_path / "w.safetensors", tensors)
        with pytest.raises(InputError, match=message) as caught:
            capture_safetensors(file, net, weights=True)
        assert str(caught.value).startswith(str(file))
    with pytest.raises(InputError, match="no such file"):
        capture_safetensors(tmp_path / "none.safetensors", net)


def test_a_catalogue_network_takes_its_weights(tmp_path, rng):
    net = load_workload("resnet18")
    small = [layer for layer in net if layer.name in ("conv1", "layer1.0.conv1", "fc")]
    shapes = {"conv1": (64, 3, 7, 7), "layer1.0.conv1": (64, 64, 3, 3), "fc": (1000, 512)}
    tensors = {f"{x.name}.weight": sparse(rng, *shapes[x.name]) for x in small}
    trace = capture_safetensors(put(tmp_path / "w.safetensors", tensors), "resnet18", partial=True)
    assert trace.workload.macs == net.macs
    assert trace.workload.params == net.params
    assert load_workload("resnet18").layers[0].op == trace.workload.layers[0].op


@given(data=st.data())
def test_hostile_bytes_never_escape(tmp_path_factory, data):
    """A good file with bytes changed, cut or put in: a trace, or one line."""
    file = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    free = np.tile(np.float32([1, 2, 0, 0, 0, 0, 0]), (4, 1))
    raw = bytearray(put(file, compressed(free, "a") | {"b.weight": free}, note="x").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        cut = data.draw(st.integers(0, 8))
        raw[at : at + cut] = data.draw(st.binary(max_size=8))
        if not raw:
            break
    file.write_bytes(raw)
    net = network(linear("a", 7, 4), linear("b", 7, 4))
    message = ""
    try:
        capture_safetensors(file, net, weights=True, partial=True).verify()
    except InputError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [2**62, 2**62 + 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
)
def test_hostile_headers_are_one_line(tmp_path, entry):
    head = json.dumps({"a.weight": entry}).encode()
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", len(head)) + head + b"\0" * 4)
    with pytest.raises(InputError) as caught:
        capture_safetensors(file, network(linear("a", 1, 1)))
    assert "\n" not in str(caught.value)


def test_the_reference_writer_is_read(tmp_path, rng):
    reference = pytest.importorskip("safetensors.numpy")
    w = sparse(rng, 4, 6)
    reference.save_file({"a.weight": w, "z": w[0]}, str(tmp_path / "w.safetensors"))
    trace = capture_safetensors(
        tmp_path / "w.safetensors", network(linear("a", 6, 4)), weights=True
    )
    assert np.array_equal(trace.weights("a"), w.T)
