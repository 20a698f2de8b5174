"""The t at which a speed-up crosses 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

UNBOUNDED = 1e300  # stands for infinity, its inverse for 0
KINDS = {
    "same": "nowhere: it runs as dense",
    "always": "at every t asked for",
    "never": "at no t asked for",
    "above": "above the last crossing",
    "below": "below the last crossing",
}


@dataclass(frozen=True)
class Crossed:
    """Where one curve is above 1: a word of ``KINDS``, and the t of its crossings, ascending.

    Between crossings it is above and below 1 in turn.

    >>> print(Crossed("above", (8.0, 20.0, 1500.0)))
    8 < t < 20, t > 1,500
    """

    kind: str
    t: tuple[float, ...] = ()

    def __str__(self) -> str:
        if not self.t:
            return KINDS[self.kind]
        words = [f"{t:.3g}" if t < 1000 else f"{t:,.0f}" for t in self.t]
        begun = (len(words) % 2 == 1) == (self.kind == "above")
        ends = [*([] if begun else [""]), *words, *([""] if self.kind == "above" else [])]
        pairs = zip(ends[::2], ends[1::2], strict=True)
        return ", ".join(
            f"{a} < t < {b}" if a and b else f"t > {a}" if a else f"t < {b}" for a, b in pairs
        )


@dataclass(frozen=True)
class Crossing:
    """Where a pattern breaks even on a device for one k × n.

    ``low`` and ``high`` are the same for the ends of the speed-up's interval: where ``low`` is
    above 1 it is surely faster, where ``high`` is below 1 surely slower. None without intervals.
    """

    hardware: str
    pattern: str
    k: int
    n: int
    speedup: Crossed
    low: Crossed | None = None
    high: Crossed | None = None


def crossed(t: Sequence[int], speedup: Sequence[float]) -> Crossed:
    """Return where a curve over ascending t crosses 1, straight lines between in log and log.

    A point exactly at 1 between a faster and a slower one is the crossing; one that is only touched
    is none.

    >>> crossed([1, 4, 16], [0.5, 2.0, 8.0])
    Crossed(kind='above', t=(2.0,))
    """
    ends = [min(max(s, 1 / UNBOUNDED), UNBOUNDED) for s in speedup]
    logs = [(math.log(x), math.log(s)) for x, s in zip(t, ends, strict=True)]
    if not any(s for _, s in logs):
        return Crossed("same")
    sides = [(x, s) for x, s in logs if s]
    found = [_between(logs, a, b) for a, b in pairwise(sides) if a[1] * b[1] < 0]
    places = tuple(float(f"{math.exp(x):.6g}") for x in found)
    if not places:
        return Crossed("always" if sides[0][1] > 0 else "never")
    return Crossed("above" if sides[-1][1] > 0 else "below", places)


def _between(
    logs: list[tuple[float, float]], a: tuple[float, float], b: tuple[float, float]
) -> float:
    """Return log t of the crossing between two points: the middle of those at 1, if any are."""
    level = [x for x, _ in logs if a[0] < x < b[0]]
    if level:
        return (level[0] + level[-1]) / 2
    return a[0] + (b[0] - a[0]) * a[1] / (a[1] - b[1])
