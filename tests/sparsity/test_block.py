"""B × B blocks against plain loops, their laws, and the printed table."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity import laws

from accsim.base.errors import InputError
from accsim.sparsity.block import Block

patterns = st.builds(Block, st.integers(1, 12), laws.shares, st.booleans())


def blocks(shape, size):
    """Slices of the blocks, in a list per block row: the same outputs, ascending k."""
    k, n = shape
    return [
        [np.s_[top : top + size, left : left + size] for top in range(0, k, size)]
        for left in range(0, n, size)
    ]


def slow(w, size, sparsity, per_row):
    mask = np.zeros(w.shape, bool)
    rows = blocks(w.shape, size)
    pools = rows if per_row else [list(itertools.chain(*zip(*rows, strict=True)))]
    for pool in pools:
        squares = [sum(float(value) ** 2 for value in w[block].ravel()) for block in pool]
        for at in laws.best(squares, round((1 - sparsity) * len(pool))):
            mask[pool[at]] = True
    return mask


@given(patterns, laws.sides, laws.sides, laws.seeds, st.sampled_from([1, 1 / 64]))
@settings(max_examples=60, deadline=None)
def test_mask_equals_the_loops(pattern, k, n, seed, step):
    w = laws.weights(k, n, seed, step)
    expected = slow(w, pattern.size, pattern.sparsity, pattern.per_row)
    assert np.array_equal(pattern.mask(w), expected)


@given(patterns, laws.sides, laws.sides, laws.seeds)
@settings(max_examples=60, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, k, n, seed)
    if k % pattern.size == n % pattern.size == 0:
        assert pattern.kept(k, n) is not None
        mask = pattern.mask(laws.weights(k, n))
        assert pattern.stored(mask) == mask.sum()


@given(patterns, laws.sides, laws.sides, laws.seeds, st.floats(0, 1), st.booleans())
@settings(max_examples=100, deadline=None)
def test_checker_equals_the_loops(pattern, k, n, seed, share, whole):
    rng = np.random.default_rng(seed)
    rows = blocks((k, n), pattern.size)
    mask = rng.random((k, n)) < share
    if whole:
        for block in itertools.chain(*rows):
            mask[block] = rng.random() < share
    partly = sum(mask[block].any() and not mask[block].all() for row in rows for block in row)
    held = [sum(bool(mask[block].any()) for block in row) for row in rows]
    pools = held if pattern.per_row else [sum(held)]
    size = len(rows[0]) if pattern.per_row else len(rows) * len(rows[0])
    over = sum(count > round((1 - pattern.sparsity) * size) for count in pools)
    assert len(pattern.check(mask)) == min(partly + over, 20)


def test_checker_names_the_place():
    mask = Block(4, 0.5).mask(laws.nonzero(10, 8))
    assert Block(4, 0.5).check(mask) == []
    mask[:] = False
    mask[8:10, 4:8] = True
    mask[9, 7] = False
    assert Block(4, 0.5).check(mask) == [
        "block (2, 1) (k 8…9, outputs 4…7) keeps 7 of its 8 weights"
    ]
    mask[:] = True
    assert Block(4, 0.5).check(mask) == ["keeps 6 > 3 blocks"]
    mask[:, :4] = False
    assert Block(4, 0.5, per_row=True).check(mask) == [
        "block row 1 (outputs from 4) keeps 3 > 2 blocks"
    ]


@given(laws.seeds, st.booleans())
@settings(max_examples=20, deadline=None)
def test_rows_in_a_block_and_whole_blocks_may_be_permuted(seed, per_row):
    rng, pattern = np.random.default_rng(seed), Block(4, 0.6, per_row)
    w = rng.standard_normal((24, 16)).astype(np.float32)
    for axis, count in ((0, 6), (1, 4)):
        order = (rng.permutation(count)[:, None] * 4 + rng.permutation(4)).ravel()
        moved = pattern.mask(w.take(order, axis=axis))
        assert np.array_equal(moved, pattern.mask(w).take(order, axis=axis))


def test_the_budget_of_the_matrix_transposes():
    w = np.random.default_rng(3).standard_normal((20, 36)).astype(np.float32)
    assert np.array_equal(Block(4, 0.7).mask(w.T), Block(4, 0.7).mask(w).T)


def test_a_row_is_b_outputs():
    """One heavy output: the matrix budget goes there, the row budget does not."""
    w = laws.nonzero(32, 8)
    w[:, 0] *= 1024
    assert not Block(4, 0.5).mask(w)[:, 4:].any()
    per_row = Block(4, 0.5, per_row=True).mask(w)
    assert per_row.sum(axis=0).tolist() == [16] * 8


def test_metadata_and_padding():
    """10 × 8 in blocks of 4: two block rows, 3 pointers."""
    mask = np.zeros((10, 8), bool)
    assert Block(4, 0.5).metadata_bits(mask) == 3 * 32
    assert Block(4, 0.5).stored(mask) == 0
    mask[8:, :4] = True
    assert Block(4, 0.5).metadata_bits(mask) == 32 + 3 * 32
    assert Block(4, 0.5).stored(mask) == 16, "the two missing rows are stored as zeros"


def test_kept_where_an_edge_is_ragged():
    assert Block(4, 0.5).kept(10, 8) is None
    assert Block(4, 0.5).kept(8, 10) is None
    assert Block(4, 0.5, per_row=True).kept(8, 10) == 4 * 10
    assert Block(4, 0.5, per_row=True).kept(10, 8) is None
    assert Block(4, 0.0).kept(10, 9) == 90
    assert Block(4, 0.99).kept(10, 9) == Block(4, 0.99, per_row=True).kept(10, 9) == 0
    assert Block(64, 0.4).kept(10, 9) == 90
    assert Block(4, 0.5).kept(3, 8) == 3 * 4, "both blocks are 3 high"


def test_only_the_mask_bounds_a_column():
    assert Block(4, 0.5).block_bound(8) is None
    assert Block(4, 0.0).block_bound(8) == 8


@pytest.mark.parametrize("text", ["bsr:32@0.75", "bsr:32@0.75:row", "bsr:1@0", "bsr:1024@1e-07"])
def test_strings(text):
    laws.prints_and_parses(Block, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bsr:0@0.5", "1 <= B <= 1024; got '0'"),
        ("bsr:1025@0.5", "1 <= B <= 1024; got '1025'"),
        ("bsr:32@1", "0 <= s < 1; got '1.0'"),
        ("bsr:32@-0.5", "0 <= s < 1; got '-0.5'"),
        ("bsr:32@nan", "0 <= s < 1; got 'bsr:32@nan'"),
        ("bsr:32@1_0", "0 <= s < 1; got 'bsr:32@1_0'"),
        ("bsr:32@", "0 <= s < 1; got 'bsr:32@'"),
        ("bsr:32@0.5:column", "bsr:B@s or bsr:B@s:row; got 'bsr:32@0.5:column'"),
        ("bsr", "bsr:B@s or bsr:B@s:row; got 'bsr'"),
        ("bsr:-4@0.5", "bsr:B@s or bsr:B@s:row"),
    ],
)
def test_refusals(text, complaint):
    laws.refuses(Block, text, complaint)


def test_nan_is_no_sparsity():
    with pytest.raises(InputError, match="0 <= s < 1; got 'nan'"):
        Block(4, float("nan"))


@pytest.mark.parametrize(
    ("size", "iid", "scaled"), [(16, 0.264, 0.315), (32, 0.257, 0.292), (64, 0.254, 0.275)]
)
def test_printed_retained(size, iid, scaled):
    laws.retains(Block(size, 0.75), iid, scaled)


def test_printed_metadata():
    laws.packs(Block(32, 0.75), "0.008", "0.251")
