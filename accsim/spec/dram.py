"""A DRAM part: geometry, timings, command bus, and the controller before it.

What bandwidth an access pattern sustains on it is in spec/dram_access.py.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from accsim.spec.base import FiniteFloat, PositiveFinite, PositiveInt, Spec
from accsim.spec.sourced import Sourced

# JEDEC's rounding: a time up to 2.5 % of a clock over a whole number of clocks is that number.
_ROUNDING_CLOCKS = 0.025

Ns = Annotated[PositiveFinite, Field(le=10**6)]


class DramTimings(Spec):
    """Least times between commands; a minimum given in clocks is written as its time."""

    trcd_ns: Annotated[Ns, Field(description="activate to column command")]
    trp_ns: Annotated[Ns, Field(description="precharge to activate")]
    tcl_ns: Annotated[Ns, Field(description="read to its data")]
    tcwl_ns: Annotated[Ns, Field(description="write to its data")]
    tras_ns: Annotated[Ns, Field(description="activate to precharge")]
    tccd_s_ns: Annotated[Ns, Field(description="column to column, another bank group")]
    tccd_l_ns: Annotated[Ns, Field(description="column to column, same bank group")]
    trrd_s_ns: Annotated[Ns, Field(description="activate to activate, another bank group")]
    trrd_l_ns: Annotated[Ns, Field(description="activate to activate, same bank group")]
    tfaw_ns: Annotated[Ns, Field(description="any four activates of a rank to the fifth")]
    twr_ns: Annotated[Ns, Field(description="end of written data to precharge")]
    twtr_s_ns: Annotated[Ns, Field(description="end of written data to read, another group")]
    twtr_l_ns: Annotated[Ns, Field(description="end of written data to read, same group")]
    trtp_ns: Annotated[Ns, Field(description="read to precharge")]
    trfc_ns: Annotated[Ns, Field(description="refresh of all banks of a rank")]
    trefi_ns: Annotated[Ns, Field(description="between refreshes of all banks")]
    trfc_pb_ns: Annotated[Ns, Field(description="refresh of one bank, where used")] | None = None
    turn_ns: Annotated[
        FiniteFloat, Field(le=10**6, description="idle data bus between reads and writes, or ranks")
    ]

    @model_validator(mode="after")
    def _in_order(self) -> DramTimings:
        pairs = [("tccd_s_ns", "tccd_l_ns"), ("trrd_s_ns", "trrd_l_ns"), ("twtr_s_ns", "twtr_l_ns")]
        for short, long in [*pairs, ("trrd_s_ns", "tfaw_ns")]:
            if getattr(self, short) > getattr(self, long):
                raise ValueError(
                    f"{long} must be at least {short}; "
                    f"got {getattr(self, long):g} < {getattr(self, short):g}"
                )
        if self.trfc_ns > self.trefi_ns / 2:  # else there is hardly time to open a row again
            raise ValueError(f"trfc_ns must be at most half of trefi_ns; got {self.trfc_ns:g}")
        return self


class DramCommands(Spec):
    """The command bus of a channel: how many clocks a command holds it."""

    activate_clocks: Annotated[PositiveInt, Field(le=16)] = 1
    precharge_clocks: Annotated[PositiveInt, Field(le=16)] = 1
    column_clocks: Annotated[PositiveInt, Field(le=16)] = 1
    row_bus: bool = Field(False, description="row commands have a bus of their own (HBM)")


class DramController(Spec):
    """What stands before the part: how addresses spread, how far ahead it sees."""

    interleave_bytes: Annotated[PositiveInt, Field(description="neighbouring bytes of a channel")]
    window: Annotated[PositiveInt, Field(le=4096, description="bursts a channel chooses from")]


class DramPart(Spec):
    """The DRAM behind one memory controller: a DIMM, a package, a stack.

    A channel has its own commands and data: an HBM pseudo channel, one half of a GDDR6 chip.
    """

    name: str = Field(min_length=1)
    title: str = ""
    protocol: str = Field(min_length=1, description="name of its row in the energy table")
    mt_per_s: Annotated[PositiveFinite, Field(le=10**5, description="transfers of a pin, 10^6/s")]
    transfers_per_clock: Annotated[
        PositiveInt, Field(le=64, description="transfers of a pin in a clock of the command bus")
    ]
    channels: Annotated[PositiveInt, Field(le=1024)]
    channel_bits: Annotated[PositiveInt, Field(le=4096, description="data pins of a channel")]
    burst_length: Annotated[PositiveInt, Field(le=256, description="transfers of one burst")]
    ranks: Annotated[PositiveInt, Field(le=16)] = 1
    bank_groups: Annotated[PositiveInt, Field(le=32)]
    banks_per_group: Annotated[PositiveInt, Field(le=256)]
    row_bytes: Annotated[PositiveInt, Field(description="of one bank, all chips of the channel")]
    timings: DramTimings
    commands: DramCommands = DramCommands()
    controller: DramController
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _fits_together(self) -> DramPart:
        if self.channel_bits * self.burst_length % 8:
            raise ValueError("channel_bits x burst_length must be whole bytes")
        for bytes_, what in (
            (self.row_bytes, "row_bytes"),
            (self.controller.interleave_bytes, "controller.interleave_bytes"),
        ):
            if bytes_ % self.burst_bytes:
                raise ValueError(
                    f"{what} must be a multiple of the burst of {self.burst_bytes} bytes; "
                    f"got {bytes_}"
                )
        if self.burst_length % self.transfers_per_clock:
            raise ValueError(
                f"burst_length must be a multiple of transfers_per_clock; "
                f"got {self.burst_length} and {self.transfers_per_clock}"
            )
        if self.clocks(self.timings.tccd_s_ns) < self.burst_clocks:
            raise ValueError(
                f"timings.tccd_s_ns must cover the burst of {self.burst_clocks} clocks; "
                f"got {self.timings.tccd_s_ns:g}"
            )
        return self

    @model_validator(mode="after")
    def _refreshes_in_time(self) -> DramPart:
        each, banks = self.timings.trfc_pb_ns, self.bank_groups * self.banks_per_group
        if each is not None and each * banks > self.timings.trefi_ns:
            raise ValueError(
                f"timings.trfc_pb_ns x {banks} banks must be at most trefi_ns; "
                f"got {each * banks:g} > {self.timings.trefi_ns:g}"
            )
        return self

    @property
    def clock_ghz(self) -> float:
        """Clock of the command bus, in which all timings are rounded up."""
        return self.mt_per_s / self.transfers_per_clock / 1e3

    def clocks(self, ns: float) -> int:
        """Return whole command clocks of a time, rounded up as JEDEC does."""
        return max(0, math.ceil(ns * self.clock_ghz - _ROUNDING_CLOCKS))

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst: nothing smaller is read or written."""
        return self.channel_bits * self.burst_length // 8

    @property
    def burst_clocks(self) -> int:
        """Clocks a burst is on the data bus."""
        return self.burst_length // self.transfers_per_clock

    @property
    def peak_gb_per_s(self) -> float:
        """Bandwidth of all data pins of all channels."""
        return self.channels * self.channel_bits * self.mt_per_s / 8e3

    @property
    def refresh_share(self) -> float:
        """Share of time a bank is in refresh; the least that all-bank refresh costs."""
        return self.timings.trfc_ns / self.timings.trefi_ns

    @property
    def lanes(self) -> int:
        """Bank groups neighbouring bursts alternate between: as few as hide tCCD_L."""
        need = -(-self.clocks(self.timings.tccd_l_ns) // self.clocks(self.timings.tccd_s_ns))
        fitting = [g for g in range(1, self.bank_groups + 1) if self.bank_groups % g == 0]
        return next((g for g in fitting if g >= need), self.bank_groups)

    def parameters(self) -> npt.NDArray[np.int64]:
        """Return the parameter table of ``kernels.dram.replay``: timings in clocks, geometry."""
        t, c = self.timings, self.commands
        per_bank = t.trfc_pb_ns is not None
        banks = self.bank_groups * self.banks_per_group
        refresh = (t.trfc_pb_ns or t.trfc_ns, t.trefi_ns / (banks if per_bank else 1))
        times = (
            t.trcd_ns, t.trp_ns, t.tcl_ns, t.tcwl_ns, t.tras_ns, t.tccd_s_ns, t.tccd_l_ns,
            t.trrd_s_ns, t.trrd_l_ns, t.tfaw_ns, t.twr_ns, t.twtr_s_ns, t.twtr_l_ns, t.trtp_ns,
            *refresh, t.turn_ns,
        )  # fmt: skip
        rest = (
            self.burst_clocks, c.activate_clocks, c.precharge_clocks, c.column_clocks,
            int(c.row_bus), self.ranks, self.bank_groups, self.banks_per_group, int(per_bank),
            self.controller.window,
        )  # fmt: skip
        return np.array([*map(self.clocks, times), *rest], dtype=np.int64)
