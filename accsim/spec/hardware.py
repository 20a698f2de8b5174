"""What a device is made of: arrays, memory levels, energy tables. Units are in the field names."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from accsim.spec.base import (
    Extent,
    FiniteFloat,
    PositiveFinite,
    PositiveFloat,
    PositiveInt,
    Spec,
)
from accsim.spec.dtype import DTypeName

DataflowName = Literal["ws", "os", "is"]
TimingName = Literal["physical", "scalesim_v3", "compiled"]


def _level(text: str) -> str:
    """Check one supported sparsity level of a tensor PE: ``dense`` or ``n:m``."""
    match = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", text)
    if text != "dense" and not (match and int(match[1]) <= int(match[2])):
        raise ValueError(f"must be 'dense' or n:m with n <= m; got '{text}'")
    return text


Level = Annotated[str, AfterValidator(_level)]


class Sourced(Spec):
    """Where one number of a device comes from: value, unit, source, range, and how it was had."""

    value: float | int
    unit: str = ""
    source: str = Field(min_length=1)
    low: float | None = None
    high: float | None = None
    status: Literal["published", "measured", "assumed", "chosen", "fitted", "derived"] = "published"

    @model_validator(mode="after")
    def _range_holds_value(self) -> Sourced:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"must lie in its range {low} … {high}; got {self.value}")
        return self


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


class Buffer(Spec):
    """An on-chip SRAM in front of the array."""

    bytes: Annotated[PositiveInt, Field(description="capacity, both halves together")]


class Buffers(Spec):
    """The three SRAMs, each split in two halves when ``double_buffered``."""

    x: Buffer
    w: Buffer
    y: Buffer
    double_buffered: bool = Field(True, description="load the next tile while computing this one")


class Dram(Spec):
    """Off-chip memory, shared by loads and stores."""

    protocol: str = Field("dram", min_length=1, description="name of its row in the energy table")
    bandwidth_gb_per_s: Annotated[
        PositiveFloat, Field(description="sustained bandwidth, reads and writes together")
    ]
    latency_ns: Annotated[
        FiniteFloat, Field(le=10_000, description="from request to first byte")
    ] = 0.0


class Memory(Spec):
    """The memory levels of a systolic device, from the array outwards."""

    sram: Buffers
    dram: Dram


class SramPoint(Spec):
    """Energy of an SRAM of ``bytes`` for one access of ``access_bits``."""

    bytes: PositiveInt
    access_bits: PositiveInt = 64
    read_pj: PositiveFinite
    write_pj: PositiveFinite


class MacEnergy(Spec):
    """Energy of one multiplication and of one addition into the accumulator."""

    mult_pj: FiniteFloat
    add_pj: FiniteFloat


class Energy(Spec):
    """Energy per action at one technology node."""

    table: str = Field(min_length=1, description="name of the table, printed with every result")
    node_nm: PositiveFloat
    mac: dict[DTypeName, MacEnergy]
    register_pj_per_bit: Annotated[
        FiniteFloat, Field(description="one bit clocked into a register")
    ]
    select_pj_per_bit: Annotated[
        FiniteFloat, Field(description="one bit through an n:m multiplexer")
    ]
    sram: tuple[SramPoint, ...] = Field(min_length=1)
    dram_pj_per_bit: dict[str, FiniteFloat]
    pe_static_uw: Annotated[FiniteFloat, Field(description="static power of a PE per multiplier")]
    sram_static_mw_per_mb: FiniteFloat
    dram_static_mw: FiniteFloat

    @model_validator(mode="after")
    def _sizes_differ(self) -> Energy:
        sizes = [point.bytes for point in self.sram]
        if len(set(sizes)) < len(sizes):
            raise ValueError(f"sram must give each size once; got {sorted(sizes)}")
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
    def _memory_keeps_up(self) -> Systolic:
        if self.dram_bytes_per_cycle < 0.01:
            raise ValueError(
                "memory.dram.bandwidth_gb_per_s must give at least 0.01 bytes a clock; "
                f"got {self.dram_bytes_per_cycle:g}"
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
    def dram_latency_cycles(self) -> int:
        """DRAM latency in whole clocks of the array, rounded up."""
        return -int(-self.memory.dram.latency_ns * self.clock_ghz // 1)

    @property
    def launch_cycles(self) -> int:
        """Fixed cycles of one call of a layer, rounded up."""
        return -int(-self.launch_us * 1e3 * self.clock_ghz // 1)
