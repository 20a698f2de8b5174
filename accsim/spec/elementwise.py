"""Elementwise: what a network does between its GEMMs, and what a device says it costs.

Only bytes count: every element is read and written some times by a kernel of its own, unless the
kernel is fused into the one before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from accsim.spec.base import MAX_ELEMENTS, MAX_REPEATS, Extent, FiniteFloat, Spec
from accsim.spec.dtype import DTypeName

KindName = Literal[
    "add", "batchnorm", "copy", "embedding", "gelu", "layernorm", "lrn", "mask", "mul", "pool",
    "relu", "rmsnorm", "rope", "scale", "silu", "softmax", "transpose",
]  # fmt: skip
Floats = npt.NDArray[np.float64]
Accesses = Annotated[FiniteFloat, Field(le=10**6)]


class Elementwise(Spec):
    """A kernel between GEMMs, over ``shape`` elements of each item of the batch.

    ``reads`` and ``writes`` are elements of memory for each element of ``shape``. ``after`` is the
    layer it follows, empty before the first. ``repeats`` are alike kernels, one after the other.

    >>> Elementwise(name="softmax", kind="softmax", shape=(12, 128, 128), batch=2).elements
    393216
    """

    name: str = Field(min_length=1, max_length=200)
    kind: KindName
    shape: tuple[Extent, ...] = Field(min_length=1, max_length=6)
    reads: Accesses = 1.0
    writes: Accesses = 1.0
    fusable: Annotated[
        bool, Field(description="the kernel before it can do it before it stores its output")
    ] = False
    repeats: Annotated[Extent, Field(le=MAX_REPEATS)] = 1
    batch: Annotated[Extent, Field(le=MAX_REPEATS)] = 1
    dtype: DTypeName = "int8"
    after: str = ""

    @model_validator(mode="after")
    def _moves_something(self) -> Elementwise:
        if self.reads + self.writes == 0:
            raise ValueError(f"'{self.name}' must read or write something; got neither")
        if self.elements * max(self.reads, self.writes, 1.0) > MAX_ELEMENTS:
            raise ValueError(
                f"'{self.name}' must move at most {MAX_ELEMENTS:.0e} elements; "
                f"got {self.elements * max(self.reads, self.writes):.3e}"
            )
        return self

    @property
    def elements(self) -> int:
        """Elements one kernel works on: all items of the batch."""
        return math.prod(self.shape) * self.batch

    def accesses(self, *, fused: bool) -> float:
        """Return the elements one kernel reads and writes in memory.

        Fused into the kernel before it, its input is at hand and its output is stored in that
        one's place: one read and one write an element are saved.
        """
        if fused and self.fusable:
            return self.elements * (max(self.reads - 1, 0.0) + max(self.writes - 1, 0.0))
        return self.elements * (self.reads + self.writes)


@dataclass(frozen=True, eq=False)
class ElementwiseCosts:
    """Costs of kernels, one entry each, all repeats; ``launches`` are 0 for fused ones."""

    launches: Floats
    time_s: Floats
    energy_pj: Floats
    l2_bytes: Floats
    dram_bytes: Floats
