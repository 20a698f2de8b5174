"""Output blocks: column vectors of 1, 2 or 4 outputs whose k are coded as distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity import laws

from accsim.sparsity.column_vector import ColumnVector
from accsim.sparsity.output_block import OutputBlock

patterns = st.builds(OutputBlock, st.sampled_from([1, 2, 4]), laws.shares)


def slow_bytes(mask, height):
    """Code every distance with 255 a byte: a zero byte for 255 further."""
    k, n = mask.shape
    total = 0
    for left in range(0, n, height):
        at = -1
        for row in range(k):
            if mask[row, left : left + height].any():
                distance, at = row - at, row
                while distance > 255:
                    distance, total = distance - 255, total + 1
                total += 1
    return total


@given(patterns, laws.sides, laws.sides, laws.seeds)
@settings(max_examples=60, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, k, n, seed)
    twin = ColumnVector(pattern.height, pattern.sparsity)  # itself tested against plain loops
    w = laws.weights(k, n, seed, step=1)
    mask = pattern.mask(w)
    assert np.array_equal(mask, twin.mask(w))
    assert pattern.kept(k, n) == twin.kept(k, n)
    assert pattern.stored(mask) == twin.stored(mask)


@given(st.sampled_from([1, 2, 4]), st.integers(1, 900), st.integers(1, 9), laws.seeds)
@settings(max_examples=60, deadline=None)
def test_metadata_equals_the_loops(height, k, n, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((k, n)) < rng.choice([0, 0.002, 0.01, 0.5, 1])
    groups = -(-n // height)
    expected = 8 * slow_bytes(mask, height) + 32 * (groups + 1)
    assert OutputBlock(height, 0.5).metadata_bits(mask) == expected


def test_a_distance_over_255_needs_another_byte():
    for row, size in ((0, 1), (254, 1), (255, 2), (509, 2), (510, 3)):
        mask = np.zeros((600, 1), bool)
        mask[row] = True
        assert OutputBlock(1, 0.5).metadata_bits(mask) == 8 * size + 64


def test_checker_names_the_place():
    mask = OutputBlock(4, 0.75).mask(laws.nonzero(4, 8))
    assert OutputBlock(4, 0.75).check(mask) == []
    row, col = np.argwhere(mask)[0]
    mask[row, col] = False
    [violation] = OutputBlock(4, 0.75).check(mask)
    assert violation.startswith(f"block ({row}, {col // 4}) (k {row}…{row}, outputs {col}…")
    assert violation.endswith("keeps 3 of its 4 weights")
    mask[:2] = True
    assert "blocks" in OutputBlock(4, 0.75).check(mask)[-1]


@pytest.mark.parametrize("text", ["ob:1@0", "ob:2@0.9", "ob:4@0.9"])
def test_strings(text):
    laws.prints_and_parses(OutputBlock, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ob:3@0.5", "needs M 1, 2 or 4; got '3'"),
        ("ob:8@0.5", "needs M 1, 2 or 4; got '8'"),
        ("ob:4@1.5", "0 <= s < 1; got '1.5'"),
        ("ob:4@half", "0 <= s < 1; got 'ob:4@half'"),
        ("ob@0.5", "written ob:M@s; got 'ob@0.5'"),
    ],
)
def test_refusals(text, complaint):
    laws.refuses(OutputBlock, text, complaint)


def test_printed_retained():
    """The same choice as column vectors of 4."""
    laws.retains(OutputBlock(4, 0.75), iid=0.376, scaled=0.506)
