"""What every pattern must obey, whatever it is: called by the tests of the families."""

import numpy as np
import pytest

from accsim.base.errors import InputError
from accsim.spec.pattern import Pattern

SHAPES = [(1, 1), (1, 7), (9, 1), (9, 2), (8, 8), (37, 5), (33, 20), (16, 40), (64, 64)]


def weights(k, n, seed=0, ties=False):
    """Normal weights of (k, n), float32; with ties: few values, both signs, zeros of both signs."""
    rng = np.random.default_rng([k, n, seed])
    if ties:
        return rng.choice(np.array([-2, -1, -0.0, 0.0, 1, 2], np.float32), (k, n))
    return rng.standard_normal((k, n)).astype(np.float32)


def largest(values, count):
    """Positions of the ``count`` largest |values|, ties to the lowest position."""
    return sorted(range(len(values)), key=lambda at: (-abs(values[at]), at))[:count]


def generator_passes_checker(pattern, shapes=SHAPES):
    """Legal, deterministic, exact where it says so; the weights stay as they are."""
    for k, n in shapes:
        for ties in (False, True):
            w = weights(k, n, 1, ties)
            before = w.copy()
            mask = pattern.mask(w)
            assert (mask.dtype, mask.shape) == (np.bool_, (k, n))
            assert pattern.check(mask) == [], (k, n, ties)
            assert np.array_equal(w, before)
            assert np.array_equal(pattern.mask(w, seed=5), mask)
            assert np.array_equal(pattern.mask(-w.astype(np.float64)), mask)
            assert pattern.kept(k, n) in (None, int(mask.sum())), (k, n, ties)
            assert type(pattern.metadata_bits(mask)) is type(pattern.stored(mask)) is int
            assert pattern.stored(mask) >= mask.sum()


def idempotent(pattern, shapes=SHAPES):
    """Pruning what is pruned changes nothing."""
    for k, n in shapes:
        w = weights(k, n, 2)
        mask = pattern.mask(w)
        again = pattern.mask(np.where(mask, w, np.float32(0)))
        assert np.array_equal(again, mask), (k, n)


def scale_does_not_matter(pattern, shapes=SHAPES):
    """A power of two rounds nothing."""
    for k, n in shapes:
        w = weights(k, n, 3)
        assert np.array_equal(pattern.mask(w * np.float32(2**-20)), pattern.mask(w))


def columns_permute(pattern, order, k=40, n=24):
    """Permuting columns permutes the mask, for permutations the pattern does not see."""
    w = weights(k, n, 4)
    assert np.array_equal(pattern.mask(w[:, order(n)]), pattern.mask(w)[:, order(n)])


def block_bound_holds(pattern, shapes=SHAPES):
    """No aligned block of any column of a generated mask holds more than the bound."""
    for k, n in shapes:
        mask = pattern.mask(weights(k, n, 5))
        for rows in range(1, 20):
            bound = pattern.block_bound(rows)
            full = np.zeros((-(-k // rows) * rows, n), bool)
            full[:k] = mask
            held = int(full.reshape(-1, rows, n).sum(axis=1).max())
            assert bound is None or held <= bound <= rows


def round_trips(text, pattern):
    """The canonical string parses to an equal pattern, the string of which is the same."""
    parsed = type(pattern).parse(text)
    assert isinstance(parsed, Pattern)
    assert (parsed, str(parsed), hash(parsed)) == (pattern, text, hash(pattern))


def refused(family, text, complaint):
    """A bad string is refused in one line that names the rule and the value."""
    with pytest.raises(InputError) as error:
        family.parse(text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
