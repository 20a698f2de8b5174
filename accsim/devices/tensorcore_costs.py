"""What calls of a GPU's kernels cost: the common currency of all its kernel families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

COUNTS = (  # of one call; bytes at every level that serves them
    "mma_macs",  # executed on tensor cores, padding not counted
    "sparse_mma_macs",  # of these, by mma.sp
    "fma_macs",  # executed on CUDA cores
    "shared_read_bytes",
    "shared_write_bytes",
    "l2_read_bytes",
    "l2_write_bytes",
    "dram_read_bytes",
    "dram_write_bytes",
)


@dataclass(frozen=True, eq=False)
class Costs:
    """Calls, one entry each: µs by cause, actions, clock, how each was run.

    ``times_us``: cause (compute causes, channels, launch) → µs; a call takes their sum.
    ``counts``: name of ``COUNTS`` → amount. ``extra``: what only some kernels have (NaN else).
    """

    times_us: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    clock_ghz: Floats
    mode: tuple[str, ...]
    extra: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clock_ghz)

    def time(self, *causes: str) -> Floats:
        """Return µs of the named causes together; all of them if none is named."""
        total = np.zeros(len(self))
        for cause in causes or self.times_us:
            total = total + self.times_us.get(cause, 0.0)
        return total

    @property
    def total_us(self) -> Floats:
        """Time of each call."""
        return self.time()

    @property
    def regime(self) -> npt.NDArray[np.str_]:
        """What bounds each call: launch (over half its time), memory, compute.

        Memory where a kernel says that L2 or DRAM alone takes longer than the SMs
        (``extra["memory_bound"]``), else where waiting for them is over half the rest.
        """
        launch = self.time("launch")
        rest = self.total_us - launch
        waits = self.time("dram", "l2") > 0.5 * rest
        said = self.extra.get("memory_bound", np.full(len(self), np.nan))
        memory = np.where(np.isnan(said), waits, said > 0)
        return np.where(launch > rest, "launch", np.where(memory, "memory", "compute"))

    def take(self, which: npt.NDArray[np.intp]) -> Costs:
        """Return the chosen entries, repeats allowed."""
        return Costs(
            {name: values[which] for name, values in self.times_us.items()},
            {name: values[which] for name, values in self.counts.items()},
            self.clock_ghz[which],
            tuple(self.mode[i] for i in which),
            {name: values[which] for name, values in self.extra.items()},
        )


def join(parts: Sequence[Costs]) -> Costs:
    """Return all calls one after the other; a cause or count one part lacks is 0 there."""
    return Costs(
        _columns([part.times_us for part in parts], parts, 0.0),
        _columns([part.counts for part in parts], parts, 0.0),
        np.concatenate([part.clock_ghz for part in parts]),
        tuple(mode for part in parts for mode in part.mode),
        _columns([part.extra for part in parts], parts, np.nan),
    )


def _columns(
    tables: Sequence[Mapping[str, Floats]], parts: Sequence[Costs], missing: float
) -> dict[str, Floats]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: np.concatenate([
            table.get(name, np.full(len(part), missing))
            for table, part in zip(tables, parts, strict=True)
        ])
        for name in names
    }  # fmt: skip
