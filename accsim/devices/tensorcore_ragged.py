"""What kernels that follow a mask share: panels of unequal length, times divided among causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_costs import Costs
from accsim.devices.tensorcore_gemm import SM_FETCH_BYTES_PER_CLOCK, hits
from accsim.devices.tensorcore_power import Action, throttled
from accsim.sparsity.tiles import tile_counts
from accsim.spec.gpu import Gpu

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def gather_bytes_per_clock(gpu: Gpu, share: float) -> float:
    """Return what an SM gathers from L2 in a clock: ``share`` of its fair part, up to its port."""
    return min(share * gpu.l2.bytes_per_clock / gpu.sms, SM_FETCH_BYTES_PER_CLOCK)


def panel_counts(mask: BoolArray, outputs: int) -> Ints:
    """Return the k positions that each panel of so many outputs uses: int64, (⌈n / outputs⌉,).

    >>> panel_counts(np.array([[True, False, True], [False, False, True]]), 2).tolist()
    [1, 2]
    """
    found: Ints = np.count_nonzero(tile_counts(mask, 1, outputs), axis=0).astype(np.int64)
    return found


@dataclass(frozen=True, eq=False)
class Panels:
    """What closed forms know of the panels of calls, one entry a call; of one GEMM of it.

    ``vectors`` kept in all panels; ``steps`` of all panels and ``longest``, the most of one panel,
    each panel rounded up to whole steps; ``vector`` outputs of a panel.
    """

    t: Floats
    k: Floats
    n: Floats
    count: Floats  # GEMMs of a call
    vector: Floats
    panels: Floats
    vectors: Floats
    steps: Floats
    longest: Floats
    kept: Floats  # weights
    touched: Floats  # share of the rows of X any panel uses
    x_unique: Floats  # elements of X read at least once, were every row used
    between_bytes: Floats  # that pass through L2 between two uses of W: a network's other layers

    def __len__(self) -> int:
        return len(self.t)


def dram_bytes(
    w: Floats, x: Floats, y: Floats, between_bytes: Floats, gpu: Gpu
) -> tuple[Floats, Floats]:
    """Return the bytes DRAM reads and writes for operands of a call that L2 does not hold.

    As for GEMMs: what the call before left is still there as far as it fits; W only if what passed
    through L2 since, ``between_bytes``, fits too.
    """
    first, resident = w + x + y, gpu.l2.resident_bytes
    miss = 1 - hits(first, resident)
    again = 1 - hits(np.maximum(first, between_bytes), resident)
    return w * again + x * miss, y * miss


def ragged_cycles(
    longest: Floats, mean: Floats, c: Floats, step: Floats, concurrency: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return cycles of an SM that c CTAs land on: at full rate, for want of CTAs, ragged tail.

    Alone a CTA takes ``step`` cycles a step; the SM is busy from ``concurrency`` CTAs on. The tail
    is the longest panel's steps over the mean: the others have ended.
    """
    full = step * mean * c / concurrency
    idle = np.maximum(step * mean - full, 0.0)
    return full, idle, step * np.maximum(longest - mean, 0.0)


@dataclass(frozen=True, eq=False)
class Body:
    """Times of calls at boost, µs, launch apart.

    ``chip``: cause → what it adds to the on-chip time, which memories overlap. ``tail`` is DRAM's
    and overlaps nothing. ``overlap`` is p of the norm that joins them; None: the longest counts.
    """

    chip: Sequence[tuple[str, Floats]]
    l2: Floats
    dram: Floats
    tail: Floats
    launch: float
    overlap: float | None = None

    def join(self, *times: Floats) -> Floats:
        """Return times that overlap."""
        longest: Floats = np.maximum.reduce(np.broadcast_arrays(*times))
        if self.overlap is None:
            return longest
        scale = np.maximum(longest, 1e-300)
        powers: Floats = np.sum([(x / scale) ** self.overlap for x in times], axis=0)
        return powers ** (1 / self.overlap) * scale

    @property
    def onchip(self) -> Floats:
        """On-chip time of each call."""
        found: Floats = np.sum([time for _, time in self.chip], axis=0, dtype=np.float64)
        return found

    def time_us(self, slow: Floats) -> Floats:
        """Return the time of each call, launch included, the clock ``slow`` times below boost."""
        return self.launch + self.join(self.onchip * slow + self.tail, self.l2 * slow, self.dram)


def ladder(rungs: Sequence[tuple[str, Floats]]) -> list[tuple[str, Floats]]:
    """Return what each cause adds to the ones before: cause → time up to it, in; its own, out.

    A rung below the one before adds nothing.
    """
    heights = np.stack([np.zeros_like(rungs[0][1]), *(height for _, height in rungs)])
    added = np.diff(np.maximum.accumulate(heights, axis=0), axis=0)
    return [(name, own) for (name, _), own in zip(rungs, added, strict=True)]


def powered(
    body: Body, counts: Mapping[str, Floats], mac_pj: float, gpu: Gpu, burst_us: float,
    mode: Sequence[str], extra: Mapping[str, Floats],
) -> Costs:  # fmt: skip
    """Return the costs of calls, their clock held down by the board's cap.

    Args:
        body: their times at boost.
        counts: their actions, all of ``COUNTS``.
        mac_pj: energy of an executed MAC at boost.
        gpu: the chip and its board.
        burst_us: kernel time by which the cap has half acted.
        mode: how each call is run.
        extra: columns only these kernels have.
    """
    action = Action(
        (counts["mma_macs"] + counts["fma_macs"]) * mac_pj,
        counts["shared_read_bytes"] + counts["shared_write_bytes"],
        counts["l2_read_bytes"] + counts["l2_write_bytes"],
        counts["dram_read_bytes"] + counts["dram_write_bytes"],
    )
    free = body.time_us(np.ones_like(body.dram))
    slow, time = throttled(gpu.board, action, body.time_us, free, burst_us)
    onchip = body.onchip
    rungs = [
        ("l2", body.join(onchip, body.l2)),
        ("dram", free - body.launch),
        ("throttle", time - body.launch),
    ]
    times: dict[str, Floats] = {}
    for name, own in [*body.chip, *ladder([("", onchip), *rungs])[1:]]:
        times[name] = times.get(name, 0.0) + own
    times["launch"] = np.full_like(free, body.launch)
    return Costs(times, dict(counts), gpu.clock_ghz / slow, tuple(mode), dict(extra))
