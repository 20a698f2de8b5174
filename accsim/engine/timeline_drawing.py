"""What every way to draw a schedule gives: tracks, slices, samples of counters; the time scale.

Times are whole nanoseconds, each end rounded on its own, so slices touch exactly; the exact cycles
are in the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.engine.perfetto import Slices
from accsim.spec.schedule import Ints

# Tiles' causes in the order they are drawn, though most are spread over a tile's computing.
IN_TILE = (
    "work", "padding", "imbalance", "metadata", "gather", "generator", "checker", "fill_drain",
    "throttle",
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Cycles from the first cycle of a layer → nanoseconds of the trace."""

    clock_ghz: float
    begin: int = 0

    def ns(self, cycles: Any) -> Ints:
        """Return whole nanoseconds."""
        whole: Ints = np.rint((cycles + self.begin) / self.clock_ghz).astype(np.int64)
        return whole


class Samples(NamedTuple):
    """Means of a counter: ``values[i]`` from cycle ``starts[i]`` of the layer on."""

    name: str
    unit: str
    starts: Ints
    values: npt.NDArray[np.float64]


class Drawing(NamedTuple):
    """A drawn schedule; ``tiles_a_slice`` 1 means tile by tile, and ``drawn`` says it in words."""

    threads: tuple[str, ...]
    slices: list[Slices]
    samples: list[Samples]
    tiles_a_slice: int
    drawn: str


def bandwidth_name(channel: str, of: str) -> str:
    """Return a counter's name.

    >>> bandwidth_name("dram", "slot")
    'DRAM bandwidth, mean of a slot'
    """
    return f"{channel.upper()} bandwidth, mean of a {of}"
