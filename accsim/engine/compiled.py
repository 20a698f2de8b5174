"""Play a schedule with the compiled kernel: for millions of tiles, the times docs/engine.md states.

This face makes tables of the nouns; `accsim.kernels.play` knows no nouns, and is compiled on
first use.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.spec.schedule import MAX_CYCLES, Machine, Played, Schedule

Ints = npt.NDArray[np.int64]

# What the rows of the kernel's table of times are, in its order.
PLAYED = (
    "unit", "load_request", "load_begin", "load_done", "compute_start", "compute_end",
    "store_request", "store_begin", "store_done", "load_channel", "store_channel",
)  # fmt: skip
MAX_TILES = 200_000_000  # tiles times runs; each takes about 100 bytes


def total_cycles(schedule: Schedule) -> int:
    """Return the cycle in which a schedule ends; `play` says what it refuses."""
    return play(schedule).total_cycles


def play(schedule: Schedule) -> Played:
    """Return what happens when, every array as docs/engine.md states it.

    Raises:
        InputError: more than 200 million tiles times runs; or cycles that could reach 2**62, were
            nothing to overlap.
    """
    return _play(schedule, lone=_is_lone(schedule))


def _is_lone(schedule: Schedule) -> bool:
    """Whether no unit can notice another one."""
    machine = schedule.machine
    if len(schedule.dependencies):
        return False
    if machine.order == "list" and any(pool.units > 1 for pool in machine.pools):
        return False
    return machine.units == 1 or not any(channel.shared for channel in machine.channels)


def _play(schedule: Schedule, *, lone: bool) -> Played:
    _check(schedule)
    from accsim.kernels import play as kernel  # compiled on first use: only who plays pays

    machine, played = schedule.machine, schedule.runs * len(schedule)
    swap = {"elastic": kernel.ELASTIC, "lockstep": kernel.LOCKSTEP,
            "sequential": kernel.SEQUENTIAL}[machine.swap]  # fmt: skip
    by_pool = np.argsort(schedule.tiles["pool"], kind="stable")
    bandwidth = np.array([c.bytes_per_cycle for c in machine.channels], dtype=np.float64)
    channels = _channels(kernel, machine)
    queues, units = _queues(schedule), _units(kernel, machine, played)
    tiles = _tiles(kernel, schedule)
    if lone:
        times = np.empty((kernel.PLAYED_ROWS, played), dtype=np.int64)
        kernel.lone(machine.launch_cycles, swap, schedule.runs, by_pool, bandwidth, channels,
                    queues, tiles, units, times)  # fmt: skip
    else:
        times = _times(kernel, schedule)
        kernel.events(machine.launch_cycles, swap, schedule.runs, by_pool, _heirs(schedule),
                      bandwidth, channels, queues, tiles, units, times,
                      _agenda(kernel, units, played))  # fmt: skip
    last = times[kernel.STORE_DONE].max(initial=machine.launch_cycles)
    rows = dict(zip(PLAYED, times, strict=False))
    return Played(
        total_cycles=int(last), channel_busy_cycles=channels[:, kernel.BUSY_CYCLES].copy(), **rows
    )


def _check(schedule: Schedule) -> None:
    played, tiles = schedule.runs * len(schedule), schedule.tiles
    if played > MAX_TILES:
        raise InputError(
            f"schedule: tiles times runs must be ≤ {MAX_TILES}; "
            f"got {len(schedule)} tiles, {schedule.runs} runs"
        )
    most = sum(int(tiles[name].max(initial=0)) for name in ("load_bytes", "store_bytes"))
    if most >= 2**63:
        raise InputError(f"schedule: bytes of two tiles must be < 2**63; got {most}")
    # One thing after the other; a transfer waits for one latency at most.
    cycles = float(tiles["compute_cycles"].sum(dtype=np.float64))
    latency = 0
    for level, channel in enumerate(schedule.machine.channels):
        latency = max(latency, channel.latency_cycles)
        for name in ("load_bytes", "store_bytes"):
            busy = np.ceil(tiles[name][:, level] / channel.bytes_per_cycle)
            cycles += float(busy.sum())
    cycles = schedule.runs * (cycles + 2.0 * latency * len(schedule))
    cycles += float(schedule.machine.launch_cycles)
    if not cycles < MAX_CYCLES:
        raise InputError(f"schedule: cycles must be < 2**62; they could reach {cycles:.3g}")


def _tiles(kernel: ModuleType, schedule: Schedule) -> Ints:
    tiles, levels = schedule.tiles, len(schedule.machine.channels)
    table = np.empty((len(tiles), kernel.BYTES + 2 * levels), dtype=np.int64)
    flags = np.zeros(len(tiles), dtype=np.int64)
    for level, channel in enumerate(schedule.machine.channels):
        load, store = tiles["load_bytes"][:, level], tiles["store_bytes"][:, level]
        table[:, kernel.BYTES + level] = load
        table[:, kernel.BYTES + levels + level] = store
        flags |= kernel.STORES * (store > 0)
        if channel.latency_cycles > 0 or not np.isinf(channel.bytes_per_cycle):
            flags |= kernel.LOAD_WAITS * (load > 0) | kernel.STORE_WAITS * (store > 0)
    flags[schedule.dependencies[:, 1]] |= kernel.NEEDED
    table[:, kernel.CYCLES], table[:, kernel.FLAGS] = tiles["compute_cycles"], flags
    return table


def _heirs(schedule: Schedule) -> Ints:
    edges, tiles = schedule.dependencies, len(schedule)
    starts = np.full(tiles + 1, tiles + 1)
    starts[1:] += np.cumsum(np.bincount(edges[:, 1], minlength=tiles))
    return np.concatenate((starts, edges[np.argsort(edges[:, 1], kind="stable"), 0]))


def _channels(kernel: ModuleType, machine: Machine) -> Ints:
    table = np.zeros((len(machine.channels), kernel.FREE + machine.units), dtype=np.int64)
    for level, channel in enumerate(machine.channels):
        table[level, kernel.LATENCY] = channel.latency_cycles
        table[level, kernel.OWN] = not channel.shared
    return table


def _queues(schedule: Schedule) -> Ints:
    """One row a pool (list) or a unit (in order)."""
    pools = schedule.machine.pools
    counts = np.bincount(schedule.tiles["pool"], minlength=len(pools))
    starts = np.cumsum(counts) - counts
    rows = []
    for pool, start, count in zip(pools, starts, counts, strict=True):
        queues = 1 if schedule.machine.order == "list" else pool.units
        rows += [(head, queues, start, count) for head in range(queues)]
    return np.array(rows, dtype=np.int64)


def _units(kernel: ModuleType, machine: Machine, played: int) -> Ints:
    """One row a unit, that holds nothing."""
    units = np.full((machine.units, kernel.UNIT_COLUMNS), -1, dtype=np.int64)
    units[:, [kernel.HELD, kernel.STARTED, kernel.ENDED]] = 0
    units[:, [kernel.IN_SLOT, kernel.TOUCHED, kernel.RANKED]] = 0
    first = 0
    for at, pool in enumerate(machine.pools):
        rows = slice(first, first + pool.units)
        # Only elastic knows numbers of buffers: else two tiles in a slot, or one tile.
        inputs, outputs = {"elastic": (pool.input_buffers, pool.output_buffers),
                           "lockstep": (2, 1), "sequential": (1, 1)}[machine.swap]  # fmt: skip
        units[rows, kernel.INPUTS] = min(inputs, played + 1)
        units[rows, kernel.OUTPUTS] = min(outputs, played + 1)
        own = np.arange(first, first + pool.units)
        units[rows, kernel.QUEUE] = at if machine.order == "list" else own
        units[rows, kernel.POOL_FIRST] = first
        first += pool.units
    return units


def _times(kernel: ModuleType, schedule: Schedule) -> Ints:
    played, edges = schedule.runs * len(schedule), schedule.dependencies
    times = np.empty((kernel.ROWS, played), dtype=np.int64)
    times[kernel.UNIT] = -1
    missing = np.bincount(edges[:, 0], minlength=len(schedule))
    times[kernel.MISSING] = np.tile(missing, schedule.runs)
    return times


def _agenda(kernel: ModuleType, units: Ints, played: int) -> Ints:
    """Room for what can be at one time: an event or two a unit, a transfer a buffer."""
    buffers = units[:, [kernel.INPUTS, kernel.OUTPUTS]]
    room = np.minimum(buffers.astype(np.float64).sum(axis=0), played).sum()
    agenda = np.empty((4, int(room) + 4 * len(units) + 1, 2), dtype=np.int64)
    agenda[:, 0] = 0
    return agenda
