"""Kernels that transpose X and Y for a tile-wise GEMM, where nothing else does it on the way.

Tile-wise kernels gather k of X and scatter columns of Y by offsets. Both coalesce only where tokens
lie next to each other: X is transposed before the call, Y after it. Equations: docs/tensorcore.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_costs import Costs
from accsim.devices.tensorcore_gemm import hits
from accsim.devices.tensorcore_tiles import Operands
from accsim.devices.tensorcore_tilewise_tiles import TileGemm
from accsim.spec.gpu import Gpu, Kernel

Floats = npt.NDArray[np.float64]

MODE = "transpositions"


def transpose_costs(work: TileGemm, operands: Operands, gpu: Gpu, kernel: Kernel) -> Costs:
    """Return what transposing X and Y of one call costs, one entry: two kernels, all ``gather``.

    Each reads and writes its operand whole, pruned rows and columns included, and takes a launch
    and the longer of its bytes at L2's rate and those L2 does not hold at the rate DRAM sustains
    for ``kernel``. Elements turn round in shared memory. At boost: the cap is not asked.
    """
    elements = np.array([work.x_whole, work.y_whole]) * work.count
    operand = elements * np.array([operands.x_bytes, operands.y_bytes])
    missed = operand * (1 - hits(2 * operand, gpu.l2.resident_bytes))
    dram_us = 2 * missed / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    l2_us = 2 * operand / (gpu.l2.bytes_per_clock * gpu.clock_ghz) * 1e-3
    time = float((gpu.launch.kernel_us + np.maximum(dram_us, l2_us)).sum())
    once = {"shared": operand, "l2": operand, "dram": missed}
    counts = {f"{level}_{way}_bytes": np.array([float(moved.sum())])
              for level, moved in once.items() for way in ("read", "write")}  # fmt: skip
    return Costs({"gather": np.array([time])}, counts, np.array([gpu.clock_ghz]), (MODE,))
