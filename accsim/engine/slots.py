"""The slots of a schedule of one unit without a clock: what any stretch of its tiles adds up to.

Time is cut in slots as in :mod:`accsim.kernels.pipeline`: launch, first load, slots of
max(compute, store behind + load ahead), last store (or, with one buffer, load, compute and store of
each tile). A ``Slots`` keeps one run of the tiles and what is different in the very first and last
slot; any stretch of slots then is a difference of sums, so a layer of a million tiles in a thousand
pieces costs no more than its one run. Cycles are those of ``attribution``, cause by cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from accsim.engine.attribution import channel_cycles
from accsim.spec.schedule import COMPUTE_CAUSES, Ints, Machine, Schedule

ALWAYS = ("cycles", "launch")
Rows = dict[str, Ints]  # name of a quantity → its value in each slot


def fits(schedule: Schedule) -> bool:
    """Whether a schedule has slots: one unit, buffers that swap or just one, nothing awaited."""
    machine = schedule.machine
    return machine.units == 1 and machine.swap != "elastic" and not len(schedule.dependencies)


def names_of(machine: Machine) -> tuple[str, ...]:
    """Return the quantities summed up, in cycles and bytes.

    ``load, store``: on the channels. ``of:…``: a cause of computing. ``wait:…``, ``after:…``: what
    is waited for, the latter after computing in a slot of one buffer.
    """
    channels = [channel.name for channel in machine.channels]
    return (
        "cycles", "load", "compute", "store", "launch",
        *(f"of:{cause}" for cause in COMPUTE_CAUSES),
        *(f"wait:{name}" for name in (*channels, "gather", "metadata")),
        *(f"after:{name}" for name in channels),
        *(f"load_bytes:{name}" for name in channels),
        *(f"store_bytes:{name}" for name in channels),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slots:
    """The slots of one layer: ``runs`` times a period, with other first and last slots.

    Arrays are (names, slots), quantities that are always 0 left out; ``opening`` and ``closing``
    are the first load and the last store where they have a slot of their own (double buffering).
    """

    machine: Machine
    names: tuple[str, ...]
    period: Ints
    first_extra: Ints
    last_extra: Ints
    opening: Ints
    closing: Ints
    runs: int
    launch_cycles: int

    @classmethod
    def of(cls, schedule: Schedule, repeats: int = 1) -> Slots:
        """Return the slots of a schedule that ``fits``; each of the ``repeats`` is launched."""
        machine, last = schedule.machine, len(schedule) - 1
        launch = machine.launch_cycles * repeats
        if not len(schedule):
            none, same = np.zeros((2, 0), dtype=np.int64), np.zeros(2, dtype=np.int64)
            return cls(machine, ALWAYS, none, same, same, none, none, 0, launch)
        if machine.swap == "sequential":
            names, (period,) = _table(machine, [_sequential(schedule)])
            same, none = np.zeros(len(names), dtype=np.int64), period[:, :0]
            return cls(machine, names, period, same, same, none, none, schedule.runs, launch)
        every = np.arange(last + 1)
        alone = last == 0 and schedule.runs == 1
        after, before = 1 % (last + 1), (last - 1) % (last + 1)
        names, (period, edges) = _table(machine, [
            _overlapped(schedule, every, np.roll(every, -1), np.roll(every, 1)),
            _overlapped(
                schedule,
                np.array([-1, 0, last, -1]),
                np.array([0, -1 if alone else after, -1, -1]),
                np.array([-1, -1, before, last]),
            ),
        ])  # fmt: skip
        first = edges[:, 1] - period[:, 0]
        final = edges[:, 2] - period[:, -1] if not alone else np.zeros_like(first)
        return cls(machine, names, period, first, final, edges[:, :1], edges[:, 3:],
                   schedule.runs, launch)  # fmt: skip

    @property
    def overlapped(self) -> bool:
        """Whether transfers overlap computing."""
        return self.machine.swap == "lockstep"

    @property
    def count(self) -> int:
        """Slots of all runs: one a tile."""
        return self.runs * int(self.period.shape[1])

    def slices_a_piece(self) -> int:
        """Return how many slices a piece of this layer can take at most."""
        drawn = ("load", "compute", "store")
        stalls = [x for x in self.names if x.startswith(("of:", "wait:", "after:"))]
        return sum(x in drawn for x in self.names) + len(set(stalls) - {"of:work"})

    def pieces(self, count: int) -> Pieces:
        """Return the layer cut in ``count`` pieces of whole slots, as equal as can be."""
        count = min(count, self.count)
        bounds = self.count * np.arange(count + 1) // max(count, 1)
        launch = np.zeros((len(self.names), 1), dtype=np.int64)
        launch[[self.names.index("cycles"), self.names.index("launch")]] = self.launch_cycles
        inside = np.diff(self._until(bounds), axis=1)
        sums = np.concatenate([launch, self.opening, inside, self.closing], axis=1)
        before = 1 + self.opening.shape[1]
        first = np.repeat([-1, self.count], [before, sums.shape[1] - before])
        first[before : before + count] = bounds[:-1]
        tiles = np.ones_like(first)
        tiles[before : before + count] = np.diff(bounds)
        return Pieces(sums, first, tiles, self)

    def _until(self, bounds: Ints) -> Ints:
        """Return the sums of all quantities over the slots before each bound."""
        tiles = max(self.period.shape[1], 1)
        whole, part = np.divmod(bounds, tiles)
        until = np.outer(self.first_extra, bounds > 0)
        until += np.outer(self.last_extra, (bounds == self.count) & (bounds > 0))
        for row, values in enumerate(self.period):
            sums = np.append(0, np.cumsum(values))
            until[row] += sums[-1] * whole + sums[part]
        return until


class Pieces(NamedTuple):
    """Consecutive pieces of a layer: sums of each quantity, first slot, and number of slots."""

    sums: Ints
    first: Ints
    tiles: Ints
    slots: Slots

    def column(self, name: str) -> Ints:
        """Return one quantity (``names_of``), an entry a piece."""
        names = self.slots.names
        if name not in names:
            return np.zeros_like(self.first)
        values: Ints = self.sums[names.index(name)]
        return values

    def cause(self, name: str) -> Ints:
        """Return the cycles of a cause, an entry a piece."""
        if name == "launch":
            return self.column(name)
        return sum((self.column(f"{kind}:{name}") for kind in ("of", "wait", "after")),
                   np.zeros_like(self.first))  # fmt: skip

    @property
    def largest(self) -> int:
        """Tiles the largest piece stands for."""
        return int(self.tiles.max())


def _table(machine: Machine, parts: list[Rows]) -> tuple[tuple[str, ...], list[Ints]]:
    """Return the quantities that are not 0 throughout, and the arrays of each part."""
    used = [x for x in names_of(machine) if x in ALWAYS or any(p[x].any() for p in parts)]
    return tuple(used), [np.stack([part[name] for name in used]) for part in parts]


def _overlapped(schedule: Schedule, at: Ints, ahead: Ints, behind: Ints) -> Rows:
    """Return the quantities of slots that compute tile ``at``, load ``ahead``, store ``behind``.

    An index of −1 means none.
    """
    load, store = _of(schedule, "load_bytes", ahead), _of(schedule, "store_bytes", behind)
    compute = _of(schedule, "compute_cycles", at)
    busy, waits = _waits(schedule, load, ahead, store, compute)
    some = load.any(axis=1)
    storing = np.minimum(_slowest(schedule.machine, store), np.maximum(busy - some, 0))
    return _rows(schedule, at, waits, {
        "cycles": np.maximum(compute, busy), "load": busy - storing, "compute": compute,
        "store": storing,
    }, load, store)  # fmt: skip


def _sequential(schedule: Schedule) -> Rows:
    """Return the quantities of slots that load, compute and store one tile each."""
    tiles, every = schedule.tiles, np.arange(len(schedule))
    compute, load, store = (tiles[x] for x in ("compute_cycles", "load_bytes", "store_bytes"))
    none = np.zeros_like(compute)
    loading, waits = _waits(schedule, load, every, 0 * store, none)
    storing, after = _waits(schedule, 0 * load, none - 1, store, none)
    waits |= {f"after:{c.name}": after[f"wait:{c.name}"] for c in schedule.machine.channels}
    return _rows(schedule, every, waits, {
        "cycles": loading + compute + storing, "load": loading, "compute": compute,
        "store": storing,
    }, load, store)  # fmt: skip


def _rows(schedule: Schedule, at: Ints, waits: Rows, cycles: Rows, load: Ints, store: Ints) -> Rows:
    rows = dict.fromkeys(names_of(schedule.machine), np.zeros_like(at)) | waits | cycles
    rows |= {f"of:{cause}": _of(schedule, f"{cause}_cycles", at) for cause in COMPUTE_CAUSES}
    for level, channel in enumerate(schedule.machine.channels):
        rows[f"load_bytes:{channel.name}"] = load[:, level]
        rows[f"store_bytes:{channel.name}"] = store[:, level]
    return rows


def _waits(
    schedule: Schedule, load: Ints, ahead: Ints, store: Ints, compute: Ints
) -> tuple[Ints, Rows]:
    """Return the cycles of slots' transfers, and what they make computing wait for."""
    machine = schedule.machine
    metadata = _of(schedule, "metadata_bytes", ahead)
    gather = _of(schedule, "gather_bytes", ahead)
    busy = _slowest(machine, load + store)
    channels = channel_cycles(machine, load + store - metadata - gather)
    whole, bare, plain = (
        np.maximum(cycles - compute, 0)
        for cycles in (
            busy, _slowest(machine, load + store - metadata), channels.max(axis=1, initial=0)
        )
    )  # fmt: skip
    waits = {"wait:metadata": whole - bare, "wait:gather": bare - plain}
    slowest = channels.argmax(axis=1) if channels.shape[1] else np.zeros_like(compute)
    for level, channel in enumerate(machine.channels):
        waits[f"wait:{channel.name}"] = np.where(slowest == level, plain, 0)
    return busy, waits


def _of(schedule: Schedule, name: str, which: Ints) -> Ints:
    """Return a field of tiles, 0 where there is none."""
    values = schedule.tiles[name][which]
    there = (which >= 0).reshape((-1,) + (1,) * (values.ndim - 1))
    found: Ints = np.where(there, values, 0)
    return found


def _slowest(machine: Machine, nbytes: Ints) -> Ints:
    cycles: Ints = channel_cycles(machine, nbytes).max(axis=1, initial=0)
    return cycles
