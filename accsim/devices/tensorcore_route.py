"""Which kernel of a GPU runs a layer, by its pattern and number format.

A layer whose pattern has no kernel, on this GPU or at all, runs dense: its zeros are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable

from accsim.devices import tensorcore_block, tensorcore_spmm, tensorcore_tilewise, tensorcore_vnm
from accsim.devices.tensorcore_operands import cuda_rate
from accsim.spec.gpu import Gpu
from accsim.spec.pattern import DENSE
from accsim.spec.workload import Layer

GROUP = 4  # mma.sp keeps two of every four along k
SPARSE_MMA = ("nm", "vnm", "tvw")
GEMMS = ("dense", "nm", "simt")  # those a library's GEMM runs, whatever the mask

# Kernels that follow the mask, by the pattern's family.
SUPPORTS: dict[str, Callable[[Layer, Gpu], bool]] = {
    "vnm": tensorcore_vnm.supports,
    "tw": tensorcore_tilewise.supports,
    "tvw": tensorcore_tilewise.supports,
    "tew": tensorcore_tilewise.supports,
    "block": tensorcore_block.supports,
    "column_vector": tensorcore_spmm.supports,
    "unstructured": tensorcore_spmm.supports,
}


def route(layer: Layer, gpu: Gpu) -> str:
    """Return the kernel family of a layer: ``dense``, ``nm``, ``simt`` or the pattern's own.

    Raises:
        InputError: the GPU cannot multiply the layer's number format.
    """
    if layer.dtype not in gpu.tensor.fma_per_clock:
        cuda_rate(layer.dtype, gpu)
        return "simt"
    if layer.pattern == DENSE or not layer.has_weights:
        return "dense"
    family = layer.pattern.family
    if family in SUPPORTS and SUPPORTS[family](layer, gpu):
        return family
    bound = layer.pattern.block_bound(GROUP)
    fits = bound is not None and bound <= GROUP // 2
    sparse = "nm" in gpu.kernels and layer.dtype in gpu.tensor.sparse_gain
    return "nm" if fits and sparse else "dense"


def unit_rate(layer: Layer, gpu: Gpu) -> float:
    """Return the MACs with a kept weight one SM can do in a clock, on the units a layer runs on."""
    name = route(layer, gpu)
    if name == "simt":
        return cuda_rate(layer.dtype, gpu)
    gain = gpu.tensor.gain(layer.dtype) / 2 if name in SPARSE_MMA else 1.0
    return gpu.tensor.rate(layer.dtype) * max(gain, 1.0)
