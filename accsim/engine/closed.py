"""The pipeline of a schedule without a clock: exact for one unit, a lower bound for several."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.kernels.pipeline import pipeline_waits
from accsim.spec.schedule import Schedule

Ints = npt.NDArray[np.int64]


def total_cycles(schedule: Schedule) -> int:
    """Return the cycles of a schedule of one unit: launch, first load, slots, last store, all runs.

    Raises:
        InputError: several units, finite buffers that are not swapped at a barrier, or tiles that
            wait for others: these need a player (``engine.compiled`` or ``engine.events``).
    """
    machine, tiles = schedule.machine, schedule.tiles
    if machine.units > 1 or machine.swap == "elastic" or len(schedule.dependencies):
        raise InputError(
            "a closed form needs one unit, swap 'lockstep' or 'sequential' and no dependencies; "
            f"got {machine.units} units, swap '{machine.swap}' and "
            f"{len(schedule.dependencies)} dependencies (use engine.compiled.play)"
        )
    if not len(tiles):
        return machine.launch_cycles
    waits = pipeline_waits(
        tiles["compute_cycles"], tiles["load_bytes"], tiles["store_bytes"],
        bytes_per_cycle=[c.bytes_per_cycle for c in machine.channels],
        latency_cycles=[c.latency_cycles for c in machine.channels],
        double_buffered=machine.swap == "lockstep", runs=schedule.runs,
    )  # fmt: skip
    return machine.launch_cycles + schedule.compute_cycles + sum(waits)


def lower_bound_cycles(schedule: Schedule) -> int:
    """Return cycles no player can beat, whatever the units, the order and the swap.

    The launch, then the most of: each pool's computing shared evenly by its units, the longest
    tile from load to store by itself, and each shared channel moving all transfers.
    """
    machine, tiles, runs = schedule.machine, schedule.tiles, schedule.runs
    if not len(tiles):
        return machine.launch_cycles
    bounds = [0]
    for index, pool in enumerate(machine.pools):
        busy = runs * int(tiles["compute_cycles"][tiles["pool"] == index].sum())
        bounds.append(-(-busy // pool.units))
    alone = tiles["compute_cycles"] + _slowest(schedule, "load_bytes")
    bounds.append(int((alone + _slowest(schedule, "store_bytes")).max()))
    for index, channel in enumerate(machine.channels):
        moved = (tiles["load_bytes"][:, index] + tiles["store_bytes"][:, index]).sum()
        busy = int(np.floor(runs * int(moved) / channel.bytes_per_cycle))
        bounds.append(busy // (1 if channel.shared else machine.units))
    return machine.launch_cycles + max(bounds)


def _slowest(schedule: Schedule, name: str) -> Ints:
    """Return the cycles of each tile's transfer with all channels to itself."""
    slowest = np.zeros(len(schedule), dtype=np.int64)
    for index, channel in enumerate(schedule.machine.channels):
        nbytes = schedule.tiles[name][:, index]
        busy = np.ceil(nbytes / channel.bytes_per_cycle).astype(np.int64) + channel.latency_cycles
        slowest = np.maximum(slowest, np.where(nbytes > 0, busy, 0))
    return slowest
