"""A sparsity pattern as another package would ship it: every step-th row of W is kept."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accsim.spec.pattern import Pattern


@dataclass(frozen=True)
class Stripes(Pattern):
    """Rows 0, step, 2·step … are kept; one number says it all."""

    step: int

    family: ClassVar[str] = "stripes"
    grammar: ClassVar[str] = "stripes/step (stripes/4)"
    summary: ClassVar[str] = "every step-th k of all outputs"

    @classmethod
    def parse(cls, text):
        """Recognise ``stripes/4``."""
        match = re.fullmatch(r"stripes/([1-9]\d*)", text)
        return cls(int(match[1])) if match else None

    def __str__(self):
        return f"stripes/{self.step}"

    def mask(self, weights, seed=0):
        """Keep every step-th row."""
        keep = np.zeros(weights.shape, dtype=np.bool_)
        keep[:: self.step] = True
        return keep

    def check(self, mask):
        """Name rows that are not where they should be."""
        rows = np.flatnonzero(mask.any(axis=1))
        return [f"row {row} is kept" for row in rows[rows % self.step != 0]]

    def metadata_bits(self, mask):
        """One number of 16 bits."""
        return 16

    def kept(self, k, n):
        """Return whole rows."""
        return -(-k // self.step) * n

    def block_bound(self, rows):
        """Return the most stripes in aligned rows."""
        starts = range(0, math.lcm(rows, self.step), rows)
        return max(sum(r % self.step == 0 for r in range(s, s + rows)) for s in starts)
