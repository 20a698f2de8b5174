"""The pattern ``traced``: no rule, the mask is the one that was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.spec.pattern import DENSE, Pattern, parse_pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]

LIKELY = ("1:4", "2:8", "2:4", "4:8")  # tightest first


@dataclass(frozen=True)
class Traced(Pattern):
    """Whatever the trace of the layer keeps; devices ask for the mask.

    Metadata: a bitmap, one bit an element. Weights without a trace are kept where not zero.
    """

    family: ClassVar[str] = "traced"
    grammar: ClassVar[str] = "traced"
    summary: ClassVar[str] = "the mask recorded in a trace file, whatever its shape"

    @classmethod
    def parse(cls, text: str) -> Traced | None:
        """Recognise ``traced``."""
        return TRACED if text == "traced" else None

    def __str__(self) -> str:
        return "traced"

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep what is not zero (−0.0 is zero)."""
        return np.asarray(weights != 0, dtype=np.bool_)

    def check(self, mask: BoolArray) -> list[str]:
        """Every mask is legal."""
        return []

    def metadata_bits(self, mask: BoolArray) -> int:
        """One bit an element."""
        return int(mask.size)

    def kept(self, k: int, n: int) -> int | None:
        """Only the mask can tell."""
        return None

    def block_bound(self, rows: int) -> int | None:
        """Only the mask can tell."""
        return None


TRACED = Traced()


def named(text: str) -> Pattern:
    """Return the pattern of a short string; ``traced`` needs no registration."""
    return TRACED if text.strip() == "traced" else parse_pattern(text)


def obeyed(mask: BoolArray, candidates: Sequence[str] = LIKELY) -> Pattern:
    """Return the first candidate whose rule a (k, n) mask obeys, dense if all is kept.

    ``traced`` if there is none. For importers: a device runs 2:4 weights fast only if the layer
    says that they are 2:4.

    >>> str(obeyed(np.tile([[True], [True], [False], [False]], (4, 3))))
    '2:4'
    """
    if mask.all():
        return DENSE
    for text in candidates:
        pattern = parse_pattern(text)
        if not pattern.check(mask):
            return pattern
    return TRACED
