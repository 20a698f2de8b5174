"""What every whole-matrix pattern obeys: shared by the tests of the structured families."""

import numpy as np
import pytest
from hypothesis import strategies as st

import accsim
from accsim.base.errors import InputError

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 40)
shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.99])


def weights(k, n, seed=0, step=1 / 64):
    """Normal weights in multiples of ``step``: sums and squares are exact in any order.

    Step 1 gives few values and so many ties, with zeros of both signs.
    """
    rng = np.random.default_rng([k, n, seed])
    return (np.round(rng.standard_normal((k, n)) / step) * step).astype(np.float32)


def nonzero(k, n, seed=0):
    """The same without zeros: what is kept then says what to keep."""
    w = weights(k, n, seed)
    return np.where(w == 0, np.float32(1 / 64), w)


def best(scores, count):
    """Positions of the ``count`` largest scores, ties to the first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


def follows_the_laws(pattern, k, n, seed):
    """Legal, deterministic, unit-free, idempotent; the counts agree with the mask."""
    for step in (1 / 64, 1):
        w = weights(k, n, seed, step)
        before = w.copy()
        mask = pattern.mask(w)
        assert (mask.dtype, mask.shape, mask.flags.c_contiguous) == (np.bool_, (k, n), True)
        assert pattern.check(mask) == []
        for same in (w, -w, w * np.float32(4), w.astype(np.float64), np.asfortranarray(w)):
            assert np.array_equal(pattern.mask(same, seed=9), mask)
        assert np.array_equal(w, before), "weights were written to"
        assert pattern.kept(k, n) in (None, mask.sum())
        assert mask.sum() <= pattern.stored(mask)
        bits = pattern.stored(mask) * 16 + pattern.metadata_bits(mask)
        assert pattern.packed_bits(mask, 16) == bits
        stays_in_its_bounds(pattern, mask)
    full = nonzero(k, n, seed)
    mask = pattern.mask(full)
    assert np.array_equal(pattern.mask(np.where(mask, full, np.float32(0))), mask)
    assert np.array_equal(pattern.mask(np.where(mask, full, np.float32(-0.0))), mask)


def stays_in_its_bounds(pattern, mask):
    """No aligned block of rows holds more than ``block_bound`` says."""
    for rows in (1, 2, 3, 4, 6, 8, 16):
        bound = pattern.block_bound(rows)
        if bound is not None:
            assert bound <= rows
            for first in range(0, len(mask), rows):
                assert mask[first : first + rows].sum(axis=0).max() <= bound


def prints_and_parses(family, text):
    """The text is canonical: it reads back as an equal, equally hashed pattern."""
    pattern = family.parse(text)
    assert str(pattern) == text
    assert family.parse(str(pattern)) == pattern
    assert hash(family.parse(text)) == hash(pattern)
    for other in ("dense", "2:4", "unstructured@0.9", "", "x" + text):
        assert family.parse(other) is None


def refuses(family, text, complaint):
    """A bad string ends in one line that names the rule and the value."""
    with pytest.raises(InputError) as error:
        family.parse(text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def retains(pattern, iid, scaled):
    """The table of facts/patterns.md: i.i.d. within .003; with row and column scales within .02.

    The scales of the table are not ours (see ``synthetic_weights``), hence the wider band.
    """
    for plain, printed, within in ((True, iid, 0.003), (False, scaled, 0.02)):
        w = accsim.synthetic_weights(1024, 1024, iid=plain)
        mask = pattern.mask(w)
        assert mask.mean() == 0.25
        assert accsim.retained_magnitude(w, mask) == pytest.approx(printed, abs=within)


def packs(pattern, bits_an_element, size):
    """The metadata and fp16 size of a 4096 × 4096 matrix, to the digits printed in the facts."""
    mask = pattern.mask(accsim.synthetic_weights(4096, 4096))
    assert pattern.check(mask) == []
    assert pattern.kept(4096, 4096) == mask.sum() == 4096**2 // 4
    digits = len(bits_an_element) - len("0.")
    assert f"{pattern.metadata_bits(mask) / 4096**2:.{digits}f}" == bits_an_element
    assert f"{pattern.packed_bits(mask, 16) / (16 * 4096**2):.3f}" == size
