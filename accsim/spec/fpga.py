"""An FPGA accelerator for n:m sparse training (SAT): array, buffers, engines, memory, card.

*Efficient N:M Sparse DNN Training Using Algorithm, Architecture, and Dataflow Co-Design* (arXiv
2309.13015). What it does not state is assumed, and says so in hwconfigs. Equations: docs/fpga.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from accsim.spec.base import (
    Count,
    Extent,
    FiniteFloat,
    PositiveFinite,
    PositiveFloat,
    PositiveInt,
    Spec,
)
from accsim.spec.fpga_power import FpgaBoard
from accsim.spec.hardware import Level
from accsim.spec.memory import MemoryLevel
from accsim.spec.schedule import Channel
from accsim.spec.sourced import Sourced

FlowName = Literal["ws", "os"]
FormatName = Literal["fp16", "bf16", "fp32", "int8", "int16"]
SelectionName = Literal["critical", "pregenerated"]
OptimiserName = Literal["sgd", "momentum", "adam"]


class TensorPes(Spec):
    """An array of ``rows`` × ``cols`` PEs, each ``multipliers`` multiply-adders and a selector.

    A PE reads ``lanes`` consecutive operands along the reduction. In dense mode it multiplies
    ``multipliers`` of them a cycle; in mode n:m it multiplies the n kept ones of m.
    """

    rows: Annotated[Extent, Field(le=1024)]
    cols: Annotated[Extent, Field(le=1024)]
    multipliers: Annotated[PositiveInt, Field(le=64)] = 1
    lanes: Annotated[PositiveInt, Field(le=64, description="operands along k one PE chooses from")]
    levels: tuple[Level, ...] = Field(("dense",), min_length=1)
    adder_latency: Annotated[PositiveInt, Field(le=64, description="cycles of an accumulation")]
    dsp_adders: Annotated[
        Count | None, Field(description="floating-point adders of a PE with DSPs; all by default")
    ] = None
    interleave: bool = Field(True, description="independent sums take turns in the adder")
    flows: tuple[FlowName, ...] = Field(("ws", "os"), min_length=1, description="dataflows it has")

    @model_validator(mode="after")
    def _levels_fit(self) -> TensorPes:
        if self.multipliers > self.lanes:
            raise ValueError(f"lanes must be at least multipliers; got {self.lanes}")
        if self.dsp_adders is not None and self.dsp_adders > self.multipliers:
            raise ValueError(f"dsp_adders must be at most multipliers; got {self.dsp_adders}")
        if "dense" not in self.levels:
            raise ValueError("levels must include 'dense'")
        for level in self.levels:
            if level != "dense" and int(level.split(":")[1]) > self.lanes:
                raise ValueError(f"level {level} needs more than the {self.lanes} lanes of a PE")
        return self


class FpgaBuffer(Spec):
    """An on-chip buffer, both halves together, in BRAM or URAM."""

    kib: Annotated[PositiveFinite, Field(description="capacity")]
    memory: Literal["bram", "uram"] = "bram"


class FpgaBuffers(Spec):
    """Double-buffered operands and results."""

    x: FpgaBuffer
    w: FpgaBuffer
    y: FpgaBuffer


class Ddr(Spec):
    """External memory: channels side by side, all of them shared by everything."""

    channels: Annotated[PositiveInt, Field(le=64)]
    gb_per_s: Annotated[PositiveFinite, Field(description="sustained, of one channel")]
    latency_ns: Annotated[FiniteFloat, Field(le=10_000)] = 0.0


class Selection(Spec):
    """The engine that finds the n largest of every m weights and packs them.

    ``critical``: before every product that needs a packed operand, while the array waits;
    ``pregenerated``: in the update, where new weights stream by anyway.
    """

    when: SelectionName
    groups_per_cycle: Annotated[
        PositiveFloat, Field(le=4096, description="groups of m it takes a cycle")
    ]


class VectorEngine(Spec):
    """Element-wise work: optimiser, batch norm, activation."""

    lanes: Annotated[PositiveInt, Field(le=4096, description="elements it takes a cycle")]
    optimiser: OptimiserName = "momentum"
    master_bytes: Annotated[PositiveInt, Field(le=8, description="of an optimiser's number")] = 4
    fused: bool = Field(True, description="batch norm and activation on the way to memory")


class Fpga(Spec):
    """An accelerator on an FPGA card."""

    name: str = Field(min_length=1)
    title: str = ""
    kind: Literal["fpga"] = "fpga"
    clock_ghz: Annotated[PositiveFloat, Field(le=2)]
    format: FormatName
    array: TensorPes
    buffers: FpgaBuffers
    ddr: Ddr
    selection: Selection
    vector: VectorEngine
    launch_cycles: Annotated[PositiveInt, Field(description="fixed cycles of one pass")] = 1
    board: FpgaBoard
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All memory channels as one: data are spread over them evenly."""
        rate = self.ddr.channels * self.ddr.gb_per_s / self.clock_ghz
        latency = -int(-self.ddr.latency_ns * self.clock_ghz // 1)
        return (Channel("dram", rate, latency),)

    @property
    def memory_levels(self) -> tuple[MemoryLevel, ...]:
        """The buffers, and the memory all channels make; energies are the board's, not theirs."""
        found = [
            MemoryLevel(f"sram.{name}", int(buffer.kib * 1024), None, 0, None, None, True)
            for name, buffer in self.buffers
        ]
        (dram,) = self.channels
        rate = dram.bytes_per_cycle, dram.latency_cycles
        return (*found, MemoryLevel("dram", None, *rate, None, None, False))
