"""What every cycle of a played schedule was spent on, on any machine: a ledger of unit-cycles.

The line of each unit, from cycle 0 to the end of all, is cut in computing (what for, the tile
says) and stalls: launch, waiting for a transfer, and having no turn. docs/engine.md has the rules.
One unit with barrier-swapped or single buffers gets exactly the closed form's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.kernels.pipeline import memory_cycles
from accsim.spec.schedule import COMPUTE_CAUSES, Ints, Machine, Played, Schedule

Bools = npt.NDArray[np.bool_]

NONE = -1  # no tile
IMBALANCE, METADATA, GATHER = (
    COMPUTE_CAUSES.index(name) for name in ("imbalance", "metadata", "gather")
)


def causes(schedule: Schedule, played: Played) -> dict[str, int]:
    """Return the cycles of every cause of the machine, zeros included; they sum to total_cycles.

    With several units these are the unit-cycles of all of them divided by their number, rounded so
    that the sum stays (largest remainder; of equal ones, the cause shown first).
    """
    machine = schedule.machine
    spent = np.zeros(len(machine.causes), dtype=np.int64)
    for cause, name in enumerate(COMPUTE_CAUSES):
        spent[cause] = schedule.runs * schedule.tiles[f"{name}_cycles"].sum()
    for stretch in _stretches(schedule, played):
        np.add.at(spent, stretch.cause, stretch.end - stretch.start)
    each, left = np.divmod(spent, machine.units)
    more = played.total_cycles - int(each.sum())
    each[np.argsort(-left, kind="stable")[:more]] += 1
    return dict(zip(machine.causes, each.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Stretches:
    """Stretches of time of units, none empty: from ``start`` to ``end`` (cycles).

    ``cause`` is an index of ``machine.causes``.
    """

    start: Ints
    end: Ints
    unit: Ints
    cause: Ints

    def __len__(self) -> int:
        return len(self.start)

    def take(self, which: npt.NDArray[np.intp]) -> Stretches:
        """Return the chosen stretches, in that order."""
        return Stretches(self.start[which], self.end[which], self.unit[which], self.cause[which])


def unit_ledger(schedule: Schedule, played: Played) -> Stretches:
    """Return when each unit does not compute, and why: by unit, then by time.

    With the tiles' computing these stretches cover each unit's line from 0 to total_cycles.
    """
    found = joined(_stretches(schedule, played))
    return found.take(np.lexsort((found.start, found.unit)))


def joined(parts: list[Stretches]) -> Stretches:
    """Return all stretches one behind the other."""
    names = [field.name for field in fields(Stretches)]
    return Stretches(*(np.concatenate([getattr(x, name) for x in parts]) for name in names))


# --- where units stall ----------------------------------------------------------------------------


class _Lines:
    """What was played, unit behind unit: place i of every array is one tile of ``unit[i]``.

    A unit computes its tiles in program order.
    """

    def __init__(self, schedule: Schedule, played: Played) -> None:
        self.schedule, self.machine = schedule, schedule.machine
        self.total, self.launch = played.total_cycles, self.machine.launch_cycles
        many = self.machine.units > 1
        order = np.argsort(played.unit, kind="stable") if many else np.arange(len(played.unit))
        self.row = order % max(len(schedule), 1)
        names = [field.name for field in fields(Played)][1:-1]
        of_tiles = {name: getattr(played, name) for name in names}
        self.at = SimpleNamespace(
            **{name: values[order] if many else values for name, values in of_tiles.items()}
        )
        self.unit: Ints = self.at.unit
        self.is_first = np.append(True, np.diff(self.unit) != 0)[: len(order)]
        self.is_last = np.append(self.is_first[1:], True)[: len(order)]

    def next(self, values: Ints, at_end: int) -> Ints:
        """Return the value of the unit's next tile, ``at_end`` for its last."""
        return np.where(self.is_last, at_end, np.roll(values, -1))

    def before(self, values: Ints, at_start: int) -> Ints:
        """Return the value of the unit's tile before, ``at_start`` for its first."""
        return np.where(self.is_first, at_start, np.roll(values, 1))


class _Wait(NamedTuple):
    """Stretches spent waiting for a transfer, the places of the tiles it loads and stores.

    ``since``: its request, or the end of the unit's load before, whichever is later.
    """

    start: Ints
    end: Ints
    unit: Ints
    loads: Ints
    stores: Ints
    since: Ints
    done: Ints
    channel: Ints  # the last to deliver


def _stretches(schedule: Schedule, played: Played) -> list[Stretches]:
    """Return all stretches in which units do not compute, in no particular order."""
    lines = _Lines(schedule, played)
    at, place = lines.at, np.arange(len(lines.row))
    # After computing a tile: the slot's transfer goes on until slot_end, its own store (or the one
    # that the next tile's buffer waits for) until stored, no turn until asked, the next one's load.
    slot_end, next_start = at.store_request, lines.next(at.compute_start, lines.total)
    if lines.machine.swap == "elastic":
        stores, stored = _awaited_stores(lines)
    else:
        stores, stored = place, at.store_done
    stored = np.clip(stored, slot_end, next_start)
    asked = np.clip(lines.next(at.load_request, lines.total), stored, next_start)
    first_asked = np.clip(at.load_request, lines.launch, at.compute_start)
    loading = np.where(lines.is_first, first_asked, np.roll(asked, 1))
    alone = np.maximum(at.load_request, lines.before(at.load_done, NONE))

    waits = [
        _slots(lines, slot_end, next_start),
        _Wait(slot_end, stored, lines.unit, _loads_with(lines), stores, at.store_request[stores],
              at.store_done[stores], at.store_channel[stores]),
        _Wait(loading, at.compute_start, lines.unit, place, np.full_like(place, NONE),
              alone, at.load_done, at.load_channel),
    ]  # fmt: skip
    first = lines.is_first
    idle = np.setdiff1d(np.arange(lines.machine.units), lines.unit)
    everyone = np.arange(lines.machine.units)
    return [
        _same(np.zeros_like(everyone), lines.launch, everyone, len(lines.machine.causes) - 1),
        _same(np.full_like(idle, lines.launch), lines.total, idle, IMBALANCE),
        _same(np.full_like(place[first], lines.launch), loading[first], lines.unit[first],
              IMBALANCE),
        _same(stored, asked, lines.unit, IMBALANCE),
        *(part for wait in waits for part in _split(lines, wait)),
    ]  # fmt: skip


def _same(start: Ints, end: Ints | int, unit: Ints, cause: int) -> Stretches:
    return _shown(start, np.broadcast_to(end, start.shape), unit, np.full_like(start, cause))


def _shown(start: Ints, end: Ints, unit: Ints, cause: Ints) -> Stretches:
    return Stretches(start, end, unit, cause).take(np.flatnonzero(end > start))


def _slots(lines: _Lines, slot_end: Ints, next_start: Ints) -> _Wait:
    """Lockstep: what is left of a slot after computing waits for the slot's one transfer."""
    at, place = lines.at, np.arange(len(lines.row))
    loads = ~lines.is_last & (slot_end == next_start)
    before = lines.before(at.store_request, NONE) == at.compute_start
    following, earlier = np.where(loads, place + 1, NONE), np.where(before, place - 1, NONE)
    channel = np.where(loads, np.roll(at.load_channel, -1), np.roll(at.store_channel, 1))
    return _Wait(at.compute_end, slot_end, lines.unit, following, earlier, at.compute_start,
                 slot_end, channel)  # fmt: skip


def _loads_with(lines: _Lines) -> Ints:
    """Lockstep: what the transfer that stores a tile loads after a slot in which nothing came."""
    place, at = np.arange(len(lines.row)), lines.at
    if lines.machine.swap != "lockstep":
        return np.full_like(place, NONE)
    together = lines.next(at.load_request, NONE) == at.store_request
    return np.where(together, place + 1, NONE)


def _awaited_stores(lines: _Lines) -> tuple[Ints, Ints]:
    """Elastic: which store the next tile waits for, if more than for its load, and until when.

    After its last tile a unit waits for its last store to complete.
    """
    at, place = lines.at, np.arange(len(lines.row))
    buffers = np.array([pool.output_buffers for pool in lines.machine.pools])
    pool = lines.schedule.tiles["pool"][lines.row]
    first = np.flatnonzero(lines.is_first)
    head = np.repeat(first, np.diff(np.append(first, len(place))))
    blocking = np.maximum(place + 1 - buffers[pool], NONE)
    fits = lines.is_last | (blocking < head)
    free = np.where(fits, NONE, at.store_done[blocking])
    blocked = free > lines.next(at.load_done, NONE)
    stores, until = np.where(blocked, blocking, place), np.where(blocked, free, NONE)
    if len(place):
        end = np.maximum.reduceat(at.store_done, first)
        latest = np.flatnonzero(at.store_done == end[np.cumsum(lines.is_first) - 1])
        _, which = np.unique(lines.unit[latest], return_index=True)
        stores[lines.is_last], until[lines.is_last] = latest[which], end
    return stores, until


# --- what a wait for a transfer was for -----------------------------------------------------------


def _split(lines: _Lines, wait: _Wait) -> list[Stretches]:
    """Cut waits: the channel first, then what would not be without gather, without metadata."""
    wait = _Wait(*(values[np.flatnonzero(wait.end > wait.start)] for values in wait))
    if not len(wait.start):
        return []
    tiles = lines.schedule.tiles
    nbytes = _of(tiles["load_bytes"], lines.row, wait.loads)
    nbytes += _of(tiles["store_bytes"], lines.row, wait.stores)
    metadata = _of(tiles["metadata_bytes"], lines.row, wait.loads)
    gather = _of(tiles["gather_bytes"], lines.row, wait.loads)
    full, bare, plain = (
        channel_cycles(lines.machine, moved)
        for moved in (nbytes, nbytes - metadata, nbytes - metadata - gather)
    )
    took, alone = wait.done - wait.since, full.max(axis=1)
    length = wait.end - wait.start
    latency = np.array([c.latency_cycles for c in lines.machine.channels])
    queued = np.maximum(took - alone, 0)
    service = alone - latency[full.argmax(axis=1)]
    by_metadata = _share(queued, service, alone - bare.max(axis=1))
    by_both = _share(queued, service, alone - plain.max(axis=1))
    until_metadata = wait.end - np.minimum(by_metadata, length)
    until_gather = wait.end - np.minimum(by_both, length)
    # Which was last without these bytes is known of a transfer that queued behind no other.
    slowest = np.where(took == alone, plain.argmax(axis=1), np.maximum(wait.channel, 0))
    return [
        _shown(wait.start, until_gather, wait.unit, len(COMPUTE_CAUSES) + slowest),
        _same(until_gather, until_metadata, wait.unit, GATHER),
        _same(until_metadata, wait.end, wait.unit, METADATA),
    ]


def _of(nbytes: Ints, row: Ints, places: Ints) -> Ints:
    """Return (places, channels) bytes of tiles; 0 where there is none."""
    return np.where(places[:, None] >= 0, nbytes[row[places]], 0)


def channel_cycles(machine: Machine, nbytes: Ints) -> Ints:
    """Return the cycles each channel takes for (transfers, channels) bytes with nothing before."""
    rates = np.array([c.bytes_per_cycle for c in machine.channels], dtype=np.float64)
    latency = np.array([c.latency_cycles for c in machine.channels], dtype=np.int64)
    return memory_cycles(nbytes, rates, latency)


def _share(queued: Ints, service: Ints, less: Ints) -> Ints:
    """Return the cycles a transfer would take less, if the queue before it were of its like."""
    whole, rest = np.divmod(queued, np.maximum(service, 1))
    of_service = np.minimum(less, service)
    part = np.floor(rest * (of_service / np.maximum(service, 1))).astype(np.int64)
    share: Ints = less + whole * of_service + np.minimum(part, of_service)
    return share
