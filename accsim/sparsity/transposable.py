"""Transposable n:m: in every m×m tile each row and each column keeps at most n.

One compressed copy then serves W in the forward and Wᵀ in the backward pass.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

MAX_TILE = 32
EXACT_TILES = 4096  # the default solves up to so many tiles exactly: 512² at m = 8
SHOWN = 20
SOLVERS = ("", "greedy", "exact")
_RULE = f"transposable:n:m needs 1 <= n <= m <= {MAX_TILE}"
_SPELLING = "transposable:n:m, transposable:n:m:exact or transposable:n:m:greedy"


@dataclass(frozen=True)
class Transposable(Pattern):
    """Tiles are aligned at (0, 0); each keeps as many as its rows and columns allow.

    A whole tile keeps exactly n in each row and column. A ragged tile of r × c keeps
    min(r·min(n, c), c·min(n, r)), at most n in each. ``exact``: the largest Σ|w| such a mask can
    have (on equal sums the one reached from the greedy choice; |w| below 2⁻³⁹ of the tile's
    largest count as equal). ``greedy``: largest places first (ties: lowest k, then lowest n),
    filled up, then improved by exchanges between two rows. Without a word: exact up to
    ``EXACT_TILES`` tiles of the matrix, greedy beyond.
    """

    n: int
    m: int
    solver: str = ""

    family: ClassVar[str] = "transposable"
    grammar: ClassVar[str] = "transposable:n:m[:exact|:greedy] (transposable:2:8)"
    summary: ClassVar[str] = (
        "m×m tiles, at most n kept in every row and column; one copy for forward and backward"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m <= MAX_TILE:
            raise InputError(f"{_RULE}; got '{self.n}:{self.m}'")
        if self.solver not in SOLVERS:
            raise InputError(f"transposable needs the solver exact or greedy; got '{self.solver}'")

    @classmethod
    def parse(cls, text: str) -> Transposable | None:
        """Recognise ``transposable:2:8``, ``transposable:2:8:exact``."""
        if not text.startswith("transposable"):
            return None
        match = re.fullmatch(r"transposable:(\d{1,9}):(\d{1,9})(?::([a-z]+))?", text)
        if match is None:
            raise InputError(f"pattern must be written {_SPELLING}; got '{text}'")
        return cls(int(match[1]), int(match[2]), match[3] or "")

    def __str__(self) -> str:
        word = f":{self.solver}" if self.solver else ""
        return f"transposable:{self.n}:{self.m}{word}"

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Solve every tile of a (k, n) matrix; deterministic, no seed used."""
        k, columns = weights.shape
        mask = np.empty((k, columns), dtype=np.bool_)
        exact = self.solver == "exact" or (not self.solver and self._few(k, columns))
        for across, down, rows, width in _zones(k, columns, self.m):
            tiles = _cut(np.abs(weights[across, down]).astype(np.float32), rows, width)
            held = self._solved(tiles, exact)
            whole = held.reshape((across.stop - across.start) // rows, -1, rows, width)
            shape = (across.stop - across.start, down.stop - down.start)
            mask[across, down] = whole.swapaxes(1, 2).reshape(shape)
        return mask

    def _few(self, k: int, columns: int) -> bool:
        return -(-k // self.m) * -(-columns // self.m) <= EXACT_TILES

    def _solved(self, tiles: npt.NDArray[np.float32], exact: bool) -> BoolArray:
        _, rows, columns = tiles.shape
        of_row, of_column = min(self.n, columns), min(self.n, rows)
        if rows * of_row <= columns * of_column:
            return _threaded(tiles, of_row, of_column, exact)
        turned = np.ascontiguousarray(tiles.swapaxes(1, 2))
        return _threaded(turned, of_column, of_row, exact).swapaxes(1, 2)

    def check(self, mask: BoolArray) -> list[str]:
        """Count along k, and along n of every row, by differences of running sums."""
        columns = self._crowded(mask, "column", "k")
        return (columns + self._crowded(mask.T, "row", "n"))[:SHOWN]

    def _crowded(self, mask: BoolArray, line: str, along: str) -> list[str]:
        counts = _sums(mask, self.m)
        return [
            f"{line} {of} keeps {counts[group, of]} > {self.n} in its group {group} "
            f"({along} {group * self.m}…{min(mask.shape[0], (group + 1) * self.m) - 1})"
            for group, of in np.argwhere(counts > self.n)[:SHOWN].tolist()
        ]

    def metadata_bits(self, mask: BoolArray) -> int:
        """⌈log2 m⌉ a slot, once: both passes read the same copy."""
        return NM(self.n, self.m).metadata_bits(mask)

    def stored(self, mask: BoolArray) -> int:
        """Return the slots of all groups along k, empty ones of ragged tiles included."""
        return NM(self.n, self.m).stored(mask)

    def kept(self, k: int, n: int) -> int:
        """Every tile keeps as many as it may."""
        return sum(
            (across.stop - across.start)
            // rows
            * ((down.stop - down.start) // width)
            * min(rows * min(self.n, width), width * min(self.n, rows))
            for across, down, rows, width in _zones(k, n, self.m)
        )

    def block_bound(self, rows: int) -> int:
        """Along k the pattern is n:m."""
        return NM(self.n, self.m).block_bound(rows)


def _threaded(
    tiles: npt.NDArray[np.float32], of_row: int, of_column: int, exact: bool
) -> BoolArray:
    """Solve tiles on all cores: the kernel releases the lock, and no tile knows of another."""
    from accsim.kernels import transposable as kernel  # compiled: only who asks pays

    effort = kernel.EXACT if exact else kernel.SWAP
    parts = np.array_split(tiles, max(1, min(os.cpu_count() or 1, len(tiles) // 1024)))
    with ThreadPoolExecutor(len(parts)) as pool:
        solved = pool.map(lambda part: kernel.solve(part, of_row, of_column, effort), parts)
        return np.concatenate(list(solved))


def _zones(k: int, n: int, m: int) -> Iterator[tuple[slice, slice, int, int]]:
    """Yield the areas of equal tiles: rows, columns, and the tile's extents in them."""
    for across, rows in _runs(k, m):
        for down, width in _runs(n, m):
            yield across, down, rows, width


def _runs(extent: int, m: int) -> Iterator[tuple[slice, int]]:
    whole = extent - extent % m
    if whole:
        yield slice(0, whole), m
    if whole < extent:
        yield slice(whole, extent), extent - whole


def _cut(area: npt.NDArray[np.float32], rows: int, width: int) -> npt.NDArray[np.float32]:
    """Return the tiles of an area, (tiles, rows, width), row of tiles by row of tiles."""
    k, n = area.shape
    tiles = area.reshape(k // rows, rows, n // width, width).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).reshape(-1, rows, width)


def _sums(mask: BoolArray, m: int) -> npt.NDArray[np.int64]:
    """Count each group of m along axis 0: (groups, columns)."""
    edges = np.append(np.arange(0, mask.shape[0], m), mask.shape[0])
    running = np.zeros((edges.size, mask.shape[1]), np.int64)
    for at, (start, stop) in enumerate(itertools.pairwise(edges)):
        running[at + 1] = running[at] + mask[start:stop].sum(axis=0)
    return np.diff(running, axis=0)
