"""A played schedule drawn: computing and stalls of every unit, its loads and stores.

Up to ``MAX_TRACKS`` units have four tracks each, drawn tile by tile if that takes no more slices
than allowed. Else time is cut in equal steps, and units are taken together in groups of neighbours
of one pool: a step of a group is drawn like one unit that spends it as all do on the average, first
launch, then computing, then stalls. Names and arguments say so; their unit-cycles are exact.

A transfer is drawn from when a channel took it up, or the one before on its track was complete,
until it is complete. Counters spread its bytes evenly over its time on the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.engine.attribution import Stretches, joined, unit_ledger
from accsim.engine.perfetto import Slices
from accsim.engine.timeline_drawing import IN_TILE, Drawing, Samples, Scale, bandwidth_name
from accsim.spec.schedule import Ints, Machine, Played, Schedule

MAX_TRACKS = 32
MAX_SAMPLES = 4000  # of a counter
TRACKS = ("load", "compute", "store", "stalls")
STEP = "mean of a step"


def draw_units(schedule: Schedule, played: Played, scale: Scale, max_slices: int) -> Drawing:
    """Return a played schedule as slices and samples.

    Raises:
        InputError: fewer slices than a single step takes.
    """
    scene = _Scene(schedule, played)
    threads = tuple(f"{track} {group.label}" for group in scene.groups for track in TRACKS)
    samples = list(_samples(scene, scale.clock_ghz))
    alone = len(scene.groups) == schedule.machine.units
    if alone and scene.slices <= max_slices:
        slices = [batch for batch in _by_tile(scene, scale) if len(batch)]
        return Drawing(threads, slices, samples, 1, "tile by tile")
    if max_slices < scene.slices_a_step:
        raise InputError(
            f"max_slices must be at least {scene.slices_a_step} for {len(scene.groups)} tracks of "
            f"units; got {max_slices}"
        )
    steps = max(min(played.total_cycles, max_slices // scene.slices_a_step), 1)
    edges = _edges(played.total_cycles, steps)
    tiles = scene.tiles_ended(edges)
    slices = [batch for batch in _by_step(scene, edges, tiles, scale) if len(batch)]
    drawn = f"aggregated: {steps} steps of {-(-played.total_cycles // steps)} cycles"
    if not alone:
        drawn += f", units together in {len(scene.groups)} tracks"
    return Drawing(threads, slices, samples, max(int(tiles.max(initial=1)), 2), drawn)


class Group(NamedTuple):
    """Neighbouring units of one pool that share their tracks."""

    label: str
    first: int
    units: int


def groups_of(machine: Machine) -> list[Group]:
    """Return units one by one, or as many together as leave ``MAX_TRACKS`` groups.

    (One a pool if there are more pools.)
    """
    size = 1
    most = max(MAX_TRACKS, len(machine.pools))
    while sum(-(-pool.units // size) for pool in machine.pools) > most:
        size += 1
    groups, first = [], 0
    for pool in machine.pools:
        for begin in range(0, pool.units, size):
            units = min(size, pool.units - begin)
            label = pool.name if pool.units == 1 else f"{pool.name}[{begin}]"
            if units > 1:
                label = f"{pool.name}[{begin}–{begin + units - 1}] (mean of {units} units)"
            groups.append(Group(label, first + begin, units))
        first += pool.units
    return groups


class _Transfers:
    """Loads or stores that move bytes, by group and then by completion."""

    def __init__(self, scene: _Scene, verb: str) -> None:
        played, schedule = scene.played, scene.schedule
        begin, done = getattr(played, f"{verb}_begin"), getattr(played, f"{verb}_done")
        moved = schedule.tiles[f"{verb}_bytes"]
        some = np.flatnonzero(np.tile(moved.any(axis=1), schedule.runs))
        group = scene.group_of[played.unit[some]]
        order = np.lexsort((done[some], group))
        some, self.group = some[order], group[order]
        self.verb, self.place = verb, some
        self.begin, self.end = begin[some], done[some]
        self.waited = self.begin - getattr(played, f"{verb}_request")[some]
        self.nbytes = moved[some % max(len(schedule), 1)]
        before = np.append(-1, self.end[:-1])[: len(some)]
        before[np.append(True, np.diff(self.group) != 0)[: len(some)]] = -1
        self.start = np.maximum(self.begin, before)  # from where it is drawn


class _Scene:
    """What is drawn, but for how finely: stretches of every unit by kind, and transfers."""

    def __init__(self, schedule: Schedule, played: Played) -> None:
        self.schedule, self.played, self.machine = schedule, played, schedule.machine
        self.groups = groups_of(self.machine)
        self.group_of = np.repeat(np.arange(len(self.groups)), [x.units for x in self.groups])
        channels = [channel.name for channel in self.machine.channels]
        stalls = ("launch", "imbalance", *channels, "gather", "metadata")
        # kinds of stretches in the order they are drawn in a step: launch, computing, stalls
        self.kinds = (*stalls[:1], *IN_TILE, *stalls[1:])
        self.row = np.arange(len(played.unit)) % max(len(schedule), 1)
        self.loads, self.stores = _Transfers(self, "load"), _Transfers(self, "store")
        self.busy = np.flatnonzero(played.compute_end > played.compute_start)
        found = unit_ledger(schedule, played)
        places = [self._stall(name) for name in self.machine.causes]
        kinds = np.array(places, dtype=np.int64)[found.cause]
        ledger = Stretches(found.start, found.end, found.unit, kinds)
        lines = joined([ledger, *self._computing()])
        self.lines = lines.take(np.lexsort((lines.start, lines.unit)))
        self.group = self.group_of[self.lines.unit]

    WORK = 1 + IN_TILE.index("work")
    COMPUTING = slice(1, 1 + len(IN_TILE))

    def _stall(self, cause: str) -> int:
        """Return the kind of a stall; causes of computing alone never occur in a ledger."""
        at = [i for i, kind in enumerate(self.kinds) if kind == cause]
        return at[-1]

    def _computing(self) -> Iterator[Stretches]:
        start = self.played.compute_start
        for kind, cause in enumerate(IN_TILE, 1):
            length = self.schedule.tiles[f"{cause}_cycles"][self.row]
            some = np.flatnonzero(length)
            kinds, end = np.full_like(some, kind), start[some] + length[some]
            yield Stretches(start[some], end, self.played.unit[some], kinds)
            start = start + length

    @property
    def slices(self) -> int:
        """Slices drawn tile by tile, at most."""
        stalls = int(np.count_nonzero(self.lines.cause != self.WORK))
        return stalls + len(self.busy) + len(self.loads.place) + len(self.stores.place)

    @property
    def slices_a_step(self) -> int:
        """Slices of one step of all groups, at most."""
        kinds = set(np.unique(self.lines.cause).tolist()) - {self.WORK}
        return len(self.groups) * (len(kinds) + 3)

    def tiles_ended(self, edges: Ints) -> Ints:
        """Return (groups, steps) tiles whose computing ends in each step."""
        ended = np.zeros((len(self.groups), len(edges) - 1), dtype=np.int64)
        step = np.searchsorted(edges[1:], self.played.compute_end)
        np.add.at(ended, (self.group_of[self.played.unit], step), 1)
        return ended


def _edges(total: int, steps: int) -> Ints:
    """Return where each of ``steps`` steps begins, and the end.

    >>> _edges(10, 4).tolist()
    [0, 2, 5, 7, 10]
    """
    each, more = divmod(total, steps)
    at = np.arange(steps + 1)
    return each * at + more * at // steps


def _spread(start: Ints, end: Ints, key: Ints, keys: int, edges: Ints) -> Ints:
    """Return the cycles of stretches, by key, that lie in each step: (keys, steps), exact."""

    def passed(times: Ints) -> Ints:
        """Return the sum of edge − time over the times before each edge."""
        many, sums = np.zeros((2, keys, len(edges)), dtype=np.int64)
        at = key, np.searchsorted(edges, times)
        np.add.at(many, at, 1)
        np.add.at(sums, at, times)
        total: Ints = edges * many.cumsum(axis=1) - sums.cumsum(axis=1)
        return total

    return np.diff(passed(start) - passed(end), axis=1)


# --- tile by tile ---------------------------------------------------------------------------------


def _by_tile(scene: _Scene, scale: Scale) -> Iterator[Slices]:
    for at, group in enumerate(scene.groups):
        yield _transfer_slices(scene, scene.loads, at, scale)
        yield _compute_slices(scene, group, scale)
        yield _transfer_slices(scene, scene.stores, at, scale)
        lines, kind = scene.lines, scene.lines.cause
        mine = lines.take(np.flatnonzero((scene.group == at) & (kind != scene.WORK)))
        start, end = scale.ns(mine.start), scale.ns(mine.end)
        numbers = {"cycles": mine.end - mine.start}
        yield Slices(f"stalls {group.label}", scene.kinds, mine.cause, start, end, numbers)


def _transfer_slices(scene: _Scene, moved: _Transfers, group: int, scale: Scale) -> Slices:
    mine = np.flatnonzero((moved.group == group) & (moved.end > moved.start))
    start, end = moved.start[mine], moved.end[mine]
    numbers = {
        "cycles": end - start,
        "transfer_cycles": end - moved.begin[mine],
        "queued_cycles": moved.waited[mine],
    }
    numbers |= _bytes(scene, moved.nbytes[mine]) | _place(scene, moved.place[mine])
    thread, none = f"{moved.verb} {scene.groups[group].label}", np.zeros_like(mine)
    return Slices(thread, (moved.verb,), none, scale.ns(start), scale.ns(end), numbers)


def _compute_slices(scene: _Scene, group: Group, scale: Scale) -> Slices:
    played = scene.played
    mine = scene.busy[played.unit[scene.busy] == group.first]
    start, end = played.compute_start[mine], played.compute_end[mine]
    work = scene.schedule.tiles["work_cycles"][scene.row[mine]]
    numbers = {"cycles": end - start, "work_cycles": work} | _place(scene, mine)
    thread, none = f"compute {group.label}", np.zeros_like(mine)
    return Slices(thread, ("compute",), none, scale.ns(start), scale.ns(end), numbers)


def _place(scene: _Scene, at: Ints) -> dict[str, Ints]:
    run, tile = np.divmod(at, max(len(scene.schedule), 1))
    return {"tile": tile, "run": run} if scene.schedule.runs > 1 else {"tile": tile}


def _bytes(scene: _Scene, nbytes: Ints) -> dict[str, Ints]:
    """Return the columns of (…, channels) bytes as arguments."""
    return {
        f"{channel.name}_bytes": nbytes[:, level]
        for level, channel in enumerate(scene.machine.channels)
    }


# --- step by step ---------------------------------------------------------------------------------


def _by_step(scene: _Scene, edges: Ints, tiles: Ints, scale: Scale) -> Iterator[Slices]:
    kinds, lines = len(scene.kinds), scene.lines
    key = scene.group * kinds + lines.cause
    spent = _spread(lines.start, lines.end, key, len(scene.groups) * kinds, edges)
    by_group = spent.reshape(len(scene.groups), kinds, -1)
    moved = [(x, *_in_steps(scene, x, edges)) for x in (scene.loads, scene.stores)]
    for at, group in enumerate(scene.groups):
        yield from (_moved_in_steps(scene, at, edges, *x, scale) for x in moved)
        yield from _spent_in_steps(scene, group, edges, by_group[at], tiles[at], scale)


def _spent_in_steps(
    scene: _Scene, group: Group, edges: Ints, spent: Ints, tiles: Ints, scale: Scale
) -> Iterator[Slices]:
    """Draw computing and stalls from (kinds, steps) unit-cycles."""
    until = np.cumsum(spent, axis=0)
    start, end = edges[:-1] + (until - spent) / group.units, edges[:-1] + until / group.units
    about = {"units": np.full_like(tiles, group.units), "step_cycles": np.diff(edges)}
    computing = spent[scene.COMPUTING].sum(axis=0)
    shown = np.flatnonzero(computing)
    numbers = {"unit_cycles": computing, "work_unit_cycles": spent[scene.WORK], "tiles": tiles}
    numbers = {key: values[shown] for key, values in (numbers | about).items()}
    begin = scale.ns(start[scene.COMPUTING][0][shown])
    finish = scale.ns(end[scene.COMPUTING][-1][shown])
    none = np.zeros_like(shown)
    yield Slices(f"compute {group.label}", (f"compute, {STEP}",), none, begin, finish, numbers)
    stalls = spent.T.copy()
    stalls[:, scene.WORK] = 0
    step, kind = np.nonzero(stalls)
    numbers = {"unit_cycles": stalls[step, kind]}
    numbers |= {key: values[step] for key, values in about.items()}
    begin, finish = scale.ns(start[kind, step]), scale.ns(end[kind, step])
    yield Slices(f"stalls {group.label}", scene.kinds, kind, begin, finish, numbers)


def _in_steps(scene: _Scene, moved: _Transfers, edges: Ints) -> tuple[Ints, Ints, Ints]:
    """Return by group and step: cycles drawn, transfers that are complete in it, their bytes."""
    groups, steps = len(scene.groups), len(edges) - 1
    cycles = _spread(moved.start, moved.end, moved.group, groups, edges)
    at = moved.group, np.searchsorted(edges[1:], moved.end)
    complete = np.zeros((groups, steps), dtype=np.int64)
    np.add.at(complete, at, 1)
    nbytes = np.zeros((groups, steps, moved.nbytes.shape[1]), dtype=np.int64)
    np.add.at(nbytes, at, moved.nbytes)
    return cycles, complete, nbytes


def _moved_in_steps(
    scene: _Scene, group: int, edges: Ints, moved: _Transfers, cycles: Ints, complete: Ints,
    nbytes: Ints, scale: Scale,
) -> Slices:  # fmt: skip
    """Draw the transfers of a group: as long as they are drawn tile by tile, together."""
    shown = np.flatnonzero(cycles[group])
    start = edges[:-1][shown]
    numbers = {"cycles": cycles[group][shown], "transfers_complete": complete[group][shown]}
    numbers |= _bytes(scene, nbytes[group][shown])
    thread, none = f"{moved.verb} {scene.groups[group].label}", np.zeros_like(shown)
    begin, end = scale.ns(start), scale.ns(start + cycles[group][shown])
    return Slices(thread, (f"{moved.verb}, {STEP}",), none, begin, end, numbers)


# --- counters -------------------------------------------------------------------------------------


def _samples(scene: _Scene, clock_ghz: float) -> Iterator[Samples]:
    """Return bandwidth of every channel and utilisation of units, means of steps."""
    total = scene.played.total_cycles
    if not total:
        return
    edges = _edges(total, min(total, MAX_SAMPLES))
    each, moved = np.diff(edges), (scene.loads, scene.stores)
    begin, end = (np.concatenate([getattr(x, name) for x in moved]) for name in ("begin", "end"))
    nbytes = np.concatenate([x.nbytes for x in moved])
    for level, channel in enumerate(scene.machine.channels):
        rate = _evenly(begin, end, nbytes[:, level], edges) * clock_ghz / each
        yield Samples(bandwidth_name(channel.name, "step"), "GB/s", edges[:-1], rate)
    work = scene.lines.take(np.flatnonzero(scene.lines.cause == scene.WORK))
    busy = _spread(work.start, work.end, np.zeros_like(work.unit), 1, edges)[0]
    share = 100 * busy / (each * scene.machine.units)
    yield Samples("utilisation of units: work share of a step", "%", edges[:-1], share)


def _evenly(begin: Ints, end: Ints, amount: Ints, edges: Ints) -> npt.NDArray[np.float64]:
    """Return amounts in each step, each spread over its time (a cycle at least)."""
    end = np.minimum(np.maximum(end, begin + 1), edges[-1])
    begin = np.minimum(begin, end - 1)
    rate = amount / (end - begin)
    times, changes = np.concatenate([begin, end]), np.concatenate([rate, -rate])
    order = np.argsort(times, kind="stable")
    times = np.concatenate([edges[:1], times[order], edges[-1:]])
    rates = np.concatenate([[0.0], np.cumsum(changes[order])])
    until = np.append(0.0, np.cumsum(rates * np.diff(times)))
    inside = np.diff(np.interp(edges, times, until))
    # what is left of sums that cancel
    return np.where(inside > 1e-9 * inside.max(initial=0.0), inside, 0.0)
