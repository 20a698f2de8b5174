"""Two masks, one a direction: each is n:m of what its pass multiplies."""

import numpy as np
import pytest
from sparsity import pattern_laws as laws

from accsim.sparsity.bidirectional import Bidirectional
from accsim.sparsity.nm import NM

ALL = [Bidirectional(n, m) for n, m in [(1, 4), (2, 4), (2, 8), (3, 5), (1, 1)]]


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_forward(pattern):
    laws.generator_passes_checker(pattern)
    laws.idempotent(pattern)
    laws.scale_does_not_matter(pattern)
    laws.block_bound_holds(pattern)
    laws.round_trips(str(pattern), pattern)


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_backward(pattern):
    for k, n in laws.SHAPES:
        for ties in (False, True):
            w = laws.weights(k, n, ties=ties)
            mask = pattern.backward_mask(w)
            assert (mask.shape, mask.flags.c_contiguous) == ((k, n), True)
            assert pattern.check_backward(mask) == []
            for row in range(k):  # the twin: sort every group of every row
                for first in range(0, n, pattern.m):
                    group = w[row, first : first + pattern.m].tolist()
                    expected = np.zeros(len(group), bool)
                    expected[laws.largest(group, pattern.n)] = True
                    assert np.array_equal(mask[row, first : first + pattern.m], expected)


def test_the_two_masks_differ_and_each_breaks_the_others_rule():
    w = laws.weights(64, 64)
    pattern = Bidirectional(2, 8)
    assert (pattern.mask(w) != pattern.backward_mask(w)).any()
    assert pattern.check(pattern.backward_mask(w))
    assert pattern.check_backward(pattern.mask(w))[0].startswith("of Wᵀ: group")


def test_two_copies_are_stored():
    mask = np.zeros((10, 4), bool)
    assert Bidirectional(2, 4).stored(mask) == (2 + 2 + 2) * 4 + 2 * 10
    assert Bidirectional(2, 4).metadata_bits(mask) == 2 * ((2 + 2 + 2) * 4 + 2 * 10)
    both = Bidirectional(2, 4).packed_bits(np.zeros((8, 8), bool), 16)
    assert both == 2 * NM(2, 4).packed_bits(np.zeros((8, 8), bool), 16)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("bidirectional", "must be written bidirectional:n:m"),
     ("bidirectional:2:4:exact", "got 'bidirectional:2:4:exact'"),
     ("bidirectional:5:4", "1 <= n <= m")],
)  # fmt: skip
def test_bad_strings(text, complaint):
    laws.refused(Bidirectional, text, complaint)


def test_strings_of_other_families():
    assert Bidirectional.parse("2:8") is None
