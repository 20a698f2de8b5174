"""Power, clock and energy of kernels on a GPU board, under its power cap.

A kernel is given by its actions and by its time as a function of the clock; the board's firmware is
taken to settle at the highest clock whose power is within the cap. Power never falls with the
clock (voltage rises, time shrinks), so that clock is found by bisection. See docs/power.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, one_of
from accsim.spec.board import GpuBoard
from accsim.spec.corner import Side
from accsim.spec.corner import at_corner as corner
from accsim.spec.fpga_power import FpgaBoard

Floats = npt.NDArray[np.float64]
GapState = Literal["idle", "active_idle"]
B = TypeVar("B", GpuBoard, FpgaBoard)

PARTS = ("idle", "active", "issue", "mma", "fma", "shared", "l1", "l2", "dram", "gap")
STEPS = 52  # halvings of the clock range: down to the last bit of a double

_NO_ARRAYS = ("mma_macs", "sparse_mma_macs")


@dataclass(frozen=True, eq=False, kw_only=True)
class Kernels:
    """Kernels to be run, one entry each; a single number stands for all of them.

    A kernel takes ``max(core_s · boost/clock, memory_s) + fixed_s``. MACs of ``mma.sp`` are those
    of kept weights. ``busy`` is the share of SMs that issue, averaged over the kernel's time.
    ``gap_s`` is waited after each kernel.

    Raises:
        InputError: a negative or infinite entry, ``busy`` over 1, lengths that differ, or a kernel
            that takes no time.
    """

    core_s: Any = 0.0
    memory_s: Any = 0.0
    fixed_s: Any = 0.0
    mma_macs: Mapping[str, Any] = field(default_factory=dict)
    sparse_mma_macs: Mapping[str, Any] = field(default_factory=dict)
    fp32_fmas: Any = 0.0
    shared_bytes: Any = 0.0
    l1_bytes: Any = 0.0
    l2_bytes: Any = 0.0
    dram_bytes: Any = 0.0
    busy: Any = 1.0
    gap_s: Any = 0.0

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NO_ARRAYS}
        macs = {(group, name): count for group in _NO_ARRAYS
                for name, count in getattr(self, group).items()}  # fmt: skip
        arrays = _arrays({**given, **macs})
        for name in given:
            object.__setattr__(self, name, arrays[name])
        for group in _NO_ARRAYS:
            mine = {key[1]: arrays[key] for key in macs if key[0] == group}
            object.__setattr__(self, group, mine)
        if (self.busy > 1).any():
            raise InputError(f"kernels: busy must be at most 1; got {self.busy.max():g}")
        if (self.core_s + self.memory_s + self.fixed_s <= 0).any():
            raise InputError("kernels: core_s, memory_s, fixed_s are all 0: a kernel takes time")

    def time_s(self, slowdown: Floats) -> Floats:
        """Return the time of each kernel at a clock ``slowdown`` times below boost."""
        time: Floats = np.maximum(self.core_s * slowdown, self.memory_s) + self.fixed_s
        return time


@dataclass(frozen=True, eq=False)
class BoardRun:
    """Kernels on a board, one entry each. Energies are of the board, by part; parts sum.

    ``capped``: the cap holds the clock below the highest allowed. ``over_cap``: the cap is exceeded
    even at ``min_ghz``, at which the kernel is then taken to run; what a real board does then is
    not modelled.
    """

    clock_ghz: Floats
    time_s: Floats
    gap_s: Floats
    parts_j: Mapping[str, Floats]
    capped: npt.NDArray[np.bool_]
    over_cap: npt.NDArray[np.bool_]

    @property
    def energy_j(self) -> Floats:
        """Energy of each kernel and the gap after it."""
        total: Floats = np.sum([self.parts_j[part] for part in PARTS], axis=0)
        return total

    @property
    def power_w(self) -> Floats:
        """Mean power while each kernel runs, without its gap."""
        power: Floats = (self.energy_j - self.parts_j["gap"]) / self.time_s
        return power


def run_power(
    board: GpuBoard,
    kernels: Kernels,
    *,
    gap: GapState = "active_idle",
    shared_clock: bool = False,
    limit_ghz: float | None = None,
) -> BoardRun:
    """Run each kernel at the highest clock whose power is within the board's cap.

    Args:
        board: the board.
        kernels: actions and times.
        gap: what the board does in the gaps; its clock is then the highest allowed.
        shared_clock: one clock for all kernels, by their mean power, gaps included: right for
            kernels far shorter than the tens of milliseconds in which firmware regulates.
        limit_ghz: highest clock allowed, where it is locked below boost.

    Raises:
        InputError: a number format the board has no energy for; a limit out of the board's range.
    """
    if gap not in ("idle", "active_idle"):
        raise InputError(f"gap must be one of idle, active_idle; got '{gap}'")
    top = board.boost_ghz if limit_ghz is None else limit_ghz
    if not board.min_ghz <= top <= board.boost_ghz:
        raise InputError(
            f"limit_ghz must be within {board.min_ghz} … {board.boost_ghz} of board "
            f"'{board.name}'; got {limit_ghz}"
        )
    gap_j = kernels.gap_s * _idle_w(board, top, gap)

    def fits(clock: Floats) -> npt.NDArray[np.bool_]:
        time, parts = _at(board, kernels, clock)
        energy = sum(parts.values(), start=np.zeros_like(time))
        if shared_clock:
            energy = np.full_like(time, (energy + gap_j).sum())
            time = np.full_like(time, (time + kernels.gap_s).sum())
        return np.asarray(energy <= board.cap_w * time)

    low = np.full(kernels.core_s.shape, board.min_ghz)
    high = np.full(kernels.core_s.shape, top)
    over, free = ~fits(low), fits(high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        good = fits(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    clock = np.where(free, top, low)
    time, parts = _at(board, kernels, clock)
    return BoardRun(clock, time, kernels.gap_s, {**parts, "gap": gap_j}, ~free, over)


def power_range(
    board: GpuBoard,
    kernels: Kernels,
    *,
    gap: GapState = "active_idle",
    shared_clock: bool = False,
    limit_ghz: float | None = None,
) -> tuple[BoardRun, BoardRun]:
    """Return the runs with every cost of the board at its low, and at its high.

    Corner to corner, as in cost/ranges.py: no confidence interval. Time, power and energy of the
    first are at most those of :func:`run_power`, of the second at least; clocks the other way.
    """
    low, high = (
        run_power(
            at_corner(board, side), kernels,
            gap=gap, shared_clock=shared_clock, limit_ghz=limit_ghz,
        )
        for side in ("low", "high")
    )  # fmt: skip
    return low, high


def voltage(board: GpuBoard, clock_ghz: Floats) -> Floats:
    """Return the core voltage relative to that at the boost clock."""
    law = board.voltage
    slope = (1 - law.point) / (board.boost_ghz - law.point_ghz)
    relative: Floats = np.maximum(law.floor, 1 - slope * (board.boost_ghz - clock_ghz))
    return relative


def _idle_w(board: GpuBoard, clock_ghz: float, state: GapState) -> float:
    """Return what the board draws at a clock without a kernel."""
    square = float(voltage(board, np.array(clock_ghz))) ** 2
    top = board.idle_w if state == "idle" else board.active_idle_w
    share = clock_ghz / board.boost_ghz * square
    return board.idle_fixed_w + (top - board.idle_fixed_w) * share


def at_corner(board: B, side: Side) -> B:
    """Return the board with every cost at its ``low`` or ``high`` (accsim.spec.corner)."""
    return corner(board, board.sources, side)


def _at(board: GpuBoard, kernels: Kernels, clock: Floats) -> tuple[Floats, dict[str, Floats]]:
    """Return time and energy by part (without gaps) of each kernel at a clock of its own."""
    time = kernels.time_s(board.boost_ghz / clock)
    square = voltage(board, clock) ** 2
    rail = clock / board.boost_ghz * square * time  # seconds of power at boost, times f v²
    core = square * 1e-12
    table = board.energy
    idle = board.idle_fixed_w * time + (board.idle_w - board.idle_fixed_w) * rail
    return time, {
        "idle": idle,
        "active": (board.active_idle_w - board.idle_w) * rail,
        "issue": board.issue_w * kernels.busy * rail,
        "mma": _mma_pj(board, kernels) * core,
        "fma": kernels.fp32_fmas * table.fp32_fma_pj * core,
        "shared": kernels.shared_bytes * table.shared_pj_per_byte * core,
        "l1": kernels.l1_bytes * table.l1_pj_per_byte * core,
        "l2": kernels.l2_bytes * table.l2_pj_per_byte * core,
        "dram": kernels.dram_bytes * table.dram_pj_per_byte * 1e-12,
    }


def _mma_pj(board: GpuBoard, kernels: Kernels) -> Floats:
    total = np.zeros(kernels.core_s.shape)
    prices = {str(name): pj for name, pj in board.energy.mma_pj.items()}
    groups = ((kernels.mma_macs, 1.0), (kernels.sparse_mma_macs, board.energy.sparse_mma_factor))
    for macs, factor in groups:
        for name, count in macs.items():
            if name not in prices:
                known = one_of(prices)
                raise InputError(f"board '{board.name}' has no mma_pj.{name}; it has {known}")
            total = total + count * prices[name] * factor
    return total


def _arrays(given: Mapping[Any, Any]) -> dict[Any, Floats]:
    """Return all entries as float arrays of one length, refusing what is no amount."""
    arrays = {key: np.asarray(value, dtype=np.float64) for key, value in given.items()}
    for key, array in arrays.items():
        name = key if isinstance(key, str) else ".".join(key)
        if array.ndim > 1:
            raise InputError(f"kernels: {name} must be a number or a list; got {array.ndim} axes")
        if not (np.isfinite(array) & (array >= 0)).all():
            bad = array[~(np.isfinite(array) & (array >= 0))].flat[0]
            raise InputError(f"kernels: {name} must be finite and at least 0; got {bad}")
    lengths = {len(array) for array in arrays.values() if array.ndim}
    if len(lengths - {1}) > 1:
        raise InputError(f"kernels: lengths must agree; got {one_of(map(str, sorted(lengths)))}")
    shape = (max(lengths, default=1) if 0 not in lengths else 0,)
    return {key: np.broadcast_to(array, shape) for key, array in arrays.items()}
