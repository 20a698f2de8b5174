"""Transposable n:m: brute force on small tiles, counting laws, the facts about greedy and 2:4."""

import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest
from sparsity import pattern_laws as laws

import accsim
from accsim.base.errors import InputError
from accsim.kernels import transposable as kernel
from accsim.sparsity.bidirectional import Bidirectional
from accsim.sparsity.nm import NM
from accsim.sparsity.transposable import EXACT_TILES, Transposable, _cut

SIZES = [(1, 1), (1, 4), (2, 4), (2, 8), (3, 5), (4, 8), (5, 5)]
ALL = [Transposable(n, m, solver) for n, m in SIZES for solver in ("", "greedy", "exact")]


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_generator_passes_checker(pattern):
    laws.generator_passes_checker(pattern)
    laws.idempotent(pattern)
    laws.scale_does_not_matter(pattern)
    laws.block_bound_holds(pattern)
    laws.round_trips(str(pattern), pattern)


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_whole_tiles_hold_n_in_every_row_and_column(pattern):
    n, m = pattern.n, pattern.m
    for ties in (False, True):
        mask = pattern.mask(laws.weights(3 * m, 2 * m, ties=ties))
        assert set(mask.reshape(3, m, 2 * m).sum(axis=1).ravel().tolist()) == {n}
        assert set(mask.reshape(3 * m, 2, m).sum(axis=2).ravel().tolist()) == {n}


# --- brute force


@cache
def legal_masks(rows, columns, n):
    """All masks of a tile with at most n in each row and column and as many as there can be."""
    of_row = [bits for bits in itertools.product((0, 1), repeat=columns) if sum(bits) <= n]
    masks = [np.array(choice) for choice in itertools.product(of_row, repeat=rows)]
    masks = [mask for mask in masks if mask.sum(axis=0).max() <= n]
    fullest = max(int(mask.sum()) for mask in masks)
    return np.array([mask for mask in masks if mask.sum() == fullest])


@pytest.mark.parametrize(
    ("n", "m", "k", "columns"),
    [(2, 4, 4, 4), (1, 4, 4, 4), (3, 4, 4, 4), (1, 3, 3, 3), (2, 3, 3, 3),
     (2, 4, 3, 4), (2, 4, 4, 3), (2, 4, 1, 4), (2, 4, 4, 1), (2, 4, 2, 3), (1, 4, 2, 4),
     (1, 4, 4, 2), (3, 4, 3, 4), (2, 5, 3, 4), (2, 5, 2, 5)],
)  # fmt: skip
def test_exact_equals_brute_force(n, m, k, columns):
    masks = legal_masks(k, columns, n)
    assert Transposable(n, m).kept(k, columns) == masks[0].sum()
    for seed in range(60):
        w = laws.weights(k, columns, seed, ties=seed % 5 == 0)
        mask = Transposable(n, m, "exact").mask(w)
        best = np.abs(w.astype(np.float64) * masks).sum(axis=(1, 2)).max()
        assert np.abs(w[mask].astype(np.float64)).sum() == pytest.approx(best, rel=1e-9)
        greedy = Transposable(n, m, "greedy").mask(w)
        assert np.abs(w[greedy]).sum(dtype=np.float64) <= best * (1 + 1e-9)


def test_every_magnitude_order_of_a_legal_mask_is_found():
    """All 4×4 tiles that hold ones on a legal mask: the mask itself is the optimum."""
    masks = legal_masks(4, 4, 2)
    assert len(masks) == 90
    for mask in masks:
        assert np.array_equal(Transposable(2, 4, "exact").mask(mask.astype(np.float32)), mask)


def slow_greedy(w, n):
    """Places by size, ties to the lowest, taken while row and column have room."""
    _, columns = w.shape
    held = np.zeros(w.shape, bool)
    for at in laws.largest(w.ravel().tolist(), w.size):
        row, column = divmod(at, columns)
        if held[row].sum() < n and held[:, column].sum() < n:
            held[row, column] = True
    return held


@pytest.mark.parametrize("ties", [False, True])
def test_the_greedy_choice_equals_the_sort(ties):
    for n, m in SIZES:
        w = np.stack([laws.weights(m, m, seed, ties) for seed in range(30)])
        held = kernel.solve(np.abs(w), n, n, kernel.GREEDY)
        for tile in range(30):
            assert np.array_equal(held[tile], slow_greedy(w[tile], n))


def test_filling_and_exchanging_keep_what_greedy_could_not_improve():
    """Where greedy is full and no exchange gains, the result is greedy's."""
    w = np.stack([np.abs(laws.weights(6, 6, seed)) for seed in range(300)])
    greedy, swapped = (kernel.solve(w, 2, 2, effort) for effort in (kernel.GREEDY, kernel.SWAP))
    for tile in range(300):
        mask = swapped[tile]
        for u, v in itertools.combinations(range(6), 2):
            for p, q in itertools.product(np.flatnonzero(mask[u] & ~mask[v]),
                                          np.flatnonzero(mask[v] & ~mask[u])):  # fmt: skip
                now = float(w[tile, u, p]) + float(w[tile, v, q])
                assert float(w[tile, v, p]) + float(w[tile, u, q]) <= now + 1e-9
        if greedy[tile].sum() == 12:
            assert (w[tile] * mask).sum() >= (w[tile] * greedy[tile]).sum() - 1e-6


def test_no_row_of_a_ragged_tile_would_rather_have_a_column_with_room():
    w = np.stack([np.abs(laws.weights(7, 8, seed)) for seed in range(400)])
    held = kernel.solve(w, 4, 4, kernel.SWAP)
    assert (held.sum(axis=2) == 4).all()
    room = held.sum(axis=1) < 4
    assert room.any(axis=1).all()
    wanted = np.where(~held & room[:, None, :], w, -1).max(axis=2)
    assert (wanted <= np.where(held, w, np.inf).min(axis=2) + 1e-9).all()


def test_exact_is_never_below_greedy_and_sometimes_above():
    w = np.stack([np.abs(laws.weights(8, 8, seed)) for seed in range(400)]).astype(np.float32)
    greedy, exact = (
        (w * kernel.solve(w, 2, 2, effort)).sum(axis=(1, 2), dtype=np.float64)
        for effort in (kernel.SWAP, kernel.EXACT)
    )
    assert (exact >= greedy - 1e-9).all()
    assert (exact > greedy + 1e-9).mean() > 0.2


def test_exact_equals_the_assignment_solver():
    """n = 1 is the assignment problem; scipy is a third, independent solver (optional)."""
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(30):
        w = np.abs(laws.weights(16, 16, seed)).astype(np.float64)
        rows, columns = optimize.linear_sum_assignment(w, maximize=True)
        mask = Transposable(1, 16, "exact").mask(w)
        assert w[mask].sum() == pytest.approx(w[rows, columns].sum(), rel=1e-9)


def test_exact_equals_linear_programming():
    """The transportation polytope has whole-number corners: the relaxation gives the optimum."""
    optimize = pytest.importorskip("scipy.optimize")
    for n, m, seed in [(2, 8, 0), (4, 8, 1), (3, 8, 2), (5, 12, 3)]:
        w = np.abs(laws.weights(m, m, seed)).astype(np.float64)
        rows = np.kron(np.eye(m), np.ones(m))
        columns = np.kron(np.ones(m), np.eye(m))
        answer = optimize.linprog(
            -w.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.full(2 * m, n), bounds=(0, 1)
        )
        mask = Transposable(n, m, "exact").mask(w)
        assert w[mask].sum() == pytest.approx(-answer.fun, rel=1e-9)


def test_beyond_the_limit_the_default_is_greedy():
    few = laws.weights(64, 64)
    assert np.array_equal(Transposable(2, 4).mask(few), Transposable(2, 4, "exact").mask(few))
    many = laws.weights(4 * 64, 4 * 65)
    assert EXACT_TILES < 64 * 65
    default, greedy, exact = (Transposable(2, 4, s).mask(many) for s in ("", "greedy", "exact"))
    assert np.array_equal(default, greedy)
    assert not np.array_equal(default, exact)


def test_tiles_solved_together_equal_tiles_solved_alone():
    """More than a thousand tiles are dealt to threads."""
    w = laws.weights(8 * 50, 8 * 50)
    mask = Transposable(2, 8, "exact").mask(w)
    for row, column in [(0, 0), (17, 49), (49, 3), (49, 49)]:
        at = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert np.array_equal(mask[at], Transposable(2, 8, "exact").mask(w[at]))


# --- laws


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_exact_mask_of_the_transpose_is_the_transpose(n, m):
    w = laws.weights(3 * m + 1, 2 * m, n)
    one, other = (Transposable(n, m, "exact").mask(x) for x in (w, w.T))
    assert np.array_equal(other, one.T)


def test_the_exact_mask_follows_rows_and_columns_of_a_tile():
    w, rng = laws.weights(8, 8), np.random.default_rng(0)
    mask = Transposable(2, 8, "exact").mask(w)
    for _ in range(10):
        at = np.ix_(rng.permutation(8), rng.permutation(8))
        assert np.array_equal(Transposable(2, 8, "exact").mask(w[at]), mask[at])


def test_every_size_of_weight():
    for factor in (1e-38, 1e-20, 1e20, 1e37):
        w = laws.weights(16, 16) * np.float32(factor)
        assert Transposable(2, 8).check(Transposable(2, 8).mask(w)) == []
    assert Transposable(2, 8).mask(np.zeros((9, 17), np.float32)).sum() == 2 * 16 + 2 + 2 * 2 + 1


def margins(size, most):
    """Count 0/1 matrices whose rows and columns all sum to ``most``, row by row."""
    states = Counter({(most,) * size: 1})  # what columns still need, sorted
    for _ in range(size):
        after = Counter()
        for needs, ways in states.items():
            for chosen in itertools.combinations(range(size), most):
                left = [need - (at in chosen) for at, need in enumerate(needs)]
                if min(left) >= 0:
                    after[tuple(sorted(left))] += ways
        states = after
    return states[(0,) * size]


def test_the_checker_allows_as_many_full_tiles_as_there_are():
    """Facts: 116 963 796 250 8×8 matrices with all margins 4; 90 of 4×4 with margins 2."""
    assert margins(8, 4) == 116_963_796_250
    bits = np.arange(2**16, dtype=np.uint16)[:, None] >> np.arange(16, dtype=np.uint16) & 1
    full = bits[bits.sum(axis=1) == 8].astype(bool).reshape(-1, 4, 4)
    legal = sum(not Transposable(2, 4).check(mask) for mask in full)
    assert legal == margins(4, 2) == 90


def test_random_masks_are_legal_exactly_if_rows_and_columns_hold_no_more():
    rng = np.random.default_rng(8)
    for _ in range(300):
        n, m = SIZES[int(rng.integers(len(SIZES)))]
        k, columns = rng.integers(1, 20, 2).tolist()
        mask = rng.random((k, columns)) < rng.random()
        broken = sum(
            int(mask[at : at + m, c].sum() > n) for c in range(columns) for at in range(0, k, m)
        ) + sum(
            int(mask[r, at : at + m].sum() > n) for r in range(k) for at in range(0, columns, m)
        )
        assert len(Transposable(n, m).check(mask)) == min(broken, 20)


def test_the_checker_names_row_and_column():
    mask = np.zeros((10, 10), bool)
    mask[8, [4, 5, 6]] = mask[[0, 1, 3], 9] = True
    assert Transposable(2, 4).check(mask) == [
        "column 9 keeps 3 > 2 in its group 0 (k 0…3)",
        "row 8 keeps 3 > 2 in its group 1 (n 4…7)",
    ]


# --- facts/patterns.md


@pytest.fixture(scope="module")
def noise():
    return _cut(np.abs(accsim.synthetic_weights(1024, 1024, iid=True)), 8, 8)


def test_greedy_leaves_many_tiles_of_4_of_8_short(noise):
    """Facts: 48 % of 4:8 tiles. Our greedy choice (largest first, the twin above) leaves 55 % of
    them, whatever the distribution of independent weights: only ranks matter. 49 % lack one place.
    """
    lacking = 32 - kernel.solve(noise, 4, 4, kernel.GREEDY).sum(axis=(1, 2))
    assert (lacking > 0).mean() == pytest.approx(0.554, abs=0.012)
    assert (lacking == 1).mean() == pytest.approx(0.494, abs=0.012)
    assert (kernel.solve(noise, 4, 4, kernel.SWAP).sum(axis=(1, 2)) == 32).all()


def test_plain_2_of_4_is_rarely_transposable():
    """Facts: 69 % of groups hold at most n the other way (11 of 16 for independent weights)."""
    w = accsim.synthetic_weights(1024, 1024, iid=True)
    across = NM(2, 4).mask(w).reshape(1024, 256, 4).sum(axis=2)
    assert (across <= 2).mean() == pytest.approx(0.69, abs=0.005)


@pytest.mark.parametrize(
    ("iid", "effort", "retained"),
    [
        (True, kernel.GREEDY, 0.445),  # facts; so is .466
        (False, kernel.GREEDY, 0.466),
        (True, kernel.SWAP, 0.453),  # measured here: what filling, exchanges and cycles add
        (True, kernel.EXACT, 0.455),
        (False, kernel.SWAP, 0.474),
        (False, kernel.EXACT, 0.476),
    ],
)
def test_retained_magnitude_of_1024_squared(iid, effort, retained):
    for seed in (0, 1):
        tiles = _cut(np.abs(accsim.synthetic_weights(1024, 1024, seed=seed, iid=iid)), 8, 8)
        held = kernel.solve(tiles, 2, 2, effort)
        share = (tiles * held).sum(dtype=np.float64) / tiles.sum(dtype=np.float64)
        assert share == pytest.approx(retained, abs=0.003)


def test_metadata_is_that_of_one_copy():
    mask = np.zeros((4096, 4096), bool)
    assert Transposable(2, 8).metadata_bits(mask) == 0.75 * 4096**2
    assert Bidirectional(2, 8).metadata_bits(mask) == 2 * 0.75 * 4096**2
    assert Transposable(2, 8).stored(mask) == 4096**2 / 4


# --- strings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("transposable", "must be written transposable:n:m"),
        ("transposable:2", "got 'transposable:2'"),
        ("transposable:9:8", "1 <= n <= m <= 32; got '9:8'"),
        ("transposable:2:64", "1 <= n <= m <= 32; got '2:64'"),
        ("transposable:2:8:fast", "solver exact or greedy; got 'fast'"),
        ("transposable:2:8:exact:exact", "must be written"),
    ],
)
def test_bad_strings(text, complaint):
    laws.refused(Transposable, text, complaint)


def test_strings_of_other_families():
    assert Transposable.parse("2:8") is None
    with pytest.raises(InputError, match="solver exact or greedy; got 'quick'"):
        Transposable(2, 8, "quick")
