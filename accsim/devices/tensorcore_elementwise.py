"""Kernels between GEMMs on a GPU, in closed form: bytes through L2 and DRAM, and a launch each.

What the kernel before wrote is read from L2 as far as it is still there. Arithmetic is free: these
kernels do a few operations a byte, where a GPU has tens. Equations: docs/tensorcore.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from accsim.devices.tensorcore_gemm import hits
from accsim.devices.tensorcore_operands import WIDE_OUTPUT_BYTES
from accsim.spec.dtype import DTYPES
from accsim.spec.elementwise import Elementwise, ElementwiseCosts, Floats
from accsim.spec.gpu import Gpu

NARROW_BITS, NARROW_OUTPUT_BYTES = 16, 2.0  # what GEMMs of 16 bits and fewer write


def costs(kernels: Sequence[Elementwise], gpu: Gpu, *, fused: bool) -> ElementwiseCosts:
    """Return what kernels cost at the boost clock, all repeats.

    A kernel takes ``launch + max(DRAM bytes / sustained rate, bytes / L2 rate)``; its DRAM bytes
    are those L2 does not hold. ``fused``: one that is fusable has no launch and moves only what
    the kernel before it does not.
    """
    repeats = np.array([x.repeats for x in kernels], dtype=np.float64)
    runs = np.array([not (fused and x.fusable) for x in kernels], dtype=np.float64)
    moved = np.array([x.accesses(fused=fused) * _width(x.dtype) for x in kernels])
    share = np.array([gpu.kernel("dense", x.dtype).dram_share for x in kernels])
    dram = moved * (1 - hits(moved, gpu.l2.resident_bytes))
    dram_us = dram / (gpu.dram.gb_per_s * share) * 1e-3
    l2_us = moved / (gpu.l2.bytes_per_clock * gpu.clock_ghz) * 1e-3
    time_s = (runs * gpu.launch.kernel_us + np.maximum(dram_us, l2_us)) * repeats * 1e-6
    l2_bytes, dram_bytes = moved * repeats, dram * repeats
    energy = _energy_pj(gpu, time_s, l2_bytes, dram_bytes)
    return ElementwiseCosts(runs * repeats, time_s, energy, l2_bytes, dram_bytes)


def _width(dtype: str) -> float:
    """Return the bytes of an element: that of a GEMM's output."""
    return NARROW_OUTPUT_BYTES if DTYPES[dtype].bits <= NARROW_BITS else WIDE_OUTPUT_BYTES


def _energy_pj(gpu: Gpu, time_s: Floats, l2_bytes: Floats, dram_bytes: Floats) -> Floats:
    """Return the board's energy: bytes at each level, SMs issuing and the board idle over time."""
    board, table = gpu.board, gpu.board.energy
    static: Floats = (board.active_idle_w + board.issue_w) * time_s * 1e12
    return static + l2_bytes * table.l2_pj_per_byte + dram_bytes * table.dram_pj_per_byte
