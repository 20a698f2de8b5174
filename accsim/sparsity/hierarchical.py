"""Hierarchical structured sparsity (HSS): n:m of the weights, then n:m of their blocks, and up."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.nm import NM, index_bits
from accsim.sparsity.tiles import SHOWN, extent, spread, tile_counts, tile_sums
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]

MAX_RANKS = 4
MAX_SPAN = 1024


@dataclass(frozen=True)
class Hierarchical(Pattern):
    """Ranks of n:m along k, the lowest first: ``hss:2:4+4:8`` is HighLight's HSS 4:8→2:4.

    Rank 0 keeps n0 of every m0 consecutive k of an output (by |w|); rank 1 keeps n1 of every m1
    consecutive blocks of m0 (by the Frobenius norm of what rank 0 left); rank 2 keeps n2 of m2
    of those, and so on. The lowest rank is pruned first (Wu et al., "HighLight", MICRO 2023).
    Ties keep the lowest k. Where k ends inside a block or a group of blocks, the short one keeps
    min(n, what is there) and competes by what is there.

    Metadata: ⌈log2 m_r⌉ bits for each kept child of rank r, empty slots included: the last,
    short group has the slots of the fullest it can be.
    """

    ranks: tuple[tuple[int, int], ...]

    family: ClassVar[str] = "hierarchical"
    grammar: ClassVar[str] = "hss:n0:m0+n1:m1 (hss:2:4+4:8)"
    summary: ClassVar[str] = "n0:m0 inside blocks of m0 k, then n1:m1 of the blocks (HSS)"

    def __post_init__(self) -> None:
        if not 2 <= len(self.ranks) <= MAX_RANKS:
            raise InputError(f"hss needs 2 to {MAX_RANKS} ranks; got '{self}'")
        if not all(1 <= n <= m for n, m in self.ranks):
            raise InputError(f"hss needs 1 <= n <= m in every rank; got '{self}'")
        if self.spans[-1] > MAX_SPAN:
            raise InputError(f"hss needs the product of its m <= {MAX_SPAN}; got '{self}'")

    @classmethod
    def parse(cls, text: str) -> Hierarchical | None:
        """Recognise ``hss:2:4+4:8``."""
        head, _, rest = text.partition(":")
        if head != "hss":
            return None
        ranks = [re.fullmatch(r"(\d{1,9}):(\d{1,9})", word) for word in rest.split("+")]
        if not all(ranks):
            raise InputError(
                f"hierarchical is written hss:n0:m0+n1:m1, low rank first; got '{text}'"
            )
        return cls(tuple((int(rank[1]), int(rank[2])) for rank in ranks if rank))

    def __str__(self) -> str:
        return "hss:" + "+".join(f"{n}:{m}" for n, m in self.ranks)

    @property
    def spans(self) -> tuple[int, ...]:
        """The k a group of each rank covers: m0, m0·m1, …."""
        return tuple(math.prod(m for _, m in self.ranks[: r + 1]) for r in range(len(self.ranks)))

    @property
    def quotas(self) -> tuple[int, ...]:
        """The most a group of each rank keeps: n0, n0·n1, …."""
        return tuple(math.prod(n for n, _ in self.ranks[: r + 1]) for r in range(len(self.ranks)))

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Prune rank by rank, the lowest first; deterministic, no seed used."""
        keep = NM(*self.ranks[0]).mask(weights)
        for rank, span in zip(self.ranks[1:], self.spans, strict=False):
            norms = np.sqrt(tile_sums(np.where(keep, weights, 0), span, 1, power=2))
            keep &= spread(NM(*rank).mask(norms), span, 1, keep.shape)
        return keep

    def check(self, mask: BoolArray) -> list[str]:
        """Count the children in use of each group, rank by rank, by running counts."""
        used, found, below = mask, [], 1
        for rank, ((n, m), span) in enumerate(zip(self.ranks, self.spans, strict=True)):
            counts = tile_counts(used, m, 1)
            noun = "weights" if rank == 0 else f"blocks of {below} k"
            found += [
                f"rank {rank}: k {extent(g, span, len(mask))} of column {c} "
                f"keeps {counts[g, c]} > {n} {noun}"
                for g, c in np.argwhere(counts > n)[:SHOWN]
            ]
            used, below = counts > 0, span
        return found[:SHOWN]

    def slots(self, k: int, *, fewest: bool = False) -> tuple[int, ...]:
        """Return the kept children per rank of one column of k rows, the lowest rank first.

        Where a short block competes with whole ones the weights decide: then this counts the
        most (``fewest``: the least) that can be kept.

        >>> Hierarchical(((2, 4), (4, 8))).slots(64)
        (16, 8)
        """
        whole, short = divmod(k, self.spans[-1])
        found = []
        for (n, _), span in zip(self.ranks[::-1], (*self.spans[-2::-1], 1), strict=True):
            children, rest = divmod(short, span)
            if children + (rest > 0) > n:  # not all can stay
                children, rest = (n - 1, rest) if fewest and rest else (n, 0)
            whole, short = whole * n + children, rest
            found.append(whole + (short > 0))
        return tuple(found[::-1])

    def metadata_bits(self, mask: BoolArray) -> int:
        """Bits of the slots of all ranks."""
        k, columns = mask.shape
        bits = zip(self.slots(k), self.ranks, strict=True)
        return int(columns * sum(slots * index_bits(m) for slots, (_, m) in bits))

    def stored(self, mask: BoolArray) -> int:
        """Return the slots of rank 0, empty ones included."""
        k, columns = mask.shape
        return int(self.slots(k)[0] * columns)

    def kept(self, k: int, n: int) -> int | None:
        """Return the kept weights; None where the weights decide if a short block stays."""
        most, fewest = self.slots(k)[0], self.slots(k, fewest=True)[0]
        return most * n if most == fewest else None

    def block_bound(self, rows: int) -> int | None:
        """Return the most over all aligned blocks; None where that fills the rows."""
        if self.quotas[-1] == self.spans[-1]:
            return rows
        span = self.spans[-1]
        starts = range(0, span, math.gcd(rows, span))
        bound = max(
            sum(self._most(len(self.ranks) - 1, *part) for part in _parts(start, rows, span))
            for start in starts
        )
        return bound if bound < rows else None

    def _most(self, rank: int, start: int, stop: int) -> int:
        """Return the most that k start…stop−1 of one group of ``rank`` can hold."""
        n = self.ranks[rank][0]
        if rank == 0 or (start, stop) == (0, self.spans[rank]):
            return min(self.quotas[rank], stop - start)
        parts = _parts(start, stop - start, self.spans[rank - 1])
        return sum(sorted((self._most(rank - 1, *part) for part in parts), reverse=True)[:n])


def _parts(start: int, rows: int, span: int) -> Iterator[tuple[int, int]]:
    """Cut rows from start on into pieces of the groups of ``span`` they touch, group-relative."""
    for group in range(start // span, -(-(start + rows) // span)):
        yield max(start - group * span, 0), min(start + rows - group * span, span)
