"""Bidirectional n:m (BDWP, Bi-Mask): one mask along k for forward, another along n for backward."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Bidirectional(Pattern):
    """Two independent n:m masks of the same weights, hence two packed copies.

    :meth:`mask` is the forward one (groups along k, as in Y = X·W), :meth:`backward_mask` the other
    (groups along n, as in dX = dY·Wᵀ). Size and metadata count both copies. Source: BDWP, arXiv
    2309.13015.
    """

    n: int
    m: int

    family: ClassVar[str] = "bidirectional"
    grammar: ClassVar[str] = "bidirectional:n:m (bidirectional:2:8)"
    summary: ClassVar[str] = "n:m along k for the forward and again along n for the backward pass"

    def __post_init__(self) -> None:
        NM(self.n, self.m)

    @classmethod
    def parse(cls, text: str) -> Bidirectional | None:
        """Recognise ``bidirectional:2:8``."""
        if not text.startswith("bidirectional"):
            return None
        match = re.fullmatch(r"bidirectional:(\d{1,9}):(\d{1,9})", text)
        if match is None:
            raise InputError(f"pattern must be written bidirectional:n:m; got '{text}'")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"bidirectional:{self.n}:{self.m}"

    @property
    def _each(self) -> NM:
        return NM(self.n, self.m)

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the n largest |w| of every m consecutive k: what the forward pass multiplies."""
        return self._each.mask(weights, seed)

    def backward_mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the n largest |w| of every m consecutive n: (k, n), for the backward pass."""
        return np.ascontiguousarray(self._each.mask(weights.T, seed).T)

    def check(self, mask: BoolArray) -> list[str]:
        """Check the forward mask."""
        return self._each.check(mask)

    def check_backward(self, mask: BoolArray) -> list[str]:
        """Check the backward mask; k and columns in the words are those of Wᵀ."""
        return [f"of Wᵀ: {violation}" for violation in self._each.check(mask.T)]

    def metadata_bits(self, mask: BoolArray) -> int:
        """Bits of both copies; they depend on the shape alone."""
        return self._each.metadata_bits(mask) + self._each.metadata_bits(mask.T)

    def stored(self, mask: BoolArray) -> int:
        """Return the slots of both copies."""
        return self._each.stored(mask) + self._each.stored(mask.T)

    def kept(self, k: int, n: int) -> int:
        """Return how many the forward mask keeps."""
        return self._each.kept(k, n)

    def block_bound(self, rows: int) -> int:
        """Return the bound of the forward mask."""
        return self._each.block_bound(rows)
