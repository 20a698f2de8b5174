"""Hierarchical sparsity against plain loops, its laws, and the printed table."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity import laws

from accsim.sparsity.hierarchical import Hierarchical
from accsim.sparsity.nm import NM

TABLE = Hierarchical.parse("hss:2:4+4:8")
ranks = st.integers(1, 5).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m)))
patterns = st.builds(Hierarchical, st.lists(ranks, min_size=2, max_size=3).map(tuple))


def slow(w, ranks):
    """Prune one column at a time: children of every rank are lists of (k, w)."""
    mask = np.zeros(w.shape, bool)
    for col in range(w.shape[1]):
        children = [[(row, float(value))] for row, value in enumerate(w[:, col])]
        for n, m in ranks:
            groups = [children[first : first + m] for first in range(0, len(children), m)]
            children = [pruned(group, n) for group in groups]
        for row, _ in itertools.chain(*children):
            mask[row, col] = True
    return mask


def pruned(group, n):
    squares = [sum(value**2 for _, value in child) for child in group]
    return [weight for at in sorted(laws.best(squares, n)) for weight in group[at]]


def faults(mask, ranks):
    """Groups of every rank with more than n children in use."""
    broken = 0
    for col in range(mask.shape[1]):
        used = [bool(kept) for kept in mask[:, col]]
        for n, m in ranks:
            counts = [sum(used[first : first + m]) for first in range(0, len(used), m)]
            broken += sum(count > n for count in counts)
            used = [count > 0 for count in counts]
    return broken


@given(patterns, laws.sides, st.integers(1, 8), laws.seeds, st.sampled_from([1, 1 / 64]))
@settings(max_examples=100, deadline=None)
def test_mask_equals_the_loops(pattern, k, n, seed, step):
    w = laws.weights(k, n, seed, step)
    assert np.array_equal(pattern.mask(w), slow(w, pattern.ranks))


@given(patterns, st.integers(1, 150), st.integers(1, 8), laws.seeds)
@settings(max_examples=100, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, k, n, seed)
    quota, span = pattern.quotas[-1], pattern.spans[-1]
    if k % span == 0:
        assert pattern.kept(k, n) == k // span * quota * n


@given(patterns, st.integers(1, 150), st.integers(1, 8), laws.seeds, st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_checker_equals_the_loops(pattern, k, n, seed, share):
    mask = np.random.default_rng(seed).random((k, n)) < share
    assert len(pattern.check(mask)) == min(faults(mask, pattern.ranks), 20)


def test_checker_names_the_place():
    mask = TABLE.mask(laws.nonzero(64, 3))
    assert TABLE.check(mask) == []
    crowded = np.zeros((64, 3), bool)
    crowded[[36, 37, 39], 2] = True
    assert TABLE.check(crowded) == ["rank 0: k 36…39 of column 2 keeps 3 > 2 weights"]
    wide = np.zeros((64, 3), bool)
    wide[32:52:4, 1] = True
    assert TABLE.check(wide) == ["rank 1: k 32…63 of column 1 keeps 5 > 4 blocks of 4 k"]


@given(laws.seeds)
@settings(max_examples=20, deadline=None)
def test_outputs_blocks_and_the_k_of_a_block_may_be_permuted(seed):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((64, 5)).astype(np.float32)
    columns = rng.permutation(5)
    assert np.array_equal(TABLE.mask(w[:, columns]), TABLE.mask(w)[:, columns])
    blocks = (rng.permutation(2)[:, None] * 8 + rng.permutation(8)).ravel()
    rows = (blocks[:, None] * 4 + rng.permutation(4)).ravel()
    assert np.array_equal(TABLE.mask(w[rows]), TABLE.mask(w)[rows])


def test_a_full_rank_changes_nothing():
    w = laws.nonzero(67, 5)
    assert np.array_equal(Hierarchical(((2, 4), (8, 8))).mask(w), NM(2, 4).mask(w))
    assert np.array_equal(Hierarchical(((2, 4), (1, 1))).mask(w), NM(2, 4).mask(w))
    assert np.array_equal(Hierarchical(((1, 1), (2, 8))).mask(w), NM(2, 8).mask(w))
    assert Hierarchical(((4, 4), (8, 8))).mask(w).all()


@given(patterns, st.integers(1, 100))
@settings(max_examples=100, deadline=None)
def test_slots_are_what_some_weights_keep(pattern, k):
    """Where each weight outdoes all before it a short last block stays; reversed, it goes."""
    doubling = 2 ** np.arange(k, dtype=np.float32)[:, None]
    fewest, most = (int(pattern.mask(w).sum()) for w in (doubling, doubling[::-1]))
    assert pattern.stored(pattern.mask(doubling)) == most
    assert pattern.kept(k, 1) == (most if fewest == most else None)


def test_ragged_edges():
    """k 41 = 32 + 9: two whole blocks and a single weight, all within 4 of 8."""
    assert TABLE.kept(41, 3) == (8 + 2 + 2 + 1) * 3
    assert TABLE.slots(41) == (13, 7)
    assert TABLE.metadata_bits(np.zeros((41, 3), bool)) == (13 * 2 + 7 * 3) * 3
    # k 17: four whole blocks and a single weight compete for four places.
    assert TABLE.kept(17, 1) is None
    assert TABLE.stored(np.zeros((17, 1), bool)) == 8
    # k 18: the short block of two keeps both, like a whole one.
    assert TABLE.kept(18, 1) == 8


def fullest(ranks, rows):
    """The most any aligned block can hold, from all legal masks of two spans."""
    span = math.prod(m for _, m in ranks)
    height = math.lcm(rows, span)
    masks = np.array(list(itertools.product([False, True], repeat=span)))
    legal = np.array([faults(mask[:, None], ranks) == 0 for mask in masks])
    most = 0
    for start in range(0, height, rows):
        parts = {}
        for row in range(start, start + rows):
            parts.setdefault(row // span, []).append(row % span)
        most = max(most, sum(int(masks[legal][:, at].sum(axis=1).max()) for at in parts.values()))
    return most


@pytest.mark.parametrize(
    "ranks", [((1, 2), (1, 3)), ((2, 3), (2, 3)), ((2, 4), (1, 2)), ((1, 2), (1, 2), (1, 2))]
)
def test_the_block_bound_is_the_most_a_block_can_hold(ranks):
    for rows in range(1, 14):
        most = fullest(ranks, rows)
        assert Hierarchical(ranks).block_bound(rows) == (most if most < rows else None)


def test_the_block_bound_of_the_table():
    assert [TABLE.block_bound(rows) for rows in (2, 4, 8, 16, 32, 64)] == [None, 2, 4, 8, 8, 16]
    assert Hierarchical(((4, 4), (8, 8))).block_bound(5) == 5


@pytest.mark.parametrize("text", ["hss:2:4+4:8", "hss:1:1+1:1", "hss:2:4+1:2+3:4", "hss:1:32+1:32"])
def test_strings(text):
    laws.prints_and_parses(Hierarchical, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hss:2:4", "2 to 4 ranks; got 'hss:2:4'"),
        ("hss:1:2+1:2+1:2+1:2+1:2", "2 to 4 ranks"),
        ("hss:5:4+4:8", "1 <= n <= m in every rank; got 'hss:5:4+4:8'"),
        ("hss:2:4+0:8", "1 <= n <= m in every rank"),
        ("hss:1:32+1:33", "product of its m <= 1024; got 'hss:1:32+1:33'"),
        ("hss:2:4,4:8", "low rank first; got 'hss:2:4,4:8'"),
        ("hss:2:4+", "low rank first"),
        ("hss", "low rank first; got 'hss'"),
    ],
)
def test_refusals(text, complaint):
    laws.refuses(Hierarchical, text, complaint)


def test_printed_table():
    laws.retains(TABLE, iid=0.470, scaled=0.531)
    laws.packs(TABLE, "0.875", "0.305")
