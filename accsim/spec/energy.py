"""Energy per action at one technology node, and what an access of a memory of any size costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from accsim.base.errors import InputError, near, one_of
from accsim.spec.base import FiniteFloat, PositiveFinite, PositiveFloat, PositiveInt, Spec
from accsim.spec.dtype import DTypeName

Floats = npt.NDArray[np.floating[Any]]


class Price(NamedTuple):
    """What one action costs, a number or one entry a layer, and the part of the energy it is in."""

    part: str
    pj: Any


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

    def mac_pj(self, dtypes: Sequence[str]) -> Floats:
        """Return the energy of one multiply-accumulate in each format.

        Raises:
            InputError: a format the table does not have.
        """
        known: Mapping[str, MacEnergy] = self.mac  # type: ignore[assignment]
        missing = [dtype for dtype in dtypes if dtype not in known]
        if missing:
            raise InputError(
                f"energy table '{self.table}' has no mac.{missing[0]}; it has {one_of(self.mac)}"
            )
        values = {dtype: known[dtype].mult_pj + known[dtype].add_pj for dtype in set(dtypes)}
        return np.array([values[dtype] for dtype in dtypes])

    def dram_pj_per_byte(self, protocol: str) -> float:
        """Return the energy of one byte from or to DRAM.

        Raises:
            InputError: a protocol the table does not have.
        """
        known = self.dram_pj_per_bit
        if protocol not in known:
            raise InputError(
                f"energy table '{self.table}' has no dram_pj_per_bit.{protocol}"
                f"{near(protocol, known) or '; it has ' + one_of(known)}"
            )
        return 8 * known[protocol]

    def sram_pj_per_byte(self, capacity_bytes: int) -> tuple[float, float]:
        """Return (read, write) energy of a byte in an SRAM of a capacity, pJ.

        Between the table's sizes the energy follows a power law (straight on log–log axes); beyond
        its ends it follows the last segment, so that a larger memory never costs less.
        """
        points = sorted(self.sram, key=lambda point: point.bytes)
        least = (i for i, point in enumerate(points) if point.bytes >= capacity_bytes)
        above = next(least, len(points) - 1)
        if len(points) == 1 or points[above].bytes == capacity_bytes:
            return _per_byte(points[above])
        low, high = points[max(above, 1) - 1], points[max(above, 1)]
        share = math.log(capacity_bytes / low.bytes) / math.log(high.bytes / low.bytes)
        read, write = (
            _along(a, b, share) for a, b in zip(_per_byte(low), _per_byte(high), strict=True)
        )
        return read, write


def _along(a: float, b: float, share: float) -> float:
    """Return the power law through a and b; a straight line where one of them is zero."""
    if min(a, b) <= 0:
        return max(a + share * (b - a), 0.0)
    return math.exp(math.log(a) + share * math.log(b / a))


def _per_byte(point: SramPoint) -> tuple[float, float]:
    return point.read_pj * 8 / point.access_bits, point.write_pj * 8 / point.access_bits
