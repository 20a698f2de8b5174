"""Slots drawn: the loads, computing, stores and stalls of one unit, any number of tiles.

Conventions where the pipeline says nothing: the channels store before they load; what a tile's
computing is spent on beside work is drawn at its end. A stretch of several tiles is drawn like one
tile whose times are their sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from accsim.engine.perfetto import Slices
from accsim.engine.slots import Pieces
from accsim.engine.timeline_drawing import IN_TILE, Drawing, Samples, Scale, bandwidth_name
from accsim.spec.schedule import Ints

THREADS = ("load (DRAM → SRAM)", "compute (array)", "store (SRAM → DRAM)", "stalls")
LOAD, COMPUTE, STORE, STALLS = THREADS


def draw_slots(part: Pieces, scale: Scale) -> Drawing:
    """Return the pieces of a layer as slices and samples."""
    tiles = part.largest
    drawn = f"aggregated: a slice stands for up to {tiles} tiles, its length the sum of theirs"
    slices = [batch for batch in _slices(part, scale) if len(batch)]
    samples = list(_samples(part, scale.clock_ghz))
    return Drawing(THREADS, slices, samples, tiles, drawn if tiles > 1 else "tile by tile")


def _slices(part: Pieces, scale: Scale) -> Iterator[Slices]:
    cycles, load, compute, store = (part.column(x) for x in ("cycles", "load", "compute", "store"))
    start = np.cumsum(cycles) - cycles
    overlapped, count = part.slots.overlapped, part.slots.count
    shift = 1 if overlapped else 0
    until = part.first + part.tiles
    loads = (part.first + shift, np.minimum(until + shift, count))
    stores = (np.maximum(part.first - shift, 0), until - shift)
    computing = start if overlapped else start + load
    storing = start if overlapped else computing + compute
    loading = start + store if overlapped else start
    for thread, verb, since, length, (tile, behind), extra in (
        (LOAD, "load", loading, load, loads, _bytes(part, "load_bytes")),
        (COMPUTE, "compute", computing, compute, (part.first, until),
         {"work_cycles": part.column("of:work")}),
        (STORE, "store", storing, store, stores, _bytes(part, "store_bytes")),
    ):  # fmt: skip
        shown = np.flatnonzero(length)
        tiles = behind - tile
        sizes, which = np.unique(tiles[shown], return_inverse=True)
        names = tuple(verb if size <= 1 else f"{verb} × {size} tiles" for size in sizes.tolist())
        numbers = {"cycles": length} | extra | _place(part, tile, tiles)
        yield _chosen(thread, names, which, since, length, numbers, shown, scale)
    yield _stalls(part, start, scale)


def _bytes(part: Pieces, kind: str) -> dict[str, Ints]:
    names = [channel.name for channel in part.slots.machine.channels]
    return {f"{name}_bytes": part.column(f"{kind}:{name}") for name in names}


def _stalls(part: Pieces, start: Ints, scale: Scale) -> Slices:
    """Return the cycles of all causes but work, those of each piece in the order they pass."""
    causes = part.slots.machine.causes
    computing = [f"of:{cause}" for cause in IN_TILE]
    channels = [channel.name for channel in part.slots.machine.channels]
    waiting = [f"wait:{name}" for name in (*channels, "gather", "metadata")]
    if part.slots.overlapped:
        order = ["launch", *computing, *waiting]
    else:
        order = ["launch", *waiting, *computing, *(f"after:{name}" for name in channels)]
    order = [name for name in order if name in part.slots.names]
    length = np.stack([part.column(name) for name in order], axis=1)
    since = start[:, None] + np.cumsum(length, axis=1) - length
    shown = np.flatnonzero((length > 0) & np.array([name != "of:work" for name in order]))
    named = [causes.index(name.split(":", 1)[-1]) for name in order]
    which = np.tile(named, len(start))[shown]
    length = length.ravel()
    numbers = {"cycles": length}
    for key, values in _place(part, np.maximum(part.first, 0), part.tiles).items():
        numbers[key] = np.repeat(values, len(order))
    return _chosen(STALLS, causes, which, since.ravel(), length, numbers, shown, scale)


def _place(part: Pieces, tile: Ints, tiles: Ints) -> dict[str, Ints]:
    """Return the arguments that say which tiles a slice stands for: of which run, from which on."""
    in_run = max(part.slots.period.shape[1], 1)
    run, within = np.divmod(np.minimum(tile, max(part.slots.count - 1, 0)), in_run)
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
    scale: Scale,
) -> Slices:
    begin, end = scale.ns(since[shown]), scale.ns((since + length)[shown])
    arguments = {key: values[shown] for key, values in numbers.items()}
    return Slices(thread, names, which, begin, end, arguments)


def _samples(part: Pieces, clock_ghz: float) -> Iterator[Samples]:
    """Return bandwidth and utilisation, each the mean of a piece."""
    cycles = part.column("cycles")
    begin = np.cumsum(cycles) - cycles
    shown = np.flatnonzero(cycles)
    each = cycles[shown]
    for channel in part.slots.machine.channels:
        kinds = ("load_bytes", "store_bytes")
        moved = sum(part.column(f"{kind}:{channel.name}")[shown] for kind in kinds)
        rate = np.asarray(moved) * clock_ghz / each
        yield Samples(bandwidth_name(channel.name, "slot"), "GB/s", begin[shown], rate)
    work = 100 * part.column("of:work")[shown] / each
    yield Samples("array utilisation: work share of a slot", "%", begin[shown], work)
