"""Energy of calls on a GPU board: its static power over their time, and what each action costs.

The law is that of cost/board.py: on-chip energies and power follow the square of the voltage at the
clock the layer settles at; DRAM's do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_power import relative_voltage
from accsim.devices.tensorcore_route import route
from accsim.spec.board import GpuBoard
from accsim.spec.corner import at_corner
from accsim.spec.device import Parts
from accsim.spec.gpu import Gpu
from accsim.spec.schedule import Evaluation
from accsim.spec.sourced import Sourced
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]

PARTS = {
    "mma": "tensor cores",
    "fma": "CUDA cores",
    "shared": "shared memory",
    "l2": "L2 to SMs and back",
    "dram": "DRAM transfers",
    "issue": "SMs issuing instructions",
    "static": "the board idle, with a context",
}


def energy_by_part(
    found: Evaluation, layers: Sequence[Layer], gpu: Gpu, board: GpuBoard | None = None
) -> Parts:
    """Return the energy of each layer in pJ by part, the gaps between calls not counted."""
    board = board or gpu.board
    table, counts = board.energy, found.counts
    slow = gpu.clock_ghz / found.extra["clock_ghz"]
    square = relative_voltage(board, slow) ** 2
    time_ns = found.cycles / gpu.clock_ghz
    rail = time_ns * square / slow
    mac_pj = np.array([_mac_pj(layer, gpu, board) for layer in layers])
    zero = np.zeros(len(layers))

    def amount(prefix: str) -> Any:
        return counts.of(prefix, "_bytes") + zero

    return {
        "mma": counts.of("mma_macs", "") * mac_pj * square,
        "fma": counts.of("fma_macs", "") * table.fp32_fma_pj * square + zero,
        "shared": amount("shared_") * table.shared_pj_per_byte * square,
        "l2": amount("l2_") * table.l2_pj_per_byte * square,
        "dram": amount("dram_") * table.dram_pj_per_byte,
        "issue": board.issue_w * 1e3 * rail,
        "static": board.idle_fixed_w * 1e3 * time_ns
        + (board.active_idle_w - board.idle_fixed_w) * 1e3 * rail,
    }


def _mac_pj(layer: Layer, gpu: Gpu, board: GpuBoard) -> float:
    """Return the energy of an executed MAC; a calibrated one keeps its ratio to the board's."""
    if route(layer, gpu) == "simt":
        return 0.0
    name = "nm" if route(layer, gpu) in ("nm", "vnm") else "dense"
    dtype: Any = layer.dtype
    if name == "nm" and dtype not in gpu.tensor.sparse_gain:
        name = "dense"
    mine = operands_of(dtype, name, gpu).mac_pj
    return mine * board.energy.mma_pj[dtype] / gpu.board.energy.mma_pj[dtype]


def energy_ends(
    found: Evaluation, layers: Sequence[Layer], gpu: Gpu
) -> dict[str, tuple[Floats, Floats]]:
    """Return (low, high) energy by part: the board's corners, at the clock and time found."""
    low, high = (
        energy_by_part(found, layers, gpu, at_corner(gpu.board, board_sources(gpu), side))
        for side in ("low", "high")
    )
    return {part: (np.minimum(low[part], high[part]), np.maximum(low[part], high[part]))
            for part in low}  # fmt: skip


def board_sources(gpu: Gpu) -> dict[str, Sourced]:
    """Return the sources of the board's numbers, by their path inside the board."""
    if gpu.board.sources:
        return dict(gpu.board.sources)
    return {
        path.removeprefix("board."): source
        for path, source in gpu.sources.items()
        if path.startswith("board.")
    }
