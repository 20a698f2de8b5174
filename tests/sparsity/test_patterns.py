"""Patterns: generator, checker, brute-force twins, facts, and the parser's open door."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.sparsity.unstructured import Unstructured
from accsim.spec import pattern as door
from accsim.spec.pattern import DENSE, Dense, Pattern, parse_pattern

GROUPS = [(1, 4), (2, 4), (2, 8), (1, 8), (3, 8), (4, 6), (3, 5), (1, 1), (5, 5), (1, 3), (7, 16)]
SHARES = (0.0, 0.05, 0.3, 0.5, 0.75, 0.9, 0.99)


def weights(k, n, seed=0, ties=False):
    rng = np.random.default_rng([k, n, seed])
    if ties:  # few values, both signs, and zeros of both signs
        return rng.choice(np.array([-2, -1, -0.0, 0.0, 1, 2], np.float32), (k, n))
    return rng.standard_normal((k, n)).astype(np.float32)


def largest(values, count):
    """Positions of the ``count`` largest |values|, ties to the lowest position."""
    return sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:count]


def slow_nm(w, n, m):
    k, columns = w.shape
    mask = [[False] * columns for _ in range(k)]
    for column in range(columns):
        for first in range(0, k, m):
            group = [float(w[row, column]) for row in range(first, min(first + m, k))]
            for at in largest(group, n):
                mask[first + at][column] = True
    return np.array(mask)


def slow_unstructured(w, sparsity):
    flat = [float(value) for value in w.ravel()]
    mask = np.zeros(len(flat), bool)
    mask[largest(flat, round((1 - sparsity) * len(flat)))] = True
    return mask.reshape(w.shape)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), GROUPS)
def test_n_of_m_equals_the_sort(n, m, ties):
    for k, columns in ((1, 1), (m, 3), (2 * m + 1, 4), (17, 2), (max(m - 1, 1), 2)):
        w = weights(k, columns, n, ties)
        assert np.array_equal(NM(n, m).mask(w), slow_nm(w, n, m))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sparsity", SHARES)
def test_unstructured_equals_the_sort(sparsity, ties):
    for k, columns in ((1, 1), (1, 9), (9, 1), (13, 7), (20, 16)):
        w = weights(k, columns, 1, ties)
        assert np.array_equal(Unstructured(sparsity).mask(w), slow_unstructured(w, sparsity))


ALL = [NM(n, m) for n, m in GROUPS] + [Unstructured(s) for s in SHARES] + [DENSE]


@pytest.mark.parametrize("pattern", ALL, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (64, 8), (37, 5), (8, 64)])
def test_generator_passes_checker(pattern, shape):
    for ties in (False, True):
        w = weights(*shape, 2, ties)
        before = w.copy()
        mask = pattern.mask(w)
        assert (mask.dtype, mask.shape) == (np.bool_, shape)
        assert pattern.check(mask) == []
        assert mask.sum() == pattern.kept(*shape)
        assert pattern.density(mask) == pytest.approx(mask.sum() / mask.size)
        assert np.array_equal(pattern.mask(w, seed=9), mask), "magnitude needs no seed"
        assert np.array_equal(w, before), "weights were written to"


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_idempotent(pattern):
    w = weights(48, 12)
    mask = pattern.mask(w)
    assert np.array_equal(pattern.mask(np.where(mask, w, np.float32(0))), mask)


def test_idempotent_needs_no_zeros_among_the_kept():
    """A kept zero is stored all the same; ties to the lowest index decide which."""
    w = np.zeros((4, 1), np.float32)
    assert NM(2, 4).mask(w)[:, 0].tolist() == [True, True, False, False]
    assert Unstructured(0.5).mask(w)[:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_float64_and_negated_weights_give_the_same_mask(pattern):
    w = weights(24, 6)
    assert np.array_equal(pattern.mask(-w), pattern.mask(w))
    assert np.array_equal(pattern.mask(w.astype(np.float64)), pattern.mask(w))


def test_the_checker_counts_each_group():
    mask = NM(2, 4).mask(weights(10, 3))
    row = int(np.flatnonzero(~mask[4:8, 1])[0]) + 4
    mask[row, 1] = True
    assert NM(2, 4).check(mask) == ["group 1 (k 4…7) of column 1 keeps 3 > 2"]


def test_the_checker_sees_what_one_flip_breaks():
    """Random masks: legal exactly if no aligned group holds more than n."""
    rng = np.random.default_rng(4)
    for _ in range(300):
        n, m = GROUPS[int(rng.integers(len(GROUPS)))]
        k, columns = int(rng.integers(1, 20)), int(rng.integers(1, 4))
        mask = rng.random((k, columns)) < rng.random()
        broken = sum(
            mask[first : first + m, column].sum() > n
            for column in range(columns)
            for first in range(0, k, m)
        )
        assert len(NM(n, m).check(mask)) == min(broken, 20)


def test_unstructured_limits_the_number_only():
    mask = np.zeros((4, 5), bool)
    mask.ravel()[:11] = True
    assert Unstructured(0.5).check(mask) == ["keeps 11 > 10"]
    mask[0, 0] = False
    assert Unstructured(0.5).check(mask) == []


# --- how many a block can hold


def fullest_block(n, m, rows):
    """The most kept weights of any aligned block of rows, each n:m group filled at will."""
    fullest = 0
    for start in range(0, rows * m, rows):
        inside = [row // m for row in range(start, start + rows)]
        fullest = max(fullest, sum(min(n, inside.count(g)) for g in set(inside)))
    return fullest


def test_the_block_bound_holds_for_random_masks():
    rng = np.random.default_rng(5)
    for n, m in GROUPS:
        for rows in range(1, 18):
            k = 2 * rows * m
            for _ in range(4):
                mask = NM(n, m).mask(rng.standard_normal((k, 3)).astype(np.float32))
                held = mask.reshape(-1, rows, 3).sum(axis=1).max()
                assert held <= fullest_block(n, m, rows) <= NM(n, m).block_bound(rows) <= rows


def test_the_block_bound_is_reached_where_groups_and_blocks_align():
    for m in range(1, 13):
        for n, rows in itertools.product(range(1, m + 1), range(1, 25)):
            if rows % m == 0 or m % rows == 0:
                assert NM(n, m).block_bound(rows) == fullest_block(n, m, rows)


@pytest.mark.parametrize(("n", "m", "rows"), [(2, 4, 6), (1, 4, 6), (2, 3, 5)])
def test_the_block_bound_is_the_most_a_block_can_hold(n, m, rows):
    assert NM(n, m).block_bound(rows) == fullest_block(n, m, rows)


def test_only_the_mask_bounds_unstructured():
    assert Unstructured(0.5).block_bound(4) is None
    assert Unstructured(0.0).block_bound(4) == DENSE.block_bound(4) == 4


# --- facts/patterns.md


@pytest.mark.parametrize(
    ("pattern", "bits_an_element"),
    [("2:8", 0.75), ("1:4", 0.50), ("unstructured@0.75", 1.00), ("2:4", 1.00), ("dense", 0.0)],
)
def test_metadata_of_4096_squared(pattern, bits_an_element):
    """Facts: 2:8 0.75, 1:4 0.50, bitmap 1.00 at 25 % density; 2:4 1.00 at 50 %."""
    mask = np.zeros((4096, 4096), np.bool_)
    assert parse_pattern(pattern).metadata_bits(mask) == bits_an_element * 4096**2


def test_metadata_of_short_groups_and_odd_groups():
    assert NM(2, 4).metadata_bits(np.zeros((9, 3), bool)) == (2 + 2 + 1) * 3 * 2
    assert NM(3, 5).metadata_bits(np.zeros((5, 1), bool)) == 3 * 3
    assert NM(1, 1).metadata_bits(np.zeros((5, 1), bool)) == 0


@pytest.mark.parametrize(
    ("pattern", "iid", "retained"),
    [
        # Plain Gaussian weights: predictions of the facts, nothing here was fitted to them.
        ("unstructured@0.75", True, 0.516),
        ("2:8", True, 0.484),
        ("1:4", True, 0.459),
        # With scales: SCALE_SIGMA was chosen to meet these two (a fit, not a witness) …
        ("unstructured@0.75", False, 0.642),
        ("2:8", False, 0.545),
        # … and this one was not used: it is predicted.
        ("1:4", False, 0.514),
    ],
)
def test_retained_magnitude_of_1024_squared(pattern, iid, retained):
    for seed in (0, 1):
        w = accsim.synthetic_weights(1024, 1024, seed=seed, iid=iid)
        mask = parse_pattern(pattern).mask(w)
        assert mask.mean() == 0.25
        total = float(np.abs(w, dtype=np.float64).sum())
        assert float(np.abs(w[mask], dtype=np.float64).sum()) / total == pytest.approx(
            retained, abs=0.008
        )
        assert accsim.retained_magnitude(w, mask) == pytest.approx(retained, abs=0.008)


def test_retained_of_nothing_and_everything():
    w = weights(5, 5)
    assert accsim.retained_magnitude(w, np.ones((5, 5), bool)) == 1.0
    assert accsim.retained_magnitude(w, np.zeros((5, 5), bool)) == 0.0
    assert accsim.retained_magnitude(np.zeros((5, 5), np.float32), np.ones((5, 5), bool)) == 1.0


def test_synthetic_weights_have_their_own_streams():
    base = accsim.synthetic_weights(16, 16, seed=1, name="a")
    assert np.array_equal(base, accsim.synthetic_weights(16, 16, seed=1, name="a"))
    for seed, name in ((2, "a"), (1, "b"), (1, "")):
        assert not np.array_equal(base, accsim.synthetic_weights(16, 16, seed=seed, name=name))


# --- strings


@pytest.mark.parametrize(
    "text",
    ["dense", "2:4", "1:1", "1024:1024", "unstructured@0", "unstructured@0.9",
     "unstructured@0.123456789", "unstructured@1e-07", "unstructured@0.30000000000000004"],
)  # fmt: skip
def test_print_and_parse(text):
    pattern = parse_pattern(text)
    assert str(pattern) == text
    assert parse_pattern(str(pattern)) == pattern
    assert parse_pattern(f" {text} ") == pattern
    assert hash(parse_pattern(text)) == hash(pattern)


def test_printing_keeps_every_digit():
    rng = np.random.default_rng(6)
    for sparsity in rng.random(300).tolist():
        assert parse_pattern(str(Unstructured(sparsity))) == Unstructured(sparsity)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0:4", "1 <= n <= m <= 1024; got '0:4'"),
        ("5:4", "1 <= n <= m <= 1024; got '5:4'"),
        ("1:1025", "1 <= n <= m <= 1024"),
        ("0:0", "1 <= n <= m"),
        ("2:4:8:16", "pattern must be one of"),
        ("-2:4", "pattern must be one of"),
        ("2.0:4", "pattern must be one of"),
        ("", "pattern must be one of"),
        ("2:", "pattern must be one of"),
        ("desne", "did you mean 'dense'"),
        ("unstructured", "0 <= s < 1"),
        ("unstructured@", "0 <= s < 1"),
        ("unstructured@1", "0 <= s < 1"),
        ("unstructured@-0.1", "0 <= s < 1"),
        ("unstructured@nan", "0 <= s < 1"),
        ("unstructured@1e", "0 <= s < 1"),
        ("unstructured@0.5@0.5", "0 <= s < 1"),
        ("unstructured@0,5", "0 <= s < 1"),
        ("9999999999:4", "pattern must be one of"),
    ],
)
def test_bad_strings_are_refused_in_one_line(text, complaint):
    with pytest.raises(InputError) as error:
        parse_pattern(text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (1, 2000), (-1, 4)])
def test_a_bad_pattern_cannot_be_made(n, m):
    with pytest.raises(InputError, match="1 <= n <= m"):
        NM(n, m)


# --- the door for others


@dataclass(frozen=True)
class Stripes(Pattern):
    """A third party's pattern: every ``step``-th row of k is kept."""

    step: int

    family: ClassVar[str] = "stripes"
    grammar: ClassVar[str] = "stripes/step (stripes/3)"
    summary: ClassVar[str] = "every step-th row"

    @classmethod
    def parse(cls, text):
        head, _, step = text.partition("/")
        return cls(int(step)) if head == "stripes" else None

    def __str__(self):
        return f"stripes/{self.step}"

    def mask(self, weights, seed=0):
        mask = np.zeros(weights.shape, np.bool_)
        mask[:: self.step] = True
        return mask

    def check(self, mask):
        return [] if not np.delete(mask, np.s_[:: self.step], axis=0).any() else ["between stripes"]

    def metadata_bits(self, mask):
        return 0

    def kept(self, k, n):
        return -(-k // self.step) * n

    def block_bound(self, rows):
        return -(-rows // self.step)


class Installed:
    """What importlib.metadata gives for an installed package's entry point."""

    def __init__(self, name, found):
        self.name, self._found = name, found

    def load(self):
        return self._found


@pytest.fixture
def with_stripes(monkeypatch):
    points = [("dense", Dense), ("nm", NM), ("stripes", Stripes), ("unstructured", Unstructured)]
    installed = [Installed(*point) for point in points]
    monkeypatch.setattr(
        door, "entry_points", lambda group: installed if group == door.GROUP else []
    )
    forget()
    yield
    monkeypatch.undo()
    forget()


def forget():
    door.families.cache_clear()
    parse_pattern.cache_clear()


@pytest.mark.usefixtures("with_stripes")
def test_a_third_party_pattern_needs_no_edit_here():
    pattern = accsim.pattern("stripes/4")
    assert (pattern, str(pattern)) == (Stripes(4), "stripes/4")
    assert accsim.pattern("2:4") == NM(2, 4)
    with pytest.raises(InputError, match=r"stripes/step"):
        accsim.pattern("stirpes/4")


@pytest.mark.usefixtures("with_stripes")
def test_a_third_party_pattern_runs_in_the_levels_it_fits():
    from devices.test_systolic_levels import device

    hw = device(array__multipliers=2, array__lanes=4, array__levels=("2:4", "dense"))
    net = accsim.gemm(9, 32, 8)
    stripes, two_of_four = (accsim.simulate(net.prune(p), hw) for p in ("stripes/2", "2:4"))
    assert stripes.columns["mode"] == ["2:4"]
    assert stripes.cycles == two_of_four.cycles
    assert accsim.simulate(net.prune("stripes/2"), hw, level="register").cycles == stripes.cycles


def test_without_it_the_string_is_unknown():
    with pytest.raises(InputError, match="pattern must be one of"):
        accsim.pattern("stripes/4")


def test_the_built_in_families_come_through_the_same_door():
    own = {"dense": Dense, "nm": NM, "unstructured": Unstructured}
    assert own.items() <= door.families().items()
    assert {
        "vnm",
        "block",
        "column_vector",
        "output_block",
        "balanced",
        "hierarchical",
        "group",
    } <= (door.families().keys())
    for family in door.families().values():
        assert family.grammar
        assert "\n" not in family.summary
