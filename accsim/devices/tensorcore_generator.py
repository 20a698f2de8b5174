"""What making a layer's 2:4 operand at run time takes on a GPU (docs/breakeven.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_route import route
from accsim.spec.gpu import Gpu
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Ends = tuple[Floats, Floats, Floats]


def generator_us(layers: Sequence[Layer], gpu: Gpu, *, compress: bool, setup: bool) -> Ends | None:
    """Return (value, low, high) of the time before each call of a layer, µs; None if not known.

    ``compress``: one more kernel reads W dense and writes it packed. ``setup``: the library's
    handle and plan are made anew. A layer that runs dense takes neither; not-a-number stands for a
    kernel whose packing nobody timed.
    """
    if gpu.compress is None:
        return None
    names = [route(layer, gpu) for layer in layers]
    sparse = np.array([name == "nm" for name in names])
    known = np.array([name in ("nm", "dense", "simt") for name in names])
    share = gpu.compress.share
    source = gpu.sources.get("compress.share")
    moved = source is None or source.value != share  # overridden: its range is not this one's
    slow = share if moved or source is None or source.low is None else source.low
    fast = share if moved or source is None or source.high is None else source.high
    fixed = gpu.compress.setup_us if setup else 0.0
    size = _moved_bytes(layers, gpu, sparse) if compress else np.zeros(len(layers))
    call = gpu.launch.kernel_us if compress else 0.0

    def time(at: float) -> Floats:
        spent = fixed + call + size / (gpu.dram.gb_per_s * at) * 1e-3
        return np.where(known, np.where(sparse, spent, 0.0), np.nan)

    return time(share), time(fast), time(slow)


def _moved_bytes(layers: Sequence[Layer], gpu: Gpu, sparse: npt.NDArray[np.bool_]) -> Floats:
    """Return bytes of each W, read dense and written packed; 0 where it is not packed."""
    sizes = np.zeros(len(layers))
    for i, layer in enumerate(layers):
        if not sparse[i]:
            continue
        operands = operands_of(layer.dtype, "nm", gpu)
        gemm = layer.gemm
        sizes[i] = gemm.k * gemm.n * (operands.x_bytes + operands.packed_bytes)
    return sizes
