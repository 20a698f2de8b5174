"""Column vectors against plain loops, their laws, and the printed table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity import laws

from accsim.sparsity.column_vector import ColumnVector
from accsim.sparsity.unstructured import Unstructured

patterns = st.builds(ColumnVector, st.integers(1, 12), laws.shares)


def vectors(shape, length):
    k, n = shape
    return [(row, slice(left, left + length)) for row in range(k) for left in range(0, n, length)]


def slow(w, length, sparsity):
    mask = np.zeros(w.shape, bool)
    places = vectors(w.shape, length)
    sums = [sum(abs(float(value)) for value in w[place]) for place in places]
    for at in laws.best(sums, round((1 - sparsity) * len(places))):
        mask[places[at]] = True
    return mask


@given(patterns, laws.sides, laws.sides, laws.seeds, st.sampled_from([1, 1 / 64]))
@settings(max_examples=60, deadline=None)
def test_mask_equals_the_loops(pattern, k, n, seed, step):
    w = laws.weights(k, n, seed, step)
    assert np.array_equal(pattern.mask(w), slow(w, pattern.length, pattern.sparsity))


@given(patterns, laws.sides, laws.sides, laws.seeds)
@settings(max_examples=60, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, k, n, seed)
    if n % pattern.length == 0:
        vectors_kept = round((1 - pattern.sparsity) * (k * n // pattern.length))
        assert pattern.kept(k, n) == vectors_kept * pattern.length


@given(patterns, laws.sides, laws.sides, laws.seeds, st.floats(0, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_checker_equals_the_loops(pattern, k, n, seed, share, whole):
    rng = np.random.default_rng(seed)
    mask, places = rng.random((k, n)) < share, vectors((k, n), pattern.length)
    if whole:
        for place in places:
            mask[place] = rng.random() < share
    partly = sum(mask[place].any() and not mask[place].all() for place in places)
    held = sum(bool(mask[place].any()) for place in places)
    over = held > round((1 - pattern.sparsity) * len(places))
    assert len(pattern.check(mask)) == min(partly + over, 20)


def test_checker_names_the_place():
    mask = np.zeros((4, 10), bool)
    mask[2, 8] = True
    assert ColumnVector(4, 0.75).check(mask) == [
        "vector (2, 2) (k 2…2, outputs 8…9) keeps 1 of its 2 weights"
    ]
    mask[2:], mask[2, 8:] = True, True
    assert ColumnVector(4, 0.75).check(mask) == ["keeps 6 > 3 vectors"]


def test_vectors_of_one_are_unstructured():
    w = laws.weights(23, 9, 4, step=1)
    for share in (0.3, 0.75):
        assert np.array_equal(ColumnVector(1, share).mask(w), Unstructured(share).mask(w))


@given(laws.seeds)
@settings(max_examples=20, deadline=None)
def test_every_k_and_the_outputs_of_a_vector_may_be_permuted(seed):
    rng, pattern = np.random.default_rng(seed), ColumnVector(4, 0.7)
    w = rng.standard_normal((24, 16)).astype(np.float32)
    rows = rng.permutation(24)
    assert np.array_equal(pattern.mask(w[rows]), pattern.mask(w)[rows])
    order = (rng.permutation(4)[:, None] * 4 + rng.permutation(4)).ravel()
    assert np.array_equal(pattern.mask(w[:, order]), pattern.mask(w)[:, order])


def test_metadata_and_padding():
    """10 outputs in vectors of 4: three groups, 4 pointers; the last vector is padded."""
    mask = np.zeros((4, 10), bool)
    assert ColumnVector(4, 0.75).metadata_bits(mask) == 4 * 32
    mask[1, 8:], mask[2, :4] = True, True
    assert ColumnVector(4, 0.75).metadata_bits(mask) == (2 + 4) * 32
    assert ColumnVector(4, 0.75).stored(mask) == 8


def test_kept_and_bound():
    assert ColumnVector(4, 0.75).kept(4, 10) is None
    assert ColumnVector(4, 0.0).kept(4, 10) == 40
    assert ColumnVector(16, 0.75).kept(4, 10) == 10, "every vector is 10 long"
    assert ColumnVector(4, 0.75).block_bound(8) is None
    assert ColumnVector(4, 0.0).block_bound(8) == 8


@pytest.mark.parametrize("text", ["cv:8@0.75", "cv:1@0", "cv:1024@0.30000000000000004"])
def test_strings(text):
    laws.prints_and_parses(ColumnVector, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cv:0@0.5", "1 <= V <= 1024; got '0'"),
        ("cv:1025@0.5", "1 <= V <= 1024; got '1025'"),
        ("cv:8@1", "0 <= s < 1; got '1.0'"),
        ("cv:8@x", "0 <= s < 1; got 'cv:8@x'"),
        ("cv:8", "written cv:V@s; got 'cv:8'"),
    ],
)
def test_refusals(text, complaint):
    laws.refuses(ColumnVector, text, complaint)


@pytest.mark.parametrize(
    ("length", "iid", "scaled"), [(4, 0.376, 0.506), (8, 0.338, 0.470), (16, 0.312, 0.451)]
)
def test_printed_retained(length, iid, scaled):
    laws.retains(ColumnVector(length, 0.75), iid, scaled)


def test_printed_metadata():
    laws.packs(ColumnVector(8, 0.75), "1.00", "0.313")
