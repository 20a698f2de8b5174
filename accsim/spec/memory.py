"""The memory levels of a device, from its registers to DRAM. Units are in the field names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from accsim.spec.base import FiniteFloat, PositiveFloat, PositiveInt, Spec
from accsim.spec.schedule import COMPUTE_CAUSES

_TAKEN = {*COMPUTE_CAUSES, "launch", "dram", "sram", "register", "mac", "select", "static"}


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
    """Off-chip memory, shared by loads and stores.

    In a file ``part`` may stand in place of ``bandwidth_gb_per_s`` and ``protocol``: these then are
    what ``parts`` of it sustain (docs/dram.md) for runs of ``run_bytes`` (streaming if 0) of which
    ``write_share`` are written.
    """

    protocol: str = Field("dram", min_length=1, description="name of its row in the energy table")
    bandwidth_gb_per_s: Annotated[
        PositiveFloat, Field(description="sustained bandwidth, reads and writes together")
    ]
    latency_ns: Annotated[
        FiniteFloat, Field(le=10_000, description="from request to first byte")
    ] = 0.0
    part: Annotated[str, Field(description="a DRAM part of hwconfigs/dram, or a path")] = ""
    parts: Annotated[PositiveInt, Field(le=4096, description="parts side by side")] = 1
    run_bytes: Annotated[
        int, Field(ge=0, le=2**30, description="bytes in a row at random places; 0 streams")
    ] = 0
    write_share: Annotated[FiniteFloat, Field(le=1, description="share of bytes written")] = 0.0


class OnChip(Spec):
    """A memory between the buffers and DRAM, such as an L2 cache or a global buffer.

    What it holds is decided by capacity: an operand that fits is fetched from farther out once.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="its name in results")]
    bytes: Annotated[PositiveInt, Field(description="capacity for operands that stay")]
    bandwidth_gb_per_s: Annotated[
        PositiveFloat, Field(description="towards the buffers, reads and writes together")
    ]
    latency_ns: Annotated[
        FiniteFloat, Field(le=10_000, description="from request to first byte")
    ] = 0.0


class Memory(Spec):
    """The memory levels of a systolic device, from the array outwards."""

    sram: Buffers
    onchip: tuple[OnChip, ...] = Field(
        (), max_length=2, description="levels between the buffers and DRAM, the farthest first"
    )
    dram: Dram

    @property
    def capacities(self) -> tuple[int, ...]:
        """Bytes of every memory on the chip: buffers x, w, y, then those beyond, nearest first."""
        sram = self.sram
        return (sram.x.bytes, sram.w.bytes, sram.y.bytes, *(o.bytes for o in self.onchip[::-1]))

    @property
    def sram_bytes(self) -> int:
        """Bytes of all memories on the chip together."""
        return sum(self.capacities)

    @model_validator(mode="after")
    def _names_differ(self) -> Memory:
        names = [level.name for level in self.onchip]
        if len(set(names)) < len(names) or _TAKEN & set(names):
            raise ValueError(
                f"onchip names must differ from each other and from {sorted(_TAKEN)}; got {names}"
            )
        return self


@dataclass(frozen=True)
class MemoryLevel:
    """One level as it is shown: what it holds, how fast it is, what a byte costs.

    ``bytes`` and ``bytes_per_cycle`` are None where nothing limits them in the model, the energies
    where they are not known level by level.
    """

    name: str
    bytes: int | None
    bytes_per_cycle: float | None
    latency_cycles: int
    read_pj_per_byte: float | None
    write_pj_per_byte: float | None
    double_buffered: bool
