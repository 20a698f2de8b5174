"""What an FPGA board draws: static power, energy per clock of each resource, memory channels.

No vendor estimator stands behind these numbers: each is a parameter with a range. The equations
are in docs/power.md, the code in cost/fpga_power.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accsim.spec.base import Count, FiniteFloat, PositiveFloat, Spec
from accsim.spec.sourced import Sourced

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


class ClockEnergy(Spec):
    """Energy of one used resource in one clock, its wires included, in pJ (= uW per MHz)."""

    dsp: FiniteFloat
    lut: FiniteFloat
    ff: FiniteFloat
    bram36: Annotated[FiniteFloat, Field(description="one 72-bit access a clock")]
    uram: Annotated[FiniteFloat, Field(description="one 72-bit access a clock")]


class FpgaBoard(Spec):
    """The power of one FPGA board."""

    name: str = Field(min_length=1)
    title: str = ""
    kind: Literal["fpga_board"] = "fpga_board"
    available: Available
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
