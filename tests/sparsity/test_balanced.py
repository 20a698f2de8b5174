"""Balanced sparsity against q:L, plain loops, and the printed table."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sparsity import laws

from accsim.base.errors import InputError
from accsim.sparsity.balanced import Balanced
from accsim.sparsity.nm import NM

TABLE = Balanced.parse("balanced:64@0.75")


@st.composite
def patterns(draw):
    length, share = draw(st.integers(1, 20)), draw(laws.shares)
    assume(round((1 - share) * length) >= 1)
    return Balanced(length, share)


def slow(w, length, quota):
    mask = np.zeros(w.shape, bool)
    for col in range(w.shape[1]):
        for top in range(0, len(w), length):
            block = [abs(float(value)) for value in w[top : top + length, col]]
            for at in laws.best(block, quota):
                mask[top + at, col] = True
    return mask


@given(patterns(), laws.sides, laws.sides, laws.seeds, st.sampled_from([1, 1 / 64]))
@settings(max_examples=60, deadline=None)
def test_mask_equals_the_loops_and_n_of_m(pattern, k, n, seed, step):
    w = laws.weights(k, n, seed, step)
    quota = round((1 - pattern.sparsity) * pattern.length)
    assert np.array_equal(pattern.mask(w), slow(w, pattern.length, quota))
    assert np.array_equal(pattern.mask(w), NM(quota, pattern.length).mask(w))


@given(patterns(), laws.sides, laws.sides, laws.seeds)
@settings(max_examples=60, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, k, n, seed)
    counts = pattern.mask(laws.weights(k, n, seed)).sum(axis=0)
    assert set(counts) == {pattern.kept(k, 1)}, "every output keeps the same"


@given(patterns(), laws.sides, laws.sides, laws.seeds, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_checker_equals_the_loops(pattern, k, n, seed, share):
    mask = np.random.default_rng(seed).random((k, n)) < share
    counts = [mask[top : top + pattern.length].sum(axis=0) for top in range(0, k, pattern.length)]
    assert len(pattern.check(mask)) == min(int((np.array(counts) > pattern.quota).sum()), 20)


def test_checker_names_the_place():
    mask = Balanced(8, 0.75).mask(laws.nonzero(20, 3))
    mask[np.flatnonzero(~mask[8:16, 1])[0] + 8, 1] = True
    assert Balanced(8, 0.75).check(mask) == ["group 1 (k 8…15) of column 1 keeps 3 > 2"]


@given(laws.seeds)
@settings(max_examples=20, deadline=None)
def test_outputs_and_the_k_of_a_block_may_be_permuted(seed):
    rng, pattern = np.random.default_rng(seed), Balanced(8, 0.6)
    w = rng.standard_normal((24, 9)).astype(np.float32)
    columns = rng.permutation(9)
    assert np.array_equal(pattern.mask(w[:, columns]), pattern.mask(w)[:, columns])
    rows = (rng.permutation(3)[:, None] * 8 + rng.permutation(8)).ravel()
    assert np.array_equal(pattern.mask(w[rows]), pattern.mask(w)[rows])


def test_counts():
    """k 100 = 64 + 36 keeps 16 + 16; 6 bits a slot."""
    mask = np.zeros((100, 3), bool)
    assert TABLE.kept(100, 3) == TABLE.stored(mask) == 32 * 3
    assert TABLE.metadata_bits(mask) == 32 * 3 * 6
    assert TABLE.kept(10, 3) == 30
    assert [TABLE.block_bound(rows) for rows in (8, 16, 32, 64, 128)] == [None, None, 16, 16, 32]
    assert Balanced(8, 0.0).block_bound(4) == 4


@pytest.mark.parametrize("text", ["balanced:64@0.75", "balanced:1@0", "balanced:1024@0.999"])
def test_strings(text):
    laws.prints_and_parses(Balanced, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("balanced:0@0.5", "1 <= L <= 1024; got '0'"),
        ("balanced:1025@0.5", "1 <= L <= 1024; got '1025'"),
        ("balanced:8@1", "0 <= s < 1; got '1.0'"),
        ("balanced:8@", "0 <= s < 1; got 'balanced:8@'"),
        ("balanced:4@0.9", "at least one of L, (1 - s)·L > 0.5; got 'balanced:4@0.9'"),
        ("balanced@0.9", "written balanced:L@s; got 'balanced@0.9'"),
    ],
)
def test_refusals(text, complaint):
    laws.refuses(Balanced, text, complaint)


def test_a_half_weight_is_none():
    with pytest.raises(InputError, match="at least one of L"):
        Balanced(2, 0.75)


def test_printed_table():
    laws.retains(TABLE, iid=0.511, scaled=0.581)
    laws.packs(TABLE, "1.50", "0.344")
