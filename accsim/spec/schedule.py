"""Schedule: what a device makes of an operation, and all an engine needs to know of it.

The tiles in the order they run, as one structured array, with the work and the bytes of each.
Engines (closed form, events) only wait; they never ask what a tile is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from accsim.spec.counts import Counts

TILE = np.dtype(
    [
        ("t", np.int64), ("k", np.int64), ("n", np.int64),  # extents of the tile
        ("t0", np.int64), ("k0", np.int64), ("n0", np.int64),  # where it starts in the operation
        ("compute_cycles", np.int64),  # the array is busy: work + imbalance + fill and drain
        ("work_cycles", np.int64),  # streaming and its skew, if non-zeros were spread evenly
        ("imbalance_cycles", np.int64),  # passes the fullest PE of a fold makes all others wait for
        ("load_bytes", np.int64),  # arrive before the tile can start
        ("metadata_bytes", np.int64),  # of these, positions of non-zeros
        ("store_bytes", np.int64),  # leave after it
    ]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Schedule:
    """Tiles of one operation, run ``runs`` times, with the memory channel they share."""

    tiles: npt.NDArray[np.void]
    runs: int
    bytes_per_cycle: float
    latency_cycles: int
    double_buffered: bool
    launch_cycles: int

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def compute_cycles(self) -> int:
        """Cycles the array is busy, all runs."""
        return self.runs * int(self.tiles["compute_cycles"].sum())


CAUSES = ("work", "fill_drain", "imbalance", "metadata", "memory", "launch")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a device says of each layer, one entry a layer, all its runs together.

    ``causes`` maps each of CAUSES to cycles; they sum to ``cycles``. ``mode`` is how the device
    runs the layer; ``extra`` holds columns only this device or timing convention has.
    """

    cycles: npt.NDArray[np.int64]
    causes: dict[str, npt.NDArray[np.int64]]
    counts: Counts
    metadata_bits: npt.NDArray[np.int64]
    effective_macs: npt.NDArray[np.int64]
    mode: tuple[str, ...]
    extra: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def take(self, which: npt.NDArray[np.intp]) -> Evaluation:
        """Return the chosen entries, repeats allowed."""
        return Evaluation(
            cycles=self.cycles[which],
            causes={name: values[which] for name, values in self.causes.items()},
            counts=self.counts.take(which),
            metadata_bits=self.metadata_bits[which],
            effective_macs=self.effective_macs[which],
            mode=tuple(self.mode[i] for i in which),
            extra={name: values[which] for name, values in self.extra.items()},
        )
