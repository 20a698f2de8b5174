"""A noun with every cost at one end of its range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from accsim.spec.base import Spec
from accsim.spec.sourced import Sourced

Side = Literal["low", "high"]
S = TypeVar("S", bound=Spec)

# Numbers of a board that say what it is or may do, not what something costs.
NOT_A_COST = {"cap_w", "limit_w", "min_ghz", "boost_ghz", "point_ghz", "available", "toggle_rate"}


def at_corner(noun: S, sources: Mapping[str, Sourced], side: Side) -> S:
    """Return ``noun`` with every cost at its ``low`` or ``high``.

    A number without that bound keeps its value, and so does one that was changed after its source
    was written.

    Args:
        noun: a board, or another noun whose numbers are costs.
        sources: dotted path of a number inside it → its source.
        side: which end.
    """
    data = noun.model_dump(exclude={"sources"})
    mine = getattr(noun, "sources", {})
    return type(noun).model_validate({**_moved(data, "", sources, side), "sources": mine})


def _moved(data: Any, path: str, sources: Mapping[str, Sourced], side: Side) -> Any:
    """Return dumped numbers with the costs among them at one end of their ranges."""
    if isinstance(data, dict):
        return {
            key: value
            if key in NOT_A_COST
            else _moved(value, f"{path}.{key}" if path else key, sources, side)
            for key, value in data.items()
        }
    source = sources.get(path)
    if not isinstance(data, int | float) or source is None or source.value != data:
        return data
    bound = source.low if side == "low" else source.high
    return data if bound is None else bound
