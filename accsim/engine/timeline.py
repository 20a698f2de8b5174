"""What happens when: loads, computing, stores and waiting of a network, as a trace to look at.

Layers follow each other. Within one, time is cut in slots as in :mod:`accsim.kernels.pipeline`:
launch, first load, slots of max(compute, store behind + load ahead), last store; the cycles of a
layer are those of the closed form, cause by cause. A ``Slots`` keeps one run of the tiles and what
is different in the very first and last slot; any stretch of slots then is a difference of sums,
so a layer of a million tiles in a thousand pieces costs no more than its one run.

Conventions where the pipeline says nothing: the channel stores before it loads; imbalance, then
fill and drain, are drawn at the end of a tile's computing, though they are spread over it; all
launches of a layer that repeats stand at its start. A stretch of several tiles is drawn like one
tile whose times are their sums. Times are whole nanoseconds, each end rounded on its own, so
slices touch exactly; the exact cycles are in the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.engine.perfetto import Counter, Slices, Trace, check_path, write_trace
from accsim.files.hardware import device_of
from accsim.kernels.pipeline import memory_cycles
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import CAUSES, Schedule
from accsim.spec.workload import Layer, Workload

if TYPE_CHECKING:
    from accsim.sparsity.masks import Masks

Ints = npt.NDArray[np.int64]

THREADS = ("layers", "load (DRAM → SRAM)", "compute (array)", "store (SRAM → DRAM)", "stalls")
LAYERS, LOAD, COMPUTE, STORE, STALLS = THREADS
MAX_SLICES = 200_000
_EDGE_SLICES = 7  # the layer, its launch, first load (with two causes), last store (with one)
_LEAST_A_LAYER = _EDGE_SLICES + 8  # load, compute, store and five stalls of a single piece

# Sums over the tiles of a piece, in cycles and bytes.
_COLUMNS = (
    "cycles", "load_cycles", "compute_cycles", "store_cycles", "load_bytes", "store_bytes", *CAUSES,
)  # fmt: skip
_AT = {name: i for i, name in enumerate(_COLUMNS)}


@dataclass(frozen=True)
class TimelineSummary:
    """What a timeline file holds: of ``aggregated_layers``, how many tiles one slice stands for."""

    layers: int
    slices: int
    cycles: int
    file_bytes: int
    aggregated_layers: dict[str, int]


def write_timeline(
    workload: Workload,
    hardware: Systolic,
    masks: Masks,
    path: str | Path,
    *,
    energy_j: Sequence[float] | None = None,
    max_slices: int = MAX_SLICES,
) -> TimelineSummary:
    """Write the timeline of ``workload`` on ``hardware`` for ui.perfetto.dev.

    Args:
        workload: the network.
        hardware: a device of timing ``physical``.
        masks: the masks the run used, for layers whose passes follow them.
        path: ``.pftrace`` or ``.perfetto-trace`` (protobuf), or ``.json`` (Chrome's trace events).
        energy_j: of each layer, for the power counter.
        max_slices: beyond it, slices of the layers with most tiles stand for several tiles each.

    Raises:
        InputError: another timing, a layer the device cannot hold, a path of another ending or
            that cannot be written, or fewer ``max_slices`` than 15 a layer.
    """
    path = check_path(path)
    _check(workload, hardware, max_slices)
    device = device_of(hardware.kind)(hardware)
    slots = [Slots.of(device.schedule(layer, masks), layer.repeats) for layer in workload.layers]
    room = _pieces_a_layer(slots, max_slices)
    parts = [found.pieces(min(found.count, room)) for found in slots]
    ends = np.cumsum([int(part.column("cycles").sum()) for part in parts])
    trace = _trace(workload, hardware, parts, ends, energy_j)
    size = write_trace(trace, path)
    merged = {
        layer.name: part.largest
        for layer, part in zip(workload.layers, parts, strict=True)
        if part.largest > 1
    }
    count = sum(len(batch) for batch in trace.slices)
    return TimelineSummary(len(parts), count, int(ends[-1]), size, merged)


def _check(workload: Workload, hardware: Systolic, max_slices: int) -> None:
    timing = getattr(hardware, "timing", "physical")
    if timing != "physical":
        raise InputError(
            f"a timeline needs timing physical, which spells out tiles; '{hardware.name}' has "
            f"timing {timing}, a closed form without them"
        )
    least = _LEAST_A_LAYER * len(workload.layers)
    if max_slices < least:
        raise InputError(
            f"max_slices must be at least {_LEAST_A_LAYER} a layer, {least} for "
            f"'{workload.name}'; got {max_slices}"
        )


# --- slots and pieces -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Slots:
    """The slots of one layer: ``runs`` times a period, with other first and last slots.

    Arrays are (columns, slots); ``opening`` and ``closing`` are the first load and the last store
    where they have a slot of their own (double buffering).
    """

    period: Ints
    first_extra: Ints
    last_extra: Ints
    opening: Ints
    closing: Ints
    runs: int
    launch_cycles: int
    overlapped: bool

    @classmethod
    def of(cls, schedule: Schedule, repeats: int = 1) -> Slots:
        """Return the slots of a schedule; each of the layer's ``repeats`` is launched."""
        last = len(schedule) - 1
        every = np.arange(last + 1)
        launch = schedule.launch_cycles * repeats
        if not schedule.double_buffered:
            period = _sequential(schedule)
            same, none = np.zeros(len(_COLUMNS), dtype=np.int64), period[:, :0]
            return cls(period, same, same, none, none, schedule.runs, launch, False)
        period = _overlapped(schedule, every, np.roll(every, -1), np.roll(every, 1))
        alone = last == 0 and schedule.runs == 1
        after, before = 1 % (last + 1), (last - 1) % (last + 1)
        edges = _overlapped(
            schedule,
            np.array([-1, 0, last, -1]),
            np.array([0, -1 if alone else after, -1, -1]),
            np.array([-1, -1, before, last]),
        )
        first_extra = edges[:, 1] - period[:, 0]
        last_extra = edges[:, 2] - period[:, -1] if not alone else np.zeros_like(first_extra)
        return cls(
            period, first_extra, last_extra, edges[:, :1], edges[:, 3:], schedule.runs, launch, True
        )

    @property
    def count(self) -> int:
        """Slots of all runs: one a tile."""
        return self.runs * int(self.period.shape[1])

    def slices_a_piece(self) -> int:
        """Return how many slices a piece of this layer can take at most."""
        names = ("load_cycles", "compute_cycles", "store_cycles", *CAUSES[1:])
        used = np.count_nonzero(self.period[[_AT[name] for name in names]].any(axis=1))
        return int(used) + (not self.overlapped)  # which waits for loads and for stores

    def pieces(self, count: int) -> Pieces:
        """Return the layer cut in ``count`` pieces of whole slots, as equal as can be."""
        bounds = self.count * np.arange(count + 1) // count
        launch = np.zeros((len(_COLUMNS), 1), dtype=np.int64)
        launch[[_AT["cycles"], _AT["launch"]]] = self.launch_cycles
        inside = np.diff(self._until(bounds), axis=1)
        sums = np.concatenate([launch, self.opening, inside, self.closing], axis=1)
        before = 1 + self.opening.shape[1]
        first = np.repeat([-1, self.count], [before, sums.shape[1] - before])
        first[before : before + count] = bounds[:-1]
        tiles = np.ones_like(first)
        tiles[before : before + count] = np.diff(bounds)
        return Pieces(sums, first, tiles, self)

    def _until(self, bounds: Ints) -> Ints:
        """Return the sums of all columns over the slots before each bound."""
        tiles = self.period.shape[1]
        sums = np.zeros((len(_COLUMNS), tiles + 1), dtype=np.int64)
        np.cumsum(self.period, axis=1, out=sums[:, 1:])
        whole, part = np.divmod(bounds, tiles)
        extra = np.outer(self.first_extra, bounds > 0)
        extra += np.outer(self.last_extra, bounds == self.count)
        until: Ints = sums[:, -1:] * whole + sums[:, part] + extra
        return until


class Pieces(NamedTuple):
    """Consecutive pieces of a layer: sums of each column, first slot, and number of slots."""

    sums: Ints
    first: Ints
    tiles: Ints
    slots: Slots

    def column(self, name: str) -> Ints:
        """Return one column, an entry a piece."""
        values: Ints = self.sums[_AT[name]]
        return values

    @property
    def largest(self) -> int:
        """Tiles the largest piece stands for."""
        return int(self.tiles.max())


def _overlapped(schedule: Schedule, at: Ints, ahead: Ints, behind: Ints) -> Ints:
    """Return the columns of slots that compute tile ``at``, load ``ahead``, store ``behind``.

    An index of −1 means none.
    """
    load, metadata = _of(schedule, "load_bytes", ahead), _of(schedule, "metadata_bytes", ahead)
    store, compute = _of(schedule, "store_bytes", behind), _of(schedule, "compute_cycles", at)
    busy, bare = _memory(schedule, store + load), _memory(schedule, store + load - metadata)
    storing = np.minimum(_memory(schedule, store), np.maximum(busy - (load > 0), 0))
    slot, unindexed = np.maximum(compute, busy), np.maximum(compute, bare)
    work, imbalance = _of(schedule, "work_cycles", at), _of(schedule, "imbalance_cycles", at)
    return np.stack([
        slot, busy - storing, compute, storing, load, store,
        work, compute - work - imbalance, imbalance, slot - unindexed, unindexed - compute,
        np.zeros_like(slot),
    ])  # fmt: skip


def _sequential(schedule: Schedule) -> Ints:
    """Return the columns of slots that load, compute and store one tile each."""
    tiles = schedule.tiles
    compute, work, imbalance = (tiles[x + "_cycles"] for x in ("compute", "work", "imbalance"))
    load, store = tiles["load_bytes"], tiles["store_bytes"]
    loading, storing = _memory(schedule, load), _memory(schedule, store)
    bare = _memory(schedule, load - tiles["metadata_bytes"])
    return np.stack([
        loading + compute + storing, loading, compute, storing, load, store,
        work, compute - work - imbalance, imbalance, loading - bare, bare + storing,
        np.zeros_like(load),
    ])  # fmt: skip


def _of(schedule: Schedule, name: str, which: Ints) -> Ints:
    values: Ints = np.where(which >= 0, schedule.tiles[name][which], 0)
    return values


def _memory(schedule: Schedule, nbytes: Ints) -> Ints:
    return memory_cycles(nbytes, schedule.bytes_per_cycle, schedule.latency_cycles)


def _pieces_a_layer(slots: list[Slots], max_slices: int) -> int:
    """Return the most pieces any layer may have so that all slices together are in bounds."""
    count = np.array([x.count for x in slots], dtype=np.int64)
    each = np.array([x.slices_a_piece() for x in slots], dtype=np.int64)
    free = max_slices - _EDGE_SLICES * len(slots)
    low, high = 1, int(count.max())
    while low < high:
        middle = (low + high + 1) // 2
        fits = bool((each * np.minimum(count, middle)).sum() <= free)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


# --- drawing --------------------------------------------------------------------------------------


def _trace(
    workload: Workload,
    hardware: Systolic,
    parts: list[Pieces],
    ends: Ints,
    energy_j: Sequence[float] | None,
) -> Trace:
    clock = hardware.clock_ghz
    begins = np.concatenate([[0], ends[:-1]])
    slices = [_layer_slices(workload.layers, parts, begins, ends, clock)]
    for part, begin in zip(parts, begins.tolist(), strict=True):
        slices += [drawn for drawn in draw(part, begin, clock) if len(drawn)]
    counters = _slot_counters(parts, int(ends[-1]), clock)
    if energy_j is not None:
        watt = np.asarray(energy_j) * 1e9 * clock / np.maximum(ends - begins, 1)
        starts = np.append(_ns(begins, clock), _ns(ends[-1:], clock))
        counters.append(Counter("power, mean of the layer", "W", starts, np.append(watt, 0.0)))
    return Trace(f"{workload.name} on {hardware.name}", THREADS, slices, counters)


def _layer_slices(
    layers: Sequence[Layer], parts: list[Pieces], begins: Ints, ends: Ints, clock: float
) -> Slices:
    """Return a slice a layer: shape, cycles by cause, traffic, and how its tiles are drawn."""
    numbers: dict[str, list[int]] = {d: [getattr(x.gemm, d) for x in layers] for d in "tkn"}
    numbers["runs"] = [x.runs for x in layers]
    numbers["tiles"] = [part.slots.count for part in parts]
    numbers["tiles_a_slice"] = [part.largest for part in parts]
    for name in ("cycles", *CAUSES, "load_bytes", "store_bytes"):
        key = f"{name}_cycles" if name in CAUSES else name
        numbers[key] = [int(part.column(name).sum()) for part in parts]
    texts = {
        "op": tuple(x.op.kind for x in layers),
        "pattern": tuple(str(x.pattern) for x in layers),
        "dtype": tuple(x.dtype for x in layers),
        "drawn": tuple(_drawn_as(part.largest) for part in parts),
    }
    arrays = {key: np.array(values, dtype=np.int64) for key, values in numbers.items()}
    names, at = tuple(x.name for x in layers), (_ns(begins, clock), _ns(ends, clock))
    return Slices(LAYERS, names, np.arange(len(names)), *at, arrays, texts)


def _drawn_as(tiles: int) -> str:
    if tiles == 1:
        return "tile by tile"
    return f"aggregated: a slice stands for up to {tiles} tiles, its length the sum of theirs"


def draw(part: Pieces, begin: int, clock: float) -> Iterator[Slices]:
    """Return loads, computing, stores and stalls of a layer that starts at cycle ``begin``."""
    cycles, load, compute, store = (part.sums[i] for i in range(4))
    start = begin + np.cumsum(cycles) - cycles
    overlapped, count = part.slots.overlapped, part.slots.count
    shift = 1 if overlapped else 0
    until = part.first + part.tiles
    loads = (part.first + shift, np.minimum(until + shift, count))
    stores = (np.maximum(part.first - shift, 0), until - shift)
    computing = start if overlapped else start + load
    storing = start if overlapped else computing + compute
    loading = start + store if overlapped else start
    work, moved = part.column("work"), (part.column("load_bytes"), part.column("store_bytes"))
    for thread, verb, since, length, (tile, behind), extra in (
        (LOAD, "load", loading, load, loads, {"bytes": moved[0]}),
        (COMPUTE, "compute", computing, compute, (part.first, until), {"work_cycles": work}),
        (STORE, "store", storing, store, stores, {"bytes": moved[1]}),
    ):
        shown = np.flatnonzero(length)
        tiles = behind - tile
        sizes, which = np.unique(tiles[shown], return_inverse=True)
        names = tuple(verb if size <= 1 else f"{verb} × {size} tiles" for size in sizes.tolist())
        numbers = {"cycles": length} | extra | _place(part, tile, tiles)
        yield _chosen(thread, names, which, since, length, numbers, shown, clock)
    yield _stalls(part, start, clock)


def _stalls(part: Pieces, start: Ints, clock: float) -> Slices:
    """Return the cycles of all causes but work, those of each piece in the order they pass."""
    work, fill, imbalance, metadata, memory, launch = (part.column(cause) for cause in CAUSES)
    if part.slots.overlapped:
        order = ["launch", "work", "imbalance", "fill_drain", "memory", "metadata"]
        lengths = [launch, work, imbalance, fill, memory, metadata]
    else:
        after = part.column("store_cycles")
        order = ["launch", "memory", "metadata", "work", "imbalance", "fill_drain", "memory"]
        lengths = [launch, memory - after, metadata, work, imbalance, fill, after]
    length = np.stack(lengths, axis=1)
    since = start[:, None] + np.cumsum(length, axis=1) - length
    stall = np.array([name != "work" for name in order])
    shown = np.flatnonzero((length > 0) & stall)
    which = np.tile([CAUSES.index(name) for name in order], len(start))[shown]
    length = length.ravel()
    place = _place(part, np.maximum(part.first, 0), part.tiles)
    numbers = {"cycles": length}
    numbers |= {key: np.repeat(values, len(order)) for key, values in place.items()}
    return _chosen(STALLS, CAUSES, which, since.ravel(), length, numbers, shown, clock)


def _place(part: Pieces, tile: Ints, tiles: Ints) -> dict[str, Ints]:
    """Return the arguments that say which tiles a slice stands for: of which run, from which on."""
    run, within = np.divmod(np.minimum(tile, part.slots.count - 1), part.slots.period.shape[1])
    place = {"tile": within}
    if part.slots.runs > 1:
        place["run"] = run
    if part.largest > 1:
        place["tiles"] = tiles
    return place


def _chosen(
    thread: str,
    names: tuple[str, ...],
    which: Ints,
    since: Ints,
    length: Ints,
    numbers: dict[str, Ints],
    shown: npt.NDArray[np.intp],
    clock: float,
) -> Slices:
    begin, end = since[shown], (since + length)[shown]
    arguments = {key: values[shown] for key, values in numbers.items()}
    return Slices(thread, names, which, _ns(begin, clock), _ns(end, clock), arguments)


def _slot_counters(parts: list[Pieces], end: int, clock: float) -> list[Counter]:
    """Return bandwidth and utilisation, each the mean of a piece, zero at the end."""
    sums = np.concatenate([part.sums for part in parts], axis=1)
    cycles = sums[_AT["cycles"]]
    begin = np.cumsum(cycles) - cycles
    shown = np.flatnonzero(cycles)
    each = cycles[shown]
    moved = (sums[_AT["load_bytes"]] + sums[_AT["store_bytes"]])[shown]
    rates = (
        ("DRAM bandwidth, mean of a slot", "GB/s", moved * clock / each),
        ("array utilisation: work share of a slot", "%", 100 * sums[_AT["work"]][shown] / each),
    )
    at, counters = np.append(begin[shown], end), []
    for name, unit, rate in rates:
        values = np.append(rate, 0.0)
        new = np.flatnonzero(np.append(True, np.diff(values) != 0))
        counters.append(Counter(name, unit, _ns(at[new], clock), values[new]))
    return counters


def _ns(cycles: Ints, clock_ghz: float) -> Ints:
    return np.rint(cycles / clock_ghz).astype(np.int64)
