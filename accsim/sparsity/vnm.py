"""V:n:m sparsity (VENOM): V outputs share 4 of every m consecutive k, and keep n:4 inside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.nm import MAX_GROUP, NM, index_bits
from accsim.sparsity.tiles import SHOWN, extent, largest, padded, tile_counts, tile_sums
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]
    Ints = npt.NDArray[np.int64]

SHARED = 4  # k positions a tile keeps: what sparse tensor cores select from
MAX_TILE = 1024


@dataclass(frozen=True)
class VNM(Pattern):
    """A tile of m consecutive k × V consecutive outputs: 4 of its k for all, then n of 4 in each.

    The 4 k are those of largest Σ|w| over the tile's outputs, then every output keeps the n
    largest |w| of them (Castro et al., "VENOM", SC 2023, in its outputs × k orientation: 4 of m
    columns for V rows). Ties keep the lowest k. A last tile of fewer outputs is scored by what
    is there; a last tile of r < m k keeps min(4, r) of them and min(n, r) in each output.

    Metadata: 2 bits for each stored slot, and for each tile the 4 (or r) k in ⌈log2 m⌉ bits each.
    """

    v: int
    n: int
    m: int

    family: ClassVar[str] = "vnm"
    grammar: ClassVar[str] = "V:n:m (64:2:8)"
    summary: ClassVar[str] = "V outputs share 4 of every m k by Σ|w|, then n:4 inside (VENOM)"

    def __post_init__(self) -> None:
        legal = 1 <= self.v <= MAX_TILE and 1 <= self.n <= SHARED <= self.m <= MAX_GROUP
        if not legal:
            raise InputError(
                f"pattern V:n:m needs 1 <= V <= {MAX_TILE} and 1 <= n <= {SHARED} <= m "
                f"<= {MAX_GROUP}; got '{self}'"
            )

    @classmethod
    def parse(cls, text: str) -> VNM | None:
        """Recognise ``64:2:8``."""
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9}):(\d{1,9})", text)
        return cls(int(match[1]), int(match[2]), int(match[3])) if match else None

    def __str__(self) -> str:
        return f"{self.v}:{self.n}:{self.m}"

    @cached_property
    def rule(self) -> NM:
        """What a single output obeys: n:m."""
        return NM(self.n, self.m)

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep by magnitude, shared k first; deterministic, no seed used."""
        k, n = weights.shape
        groups = padded(weights, self.m, 1).reshape(-1, self.m, n)
        shared = self._shared(weights)
        inside = np.take_along_axis(groups, shared, axis=1)
        chosen = NM(self.n, SHARED).mask(inside.reshape(-1, n)).reshape(inside.shape)
        keep = np.zeros(groups.shape, dtype=np.bool_)
        np.put_along_axis(keep, shared, chosen, axis=1)
        return np.ascontiguousarray(keep.reshape(-1, n)[:k])

    def _shared(self, weights: FloatArray) -> Ints:
        """Return the 4 k positions of each group and output, ascending: int64, (groups, 4, n).

        Padding comes last in a group and weighs nothing: it is chosen last, here and inside.
        """
        scores = padded(tile_sums(weights, 1, self.v, power=1), self.m, 1)
        by_tile = np.ascontiguousarray(
            scores.reshape(-1, self.m, scores.shape[1]).transpose(0, 2, 1)
        )
        at = np.nonzero(largest(by_tile, SHARED))[2].reshape(*by_tile.shape[:2], SHARED)
        return np.repeat(at.transpose(0, 2, 1), self.v, axis=2)[:, :, : weights.shape[1]]

    def check(self, mask: BoolArray) -> list[str]:
        """Count by running counts: n in each m of an output, 4 distinct k in each tile."""
        k, n = mask.shape
        used = tile_counts(tile_counts(mask, 1, self.v) > 0, self.m, 1)
        found = [
            f"tile ({g}, {t}) (k {extent(g, self.m, k)}, outputs {extent(t, self.v, n)}) "
            f"uses {used[g, t]} > {SHARED} of its k"
            for g, t in np.argwhere(used > SHARED)[:SHOWN]
        ]
        return (found + self.rule.check(mask))[:SHOWN]

    def metadata_bits(self, mask: BoolArray) -> int:
        """Bits of all slots and of the shared k of all tiles."""
        k, n = mask.shape
        shared = NM(SHARED, self.m).slots(k) * -(-n // self.v)
        return int(self.stored(mask) * index_bits(SHARED) + shared * index_bits(self.m))

    def stored(self, mask: BoolArray) -> int:
        """Return the slots of all groups, empty ones included."""
        return self.rule.stored(mask)

    def kept(self, k: int, n: int) -> int:
        """Every group of an output keeps as many as it may."""
        return self.rule.kept(k, n)

    def block_bound(self, rows: int) -> int | None:
        """Return what n:m allows an output; None where that fills the rows."""
        bound = self.rule.block_bound(rows)
        return bound if bound < rows or self.n == self.m else None
