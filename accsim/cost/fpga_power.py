"""Power and energy of a design on an FPGA board: used resources × energy per clock, by part.

Arrays or single numbers throughout, broadcast together: one call prices a whole sweep of designs.
See docs/power.md for the equations and for how little stands behind the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.cost.board import at_corner
from accsim.spec.fpga_power import DRAW_PARTS, RESOURCES, FpgaBoard, draw_w

Floats = npt.NDArray[np.float64]

LOGIC = RESOURCES
PARTS = DRAW_PARTS


@dataclass(frozen=True, eq=False, kw_only=True)
class Used:
    """Resources of a design, numbers or arrays (an entry a design).

    Raises:
        InputError: a negative or infinite entry.
    """

    dsp: Any = 0
    lut: Any = 0
    ff: Any = 0
    bram36: Any = 0
    uram: Any = 0
    channels: Any = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _amount(getattr(self, f.name), f"used.{f.name}"))


@dataclass(frozen=True, eq=False)
class FpgaDraw:
    """Power of designs in W by part; the parts sum. ``over_limit``: more than the card can get."""

    parts_w: Mapping[str, Floats]
    over_limit: npt.NDArray[np.bool_]

    @property
    def power_w(self) -> Floats:
        """Power of the whole board."""
        return _sum(self.parts_w)


def power(
    board: FpgaBoard,
    used: Used,
    clock_ghz: Any,
    *,
    activity: Any = None,
    dram_gb_per_s: Any = 0.0,
) -> FpgaDraw:
    """Return the power of a running design.

    Args:
        board: the board and its table.
        used: resources of the design, a shell's not included (it is in ``card_w``).
        clock_ghz: clock of the design.
        activity: data toggles a clock, 0 … 1: one for all, or a mapping from resource (``dsp``,
            ``lut``, ``ff``, ``bram36``, ``uram``; the others at the table's ``toggle_rate``).
        dram_gb_per_s: traffic of all channels together.

    Raises:
        InputError: more resources than the board has, or an argument out of its range.
    """
    _check_fits(board, used)
    clock = _amount(clock_ghz, "clock_ghz")
    toggles = _toggles(board, activity)
    traffic = _amount(dram_gb_per_s, "dram_gb_per_s")
    counts = {f.name: getattr(used, f.name) for f in fields(used)}
    parts = draw_w(board, counts, clock, toggles, traffic)
    return FpgaDraw(parts, np.asarray(_sum(parts) > board.limit_w))


def power_range(
    board: FpgaBoard,
    used: Used,
    clock_ghz: Any,
    *,
    activity: Any = None,
    dram_gb_per_s: Any = 0.0,
) -> tuple[FpgaDraw, FpgaDraw]:
    """Return the power with every number of the table at its low, and at its high."""
    low, high = (
        power(
            at_corner(board, side), used, clock_ghz,
            activity=activity, dram_gb_per_s=dram_gb_per_s,
        )
        for side in ("low", "high")
    )  # fmt: skip
    return low, high


def energy_j(
    board: FpgaBoard,
    used: Used,
    clock_ghz: Any,
    *,
    busy_cycles: Any,
    idle_cycles: Any = 0,
    activity: Any = None,
    dram_bytes: Any = 0.0,
) -> dict[str, Floats]:
    """Return the energy in J by part of busy cycles, then idle ones in which no data toggles.

    The clock keeps running while idle. ``dram_bytes`` are moved in whichever cycles.
    """
    clock = _amount(clock_ghz, "clock_ghz")
    if (clock <= 0).any():
        raise InputError(f"clock_ghz must be greater than 0; got {clock.min():g}")
    busy_s = _amount(busy_cycles, "busy_cycles") / clock * 1e-9
    idle_s = _amount(idle_cycles, "idle_cycles") / clock * 1e-9
    busy = power(board, used, clock, activity=activity).parts_w
    idle = power(board, used, clock, activity=0.0).parts_w
    parts = {name: busy[name] * busy_s + idle[name] * idle_s for name in PARTS}
    moved = board.dram_pj_per_byte * _amount(dram_bytes, "dram_bytes") * 1e-12
    parts["dram"] = parts["dram"] + moved
    parts["supply"] = parts["supply"] + board.supply_loss * moved
    return parts


def energy_range_j(
    board: FpgaBoard,
    used: Used,
    clock_ghz: Any,
    *,
    busy_cycles: Any,
    idle_cycles: Any = 0,
    activity: Any = None,
    dram_bytes: Any = 0.0,
) -> dict[str, tuple[Floats, Floats]]:
    """Return (low, high) energy in J by part: every number of the table at its low, or high."""
    low, high = (
        energy_j(
            at_corner(board, side), used, clock_ghz, busy_cycles=busy_cycles,
            idle_cycles=idle_cycles, activity=activity, dram_bytes=dram_bytes,
        )
        for side in ("low", "high")
    )  # fmt: skip
    return {name: (low[name], high[name]) for name in PARTS}


def _check_fits(board: FpgaBoard, used: Used) -> None:
    for f in fields(used):
        most, room = np.max(getattr(used, f.name), initial=0), getattr(board.available, f.name)
        if most > room:
            raise InputError(f"board '{board.name}' has {room:,} {f.name}; got {most:,.0f}")


def _toggles(board: FpgaBoard, activity: Any) -> dict[str, Floats]:
    given = activity if isinstance(activity, Mapping) else dict.fromkeys(LOGIC, activity)
    for name in given:
        if name not in LOGIC:
            raise InputError(
                f"activity must be of {one_of(LOGIC)}; got '{name}'{near(str(name), LOGIC)}"
            )
    toggles = {}
    for name in LOGIC:
        value = given.get(name)
        toggles[name] = _amount(board.toggle_rate if value is None else value, f"activity.{name}")
        if (toggles[name] > 1).any():
            raise InputError(f"activity.{name} must be at most 1; got {toggles[name].max():g}")
    return toggles


def _amount(value: Any, name: str) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        raise InputError(f"{name} must be finite and at least 0; got {array[wrong].flat[0]}")
    return array


def _sum(parts: Mapping[str, Floats]) -> Floats:
    total: Floats = sum(parts.values(), start=np.zeros(()))
    return total
