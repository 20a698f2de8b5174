"""The clock a kernel settles at under the board's power cap. The law is cost/board.py's.

Kernels far shorter than the regulator's window, repeated for a benchmark of fixed length, are over
before the cap acts in full: ``burst_us`` is the kernel time at which half of the slow-down is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.spec.board import GpuBoard

Floats = npt.NDArray[np.float64]

HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Action:
    """What a call does: energy of its multiplications at boost, pJ; bytes through each level."""

    mma_pj: Floats
    shared_bytes: Floats
    l2_bytes: Floats
    dram_bytes: Floats

    def core_pj(self, board: GpuBoard) -> Floats:
        """Return the energy at boost of what scales with the core's voltage."""
        table = board.energy
        found: Floats = (
            self.mma_pj
            + self.shared_bytes * table.shared_pj_per_byte
            + self.l2_bytes * table.l2_pj_per_byte
        )
        return found

    def dram_pj(self, board: GpuBoard) -> Floats:
        """Return the energy of DRAM, which follows no core clock."""
        found: Floats = self.dram_bytes * board.energy.dram_pj_per_byte
        return found


def throttled(board: GpuBoard, action: Action, time_us: Callable[[Floats], Floats],
              free_us: Floats, burst_us: float) -> tuple[Floats, Floats]:  # fmt: skip
    """Return how many times below boost each clock is, and the time at it.

    Args:
        board: cap, static power, voltage law.
        action: what each call does.
        time_us: times of the calls at slow-downs of the clock.
        free_us: times at boost.
        burst_us: kernel time at which half of the slow-down is seen.
    """
    slow = np.ones_like(free_us)
    hot = power_w(board, action, slow, free_us) > board.cap_w
    if not hot.any():
        return slow, free_us
    low, high = np.ones_like(free_us), np.full_like(free_us, board.boost_ghz / board.min_ghz)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = power_w(board, action, middle, time_us(middle)) > board.cap_w
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    capped = np.where(hot, time_us(high), free_us)
    time = free_us + (capped - free_us) * capped / (capped + burst_us)
    return np.where(hot, 1 + (high - 1) * capped / (capped + burst_us), 1.0), time


def power_w(board: GpuBoard, action: Action, slow: Floats, us: Floats) -> Floats:
    """Return the board's power while each call runs, its clock ``slow`` times below boost."""
    square = relative_voltage(board, slow) ** 2
    static = board.idle_fixed_w + (board.active_idle_w - board.idle_fixed_w + board.issue_w) * (
        square / slow
    )
    power: Floats = static + (action.core_pj(board) * square + action.dram_pj(board)) * 1e-6 / us
    return power


def relative_voltage(board: GpuBoard, slow: Floats) -> Floats:
    """Return the core voltage over that at boost."""
    law = board.voltage
    slope = (1 - law.point) / (board.boost_ghz - law.point_ghz)
    relative: Floats = np.maximum(law.floor, 1 - slope * board.boost_ghz * (1 - 1 / slow))
    return relative
