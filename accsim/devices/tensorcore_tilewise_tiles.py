"""What a tile-wise kernel is given: the tiles of W of one call, from the layer's real mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.tensorcore_tilewise_ctas import Ctas
from accsim.sparsity.masks import Masks
from accsim.sparsity.tile_element_wise import TileElementWise
from accsim.sparsity.tile_wise import TileVectorWise, TileWise
from accsim.sparsity.unstructured import Unstructured
from accsim.spec.workload import Layer

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TileGemm:
    """One call: tokens t, and of each tile the k it keeps and its columns, in launch order.

    ``stored`` values of W are multiplied for each token. A call runs ``count`` GEMMs over the same
    tiles, and reads ``x_elements`` of X at least once for each; ``between_bytes`` pass through L2
    between two uses of W. ``x_all`` and ``y_all`` are the elements of X and Y as they lie in
    memory, with what the tiles leave out; never fewer than the tiles use.
    """

    t: int
    k: Ints
    columns: Ints
    stored: int
    x_elements: float
    count: int = 1
    between_bytes: float = 0.0
    x_all: float = 0.0
    y_all: float = 0.0

    @property
    def x_whole(self) -> float:
        """Elements of one GEMM's X in memory."""
        return max(self.x_all, self.x_elements)

    @property
    def y_whole(self) -> float:
        """Elements of one GEMM's Y in memory."""
        return max(self.y_all, float(self.t) * float(self.columns.sum()))

    def grid(self, ctas: Ctas) -> tuple[Ints, int]:
        """Return the k of every column of CTAs, in launch order, and the CTAs in a column."""
        return np.tile(np.repeat(self.k, self.across(ctas)), self.count), -(-self.t // ctas.tile_t)

    def across(self, ctas: Ctas) -> Ints:
        """Return how many CTAs side by side make the columns of each tile."""
        return -(-self.columns // ctas.tile_n)

    @property
    def macs(self) -> float:
        """Multiplications of whole tiles, those of zeros that mma.sp skips included."""
        return float(self.count) * self.t * float(self.k @ self.columns)


def tile_gemm(layer: Layer, masks: Masks, between_bytes: float = 0.0) -> TileGemm:
    """Return the tiles of one call of a layer under its mask.

    Raises:
        InputError: the layer's pattern has no tiles.
    """
    pattern = layer.pattern
    if not isinstance(pattern, TileWise | TileVectorWise | TileElementWise):
        raise InputError(f"layer '{layer.name}': {pattern} has no tiles (tw, tvw, tew have)")
    mask = masks.mask(layer)
    tiles = pattern.tiles(mask)
    stored = sum(tile.rows.size * tile.columns.size for tile in tiles)
    if isinstance(pattern, TileVectorWise):
        stored = pattern.stored(mask)
    read = int(np.count_nonzero(mask.any(axis=1)))
    k, columns = [x.rows.size for x in tiles], [x.columns.size for x in tiles]
    return replace(_gemm(layer, k, columns, stored, read), between_bytes=between_bytes)


def dense_gemm(layer: Layer) -> TileGemm:
    """Return a dense W as one tile that keeps everything."""
    k, n = layer.gemm.k, layer.gemm.n
    return _gemm(layer, [k], [n], k * n, k)


def _gemm(layer: Layer, k: list[int], columns: list[int], stored: int, rows_read: int) -> TileGemm:
    gemm, whole = layer.gemm, layer.input_elements
    reads = min(whole, gemm.t * rows_read)
    return TileGemm(
        gemm.t, np.array(k, dtype=np.int64), np.array(columns, dtype=np.int64), stored,
        float(reads), layer.runs // layer.repeats, x_all=float(whole), y_all=float(gemm.t * gemm.n),
    )  # fmt: skip


class Residues(Masks):
    """Masks of what tew layers keep beside their tiles, and these layers as unstructured ones."""

    def __init__(self, layers: Sequence[Layer], masks: Masks) -> None:
        super().__init__(masks.seed, iid=masks.iid)
        self._masks = masks
        self._origin = {layer.name: layer for layer in layers}
        self.layers = [layer.model_copy(update={"pattern": _beside(layer)}) for layer in layers]

    def mask(self, layer: Layer) -> npt.NDArray[np.bool_]:
        """Return which weights the layer keeps beside its tiles: bool, (k, n)."""
        origin = self._origin[layer.name]
        assert isinstance(origin.pattern, TileElementWise)
        return origin.pattern.split(self._masks.mask(origin))[1]

    def kept(self, layer: Layer) -> int:
        """Return how many these are."""
        return int(self.mask(layer).sum())


def _beside(layer: Layer) -> Unstructured:
    assert isinstance(layer.pattern, TileElementWise)
    return Unstructured(1 - layer.pattern.restored)
