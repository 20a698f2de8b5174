"""Tile-wise sparsity: whole columns, then whole row segments of tiles; 2:4 on top (TVW).

*Accelerating Sparse DNNs Based on Tiled GEMM* (arXiv 2402.10876), *Tile-wise sparsity* (SC'20). A
tile is G surviving columns in their order (the last may be narrower); all of them keep the same k.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.sparsity.share import share_text
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]
    Ints = npt.NDArray[np.int64]

MAX_WIDTH = 65536
SHOWN = 20
TWO_OF_FOUR = NM(2, 4)


@dataclass(frozen=True, eq=False)
class Tile:
    """Surviving columns of W, ascending, and the k they keep, ascending (both int64)."""

    columns: Ints
    rows: Ints


def budget(density: float, k: int, n: int) -> int:
    """Return round(density·k·n): tiles keep at most so many elements."""
    return round(density * k * n)


def surviving(density: float, k: int, n: int) -> int:
    """Return how many columns survive: √density of them, as many as the budget needs and fills.

    >>> surviving(0.25, 1024, 1024), surviving(0.5, 1024, 1024), surviving(1.0, 4, 2)
    (512, 724, 2)
    """
    most = budget(density, k, n)
    return min(most, max(round(math.sqrt(density) * n), -(-most // k)))


def strongest_columns(weights: FloatArray, count: int) -> Ints:
    """Return the ``count`` columns of largest ‖w‖₂, ascending; ties: the lowest."""
    energy = np.square(weights, dtype=np.float64).sum(axis=0)
    return np.sort(np.argsort(-energy, kind="stable")[:count])


def strongest_rows(weights: FloatArray, columns: Ints, width: int, most: int) -> list[Tile]:
    """Return tiles whose row segments are the strongest of all tiles, ``most`` elements together.

    A segment's strength is its mean square, for whole tiles the order of ‖·‖₂/G. Every tile keeps
    its strongest; the others follow by strength (ties: lowest tile, then lowest k) until one does
    not fit.
    """
    starts = np.arange(0, columns.size, width)
    widths = np.diff(np.append(starts, columns.size))
    if not columns.size:
        return []
    squares = np.square(weights[:, columns], dtype=np.float64)
    strength = (np.add.reduceat(squares, starts, axis=1) / widths).T
    strength[np.arange(starts.size), strength.argmax(axis=1)] = np.inf
    order = np.argsort(-strength.ravel(), kind="stable")
    spent = np.cumsum(widths[order // weights.shape[0]])
    chosen = np.zeros(strength.size, np.bool_)
    chosen[order[: int(np.searchsorted(spent, most, side="right"))]] = True
    return [
        Tile(columns[start : start + width], np.flatnonzero(rows))
        for start, rows in zip(starts, chosen.reshape(strength.shape), strict=True)
    ]


def paint(tiles: list[Tile], shape: tuple[int, ...]) -> BoolArray:
    """Return the mask that keeps all of every tile."""
    mask = np.zeros(shape, np.bool_)
    for tile in tiles:
        mask[np.ix_(tile.rows, tile.columns)] = True
    return mask


def found_tiles(mask: BoolArray, width: int) -> list[Tile]:
    """Return the tiles of a mask: columns that keep anything, and the k any of a tile keeps."""
    columns = np.flatnonzero(mask.any(axis=0))
    each = [columns[at : at + width] for at in range(0, columns.size, width)]
    return [Tile(cols, np.flatnonzero(mask[:, cols].any(axis=1))) for cols in each]


def numbers(text: str, family: str, rest: str) -> re.Match[str] | None:
    """Match ``family:G@rest``; None for another family's text, InputError for a bad one."""
    if not re.match(rf"{family}(?![a-z])", text):
        return None
    match = re.fullmatch(rf"{family}:(\d{{1,9}})@{rest}", text)
    if match is None:
        spelled = {"tew": "tew:G@s+d (tew:128@0.76+0.01)"}.get(family, f"{family}:G@s")
        raise InputError(f"pattern must be written {spelled}; got '{text}'")
    return match


def share_of(text: str, family: str) -> float:
    """Return the number ``text`` writes; InputError with the family's grammar if it is none."""
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{family}:G@s needs a number; got '{text}'") from None


NUMBER = r"([0-9.eE-]+)"


@dataclass(frozen=True)
class TileWise(Pattern):
    """Columns, then 1×G row segments, each reduced to about √(1 − sparsity) by global strength.

    At most round((1 − sparsity)·k·n) are kept, less than G fewer. Every tile keeps at least one
    row, so that a mask shows its columns. Metadata: k bits a tile (which rows) + n bits (which
    columns).
    """

    width: int
    sparsity: float

    family: ClassVar[str] = "tw"
    grammar: ClassVar[str] = "tw:G@s (tw:128@0.75)"
    summary: ClassVar[str] = "tile-wise: whole columns, then row segments of tiles of G columns"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MAX_WIDTH:
            raise InputError(f"tw:G@s needs 1 <= G <= {MAX_WIDTH}; got '{self.width}'")
        if not 0 <= self.sparsity < 1:
            raise InputError(f"tw:G@s needs 0 <= s < 1; got '{self.sparsity}'")

    @classmethod
    def parse(cls, text: str) -> TileWise | None:
        """Recognise ``tw:128@0.75``."""
        match = numbers(text, "tw", NUMBER)
        return cls(int(match[1]), share_of(match[2], "tw")) if match else None

    def __str__(self) -> str:
        return f"tw:{self.width}@{share_text(self.sparsity)}"

    @property
    def share(self) -> float:
        """The share of elements kept."""
        return 1 - self.sparsity

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Prune columns, then row segments of a (k, n) matrix; deterministic, no seed used."""
        columns = strongest_columns(weights, surviving(self.share, *weights.shape))
        most = budget(self.share, *weights.shape)
        return paint(strongest_rows(weights, columns, self.width, most), weights.shape)

    def tiles(self, mask: BoolArray) -> tuple[Tile, ...]:
        """Return the tiles of a legal mask, in the order of their columns."""
        return tuple(found_tiles(mask, self.width))

    def check(self, mask: BoolArray) -> list[str]:
        """Compare each surviving column with the first one of its tile."""
        columns = np.flatnonzero(mask.any(axis=0))
        leaders = columns[np.arange(columns.size) // self.width * self.width]
        differs = mask[:, columns] != mask[:, leaders]
        found = too_many(int(np.count_nonzero(mask)), budget(self.share, *mask.shape))
        for row, at in _places(differs):
            one, other = ("keeps", "does not") if mask[row, columns[at]] else ("drops", "keeps it")
            found.append(
                f"tile {at // self.width}: column {columns[at]} {one} k {row}, "
                f"column {leaders[at]} of the same tile {other}"
            )
        return found[:SHOWN]

    def metadata_bits(self, mask: BoolArray) -> int:
        """Return k bits for each tile of the mask and n bits."""
        k, n = mask.shape
        tiles = -(-int(np.count_nonzero(mask.any(axis=0))) // self.width)
        return int(tiles * k + n)

    def kept(self, k: int, n: int) -> int | None:
        """Exact when all tiles are equally wide; else it depends on which segments are strong."""
        columns = surviving(self.share, k, n)
        if columns > self.width and columns % self.width:
            return None
        wide = min(columns, self.width)
        return budget(self.share, k, n) // wide * wide if wide else 0

    def block_bound(self, rows: int) -> int | None:
        """Only the mask can tell (except that sparsity 0 is dense)."""
        return rows if self.sparsity == 0 else None


@dataclass(frozen=True)
class TileVectorWise(Pattern):
    """Tile-wise with density 2·(1 − sparsity), then 2:4 along the surviving k of each tile.

    A row that no column of its tile would keep takes the place that costs least (a tile of few
    columns only): a mask thus shows the rows of its tiles. For the same reason no tile has one
    column (one more survives, or one less); W with a single column keeps the largest of plain 2:4.
    Half of the tiles' elements are kept; a tile whose k is no multiple of 4 keeps up to one more
    a column. Metadata: tile-wise + 2 bits a stored slot.
    """

    width: int
    sparsity: float

    family: ClassVar[str] = "tvw"
    grammar: ClassVar[str] = "tvw:G@s (tvw:128@0.75)"
    summary: ClassVar[str] = "tile-vector-wise: tile-wise, then 2:4 along the surviving k"

    def __post_init__(self) -> None:
        if not 2 <= self.width <= MAX_WIDTH:
            raise InputError(f"tvw:G@s needs 2 <= G <= {MAX_WIDTH}; got '{self.width}'")
        if not 0.5 <= self.sparsity < 1:
            raise InputError(f"tvw:G@s needs 0.5 <= s < 1 (2:4 takes half); got '{self.sparsity}'")

    @classmethod
    def parse(cls, text: str) -> TileVectorWise | None:
        """Recognise ``tvw:128@0.75``."""
        match = numbers(text, "tvw", NUMBER)
        return cls(int(match[1]), share_of(match[2], "tvw")) if match else None

    def __str__(self) -> str:
        return f"tvw:{self.width}@{share_text(self.sparsity)}"

    @property
    def share(self) -> float:
        """The share of elements in tiles, before 2:4."""
        return 2 * (1 - self.sparsity)

    def _columns(self, k: int, n: int) -> int:
        count = surviving(self.share, k, n)
        if count % self.width != 1:
            return count
        return count + 1 if count < min(n, budget(self.share, k, n)) else count - 1

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Prune tiles, then 2:4 inside them; deterministic, no seed used."""
        k, n = weights.shape
        if n == 1:
            return self._single(weights)
        columns = strongest_columns(weights, self._columns(k, n))
        mask = np.zeros(weights.shape, np.bool_)
        for tile in strongest_rows(weights, columns, self.width, budget(self.share, k, n)):
            place = np.ix_(tile.rows, tile.columns)
            sizes = np.abs(weights[place])
            mask[place] = _every_row(TWO_OF_FOUR.mask(sizes), sizes)
        return mask

    def _single(self, weights: FloatArray) -> BoolArray:
        mask = TWO_OF_FOUR.mask(weights)
        sizes = np.where(mask[:, 0], np.abs(weights[:, 0]), -1)
        order = np.argsort(-sizes, kind="stable")
        mask[order[budget(1 - self.sparsity, weights.shape[0], 1) :]] = False
        return mask

    def tiles(self, mask: BoolArray) -> tuple[Tile, ...]:
        """Return the tiles of a legal mask: their rows are those before 2:4."""
        return tuple(found_tiles(mask, self.width))

    def check(self, mask: BoolArray) -> list[str]:
        """Gather the rows of every tile and hold groups of four of them to two."""
        k, n = mask.shape
        if n == 1:
            most = budget(1 - self.sparsity, k, 1)
            return (too_many(int(mask.sum()), most) + TWO_OF_FOUR.check(mask))[:SHOWN]
        tiles = found_tiles(mask, self.width)
        area = sum(tile.rows.size * tile.columns.size for tile in tiles)
        found = too_many(area, budget(self.share, k, n), "tiles hold")
        for at, tile in enumerate(tiles):
            for words in TWO_OF_FOUR.check(mask[np.ix_(tile.rows, tile.columns)]):
                found.append(f"tile {at}, counted along its own rows and columns: {words}")
            if len(found) >= SHOWN:
                break
        return found[:SHOWN]

    def metadata_bits(self, mask: BoolArray) -> int:
        """Return k bits for each tile, n bits, and 2 bits for each stored slot."""
        return TileWise(self.width, 0.0).metadata_bits(mask) + 2 * self.stored(mask)

    def stored(self, mask: BoolArray) -> int:
        """Return the 2:4 slots of all tiles, empty ones included."""
        if mask.shape[1] == 1:
            return int(mask.sum())
        tiles = found_tiles(mask, self.width)
        return sum(TWO_OF_FOUR.slots(tile.rows.size) * tile.columns.size for tile in tiles)

    def kept(self, k: int, n: int) -> int | None:
        """Exact for a single tile; else the k of each tile depends on the weights."""
        if n == 1:
            return min(budget(1 - self.sparsity, k, 1), TWO_OF_FOUR.slots(k))
        columns = self._columns(k, n)
        if columns > self.width:
            return None
        rows = min(k, budget(self.share, k, n) // columns) if columns else 0
        return TWO_OF_FOUR.slots(rows) * columns

    def block_bound(self, rows: int) -> int | None:
        """Consecutive k that all survive, at any offset into the groups of four."""
        most = max(
            sum(min(2, stop - start) for start, stop in _cuts(offset, rows)) for offset in range(4)
        )
        return most if most < rows else None


def too_many(count: int, most: int, what: str = "keeps") -> list[str]:
    """Return the words for a count above its limit, none otherwise."""
    return [f"{what} {count} > {most}"] if count > most else []


def _places(bad: BoolArray) -> list[tuple[int, int]]:
    """Return the first places that are True, row by row."""
    rows = np.flatnonzero(bad.any(axis=1))[:SHOWN]
    return [(int(row), int(at)) for row in rows for at in np.flatnonzero(bad[row])][:SHOWN]


def _cuts(offset: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield how ``rows`` consecutive places from ``offset`` on are cut into groups of four."""
    at = offset
    while at < offset + rows:
        stop = min(offset + rows, (at // 4 + 1) * 4)
        yield at, stop
        at = stop


def _every_row(mask: BoolArray, sizes: FloatArray) -> BoolArray:
    """Let a row that keeps nothing take over where that loses least, from a row that keeps more."""
    for row in np.flatnonzero(~mask.any(axis=1)):
        first = row // 4 * 4
        group = slice(first, first + 4)
        givers = mask[group] & (mask[group].sum(axis=1) > 1)[:, None]
        loss = np.where(givers, sizes[group].astype(np.float64) - sizes[row], np.inf)
        giver, column = np.unravel_index(loss.argmin(), loss.shape)
        mask[first + giver, column], mask[row, column] = False, True
    return mask
