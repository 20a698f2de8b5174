"""Readers of .smtx, .mtx, .npy and .npz: orientation, values, real files, hostile ones."""

import csv
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from accsim.base.errors import InputError
from accsim.traces.matrix import read_matrix
from accsim.traces.pattern import TRACED

DATA = Path("/work/shared/data")
DLMC = sorted(DATA.glob("dlmc/**/*.smtx"))

# rows are outputs: [[., 1, ., 1], [., ., ., .], [1, ., ., .]]
SMTX = "3, 4, 3\n0 2 2 3 \n1 3 0 \n"
LEFT = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)


@pytest.fixture
def put(tmp_path):
    def put(name, content):
        path = tmp_path / name
        if isinstance(content, str | bytes):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            np.save(path, content, allow_pickle=True)
        return path

    return put


def test_smtx_is_transposed_since_its_rows_are_outputs(put):
    found = read_matrix(put("a.smtx", SMTX), tokens=5)
    (layer,) = found.workload.layers
    assert (layer.gemm.t, layer.gemm.k, layer.gemm.n) == (5, 4, 3)
    assert layer.pattern == TRACED
    np.testing.assert_array_equal(found.weight_mask("a"), LEFT.T)
    assert found.weights("a") is None
    as_it_is = read_matrix(put("a.smtx", SMTX), rows="k")
    np.testing.assert_array_equal(as_it_is.weight_mask("a"), LEFT)
    assert as_it_is.workload.layers[0].gemm.t == 256


def test_smtx_without_an_entry(put):
    for text in ("2, 3, 0\n0 0 0\n\n", "2, 3, 0\n0 0 0"):
        assert not read_matrix(put("a.smtx", text)).weight_mask("a").any()


def test_mtx_real_with_comments_blank_lines_and_a_stored_zero(put):
    text = (
        "%%MatrixMarket matrix coordinate real general\n% a comment\n%\n\n3 4 4\n"
        "1 2 1.5\n  1 4 -2e-1 \n\n3 1 +.5\r\n2 2 0.0"
    )
    found = read_matrix(put("a.mtx", text))
    kept = LEFT.copy()
    kept[1, 1] = True  # stored, so kept
    np.testing.assert_array_equal(found.weight_mask("a"), kept.T)
    expected = np.zeros((4, 3), dtype=np.float32)
    expected[1, 0], expected[3, 0], expected[0, 2] = 1.5, np.float32(-0.2), 0.5
    np.testing.assert_array_equal(found.weights("a"), expected)
    found.verify()


def test_mtx_symmetric_and_pattern(put):
    head = "%%MatrixMarket MATRIX Coordinate Pattern Symmetric\n3 3 3\n"
    found = read_matrix(put("a.mtx", head + "1 1\n3 1\n3 2\n"))
    expected = [[True, False, True], [False, False, True], [True, True, False]]
    assert found.weight_mask("a").tolist() == expected
    head = "%%MatrixMarket matrix coordinate integer symmetric\n2 2 2\n"
    found = read_matrix(put("a.mtx", head + "1 1 -3\n2 1 7\n"))
    assert found.weights("a").tolist() == [[-3, 7], [7, 0]]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["?", "i1", "u1", "<i2", ">i2", "i4", "u8", "<f2", "f4", ">f8"])
def test_npy_of_every_type_and_order(kind, order, put):
    values = np.asarray(np.tri(3, 4) * 3, dtype=kind, order=order)
    found = read_matrix(put("w.npy", values))
    assert found.workload.layers[0].gemm.k == 3
    np.testing.assert_array_equal(found.weight_mask("w"), values != 0)
    if kind == "?":
        assert found.weights("w") is None
    else:
        np.testing.assert_array_equal(found.weights("w"), values)
    turned = read_matrix(put("w.npy", values), rows="n")
    np.testing.assert_array_equal(turned.weight_mask("w"), (values != 0).T)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_a_layer_an_array(save, tmp_path):
    masks = {"enc/fc1": np.eye(4, dtype=bool), "fc2": np.tri(4, 6, dtype=np.float32)}
    save(tmp_path / "net.npz", **masks)
    found = read_matrix(tmp_path / "net.npz")
    assert [(x.name, x.gemm.k, x.gemm.n) for x in found.workload] == [
        ("enc/fc1", 4, 4), ("fc2", 4, 6),
    ]  # fmt: skip
    np.testing.assert_array_equal(found.weight_mask("fc2"), masks["fc2"] != 0)


REAL = "%%MatrixMarket matrix coordinate real general\n"
TEXTS = {
    "a.smtx": [
        ("", ":1: must be 3 lines"),
        ("3, 4, 3\n0 2 2 3\n", ":1: must be 3 lines"),
        ("3 4 3\n0 2 2 3\n1 3 0\n", ":1: must be 'rows, cols, nnz'; got '3 4 3'"),
        ("-3, 4, 3\n0 2 2 3\n1 3 0\n", ":1: must be 'rows, cols, nnz'"),
        ("0, 4, 3\n0 2 2 3\n1 3 0\n", r"at least 1; got \[0, 4\]"),
        ("99999999, 99999999, 3\n0 2 2 3\n1 3 0\n", "rows × columns must be at most 268435456"),
        ("3, 4, 3\n0 2 2\n1 3 0\n", ":2: must be 4 row offsets; got 3"),
        ("3, 4, 3\n0 2 1 3\n1 3 0\n", ":2: row offsets must rise from 0 to nnz = 3"),
        ("3, 4, 3\n0 2 2 2\n1 3 0\n", ":2: row offsets must rise"),
        ("3, 4, 3\n0 2 2 3\n1 3\n", ":3: must be 3 columns; got 2"),
        ("3, 4, 3\n0 2 2 3\n1 4 0\n", ":3: columns must be below 4; got 4"),
        ("3, 4, 3\n0 2 2 3\n1 -3 0\n", ":3: columns must be whole numbers; got '-'"),
        ("3, 4, 3\n0 2 2 3\n1 1 0\n", ":3: a row must name each column once"),
        ("3, 4, 3\n0 2 2 3\n1 " + "9" * 30 + " 0\n", "over 18 digits"),
        (b"3, 4, 3\n0 2 2 3\n1 3 \xff\n", "whole numbers; got '.xff'"),
    ],
    "a.mtx": [
        ("", ":1: must begin with '%%MatrixMarket matrix"),
        (REAL.replace("coordinate", "array"), ":1: must be one of coordinate; got 'array'"),
        ("%%MatrixMarket matrix coordinate complex general\n", "one of real, integer, pattern"),
        ("%%MatrixMarket matrix coordinate real hermitian\n", "one of general, symmetric"),
        (REAL, ":2: must hold a line 'rows cols entries'"),
        (REAL + "2 2\n", ":2: must hold a line"),
        (REAL + "2 2 " + "9" * 30, ":2: must hold a line"),
        (REAL + "100000 100000 1\n1 1 1\n", "rows × columns must be at most 67108864"),
        (REAL + "2 2 2\n1 1 1.0\n", "must have 2 entries; got 1"),
        (REAL + "2 2 1\n1 1\n", ":3: must be 'row column real'; got '1 1'"),
        (REAL + "2 2 1\n1 1 nan\n", ":3: must be 'row column real'; got '1 1 nan'"),
        (REAL + "2 2 2\n1 1 1.0\n1 2 1.0 3\n", ":4: must be 'row column real'"),
        (REAL + "2 2 1\n3 1 1.0\n", "rows must be from 1 to 2; got 3"),
        (REAL + "2 2 1\n1 0 1.0\n", "columns must be from 1 to 2; got 0"),
        (REAL + "2 2 2\n1 1 1.0\n1 1 1.0\n", "an entry must stand once"),
        (REAL + "2 2 1\n1 1 1e300\n", "values must fit float32"),
        (REAL + "2 2 1\n1 1 1e9999\n", "values must fit float32"),
        (REAL.replace("general", "symmetric") + "2 3 1\n1 1 1\n", "must be square; got 2 × 3"),
        (REAL.replace("general", "symmetric") + "2 2 1\n1 2 1\n", "lower triangle only"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"), [(n, t, m) for n, cases in TEXTS.items() for t, m in cases]
)
def test_hostile_texts_are_one_line(name, text, message, put):
    path = put(name, text)
    with pytest.raises(InputError, match=message) as caught:
        read_matrix(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tail", ["1" * 10**6 + "x", " " * 10**6 + "x", "1e" * 10**6, "\n" * 10**6 + "x"]
)
@pytest.mark.parametrize("head", [REAL + "2 2 1\n1 1 ", REAL, "2, 2, 1\n", "2, "])
def test_no_text_takes_more_than_linear_time(head, tail, put):
    for name in ("a.mtx", "a.smtx"):
        path = put(name, head + tail)
        begin = time.perf_counter()
        with pytest.raises(InputError):
            read_matrix(path)
        assert time.perf_counter() - begin < 2


def header(text, data=b"", version=b"\x01\x00"):
    raw = text.encode()
    return b"\x93NUMPY" + version + len(raw).to_bytes(2, "little") + raw + data


def described(descr="'|b1'", shape="(2, 2)", data=b"\0\0\1\1"):
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", data)


NPY = [
    (b"", "must be a .npy array of version 1 or 2"),
    (described() + b"\0", r"\[2, 2\] of bool takes 4 bytes; got 5"),
    (described()[:-1], "takes 4 bytes; got 3"),
    (described(data=b"\0\0\1\2"), "booleans must be 0 or 1"),
    (described(shape="(1000000000000, 1000000000000)"), "takes 10{24} bytes; got 4"),
    (described(shape="(0, 4)"), "takes 0 bytes"),
    (described(shape="(4,)"), r"must have two dimensions; got \(4,\)"),
    (described(shape="(1, 2, 2)"), "must have two dimensions"),
    (described("'|O'"), r"type must be one of b1, i1, .*; got '\|O'"),
    (described("'|O8'"), "type must be one of b1"),
    (described("'<c8'"), "type must be one of b1"),
    (described("[('a', '<i4')]"), "must hold plain numbers or booleans"),
    (described(shape="(2, 2" + ")" * 100), "must hold plain numbers"),
    (described(shape="__import__('os').abort()"), "must hold plain numbers"),
    (header("(" * 9999), "must hold plain numbers"),
    (header("{}", version=b"\x03\x00"), "version 1 or 2"),
    (described("'<f4'", "(1, 1)", np.float32("nan").tobytes()), "must be finite"),
    (described("'<f8'", "(1, 1)", np.float64(1e300).tobytes()), "must be finite and fit float32"),
]


@pytest.mark.parametrize(("raw", "message"), NPY)
def test_hostile_npy_is_one_line(raw, message, put):
    with pytest.raises(InputError, match=message) as caught:
        read_matrix(put("a.npy", raw))
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_run(put):
    objects = np.array([[{"a": 1}, None]], dtype=object)
    for path in (put("a.npy", objects), put("a.npz", {"w": objects})):
        with pytest.raises(InputError, match=r"type must be one of b1, .*; got '\|O'"):
            read_matrix(path)


def zipped(*members, **kwargs):
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", **kwargs) as archive:
        for name, raw in members:
            archive.writestr(name, raw)
    return found.getvalue()


def encrypted(raw):
    at = raw.rindex(b"PK\x01\x02")
    return raw[: at + 8] + b"\x01" + raw[at + 9 :]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "must be a ZIP of .npy arrays"),
        (b"PK\x03\x04" + b"\0" * 200, "must be a ZIP"),
        (zipped(), "must hold 1 to 10000 arrays; got 0"),
        (zipped(("../x.npy", described())), "plain names NAME.npy; got '../x.npy'"),
        (zipped(("/etc/x.npy", described())), "plain names"),
        (zipped(("a/../../x.npy", described())), "plain names"),
        (zipped(("C:x.npy", described())), "plain names"),
        (zipped(("a\nb.npy", described())), "plain names"),
        (zipped(("x.txt", b"")), "plain names"),
        (zipped((".npy", described())), "plain names"),
        (zipped(("x.npy", described()), compression=zipfile.ZIP_BZIP2), "stored or deflated"),
        (encrypted(zipped(("x.npy", described()))), "arrays must not be encrypted; 'x.npy' is"),
        (zipped(("x.npy", b"")), "array 'x': must be a .npy array"),
        (zipped(("x.npy", described(data=b""))), "array 'x': .* takes 4 bytes; got 0"),
        (zipped(("x.npy", described()))[:-30], "must be a ZIP"),
    ],
)  # fmt: skip
def test_hostile_npz_is_one_line(raw, message, put):
    with pytest.raises(InputError, match=message) as caught:
        read_matrix(put("a.npz", raw))
    assert "\n" not in str(caught.value)


def test_duplicate_names_in_a_zip(put):
    with pytest.warns(UserWarning, match="Duplicate name"):
        raw = zipped(("x.npy", described()), ("x.npy", described()))
    with pytest.raises(InputError, match=r"names of their own; 'x.npy' twice"):
        read_matrix(put("a.npz", raw))


def test_a_zip_bomb_is_refused_by_what_it_declares(put, monkeypatch):
    monkeypatch.setattr("accsim.traces.npy.MAX_TEXT_BYTES", 2**24)
    zeros = described(shape=f"(2, {2**24})", data=bytes(2**25))
    raw = zipped(("x.npy", zeros), compression=zipfile.ZIP_DEFLATED)
    assert len(raw) < 2**16
    with pytest.raises(InputError, match="must unpack to at most 16777216 bytes; got 335545"):
        read_matrix(put("a.npz", raw))


def test_a_zip_that_lies_about_its_size_is_not_unpacked_further(put):
    raw = bytearray(
        zipped(("x.npy", described(data=bytes(10**6))), compression=zipfile.ZIP_DEFLATED)
    )
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (200).to_bytes(4, "little")  # the declared size
    with pytest.raises(InputError, match=r"must be a ZIP|takes 4 bytes"):
        read_matrix(put("a.npz", bytes(raw)))


def test_other_suffixes_and_options_are_named(put):
    with pytest.raises(
        InputError, match=r"suffix must be one of .smtx, .mtx, .npy, .npz; got '.mt'"
    ):
        read_matrix(put("a.mt", ""))
    with pytest.raises(InputError, match="rows must be k or n; got 'm'"):
        read_matrix(put("a.smtx", SMTX), rows="m")
    with pytest.raises(InputError, match="t must be a whole number from 1"):
        read_matrix(put("a.smtx", SMTX), tokens=0)


def groups_of_four(mask):
    """Share of 4-groups along k with at most 2 kept, and of kept entries lost by forcing 2:4."""
    k, n = mask.shape
    counts = mask[: k // 4 * 4].reshape(-1, 4, n).sum(axis=1)
    return (counts <= 2).mean(), np.maximum(counts - 2, 0).sum() / mask.sum()


@pytest.fixture(scope="module")
def published():
    with open(DATA / "dlmc_structure_summary.csv") as handle:
        return {
            (row["model"], row["method"], row["target_sparsity"]): row
            for row in csv.DictReader(handle)
        }


@pytest.mark.skipif(not DLMC, reason="the shared data are not here")
@pytest.mark.parametrize("path", DLMC, ids=lambda path: "/".join(path.parts[-4:]))
def test_dlmc_matrices_load_whole(path, published):
    """Sizes and non-zeros are the file's, the sparsity that of its group."""
    found = read_matrix(path)
    gemm, mask = found.workload.layers[0].gemm, found.weight_mask(path.stem)
    first = path.read_text().split("\n")[0]
    assert first.replace(" ", "") == f"{gemm.n},{gemm.k},{mask.sum()}"
    method, target = path.parts[-3:-1]
    if method in ("magnitude_pruning", "random_pruning"):  # the others vary from layer to layer
        median = float(published[path.parts[-4], method, target]["median_sparsity"])
        assert 1 - mask.mean() == pytest.approx(median, abs=2e-4)


# First layers are outliers of their groups; these are in the middle of the network.
TYPICAL = ("bottleneck_1_block_group2_1_1", "bottleneck_1_block_group4_1_1", "layer_0_ffn_conv2")


@pytest.mark.skipif(not DLMC, reason="the shared data are not here")
@pytest.mark.parametrize(
    "path",
    [p for p in DLMC if any(x in p.stem for x in TYPICAL) or "random" in str(p)],
    ids=lambda path: "/".join(path.parts[-4:]),
)
def test_groups_of_four_along_k_are_those_of_the_collection(path, published):
    """One matrix against the median of its group (50 to 97 matrices, computed by others)."""
    model, method, target = path.parts[-4:-1]
    row = published[model, method, target]
    mask = read_matrix(path).weight_mask(path.stem)
    fits, lost = groups_of_four(mask)
    assert fits == pytest.approx(float(row["median_grp4_le2_frac"]), abs=0.0035)
    assert lost == pytest.approx(float(row["median_nnz_lost_to_2of4"]), abs=0.0055)
    if "group2" in path.stem and float(target) < 0.9:  # the other axis would not do
        assert abs(groups_of_four(mask.T)[0] - float(row["median_grp4_le2_frac"])) > 0.01
