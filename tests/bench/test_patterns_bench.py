"""A 4096 × 4096 mask generated, checked and packed, metadata counted: `--benchmark-enable`."""

import numpy as np
import pytest

import accsim

PATTERNS = ("2:4", "2:8", "64:2:8", "tw:128@0.75", "tvw:128@0.75", "tew:128@0.76+0.01",
            "bsr:32@0.75", "cv:8@0.75", "ob:4@0.75", "balanced:64@0.75", "hss:2:4+4:8",
            "transposable:2:8", "bidirectional:2:8", "unstructured@0.75")  # fmt: skip
SIDE = 4096


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_mask_from_weights_to_bits(benchmark, pattern):
    side = SIDE if benchmark.enabled else 256
    weights, family = accsim.synthetic_weights(side, side), accsim.pattern(pattern)

    def whole():
        mask = family.mask(weights)
        return mask, family.check(mask), np.packbits(mask), family.metadata_bits(mask)

    mask, violations, packed, bits = benchmark.pedantic(whole, rounds=3, iterations=1)
    assert not violations
    assert packed.nbytes == side * side // 8
    assert 0 < bits <= side * side * 2
    assert 0.2 < mask.mean() <= 0.5
