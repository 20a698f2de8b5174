"""Tiles of a matrix, ragged at the far edges: scored, counted, chosen; and whole-tile patterns."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.sparsity.share import keep_of
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]
    Ints = npt.NDArray[np.int64]

SHOWN = 20  # violations a checker names


def padded(values: FloatArray, rows: int, cols: int) -> FloatArray:
    """Return ``values`` with zeros up to whole tiles, C-contiguous: sums then have one order."""
    k, n = values.shape
    short = (-k % rows, -n % cols)
    if any(short):
        return np.pad(values, ((0, short[0]), (0, short[1])))
    return np.ascontiguousarray(values)


def tile_sums(weights: FloatArray, rows: int, cols: int, power: int) -> npt.NDArray[np.float64]:
    """Return Σ|w|^power of each rows × cols tile, in float64; an edge tile sums what is there."""
    whole = np.abs(padded(weights, rows, cols))
    k, n = whole.shape
    terms = whole if power == 1 else np.square(whole, dtype=np.float64)
    down = terms.reshape(k // rows, rows, n).sum(axis=1, dtype=np.float64) if rows > 1 else terms
    across = down.reshape(k // rows, n // cols, cols).sum(axis=2, dtype=np.float64)
    return np.asarray(across, dtype=np.float64)


def tile_counts(mask: BoolArray, rows: int, cols: int) -> Ints:
    """Return the kept weights of each rows × cols tile, by differences of running counts."""
    counts = mask
    for axis, size in ((1, cols), (0, rows)):
        if size > 1:
            length = mask.shape[axis]
            last = np.minimum(np.arange(size, length + size, size), length) - 1
            running = np.cumsum(counts, axis=axis, dtype=np.int64)
            counts = np.diff(running.take(last, axis=axis), axis=axis, prepend=0)
    return counts.astype(np.int64)


def spread(tiles: BoolArray, rows: int, cols: int, shape: tuple[int, ...]) -> BoolArray:
    """Return a mask of ``shape`` whose weights are kept where their tile is."""
    k, n = shape
    return np.ascontiguousarray(np.repeat(np.repeat(tiles, cols, axis=1)[:, :n], rows, axis=0)[:k])


def largest(scores: FloatArray, keep: int) -> BoolArray:
    """Mark the ``keep`` largest along the last axis; ties to the lowest index.

    >>> largest(np.array([1.0, 3.0, 2.0, 2.0]), 2).tolist()
    [False, True, True, False]
    """
    count = scores.shape[-1]
    if not 0 < keep < count:
        return np.full(scores.shape, keep > 0, dtype=np.bool_)
    lanes = scores.reshape(-1, count)
    threshold = np.partition(lanes, count - keep, axis=1)[:, count - keep, None]
    chosen = lanes >= threshold
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > keep)
    if crowded.size:
        above = lanes[crowded] > threshold[crowded]
        level = lanes[crowded] == threshold[crowded]
        room = keep - np.count_nonzero(above, axis=1)[:, None]
        chosen[crowded] = above | (level & (np.cumsum(level, axis=1) <= room))
    return chosen.reshape(scores.shape)


def extent(index: int, size: int, end: int) -> str:
    """Return the range a tile covers, as in ``32…63``."""
    return f"{index * size}…{min((index + 1) * size, end) - 1}"


class WholeTiles(Pattern):
    """Tiles of rows × cols kept whole or not at all: the round((1 − s)·count) best of the matrix.

    A tile at a ragged edge is scored by what is there, counts as one, and is stored padded with
    zeros. Ties keep the lowest index, row-major over (tile of k, tile of n).
    """

    sparsity: float

    @property
    @abstractmethod
    def tile(self) -> tuple[int, int]:
        """Rows (k) and columns (n) of a tile."""

    @property
    @abstractmethod
    def power(self) -> int:
        """A tile's score is its Σ|w|^power."""

    @property
    def noun(self) -> str:
        """What a violation calls a tile."""
        return "block"

    def pools(self, tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View a (k tiles, n tiles) array as (pools, tiles): each pool has a budget of its own."""
        return tiles.reshape(1, -1)

    def unpool(self, chosen: BoolArray, shape: tuple[int, ...]) -> BoolArray:
        """Undo :meth:`pools`."""
        return chosen.reshape(shape)

    def grid(self, k: int, n: int) -> tuple[int, int]:
        """Return the tiles along k and n, ragged ones included."""
        rows, cols = self.tile
        return -(-k // rows), -(-n // cols)

    def held(self, mask: BoolArray) -> BoolArray:
        """Return which tiles hold a kept weight: bool, (k tiles, n tiles)."""
        return tile_counts(mask, *self.tile) > 0

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the tiles of highest score; deterministic, no seed used."""
        scores = tile_sums(weights, *self.tile, self.power)
        pools = self.pools(scores)
        chosen = largest(pools, keep_of(pools.shape[1], self.sparsity))
        return spread(self.unpool(chosen, scores.shape), *self.tile, weights.shape)

    def check(self, mask: BoolArray) -> list[str]:
        """Count each tile by running counts: full or empty, and no more than the budget."""
        (rows, cols), (k, n) = self.tile, mask.shape
        counts = tile_counts(mask, rows, cols)
        sizes = np.multiply.outer(
            np.minimum(rows, k - np.arange(0, k, rows)), np.minimum(cols, n - np.arange(0, n, cols))
        )
        found = [
            f"{self.noun} ({r}, {c}) (k {extent(r, rows, k)}, outputs {extent(c, cols, n)}) "
            f"keeps {counts[r, c]} of its {sizes[r, c]} weights"
            for r, c in np.argwhere((counts > 0) & (counts < sizes))[:SHOWN]
        ]
        return (found + self._over(counts > 0))[:SHOWN]

    def _over(self, held: BoolArray) -> list[str]:
        pools = self.pools(held)
        counts, most = pools.sum(axis=1), keep_of(pools.shape[1], self.sparsity)
        return [
            f"{self._pool_name(pool)} {counts[pool]} > {most} {self.noun}s"
            for pool in np.flatnonzero(counts > most)[:SHOWN]
        ]

    def _pool_name(self, pool: int) -> str:
        return "keeps"

    def stored(self, mask: BoolArray) -> int:
        """Return the values of all stored tiles, padding at ragged edges included."""
        rows, cols = self.tile
        return int(np.count_nonzero(self.held(mask))) * rows * cols

    def kept(self, k: int, n: int) -> int | None:
        """Return the kept weights; None where the weights decide which tiles are ragged ones."""
        rows, cols = self.tile
        count = self.grid(k, n)[0] * self.grid(k, n)[1]
        keep = keep_of(count, self.sparsity)
        if keep in (0, count):
            return k * n if keep else 0
        if (k > rows and k % rows) or (n > cols and n % cols):
            return None
        return keep * min(rows, k) * min(cols, n)

    def block_bound(self, rows: int) -> int | None:
        """A column may be full anywhere: only the mask can tell (sparsity 0 is dense)."""
        return rows if self.sparsity == 0 else None
