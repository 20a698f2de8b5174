"""What a whole GPU board draws: idle, active idle, issue, energy per action, clocks and a cap.

All watts and picojoules of a board are stated at its ``boost_ghz``; :class:`VoltageLaw` says what
becomes of them below. The equations are in docs/power.md, the code in cost/board.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from accsim.spec.base import FiniteFloat, PositiveFinite, PositiveFloat, Spec
from accsim.spec.sourced import Sourced

# tf32 is no storage format: fp32 operands that a tensor core multiplies with 11 significant bits.
MmaName = Literal["bf16", "fp16", "tf32", "fp8", "int8", "fp4"]

Watts = Annotated[FiniteFloat, Field(le=100_000)]
GHz = Annotated[PositiveFloat, Field(le=100)]


class VoltageLaw(Spec):
    """Core voltage relative to that at the boost clock: a line through one point, with a floor."""

    point_ghz: Annotated[GHz, Field(description="clock of the known point, below boost")]
    point: Annotated[PositiveFloat, Field(le=1, description="relative voltage at that clock")]
    floor: Annotated[PositiveFloat, Field(le=1, description="lowest relative voltage")]

    @model_validator(mode="after")
    def _floor_below_point(self) -> VoltageLaw:
        if self.floor > self.point:
            raise ValueError(f"floor must be at most point; got {self.floor} > {self.point}")
        return self


class ActionEnergy(Spec):
    """Energy of an action over a busy spin at the boost clock.

    A byte is counted at every level that serves it: one from DRAM is also one of L2. A byte that
    an SM fetches past its L1 is one of L2 and none of L1, and one of shared memory where written.
    """

    mma_pj: dict[MmaName, PositiveFinite] = Field(
        min_length=1, description="one multiply-accumulate of a dense mma"
    )
    sparse_mma_factor: Annotated[
        PositiveFinite, Field(description="energy of a kept MAC of mma.sp over a dense one")
    ]
    fp32_fma_pj: Annotated[FiniteFloat, Field(description="one FMA on a CUDA core")]
    shared_pj_per_byte: Annotated[FiniteFloat, Field(description="shared memory, a byte")]
    l1_pj_per_byte: Annotated[FiniteFloat, Field(description="hit in L1, a byte")]
    l2_pj_per_byte: Annotated[FiniteFloat, Field(description="L2 to SM or back, a byte")]
    dram_pj_per_byte: Annotated[
        FiniteFloat, Field(description="DRAM to L2 or back, a byte; does not follow the clock")
    ]


class GpuBoard(Spec):
    """The power of one GPU board. The clock is the SM clock."""

    name: str = Field(min_length=1)
    title: str = ""
    kind: Literal["gpu_board"] = "gpu_board"
    cap_w: Annotated[Watts, Field(gt=0, description="power limit of the board")]
    idle_w: Annotated[Watts, Field(description="no context, at the boost clock")]
    idle_fixed_w: Annotated[Watts, Field(description="share of idle that no clock changes")]
    active_idle_w: Annotated[Watts, Field(description="a context, no kernel, at the boost clock")]
    issue_w: Annotated[Watts, Field(description="all SMs issue, over active idle; no data moves")]
    min_ghz: GHz
    boost_ghz: GHz
    voltage: VoltageLaw
    energy: ActionEnergy
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _in_order(self) -> GpuBoard:
        watts = (self.idle_fixed_w, self.idle_w, self.active_idle_w, self.cap_w)
        if list(watts) != sorted(watts):
            raise ValueError(f"needs idle_fixed_w <= idle_w <= active_idle_w <= cap_w; got {watts}")
        if not self.min_ghz < self.boost_ghz:
            raise ValueError(f"needs min_ghz < boost_ghz; got {self.min_ghz}, {self.boost_ghz}")
        if not self.voltage.point_ghz < self.boost_ghz:
            raise ValueError(
                f"voltage.point_ghz must be below boost_ghz {self.boost_ghz}; "
                f"got {self.voltage.point_ghz}"
            )
        return self
