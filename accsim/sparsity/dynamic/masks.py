"""Block masks of attention: which tiles of block × block scores are computed.

Query i of tq stands at position i + tk − tq (the queries are the last of the keys: prefill,
chunks, decode). A block is computed when any pair in it is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.base.rng import stream

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# Assumed shares of a block's synthetic score: keys a head likes everywhere, and nearness.
COLUMN_SHARE = 0.5
NEARNESS = 2.0


@dataclass(frozen=True, eq=False)
class BlockMask:
    """``kept`` (heads, ⌈tq/block⌉, ⌈tk/block⌉): which blocks of a tq × tk score matrix."""

    tq: int
    tk: int
    block: int
    kept: Bools

    def __post_init__(self) -> None:
        shape = (-(-self.tq // self.block), -(-self.tk // self.block))
        if self.kept.ndim != 3 or self.kept.shape[1:] != shape:
            raise InputError(
                f"a mask of {self.tq}×{self.tk} in blocks of {self.block} has "
                f"{shape[0]}×{shape[1]} blocks a head; got {self.kept.shape}"
            )

    @property
    def rows(self) -> Ints:
        """Queries of each block row."""
        return _sizes(self.tq, self.block)

    @property
    def keys(self) -> Ints:
        """Keys of each block column."""
        return _sizes(self.tk, self.block)

    @property
    def scores(self) -> int:
        """Scores computed, all heads."""
        return int(np.einsum("hqk,q,k->", self.kept.astype(np.int64), self.rows, self.keys))

    @property
    def density(self) -> float:
        """Scores computed over heads · tq · tk."""
        return self.scores / (len(self.kept) * self.tq * self.tk)

    def groups(self) -> dict[tuple[int, int], int]:
        """Return how many block rows there are of each (queries, keys attended), sorted."""
        keys = self.kept @ self.keys
        rows = np.broadcast_to(self.rows, keys.shape)
        pairs, counts = np.unique(
            np.stack([rows.ravel(), keys.ravel()], axis=1), axis=0, return_counts=True
        )
        return {
            (int(q), int(k)): int(count) for (q, k), count in zip(pairs, counts, strict=True) if k
        }

    def elements(self) -> Bools:
        """Return the mask score by score: bool, (heads, tq, tk)."""
        return self.kept.repeat(self.rows, axis=1).repeat(self.keys, axis=2)


def of_elements(mask: Bools, block: int) -> BlockMask:
    """Return the blocks that hold at least one score of a (heads, tq, tk) mask."""
    heads, tq, tk = mask.shape
    rows, columns = -(-tq // block), -(-tk // block)
    padded = np.zeros((heads, rows * block, columns * block), np.bool_)
    padded[:, :tq, :tk] = mask
    tiles = padded.reshape(heads, rows, block, columns, block)
    return BlockMask(tq, tk, block, np.asarray(tiles.any(axis=(2, 4))))


def window(
    heads: int, tq: int, tk: int, block: int, width: int | None = None, *, causal: bool = True
) -> BlockMask:
    """Return causal attention, of ``width`` positions (itself included) if given.

    Not causal: ``width`` positions to either side, itself in both.
    """
    first, last, start, stop = _positions(tq, tk, block)
    allowed: Bools = np.ones((len(first), start.shape[1]), np.bool_)
    if causal:
        allowed = allowed & (start <= last)
    if width is not None:
        allowed = allowed & (stop > first - width)
    if width is not None and not causal:
        allowed = allowed & (start < last + width)
    return BlockMask(tq, tk, block, np.repeat(allowed[None], heads, axis=0))


def big_bird(
    heads: int,
    extent: int,
    block: int,
    *,
    window: int,
    globals_: int,
    randoms: int,
    seed: int,
    name: str,
) -> BlockMask:
    """Return BigBird's mask: a band, global rows and columns, random blocks for each head.

    ``window`` blocks around the diagonal (odd; cut off at the edges), the first ``globals_`` block
    rows and columns, and ``randoms`` more in each other row, as far as there are any.
    """
    if window % 2 == 0:
        raise InputError(f"BigBird's window is an odd number of blocks; got {window}")
    count = -(-extent // block)
    at = np.arange(count)
    base = np.abs(at[:, None] - at) <= window // 2
    base |= (at[:, None] < globals_) | (at < globals_)
    lottery = stream(seed, "bigbird", name, count).random((heads, count, count))
    lottery[:, base] = 2.0
    drawn = lottery.argsort(axis=-1, kind="stable")[..., :randoms]
    kept = np.zeros((heads, count, count), np.bool_)
    np.put_along_axis(kept, drawn, True, axis=-1)
    return BlockMask(extent, extent, block, kept | base)


def top_blocks(
    heads: int, tq: int, tk: int, block: int, share: float, *, seed: int, name: str
) -> BlockMask:
    """Keep the round(share · blocks), at least one, highest blocks of each row, head by head.

    Synthetic scores: keys that a head likes for all queries, nearness to the diagonal, and noise
    of each block (shares assumed).
    """
    first, last, start, stop = _positions(tq, tk, block)
    rng = stream(seed, "attention scores", name, heads, tq, tk, block)
    liked = rng.standard_normal((heads, 1, start.shape[1]))
    noise = rng.standard_normal((heads, len(first), start.shape[1]))
    away = np.abs((start + stop) / 2 - (first + last) / 2) / block
    score = COLUMN_SHARE**0.5 * liked + (1 - COLUMN_SHARE) ** 0.5 * noise + NEARNESS / (1 + away)
    keep = max(1, round(share * start.shape[1]))
    best = np.argsort(-score, axis=-1, kind="stable")[..., :keep]
    kept = np.zeros(score.shape, np.bool_)
    np.put_along_axis(kept, best, True, axis=-1)
    return BlockMask(tq, tk, block, kept)


def _positions(tq: int, tk: int, block: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Return first and last query position of a block (columns), first and last key (rows)."""
    if tk < tq:
        raise InputError(f"attention has at least as many keys as queries; got {tk} < {tq}")
    first = np.arange(0, tq, block)[:, None]
    start = np.arange(0, tk, block)[None, :]
    last = np.minimum(first + block, tq) - 1
    stop = np.minimum(start + block, tk) - 1
    return first + tk - tq, last + tk - tq, start, stop


def _sizes(extent: int, block: int) -> Ints:
    return np.diff(np.append(np.arange(0, extent, block), extent)).astype(np.int64)
