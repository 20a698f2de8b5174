"""GPU kernels that follow a mask: V:N:M, vectors and single weights, blocks. docs/tensorcore.md.

Cycles are those of the SM clock. An SM *gathers* when it fetches the rows of X that kept weights
name from L2; ``gather_share`` is of an SM's fair share of L2's bytes a clock.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accsim.spec.base import Extent, FiniteFloat, PositiveFloat, Spec
from accsim.spec.dtype import DTypeName

SpmmName = Literal["sputnik", "vector", "blocked_ell", "magicube"]

Share = Annotated[PositiveFloat, Field(le=2)]
Cycles = Annotated[FiniteFloat, Field(le=10**9)]

GATHER = Field(le=2, description="L2 bytes a clock of gathered rows over an SM's fair share")
LAUNCH = Field(le=10**6, description="fixed time of a call, as a user's timer sees it")
DRAM = Field(le=2, description="DRAM rate sustained over its peak")
BURST = Field(le=10**6, description="kernel time by which the power cap has half acted")
INDEX = Field(le=64, description="bytes of one position: of a gathered row, of a block")


class VnmKernel(Spec):
    """V:N:M on sparse tensor cores (Spatha, SC 2023): V outputs gather 4 of every M rows of X.

    A CTA multiplies min(V, ``largest_tile_n``) outputs by ``tile_t`` tokens in steps of ``tile_k``
    gathered rows; within a step it waits for its own rows, which co-resident CTAs hide.
    """

    launch_us: Annotated[FiniteFloat, LAUNCH]
    mma_share: Annotated[Share, Field(description="mma.sp rate sustained over the nominal one")]
    latency_cycles: Annotated[
        Cycles, Field(description="from asking for a step's rows to using them")
    ]
    gather_share: Annotated[PositiveFloat, GATHER]
    dram_share: Annotated[PositiveFloat, DRAM]
    burst_us: Annotated[FiniteFloat, BURST]
    tile_t: Annotated[Extent, Field(le=1024, description="tokens of a CTA")]
    tile_k: Annotated[Extent, Field(le=1024, description="gathered rows of X of one step")]
    largest_tile_n: Annotated[Extent, Field(le=1024, description="outputs of a CTA, at most")]
    accumulator_share: Annotated[
        PositiveFloat, Field(le=1, description="of an SM's registers: those that hold fp32 sums")
    ]
    fills: Annotated[
        FiniteFloat, Field(le=64, description="latencies of a round before and after its steps")
    ]
    index_fills: Annotated[
        FiniteFloat, Field(le=64, description="latencies more, as rows wait for their positions")
    ]
    index_bytes: Annotated[FiniteFloat, INDEX]


class SpmmKernel(Spec):
    """A sparse × dense kernel whose CTAs own panels: vectors of outputs that share positions.

    A panel's kept vectors are walked ``step_k`` at a time. Alone, a CTA takes ``step_cycles`` a
    step (a round trip to memory); an SM is busy from ``concurrency`` CTAs on::

        launch + panel·c + step·(longest − mean) + step·mean·max(1, c / concurrency)

    with c CTAs an SM, and the longest and the mean panel in steps.
    """

    family: SpmmName
    dtypes: tuple[DTypeName, ...] = Field(description="number formats it multiplies")
    least_vector: Annotated[Extent, Field(le=1024, description="outputs of a vector, at least")] = 1
    most_vector: Annotated[
        Extent, Field(le=1024, description="longer vectors are cut into panels of this length")
    ] = 1024
    launch_us: Annotated[FiniteFloat, LAUNCH]
    panel_cycles: Annotated[Cycles, Field(description="of an SM, to start and end one CTA")]
    row_cycles: Annotated[Cycles, Field(description="of an SM, more, for each output of a CTA")]
    step_cycles: Annotated[Cycles, Field(gt=0, description="one step of a CTA alone on its SM")]
    row_share: Annotated[
        FiniteFloat, Field(le=16, description="growth of a step by each output of a vector")
    ]
    concurrency: Annotated[PositiveFloat, Field(ge=1, le=64, description="CTAs that fill an SM")]
    tile_t: Annotated[Extent, Field(le=1024, description="tokens of a CTA")]
    step_k: Annotated[Extent, Field(le=1024, description="vectors of a step")]
    dram_share: Annotated[PositiveFloat, DRAM]
    burst_us: Annotated[FiniteFloat, BURST]
    index_bytes: Annotated[FiniteFloat, INDEX]

    @property
    def equal_panels(self) -> bool:
        """Whether every panel is padded to the longest, as ELL formats store them."""
        return self.family == "blocked_ell"

    @property
    def cuda_cores(self) -> bool:
        """Whether it multiplies on CUDA cores."""
        return self.family == "sputnik"

    def step(self, vector: float) -> float:
        """Return the cycles of a CTA's step alone, for vectors of so many outputs."""
        return self.step_cycles * (1 + self.row_share * vector)


class BlockKernel(Spec):
    """B × B blocks on tensor cores: a CTA owns a block row and ``tile_t`` tokens.

    What else it needs is that of the dense kernels: launch, issue share, prologue, DRAM and
    overlap. A block's rows of X are gathered; co-resident CTAs hide each other's waits.
    """

    least_block: Annotated[Extent, Field(le=1024, description="smaller ones run as blocked_ell")]
    gather_share: Annotated[PositiveFloat, GATHER]
    latency_cycles: Annotated[
        Cycles, Field(description="from asking for a block's rows to using them")
    ]
    tile_t: Annotated[Extent, Field(le=1024, description="tokens of a CTA, at most")]
    largest_tile_n: Annotated[Extent, Field(le=1024, description="outputs of a CTA, at most")]
    index_bytes: Annotated[FiniteFloat, INDEX]
