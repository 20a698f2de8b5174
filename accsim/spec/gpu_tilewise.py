"""Tile-wise kernels of a GPU: what their CTAs and launches take.

*Accelerating Sparse DNNs Based on Tiled GEMM* (arXiv 2402.10876), *Tile-wise sparsity* (SC'20).
Code: devices/tensorcore_tilewise*.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accsim.spec.base import Extent, FiniteFloat, PositiveInt, Spec

Cycles = Annotated[FiniteFloat, Field(le=10**6)]
Us = Annotated[FiniteFloat, Field(le=10**6)]
Side = Annotated[Extent, Field(le=1024)]


class TileWiseKernel(Spec):
    """A GEMM over tiles of W that keep rows of their own, and the dense kernel it is built from.

    A CTA makes ``tile_n`` columns × ``tile_t`` tokens of Y over the k its tile keeps, ``step_k`` at
    a time. Alone on its SM, a step takes the tensor cores' cycles and ``stall_cycles``; residents
    fill each other's stalls. Cycles are of the boost clock.
    """

    tile_n: Annotated[Side, Field(description="columns of W of one CTA")]
    tile_t: Annotated[Side, Field(description="tokens of one CTA")]
    step_k: Annotated[Side, Field(description="stored k of one step; 2:4 covers twice as many")]
    residents: Annotated[PositiveInt, Field(le=16, description="CTAs an SM holds at once")]
    stall_cycles: Annotated[
        Cycles, Field(description="a step's wait for operands and barriers, alone on an SM")
    ]
    gather_cycles: Annotated[
        Cycles, Field(description="more wait of a step: offsets of rows, then rows of X by them")
    ]
    dense_edge_us: Annotated[
        Us, Field(description="SM time of a dense CTA outside its steps: first load, writing Y")
    ]
    edge_us: Annotated[
        Us, Field(description="the same of a tile-wise CTA, scattering Y by offsets included")
    ]
    fixed_us: Annotated[
        Us, Field(description="a call, dense or tile-wise: launch, streams forked and joined")
    ]
    launch_us: Annotated[Us, Field(description="from one tile's launch to the next one's")]
    streams: Annotated[PositiveInt, Field(le=128, description="tiles that can run at once")]
    fused: Annotated[
        bool,
        Field(
            description="one launch runs all tiles, asynchronous copies gather rows: no stall to "
            "gather, no time between launches, a dense CTA's edge"
        ),
    ] = False
    transposed: Annotated[
        Literal["none", "unfused"],
        Field(
            description="unfused: a call also runs two kernels that transpose X and Y; none: they "
            "lie as the kernel wants them, or whoever writes and reads them turns them round"
        ),
    ] = "none"
