"""Tile-element-wise sparsity (TEW): tile-wise, and the best elements outside of tiles again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.formats import Csr
from accsim.sparsity.share import share_text
from accsim.sparsity.tile_wise import (
    NUMBER,
    Tile,
    TileWise,
    budget,
    numbers,
    share_of,
    surviving,
    too_many,
)
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class TileElementWise(Pattern):
    """Tile-wise at ``tiles_sparsity``, then the largest ``restored`` share of all elements again.

    Total sparsity is the difference. A mask does not name its residue, so :meth:`split` takes the
    fullest columns as the tiles'. Should the restored elements make another column fuller than one
    of a tile (many elements restored, very few rows kept), columns outside the tiles take fewer
    than any tile keeps rows. Unlike the others it is idempotent only while the residue is small:
    pruning again ranks columns without what their tiles dropped.
    Metadata: tile-wise of the tiles + CSR of the residue (16-bit k, 32 where k > 65536; pointers).
    """

    width: int
    tiles_sparsity: float
    restored: float

    family: ClassVar[str] = "tew"
    grammar: ClassVar[str] = "tew:G@s+d (tew:128@0.76+0.01)"
    summary: ClassVar[str] = "tile-element-wise: tile-wise at s, the best share d restored"

    def __post_init__(self) -> None:
        TileWise(self.width, self.tiles_sparsity)  # refuses a bad width or share
        if not 0 < self.restored <= self.tiles_sparsity:
            raise InputError(
                f"tew:G@s+d needs 0 < d <= s; got '{self.tiles_sparsity}+{self.restored}'"
            )

    @classmethod
    def parse(cls, text: str) -> TileElementWise | None:
        """Recognise ``tew:128@0.76+0.01``."""
        match = numbers(text, "tew", rf"{NUMBER}\+{NUMBER}")
        if match is None:
            return None
        return cls(int(match[1]), share_of(match[2], "tew"), share_of(match[3], "tew"))

    def __str__(self) -> str:
        return f"tew:{self.width}@{share_text(self.tiles_sparsity)}+{share_text(self.restored)}"

    @property
    def _tile_wise(self) -> TileWise:
        return TileWise(self.width, self.tiles_sparsity)

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Prune tiles and restore; deterministic, no seed used. Ties: lowest index, row-major."""
        tiles = self._tile_wise.mask(weights)
        sizes = np.where(tiles, -1.0, np.abs(weights)).astype(np.float32, copy=False)
        mask = tiles | self._best(sizes)
        if not self.check(mask):
            return mask
        inside = tiles.any(axis=0)
        fewest = int(tiles[:, inside].sum(axis=0).min()) if inside.any() else 1
        outside = np.flatnonzero(~inside)
        order = np.argsort(-sizes[:, outside], axis=0, kind="stable")[fewest - 1 :]
        sizes[order, outside] = -1.0
        return tiles | self._best(sizes)

    def _best(self, sizes: npt.NDArray[np.float32]) -> BoolArray:
        """Mark the largest ``restored`` share; what is negative is never taken."""
        flat = sizes.ravel()
        count = min(budget(self.restored, *sizes.shape), int(np.count_nonzero(flat >= 0)))
        best = np.zeros(flat.size, np.bool_)
        if count:
            limit = np.partition(flat, flat.size - count)[flat.size - count]
            np.greater(flat, limit, out=best)
            best[np.flatnonzero(flat == limit)[: count - int(best.sum())]] = True
        return best.reshape(sizes.shape)

    def split(self, mask: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return the mask of the tiles and the mask of the residue."""
        count = surviving(self._tile_wise.share, *mask.shape)
        counts = mask.sum(axis=0)
        fullest = np.argsort(-counts, kind="stable")[:count]
        columns = np.sort(fullest[counts[fullest] > 0])
        tiles = np.zeros_like(mask)
        for at in range(0, columns.size, self.width):
            cols = columns[at : at + self.width]
            tiles[np.ix_(mask[:, cols].all(axis=1), cols)] = True
        return tiles, mask & ~tiles

    def tiles(self, mask: BoolArray) -> tuple[Tile, ...]:
        """Return the tiles of a legal mask, without the residue."""
        return self._tile_wise.tiles(self.split(mask)[0])

    def check(self, mask: BoolArray) -> list[str]:
        """Take the tiles out, count what is left, and count all."""
        left = int(np.count_nonzero(self.split(mask)[1]))
        residue = budget(self.restored, *mask.shape)
        return too_many(left, residue, "outside of tiles keeps") + too_many(
            int(np.count_nonzero(mask)), budget(self._tile_wise.share, *mask.shape) + residue
        )

    def metadata_bits(self, mask: BoolArray) -> int:
        """Return the bits of the tiles and of the residue's CSR."""
        tiles, residue = self.split(mask)
        index = Csr(16 if mask.shape[0] <= 2**16 else 32)
        return self._tile_wise.metadata_bits(tiles) + index.metadata_bits(residue)

    def kept(self, k: int, n: int) -> int | None:
        """Depend on the weights: None."""
        return None

    def block_bound(self, rows: int) -> int | None:
        """Only the mask can tell."""
        return None
