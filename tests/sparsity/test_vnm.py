"""V:n:m against plain loops, its laws, and the printed table."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity import laws

from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.sparsity.vnm import VNM

patterns = st.builds(VNM, st.integers(1, 9), st.integers(1, 4), st.integers(4, 9))
TABLE = VNM.parse("64:2:8")


def slow(w, v, n, m):
    mask = np.zeros(w.shape, bool)
    k, columns = w.shape
    for top, left in itertools.product(range(0, k, m), range(0, columns, v)):
        rows, outputs = range(top, min(top + m, k)), range(left, min(left + v, columns))
        sums = [sum(abs(float(w[row, col])) for col in outputs) for row in rows]
        shared = sorted(laws.best(sums, 4))
        for col in outputs:
            for at in laws.best([abs(float(w[top + i, col])) for i in shared], n):
                mask[top + shared[at], col] = True
    return mask


def faults(mask, v, n, m):
    """Tiles that use more than 4 k, and groups of an output with more than n."""
    k, columns = mask.shape
    tiles = sum(
        int(mask[top : top + m, left : left + v].any(axis=1).sum()) > 4
        for top, left in itertools.product(range(0, k, m), range(0, columns, v))
    )
    return tiles + sum(
        int(mask[top : top + m, col].sum()) > n
        for top, col in itertools.product(range(0, k, m), range(columns))
    )


@given(patterns, laws.sides, laws.sides, laws.seeds, st.sampled_from([1, 1 / 64]))
@settings(max_examples=60, deadline=None)
def test_mask_equals_the_loops(pattern, k, n, seed, step):
    w = laws.weights(k, n, seed, step)
    assert np.array_equal(pattern.mask(w), slow(w, pattern.v, pattern.n, pattern.m))


@given(patterns, laws.sides, laws.sides, laws.seeds)
@settings(max_examples=60, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, k, n, seed)
    assert pattern.kept(k, n) == pattern.stored(np.zeros((k, n), bool))


@given(patterns, laws.sides, laws.sides, laws.seeds, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_checker_equals_the_loops(pattern, k, n, seed, share):
    mask = np.random.default_rng(seed).random((k, n)) < share
    broken = faults(mask, pattern.v, pattern.n, pattern.m)
    assert len(pattern.check(mask)) == min(broken, 20)


def test_checker_names_the_place():
    pattern = VNM(2, 2, 8)
    mask = pattern.mask(laws.nonzero(17, 5))
    assert pattern.check(mask) == []
    wide = np.zeros((17, 5), bool)
    wide[[8, 9], 2], wide[[10, 11, 12], 3] = True, True
    assert pattern.check(wide) == [
        "tile (1, 1) (k 8…15, outputs 2…3) uses 5 > 4 of its k",
        "group 1 (k 8…15) of column 3 keeps 3 > 2",
    ]
    assert pattern.check(np.zeros((17, 5), bool)) == [], "slots may be empty"


@given(laws.seeds)
@settings(max_examples=20, deadline=None)
def test_outputs_of_a_tile_and_whole_tiles_may_be_permuted(seed):
    rng, pattern = np.random.default_rng(seed), VNM(4, 2, 8)
    w = laws.weights(24, 16, seed)
    order = (rng.permutation(4)[:, None] * 4 + rng.permutation(4)).ravel()
    assert np.array_equal(pattern.mask(w[:, order]), pattern.mask(w)[:, order])
    groups = (rng.permutation(3)[:, None] * 8 + np.arange(8)).ravel()
    assert np.array_equal(pattern.mask(w[groups]), pattern.mask(w)[groups])


def test_one_output_a_tile_is_plain_where_four_hold_all_the_largest():
    w = laws.nonzero(33, 7)
    assert np.array_equal(VNM(1, 2, 8).mask(w), NM(2, 8).mask(w))
    assert np.array_equal(VNM(5, 2, 4).mask(w), NM(2, 4).mask(w)), "m = 4 shares every k"
    assert VNM(5, 4, 4).mask(w).all()


def test_metadata_of_ragged_tiles():
    """k 19 = 8 + 8 + 3: 4 + 4 + 3 shared k and 2 + 2 + 2 slots; n 5 = 2 + 2 + 1: 3 tiles."""
    mask = np.zeros((19, 5), bool)
    assert VNM(2, 2, 8).metadata_bits(mask) == 6 * 5 * 2 + 11 * 3 * 3
    assert VNM(2, 2, 5).metadata_bits(np.zeros((5, 2), bool)) == 2 * 2 * 2 + 4 * 3


def test_the_bound_is_that_of_one_output():
    assert [TABLE.block_bound(rows) for rows in (1, 2, 4, 8, 16)] == [None, None, 2, 2, 4]
    assert VNM(8, 4, 4).block_bound(4) == 4


@pytest.mark.parametrize("text", ["64:2:8", "1:1:4", "128:2:100", "1024:4:1024"])
def test_strings(text):
    laws.prints_and_parses(VNM, text)


@pytest.mark.parametrize("text", ["0:2:8", "1025:2:8", "64:0:8", "64:5:8", "64:2:3", "64:2:1025"])
def test_refusals(text):
    laws.refuses(VNM, text, f"1 <= V <= 1024 and 1 <= n <= 4 <= m <= 1024; got '{text}'")
    with pytest.raises(InputError, match="1 <= V"):
        VNM(*map(int, text.split(":")))


def test_printed_table():
    laws.retains(TABLE, iid=0.395, scaled=0.513)
    laws.packs(TABLE, "0.523", "0.283")
