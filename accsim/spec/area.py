"""Area of the parts of a chip at one technology node, and of a part of any width or capacity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from accsim.base.errors import InputError, one_of
from accsim.spec.base import PositiveFinite, PositiveFloat, PositiveInt, Spec
from accsim.spec.dtype import DTypeName
from accsim.spec.sourced import Sourced

Side = Literal["low", "high"]

# What moves together through its range: the numbers of one section come from the same sources.
SECTIONS: dict[str, tuple[str, ...]] = {
    "multiplier": ("multiplier", "float_multiplier_um2"),
    "adder": ("adder", "fp32_adder_um2"),
    "register": ("register_um2_per_bit",),
    "mux": ("mux_um2_per_bit",),
    "compare": ("compare_um2_per_bit",),
    "sram": ("sram",),
    "placement": ("placed_per_cell",),
}


class WidthPoint(Spec):
    """Cell area of an integer adder, or of a ``bits`` × ``bits`` multiplier."""

    bits: Annotated[PositiveInt, Field(le=1024)]
    um2: PositiveFinite


class SramArea(Spec):
    """Area of a whole SRAM macro of ``bytes``."""

    bytes: PositiveInt
    mm2: PositiveFinite


class AreaTable(Spec):
    """Cell areas at one technology node; ``placed_per_cell`` is what placement adds to logic."""

    table: str = Field(min_length=1, description="name of the table, printed with every result")
    node_nm: PositiveFloat
    multiplier: tuple[WidthPoint, ...] = Field(min_length=1)
    adder: tuple[WidthPoint, ...] = Field(min_length=1)
    float_multiplier_um2: dict[DTypeName, PositiveFinite]
    fp32_adder_um2: PositiveFinite
    register_um2_per_bit: PositiveFinite
    mux_um2_per_bit: Annotated[PositiveFinite, Field(description="two inputs, one bit")]
    compare_um2_per_bit: PositiveFinite
    sram: tuple[SramArea, ...] = Field(min_length=1)
    placed_per_cell: Annotated[PositiveFinite, Field(ge=1, description="placed over cell area")]
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _larger_takes_more(self) -> AreaTable:
        for name, points in (
            ("multiplier", _widths(self.multiplier)),
            ("adder", _widths(self.adder)),
            ("sram", _sizes(self.sram)),
        ):
            for (small, less), (large, more) in pairwise(points):
                if small == large or less > more:
                    raise ValueError(
                        f"{name} must give each size once, and a larger one no less area; "
                        f"got {less:g} for {small} and {more:g} for {large}"
                    )
        return self

    def multiplier_um2(self, bits: int, by: int) -> float:
        """Return the cell area of an integer multiplier of ``bits`` × ``by``.

        It is that of a square one of √(bits · by): partial products are as many.
        """
        return power_law(_widths(self.multiplier), math.sqrt(bits * by))

    def float_um2(self, dtype: str) -> float:
        """Return the cell area of a floating-point multiplier.

        Raises:
            InputError: a format the table does not have.
        """
        known: Mapping[str, float] = self.float_multiplier_um2  # type: ignore[assignment]
        if dtype not in known:
            raise InputError(
                f"area table '{self.table}' has no float_multiplier_um2.{dtype}; "
                f"it has {one_of(known)}"
            )
        return known[dtype]

    def adder_um2(self, bits: int) -> float:
        """Return the cell area of an integer adder."""
        return power_law(_widths(self.adder), bits)

    def sram_mm2(self, capacity_bytes: int) -> float:
        """Return the area of an SRAM macro of any capacity."""
        return power_law(_sizes(self.sram), capacity_bytes)

    def corner(self, side: Side, sections: Sequence[str] = tuple(SECTIONS)) -> AreaTable:
        """Return the table with the numbers of some sections at one end of their ranges."""
        fields = {field for section in sections for field in SECTIONS[section]}
        data = self.model_dump(exclude={"sources"})
        moved = {
            name: self._moved(value, name, side) if name in fields else value
            for name, value in data.items()
        }
        return AreaTable.model_validate(moved)

    def _moved(self, data: Any, path: str, side: Side) -> Any:
        if isinstance(data, dict):
            return {key: self._moved(v, f"{path}.{key}", side) for key, v in data.items()}
        if isinstance(data, list | tuple):
            return [self._moved(v, f"{path}.{i}", side) for i, v in enumerate(data)]
        source = self.sources.get(path)
        if source is None or source.value != data:  # a changed number has lost its range
            return data
        bound = source.low if side == "low" else source.high
        return data if bound is None else bound


def power_law(points: Sequence[tuple[float, float]], at: float) -> float:
    """Return y at ``at`` on straight lines through rising points (x, y) on log-log axes.

    Beyond the ends it follows the last segment; a single point is taken as proportional.

    >>> round(power_law([(8, 100), (16, 400)], 32))
    1600
    """
    if len(points) == 1:
        ((x, y),) = points
        return y * at / x
    above = next((i for i, (x, _) in enumerate(points) if x >= at), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(above, 1) - 1], points[max(above, 1)]
    share = math.log(at / x0) / math.log(x1 / x0)
    return float(y0 * (y1 / y0) ** share)


def _widths(points: Sequence[WidthPoint]) -> list[tuple[float, float]]:
    return sorted((point.bits, point.um2) for point in points)


def _sizes(points: Sequence[SramArea]) -> list[tuple[float, float]]:
    return sorted((point.bytes, point.mm2) for point in points)
