"""What an FPGA board draws: static power, energy per clock of each resource, memory channels.

No vendor estimator stands behind these numbers: each is a parameter with a range. The equations
are in docs/power.md; :func:`draw_w` serves a design's power (cost/fpga_power.py) and the energy of
an accelerator's layers (devices/fpga_energy.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from accsim.spec.base import Count, FiniteFloat, PositiveFloat, Spec
from accsim.spec.fpga_parts import FpgaParts
from accsim.spec.sourced import Sourced

Floats = npt.NDArray[np.float64]

RESOURCES = ("dsp", "lut", "ff", "bram36", "uram")
DRAW_PARTS = (*RESOURCES, "clock_tree", "channels", "dram", "static", "card", "supply")

Watts = Annotated[FiniteFloat, Field(le=100_000)]
Share = Annotated[FiniteFloat, Field(le=1)]


class Available(Spec):
    """Resources a design may use: the device, less a shell where there is one."""

    dsp: Count
    lut: Count
    ff: Count
    bram36: Count
    uram: Count
    channels: Annotated[Count, Field(description="memory channels with a controller")]
    slr_dsp: Annotated[
        dict[str, Count] | None, Field(min_length=1, description="DSPs of each die region")
    ] = None


class ClockEnergy(Spec):
    """Energy of one used resource in one clock, its wires included, in pJ (= uW per MHz)."""

    dsp: FiniteFloat
    lut: FiniteFloat
    ff: FiniteFloat
    bram36: Annotated[FiniteFloat, Field(description="one 72-bit access a clock")]
    uram: Annotated[FiniteFloat, Field(description="one 72-bit access a clock")]


class FpgaBoard(Spec):
    """The power of one FPGA board, and what parts of a design take of its device."""

    name: str = Field(min_length=1)
    title: str = ""
    kind: Literal["fpga_board"] = "fpga_board"
    available: Available
    parts: FpgaParts
    limit_w: Annotated[Watts, Field(gt=0, description="what card and slot can supply")]
    static_w: Annotated[Watts, Field(description="leakage of the device")]
    card_w: Annotated[Watts, Field(description="the card besides the device: fan, DIMMs, shell")]
    supply_loss: Annotated[Share, Field(description="lost in regulators, share of what they give")]
    toggle_rate: Annotated[
        PositiveFloat, Field(le=1, description="data toggles a clock that pj_per_clock is for")
    ]
    still_share: Annotated[
        Share, Field(description="share of pj_per_clock that is drawn when no data toggles")
    ]
    pj_per_clock: ClockEnergy
    clock_tree_pj: Annotated[FiniteFloat, Field(description="global clock network, one clock")]
    channel_w: Annotated[Watts, Field(description="controller and I/O of one memory channel")]
    dram_pj_per_byte: Annotated[FiniteFloat, Field(description="a byte moved, over channel_w")]
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)


def draw_w(
    board: FpgaBoard,
    used: Mapping[str, Any],
    clock_ghz: Any,
    toggles: Mapping[str, Any],
    dram_gb_per_s: Any,
) -> dict[str, Floats]:
    """Return the power of a running design by part of :data:`DRAW_PARTS`, broadcast together.

    Args:
        board: the board and its table.
        used: count of each of :data:`RESOURCES`, and ``channels``.
        clock_ghz: clock of the design.
        toggles: data toggles a clock of each of :data:`RESOURCES`.
        dram_gb_per_s: traffic of all channels together.
    """
    parts: dict[str, Any] = {}
    for name in RESOURCES:
        # Not (1 - still_share) above the table's rate: a larger still_share must not save power.
        rate = toggles[name] / board.toggle_rate
        moving = rate + board.still_share * np.maximum(1 - rate, 0)
        pj = getattr(board.pj_per_clock, name) * used[name]
        parts[name] = pj * moving * clock_ghz * 1e-3  # pJ · GHz = mW
    parts["clock_tree"] = board.clock_tree_pj * clock_ghz * 1e-3
    parts["channels"] = board.channel_w * used["channels"]
    parts["dram"] = board.dram_pj_per_byte * dram_gb_per_s * 1e-3
    parts["static"] = np.asarray(board.static_w)
    parts["supply"] = board.supply_loss * sum(parts.values(), start=np.zeros(()))
    parts["card"] = np.asarray(board.card_w)
    shape = np.broadcast_shapes(*(np.shape(part) for part in parts.values()))
    return {name: np.broadcast_to(parts[name], shape) for name in DRAW_PARTS}
