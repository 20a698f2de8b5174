"""The real mask of each layer: made once from synthetic weights, kept packed, replayed."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from accsim.sparsity.weights import synthetic_weights
from accsim.spec.workload import Layer

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_PACKED_BYTES = 64 * 2**20


class Masks:
    """Masks of layers under one seed, bit-packed, least recently used dropped beyond 64 MiB.

    The runs of a layer (its groups or repeats) share one mask.
    """

    def __init__(self, seed: int = 0, *, iid: bool = False) -> None:
        self.seed, self.iid = seed, iid
        self._packed: OrderedDict[tuple[object, ...], npt.NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def weights(self, layer: Layer) -> npt.NDArray[np.float32]:
        """Return the layer's synthetic weights, (k, n) float32."""
        gemm = layer.gemm
        return synthetic_weights(gemm.k, gemm.n, seed=self.seed, name=layer.name, iid=self.iid)

    def mask(self, layer: Layer) -> npt.NDArray[np.bool_]:
        """Return which weights of the layer are kept: bool, (k, n)."""
        gemm = layer.gemm
        key = (layer.name, gemm.k, gemm.n, layer.pattern)
        if key in self._packed:
            self._packed.move_to_end(key)
            bits = np.unpackbits(self._packed[key], count=gemm.k * gemm.n)
            return bits.view(np.bool_).reshape(gemm.k, gemm.n)
        mask = layer.pattern.mask(self.weights(layer), self.seed)
        self._keep(key, np.packbits(mask))
        return mask

    def before_pruning(self, layer: Layer) -> bool:
        """Say whether ``weights`` are those the mask was chosen from, the dropped ones included."""
        return True

    def kept(self, layer: Layer) -> int:
        """Return how many weights of the layer (of one run) are kept; makes the mask if it must."""
        gemm = layer.gemm
        known = layer.pattern.kept(gemm.k, gemm.n)
        return int(self.mask(layer).sum()) if known is None else known

    def _keep(self, key: tuple[object, ...], packed: npt.NDArray[np.uint8]) -> None:
        self._packed[key] = packed
        self._bytes += packed.nbytes
        while self._bytes > MAX_PACKED_BYTES and len(self._packed) > 1:
            _, dropped = self._packed.popitem(last=False)
            self._bytes -= dropped.nbytes
