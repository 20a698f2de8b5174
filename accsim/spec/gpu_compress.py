"""What making a 2:4 operand at run time costs on a GPU (docs/breakeven.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accsim.spec.base import FiniteFloat, PositiveFloat, Spec


class Compress(Spec):
    """The kernel that packs a dense operand to 2:4, and the library's set-up before a call."""

    share: Annotated[
        PositiveFloat,
        Field(le=4, description="of the DRAM peak; above 1 where the operand still lies in L2"),
    ]
    setup_us: Annotated[
        FiniteFloat, Field(le=10**6, description="handle and plan of one call, where not cached")
    ] = 0.0
