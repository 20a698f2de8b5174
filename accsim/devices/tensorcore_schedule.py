"""The CTAs of one layer spelled out for the engine (docs/engine.md), under the tile chosen.

An SM's resident CTAs are units of a pool; a CTA's cycles are those of the round it runs in, in
which residents share the SM. Its k is cut into slices, so that loading overlaps multiplying as a
pipelined mainloop does; a CTA's cycles hold its pipeline's latency, so that channels have none of
their own. Without memories the makespan is the closed form's on-chip time exactly;
with them the engine plays queues where the closed form has a norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.tensorcore_costs import Costs
from accsim.spec.gpu import Gpu
from accsim.spec.schedule import Machine, Pool, Schedule, tile_dtype
from accsim.spec.workload import Layer

Ints = npt.NDArray[np.int64]

SLICES = 8  # of a CTA's k, at most; fewer for large grids
MOST_TILES = 2_000_000
ONCHIP = ("work", "padding", "imbalance", "fill_drain", "shared")
CAUSES = ("work", "padding", "imbalance", "fill_drain", "throttle")


@dataclass(frozen=True)
class _Grid:
    """CTAs of one call in rounds: units, full rounds, CTAs of the last one; slices of k."""

    units: int
    full: int
    rest: int
    slices: int

    @property
    def rounds(self) -> int:
        return self.full + (self.rest > 0)


def gemm_schedule(layer: Layer, calls: Costs, gpu: Gpu, runs: int) -> Schedule:
    """Return the CTAs of one layer that runs as a plain or 2:4 GEMM.

    Args:
        layer: the layer.
        calls: what one call of it costs, one entry.
        gpu: the chip.
        runs: calls of it, one after the other.

    Raises:
        InputError: more CTAs than the engine is given.
    """
    grid = _grid(layer, calls, gpu, runs)
    per_round = _round_cycles(calls, grid, gpu)
    tiles = np.zeros(_count(grid), dtype=tile_dtype(len(gpu.channels)))
    of_round, slice_at, sliced = _places(grid)
    ends = np.rint(np.cumsum(per_round)).astype(np.int64)
    whole = np.diff(ends, prepend=0)
    part = np.where(sliced, grid.slices, 1)
    cycles = whole[of_round] * (slice_at + 1) // part - whole[of_round] * slice_at // part
    tiles["compute_cycles"] = cycles
    _divide(tiles, cycles, calls, float(calls.clock_ghz[0]) / gpu.clock_ghz)
    _move(tiles, calls, slice_at == part - 1, part)
    pool = Pool("sm", grid.units, 2, 2)
    launch = round(float(calls.time("launch")[0]) * gpu.clock_ghz * 1e3)
    channels = tuple(replace(channel, latency_cycles=0) for channel in gpu.channels)
    machine = Machine(channels, (pool,), swap="elastic", launch_cycles=launch)
    return Schedule(tiles, machine, runs)


def _grid(layer: Layer, calls: Costs, gpu: Gpu, runs: int) -> _Grid:
    ctas = int(calls.extra["ctas"][0])
    if ctas * runs > MOST_TILES:
        raise InputError(
            f"layer '{layer.name}' has {ctas * runs} CTAs: level events plays at most "
            f"{MOST_TILES}; use level closed"
        )
    units = gpu.sms * int(calls.extra["resident_ctas"][0])
    units = min(units, ctas)
    full, rest = divmod(ctas, units)
    slices = max(1, min(SLICES, MOST_TILES // (ctas * runs)))
    return _Grid(units, full, rest, slices)


def _count(grid: _Grid) -> int:
    return grid.full * grid.units * grid.slices + grid.rest


def _places(grid: _Grid) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Return round, slice and whether it is a slice at all, of every tile in program order.

    Tile p of a pool goes to unit p mod units: a full round is slices × units; the CTAs of the last
    one stay whole, so that none is spread over units.
    """
    block = grid.units * grid.slices
    at = np.arange(grid.full * block)
    rest = np.zeros(grid.rest, dtype=np.int64)
    return (
        np.concatenate([at // block, rest + grid.full]),
        np.concatenate([at % block // grid.units, rest]),
        np.concatenate([np.ones(len(at), np.bool_), np.zeros(grid.rest, np.bool_)]),
    )


def _round_cycles(calls: Costs, grid: _Grid, gpu: Gpu) -> npt.NDArray[np.float64]:
    """Return the cycles of each round at boost, the clock's slow-down in them; the last is short.

    The last round of fewer CTAs on each SM takes its share of the on-chip time.
    """
    slow = gpu.clock_ghz / float(calls.clock_ghz[0])
    onchip = float(calls.time(*ONCHIP)[0]) * gpu.clock_ghz * 1e3 * slow
    last = float(calls.extra["last_round"][0]) * onchip if grid.full else onchip
    cycles = np.full(grid.rounds, (onchip - last) / max(grid.rounds - 1, 1))
    cycles[-1] = last
    return cycles


def _divide(tiles: npt.NDArray[np.void], cycles: Ints, calls: Costs, clock: float) -> None:
    """Divide each tile's cycles among causes in the closed form's proportions.

    Waiting for the shared-memory port is busy time of the unit. ``clock`` is over the boost clock.
    """
    spent = np.array([calls.time(cause)[0] for cause in ONCHIP])
    spent[3] += spent[4]
    spent[:4] *= clock / max(spent[:4].sum(), 1e-300)
    spent[4] = 1 - clock
    shares = np.cumsum(spent)
    ends = np.rint(cycles[:, None] * shares).astype(np.int64)
    ends[:, -1] = cycles
    parts = np.diff(ends, axis=1, prepend=np.zeros((len(cycles), 1), dtype=np.int64))
    for i, cause in enumerate(CAUSES):
        tiles[f"{cause}_cycles"] = parts[:, i]


def _move(
    tiles: npt.NDArray[np.void], calls: Costs, last: npt.NDArray[np.bool_], part: Ints
) -> None:
    """Deal loads to slices evenly, stores to the last slice of each CTA; sums stay exact."""
    ctas = int(last.sum())
    for channel, name in ((0, "dram"), (1, "l2")):
        load = int(calls.counts[f"{name}_read_bytes"][0])
        store = int(calls.counts[f"{name}_write_bytes"][0])
        ends = np.rint(np.cumsum(1 / part) * (load / ctas)).astype(np.int64)
        tiles["load_bytes"][:, channel] = np.diff(ends, prepend=0)
        ends = np.rint(np.cumsum(last) * (store / ctas)).astype(np.int64)
        tiles["store_bytes"][:, channel] = np.diff(ends, prepend=0)
