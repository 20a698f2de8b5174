"""Damaged files of every kind: each is read as it should, or refused in one line."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces.samples import signed, split, trace
from traces.test_matrix import SMTX, described, zipped

from accsim.base.errors import InputError
from accsim.traces.matrix import read_matrix
from accsim.traces.replay import TraceMasks, replayed
from accsim.traces.trace import read_trace, write_trace

FOLDER = Path(tempfile.mkdtemp(prefix="accsim-fuzz-"))
TRACE = write_trace(FOLDER / "valid.trace", trace()).read_bytes()
MTX = (
    b"%%MatrixMarket matrix coordinate real symmetric\n% a comment\n4 4 4\n"
    b"1 1 1.5\n3 1 -2e-1\n4 4 7\n4 2 0\n"
)
NPY = described("'<f4'", "(2, 3)", np.arange(6, dtype="<f4").tobytes())
NPZ = zipped(("a.npy", NPY), ("b/c.npy", described()))
DEFLATED = zipped(("a.npy", NPY), ("b/c.npy", described()), compression=8)
# Words that mean something to one of the formats.
WORDS = [
    b"0", b"-1", b"1e999", b"nan", b"99999999999999999999", b"4294967296", b"\xff\xff\xff\xff",
    b"\x00", b"\n", b",", b"[", b"{", b'"', b"\\u0000", b"../", b"|O", b"True", b"PK\x01\x02",
]  # fmt: skip


@st.composite
def damage(draw, valid):
    """A few edits of valid bytes: flips, cuts, repeats, words put in."""
    raw = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        length = draw(st.integers(0, 12))
        kind = draw(st.sampled_from(["flip", "word", "cut", "repeat", "over", "end"]))
        if kind == "flip" and at < len(raw):
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "word":
            raw[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(WORDS))
        elif kind == "cut":
            del raw[at : at + length]
        elif kind == "repeat":
            raw[at:at] = raw[at : at + length]
        elif kind == "over":
            raw[at : at + length] = draw(st.binary(max_size=length))
        elif kind == "end":
            del raw[at:]
    return bytes(raw)


def refusal(read, path):
    """Return the line that refuses a file, "" if it is read; then all of it must hold together."""
    try:
        found = read(path)
        found.verify()
    except InputError as error:
        return str(error)
    for layer in found.workload:
        if layer.has_weights and found.has("mask", layer):
            shape = (layer.gemm.k, layer.gemm.n)
            assert found.weight_mask(layer).shape[-2:] == shape
            assert TraceMasks(found).mask(layer).shape == shape
    replayed(found)
    return ""


def read_or_refused(read, suffix, raw):
    path = FOLDER / f"fuzzed{suffix}"
    path.write_bytes(raw)
    line = refusal(read, path)
    assert not line or line.startswith(f"{path}:")
    assert "\n" not in line
    assert len(line) < 2500


@given(damage(TRACE))
@settings(max_examples=1000, deadline=None)
def test_damaged_traces(raw):
    read_or_refused(read_trace, ".trace", raw)


@pytest.mark.parametrize(
    ("suffix", "valid", "count"),
    [
        (".smtx", SMTX.encode(), 600), (".mtx", MTX, 600), (".npy", NPY, 300), (".npz", NPZ, 300),
        (".npz", DEFLATED, 200),
    ],
    ids=["smtx", "mtx", "npy", "npz", "deflated"],
)  # fmt: skip
def test_damaged_matrices(suffix, valid, count):
    whole = FOLDER / f"valid{suffix}"
    whole.write_bytes(valid)
    assert not refusal(read_matrix, whole)

    @given(damage(valid))
    @settings(max_examples=count, deadline=None)
    def run(raw):
        read_or_refused(read_matrix, suffix, raw)

    run()


ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["2:4", "traced", "unstructured@0.5", "conv2d", "BITS", "F32", "__metadata__"]),
)  # fmt: skip
VALUES = st.recursive(
    ATOMS,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=4,
)


def places(value, path=()):
    """Every place of a JSON tree."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside if isinstance(value, dict | list) else ():
        yield from places(item, (*path, key)) if isinstance(item, dict | list) else [(*path, key)]


TABLE, HEADER, DATA = split(TRACE)
TABLE_PLACES, HEADER_PLACES = list(places(TABLE))[1:], list(places(HEADER))[1:]


def altered(tree, path, value, how):
    changed = copy.deepcopy(tree)
    at = changed
    for key in path[:-1]:
        at = at[key]
    if how == "drop":
        del at[path[-1]]
    elif how == "rename" and isinstance(at, dict):
        at[str(value)[:20]] = at.pop(path[-1])
    else:
        at[path[-1]] = value
    return changed


@given(
    st.sampled_from(HEADER_PLACES), VALUES, st.sampled_from(["set", "set", "drop", "rename"]),
)  # fmt: skip
@settings(max_examples=1000, deadline=None)
def test_headers_that_lie_under_a_good_digest(path, value, how):
    read_or_refused(read_trace, ".trace", signed(TABLE, altered(HEADER, path, value, how), DATA))


@given(
    st.sampled_from(TABLE_PLACES), VALUES, st.sampled_from(["set", "set", "drop", "rename"]),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_tables_that_lie_under_a_good_digest(path, value, how):
    read_or_refused(read_trace, ".trace", signed(altered(TABLE, path, value, how), HEADER, DATA))
