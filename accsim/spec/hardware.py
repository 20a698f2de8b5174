"""What a device is made of: arrays, memory levels, energy tables. Units are in the field names."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from accsim.spec.base import (
    Extent,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    Spec,
)
from accsim.spec.energy import Energy
from accsim.spec.memory import Memory, MemoryLevel
from accsim.spec.schedule import Channel
from accsim.spec.sourced import Sourced

DataflowName = Literal["ws", "os", "is"]
TimingName = Literal["physical", "scalesim_v3", "compiled"]


def _level(text: str) -> str:
    """Check one supported sparsity level of a tensor PE: ``dense`` or ``n:m``."""
    match = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", text)
    if text != "dense" and not (match and int(match[1]) <= int(match[2])):
        raise ValueError(f"must be 'dense' or n:m with n <= m; got '{text}'")
    return text


Level = Annotated[str, AfterValidator(_level)]


class Array(Spec):
    """A systolic array of ``rows`` × ``cols`` tensor PEs.

    A tensor PE multiplies ``multipliers`` weights a cycle with activations selected from the
    ``lanes`` its row receives; a plain PE has one of each. ``levels`` are the n:m modes its
    indices can express. ``adaptive`` lets the number of passes of a fold follow the real mask.
    """

    rows: Annotated[Extent, Field(le=16384, description="PE rows")]
    cols: Annotated[Extent, Field(le=16384, description="PE columns")]
    count: Annotated[PositiveInt, Field(le=4096, description="arrays that share the buffers")] = 1
    multipliers: Annotated[PositiveInt, Field(le=64, description="multipliers of one PE")] = 1
    lanes: Annotated[
        PositiveInt, Field(le=256, description="activations a PE receives a cycle")
    ] = 1
    levels: tuple[Level, ...] = Field(("dense",), min_length=1, description="n:m modes of a PE")
    adaptive: bool = Field(False, description="passes of a fold follow the real mask")
    double_buffering: bool = Field(
        True, description="each PE has a second stationary (ws, is) or output (os) register"
    )
    accumulator_bits: Annotated[PositiveInt, Field(le=32, description="width of partial sums")] = 32
    zero_gating: bool = Field(True, description="multipliers holding a zero weight do not switch")

    @model_validator(mode="after")
    def _levels_fit(self) -> Array:
        if self.lanes < self.multipliers:
            raise ValueError(
                f"lanes must be at least multipliers; got {self.lanes} < {self.multipliers}"
            )
        if "dense" not in self.levels:
            raise ValueError("levels must include 'dense': every layer must have a mode to run in")
        for level in self.levels:
            if level != "dense" and int(level.split(":")[1]) > self.lanes:
                raise ValueError(f"level {level} needs more than the {self.lanes} lanes of a PE")
        if self.adaptive and self.lanes == 1:
            raise ValueError("adaptive needs lanes > 1: a plain PE cannot select activations")
        if self.adaptive and self.count > 1:
            raise ValueError(f"adaptive needs count = 1; got {self.count} arrays")
        return self


class Compiled(Spec):
    """What a compiler fixes for timing ``compiled`` (see devices/systolic_compiled.py)."""

    cores: Annotated[PositiveInt, Field(description="cores the output tiles are dealt to, whole")]
    stored_bits: Annotated[PositiveInt, Field(description="an operand in memory, any dtype")]
    multiplied_bits: Annotated[PositiveInt, Field(description="an operand in the array")]
    block: Annotated[Extent, Field(description="side of an output block of the streamed schedule")]
    block_cycles: Annotated[
        PositiveFloat, Field(description="cycles an array is busy with one fold's block of rows")
    ]
    turn_us: Annotated[FiniteFloat, Field(description="extra time of a call with k <= min(t, n)")]
    prologue_us: Annotated[FiniteFloat, Field(description="set-up of the streamed schedule")]
    unsplit_us: Annotated[
        FiniteFloat, Field(description="more set-up where two double-buffered panels of all k fit")
    ]
    panel_bytes: Annotated[PositiveInt, Field(description="room of these panels, together")]
    wide_share: Annotated[
        FiniteFloat, Field(description="extra share of streamed traffic where t < n")
    ]
    resident_w_bytes: Annotated[PositiveInt, Field(description="largest W that is kept whole")]
    resident_bytes: Annotated[
        PositiveInt, Field(description="operands as multiplied, and fp32 results, kept on chip")
    ]


class Systolic(Spec):
    """A systolic tensor array with its buffers and memory."""

    name: str = Field(min_length=1)
    title: str = ""
    kind: Literal["systolic"] = "systolic"
    dataflow: DataflowName
    timing: TimingName = "physical"
    clock_ghz: Annotated[PositiveFloat, Field(le=100)]
    array: Array
    memory: Memory
    launch_us: Annotated[
        FiniteFloat, Field(le=10**6, description="fixed time of each repeat of a layer")
    ] = 0.0
    compiled: Compiled | None = None
    energy: Energy
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _timing_has_its_section(self) -> Systolic:
        if (self.timing == "compiled") != (self.compiled is not None):
            raise ValueError(
                "timing 'compiled' and a section 'compiled' go together; "
                f"got timing '{self.timing}' {'with' if self.compiled else 'without'} one"
            )
        return self

    @model_validator(mode="after")
    def _levels_have_their_timing(self) -> Systolic:
        if self.memory.onchip and self.timing != "physical":
            raise ValueError(f"memory.onchip needs timing physical; got '{self.timing}'")
        return self

    @model_validator(mode="after")
    def _memory_keeps_up(self) -> Systolic:
        for channel in self.channels:
            where = "dram" if channel.name == "dram" else f"onchip '{channel.name}'"
            if channel.bytes_per_cycle < 0.01:
                raise ValueError(
                    f"memory.{where}.bandwidth_gb_per_s must give at least 0.01 bytes a clock; "
                    f"got {channel.bytes_per_cycle:g}"
                )
        return self

    @property
    def peak_macs_per_cycle(self) -> int:
        """Multipliers of all arrays together."""
        return self.array.rows * self.array.cols * self.array.multipliers * self.array.count

    @property
    def dram_bytes_per_cycle(self) -> float:
        """Sustained DRAM bytes in one clock of the array."""
        return self.memory.dram.bandwidth_gb_per_s / self.clock_ghz

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What bytes of tiles move through: DRAM, then the on-chip levels towards the buffers."""
        dram, onchip = self.memory.dram, self.memory.onchip
        rates = [("dram", dram.bandwidth_gb_per_s, dram.latency_ns)]
        rates += [(level.name, level.bandwidth_gb_per_s, level.latency_ns) for level in onchip]
        return tuple(
            Channel(name, bandwidth / self.clock_ghz, _whole_cycles(latency, self.clock_ghz))
            for name, bandwidth, latency in rates
        )

    @property
    def memory_levels(self) -> tuple[MemoryLevel, ...]:
        """Every level from the PE registers outwards."""
        table, memory = self.energy, self.memory
        levels = [self._registers()]
        for name in ("x", "w", "y"):
            size = getattr(memory.sram, name).bytes
            costs = table.sram_pj_per_byte(size)
            levels.append(
                MemoryLevel(f"sram.{name}", size, None, 0, *costs, memory.sram.double_buffered)
            )
        dram, *between = self.channels
        for level, channel in zip(reversed(memory.onchip), reversed(between), strict=True):
            rate = channel.bytes_per_cycle, channel.latency_cycles
            costs = table.sram_pj_per_byte(level.bytes)
            levels.append(MemoryLevel(level.name, level.bytes, *rate, *costs, True))
        cost = table.dram_pj_per_byte(memory.dram.protocol)
        rate = dram.bytes_per_cycle, dram.latency_cycles
        return (*levels, MemoryLevel("dram", None, *rate, cost, cost, False))

    def _registers(self) -> MemoryLevel:
        """Stationary, moving and sum registers of all PEs, int8 operands; written every step."""
        array = self.array
        operands = array.multipliers * (2 if array.double_buffering else 1) + array.lanes
        size = (
            self.peak_macs_per_cycle // array.multipliers * (operands + array.accumulator_bits // 8)
        )
        cost = 8 * self.energy.register_pj_per_bit
        return MemoryLevel("register", size, None, 0, 0.0, cost, array.double_buffering)

    @property
    def launch_cycles(self) -> int:
        """Fixed cycles of one call of a layer, rounded up."""
        return _whole_cycles(self.launch_us * 1e3, self.clock_ghz)


def _whole_cycles(time_ns: float, clock_ghz: float) -> int:
    return -int(-time_ns * clock_ghz // 1)
