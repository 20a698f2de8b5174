"""Energy with its uncertainty: a range for each part, and whether a ranking of two designs holds.

Every number of an energy table may carry ``low`` and ``high`` (``device.sources``). The range of an
energy is *corner to corner*: the formula of :mod:`accsim.cost.energy` with every number at its low,
and with every number at its high. It is not a confidence interval: the sources are few and not
independent of each other (most share one library or one paper), so nothing averages out. Cycles
and action counts are held fixed: the range is that of the energy table alone.

A comparison is another matter. What two designs share, they share the error of: if DRAM costs more
than the table says, it does for both. :func:`compare` therefore moves each number of the table
through its range *in both designs at once* where both take it from the same source, and in each
design alone where they do not, and asks whether the sign of the difference can change.

A family whose energy comes from elsewhere than a table may give ranges of its own
(``Family.energy_range_pj``); they move alone. Where it does not, no range is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.cost.energy import energy_pj
from accsim.files.hardware import device_of
from accsim.spec.device import table_of
from accsim.spec.energy import Energy, SramPoint
from accsim.spec.schedule import Evaluation
from accsim.spec.sourced import Sourced
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.floating[Any]]
Ranges = dict[str, tuple[Floats, Floats]]
D = TypeVar("D", bound=Any)
Side = Literal["low", "high"]
Verdict = Literal["a", "b", "inside the range"]

# Numbers of a table that say what an entry is for, not what an action costs.
_NOT_ENERGY = {"node_nm", "bytes", "access_bits"}


def energy_range_pj(found: Evaluation, layers: Sequence[Layer], device: Any) -> Ranges:
    """Return (low, high) energy of each layer in pJ, by part; totals are the sums of the parts.

    Empty where no range is known: the family gives none, and the device has no energy table.

    Raises:
        InputError: the device's energy table lacks an entry, as in ``energy_pj``.
    """
    own: Ranges | None = device_of(device.kind).energy_range_pj(found, layers, device)
    if own is not None or table_of(device) is None:
        return own or {}
    low = energy_pj(found, layers, at_corner(device, "low"))
    high = energy_pj(found, layers, at_corner(device, "high"))
    return {part: (low[part], high[part]) for part in low}


def at_corner(device: D, side: Side, only: str | None = None) -> D:
    """Return the device with the numbers of its energy table at their ``low`` or ``high``.

    A number without that bound keeps its value, and so does one that was changed after its source
    was written. ``only`` moves one group of :func:`groups` and leaves the others at their values.
    An SRAM larger or smaller than all of the table's has the relative range of the nearest one
    (SRAMs are the ``capacities`` of the device's ``memory``, if it has such a field).
    """
    moved = _moved(device.energy.model_dump(), "energy", device.sources, side, only)
    table = Energy.model_validate(moved)
    memory = getattr(device, "memory", None)
    capacities = sorted(set(getattr(memory, "capacities", ())))
    beyond = tuple(_beyond(device.energy, table, capacities))
    table = table.model_copy(update={"sram": table.sram + beyond})
    changed: D = device.model_copy(update={"energy": table})
    return changed


def groups(device: Any) -> dict[str, tuple[Any, ...]]:
    """Return what moves together in the energy table: group → its numbers and their ranges.

    Each number by itself, but all sizes of SRAM as one (``energy.sram``): they come out of one
    model, and a buffer's energy lies between two of them.
    """
    found: dict[str, list[Any]] = {}
    for path, value in _numbers(device.energy.model_dump(), "energy"):
        source = _source(device.sources, path, value)
        low, high = _bounds(source, value)
        found.setdefault(_group(path), []).append((path, low, value, high, source))
    return {group: tuple(entries) for group, entries in found.items()}


@dataclass(frozen=True, eq=False)
class Priced:
    """What is compared: an evaluation, its layers, and the device."""

    found: Evaluation
    layers: Sequence[Layer]
    device: Any

    def energy_j(self, side: Side | None = None, only: str | None = None) -> float:
        """Return the energy of all layers, at the table's values or at one corner.

        Raises:
            InputError: a corner of a device no range is known of.
        """
        own = None if side is None else self.own_range
        if own is not None:
            return 1e-12 * sum(float(ends[side == "high"].sum()) for ends in own.values())
        if side is not None and table_of(self.device) is None:
            raise InputError(
                f"no range is known of the energy of '{self.device.name}': it has no energy table"
            )
        device = self.device if side is None else at_corner(self.device, side, only)
        parts = energy_pj(self.found, self.layers, device)
        return 1e-12 * sum(float(pj.sum()) for pj in parts.values())

    @property
    def own_range(self) -> Ranges | None:
        """The range the family gives, if it does not come from a table."""
        family = device_of(self.device.kind)
        return family.energy_range_pj(self.found, self.layers, self.device)

    @property
    def groups(self) -> dict[str, tuple[Any, ...]]:
        """What moves together: numbers of the table, or all at once, with nothing shared."""
        if self.own_range is None and table_of(self.device) is not None:
            return groups(self.device)
        return {"energy": (("energy", -math.inf, 0.0, math.inf, object()),)}


@dataclass(frozen=True)
class Comparison:
    """Energy of design a less that of b, in joules: by the tables, and over their ranges.

    ``ranking`` says which of the two takes less energy wherever in their ranges the numbers lie,
    shared numbers moving together; ``independent`` the same if nothing were shared: only designs
    whose two ranges do not touch are told apart.
    """

    difference_j: float
    low_j: float
    high_j: float
    ranking: Verdict
    independent: Verdict


def compare(a: Priced, b: Priced) -> Comparison:
    """Compare the energies of two designs; see :class:`Comparison`.

    The energy is a sum in which each group of numbers stands in terms of its own, so the ends of
    the difference are found by moving one group at a time.
    """
    here = (a.energy_j(), b.energy_j())
    value = here[0] - here[1]
    low = high = value
    ours, theirs = a.groups, b.groups
    for group in sorted({*ours, *theirs}):
        mine = _shifts(a, group, here[0], ours)
        other = _shifts(b, group, here[1], theirs)
        if ours.get(group) == theirs.get(group):
            ends = [x - y for x, y in zip(mine, other, strict=True)]
        else:
            ends = [mine[0] - other[1], mine[1] - other[0]]
        low += min(0.0, *ends)
        high += max(0.0, *ends)
    alone = [(x.energy_j("low"), x.energy_j("high")) for x in (a, b)]
    return Comparison(
        difference_j=value,
        low_j=low,
        high_j=high,
        ranking=_verdict(low, high),
        independent=_verdict(alone[0][0] - alone[1][1], alone[0][1] - alone[1][0]),
    )


def ranking(a: Priced, b: Priced) -> Verdict:
    """Return which design takes less energy beyond the uncertainty of the tables, if any does."""
    return compare(a, b).ranking


def _verdict(low: float, high: float) -> Verdict:
    return "a" if high < 0 else "b" if low > 0 else "inside the range"


def _shifts(
    priced: Priced, group: str, value_j: float, known: Mapping[str, tuple[Any, ...]]
) -> tuple[float, float]:
    """Return what the group at its low, and at its high, adds to the energy."""
    if all(low == high for _, low, _, high, _ in known.get(group, ())):
        return 0.0, 0.0
    return priced.energy_j("low", group) - value_j, priced.energy_j("high", group) - value_j


def _group(path: str) -> str:
    return "energy.sram" if path.startswith("energy.sram.") else path


def _numbers(data: Any, path: str) -> list[tuple[str, float]]:
    """Return path and value of every energy in a dumped table."""
    if isinstance(data, dict | list | tuple):
        inside = data.items() if isinstance(data, dict) else enumerate(data)
        kept = [(key, value) for key, value in inside if key not in _NOT_ENERGY]
        return [pair for key, value in kept for pair in _numbers(value, f"{path}.{key}")]
    return [(path, data)] if isinstance(data, int | float) else []


def _moved(
    data: Any, path: str, sources: Mapping[str, Sourced], side: Side, only: str | None
) -> Any:
    """Return a dumped table with its energies at one end of their ranges."""
    if isinstance(data, dict):
        return {
            key: value
            if key in _NOT_ENERGY
            else _moved(value, f"{path}.{key}", sources, side, only)
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [_moved(v, f"{path}.{i}", sources, side, only) for i, v in enumerate(data)]
    if not isinstance(data, int | float) or only not in (None, _group(path)):
        return data
    return _bounds(_source(sources, path, data), data)[side == "high"]


def _source(sources: Mapping[str, Sourced], path: str, value: float) -> Sourced | None:
    """Return where a number comes from, None if its source speaks of another value."""
    source = sources.get(path)
    return source if source is not None and source.value == value else None


def _bounds(source: Sourced | None, value: float) -> tuple[float, float]:
    if source is None:
        return value, value
    return (
        value if source.low is None else source.low,
        value if source.high is None else source.high,
    )


def _beyond(table: Energy, moved: Energy, capacities: Sequence[int]) -> list[SramPoint]:
    """Return points for buffers outside the table's sizes.

    Following the last segment of the *moved* points instead could put the low end of a range above
    its value, where the last two sizes have ranges of different widths.
    """
    pairs = sorted(zip(table.sram, moved.sram, strict=True), key=lambda pair: pair[0].bytes)
    if table.sram == moved.sram:
        return []
    points = []
    for capacity in capacities:
        if pairs[0][0].bytes <= capacity <= pairs[-1][0].bytes:
            continue
        point, end = pairs[0] if capacity < pairs[0][0].bytes else pairs[-1]
        read, write = table.sram_pj_per_byte(capacity)
        points.append(
            SramPoint(
                bytes=capacity,
                access_bits=8,
                read_pj=read * _ratio(end.read_pj, point.read_pj),
                write_pj=write * _ratio(end.write_pj, point.write_pj),
            )
        )
    return points


def _ratio(moved: float, value: float) -> float:
    return moved / value if value else 1.0
