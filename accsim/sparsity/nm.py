"""n:m sparsity: of every m consecutive k in a column of W the n largest |w| are kept."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]

MAX_GROUP = 1024


def index_bits(m: int) -> int:
    """Return ⌈log2 m⌉, the bits that name one of m positions.

    >>> [index_bits(m) for m in (1, 2, 4, 5, 8)]
    [0, 1, 2, 3, 3]
    """
    return (m - 1).bit_length()


@dataclass(frozen=True)
class NM(Pattern):
    """At most n kept of every m consecutive k; a shorter last group keeps min(n, its length).

    Metadata: ⌈log2 m⌉ bits for each stored slot. Ties keep the lowest index.
    """

    n: int
    m: int

    family: ClassVar[str] = "nm"
    grammar: ClassVar[str] = "n:m (2:4)"
    summary: ClassVar[str] = (
        "at most n kept of every m consecutive k in a column, e.g. 2:4, 1:4, 2:8"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m <= MAX_GROUP:
            raise InputError(
                f"pattern n:m needs 1 <= n <= m <= {MAX_GROUP}; got '{self.n}:{self.m}'"
            )

    @classmethod
    def parse(cls, text: str) -> NM | None:
        """Recognise ``2:4``."""
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        return cls(int(match[1]), int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the n largest |w| of each group of a (k, n) matrix; deterministic, no seed used."""
        k, columns = weights.shape
        groups = -(-k // self.m)
        padded = np.full((groups * self.m, columns), -1.0, dtype=np.float32)
        np.abs(weights, out=padded[:k], casting="same_kind")
        grouped = padded.reshape(groups, self.m, columns)
        if self.n == self.m:
            return np.ones((k, columns), dtype=np.bool_)
        keep = self._largest(grouped).reshape(groups * self.m, columns)
        return np.ascontiguousarray(keep[:k])

    def _largest(self, grouped: npt.NDArray[np.float32]) -> BoolArray:
        """Mark the n largest of axis 1; ties to the lowest index; padding (-1) always loses."""
        keep = np.zeros(grouped.shape, dtype=np.bool_)
        left = grouped.copy()
        for _ in range(self.n):
            best = left.argmax(axis=1)[:, None, :]  # argmax returns the first of equals
            np.put_along_axis(keep, best, True, axis=1)
            np.put_along_axis(left, best, -2.0, axis=1)
        return keep

    def check(self, mask: BoolArray) -> list[str]:
        """Count each group by sums of a sliding row window, unlike the generator."""
        k, _ = mask.shape
        running = np.vstack([np.zeros((1, mask.shape[1]), np.int64), np.cumsum(mask, axis=0)])
        starts = np.arange(0, k, self.m)
        counts = running[np.minimum(starts + self.m, k)] - running[starts]
        bad = np.argwhere(counts > self.n)
        return [
            f"group {g} (k {g * self.m}…{min(k, (g + 1) * self.m) - 1}) of column {c} "
            f"keeps {counts[g, c]} > {self.n}"
            for g, c in bad[:20]
        ]

    def metadata_bits(self, mask: BoolArray) -> int:
        """Bits of all stored slots of a (k, n) mask, empty slots included."""
        k, columns = mask.shape
        return int(self.slots(k) * columns * index_bits(self.m))

    def stored(self, mask: BoolArray) -> int:
        """Return the slots of all groups, empty ones included."""
        k, columns = mask.shape
        return int(self.slots(k) * columns)

    def slots(self, k: int) -> int:
        """Return the slots stored for k rows of one column.

        >>> NM(2, 4).slots(9)
        5
        """
        return k // self.m * self.n + min(self.n, k % self.m)

    def kept(self, k: int, n: int) -> int:
        """Every group keeps as many as it may."""
        return self.slots(k) * n

    def block_bound(self, rows: int) -> int:
        """Return the most over all aligned blocks: n of each group, or what of it lies inside."""
        most = 0
        for start in range(0, math.lcm(rows, self.m), rows):
            edges = [start, *range(-(-(start + 1) // self.m) * self.m, start + rows, self.m)]
            inside = zip(edges, [*edges[1:], start + rows], strict=True)
            most = max(most, sum(min(self.n, stop - begin) for begin, stop in inside))
        return most
