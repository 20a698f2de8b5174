"""What happens when: loads, computing, stores and waiting, as a trace to look at (ui.perfetto.dev).

A network's layers follow each other. A layer of one unit is drawn from its slots in closed form
(``slots``, any number of tiles), any other is played and drawn unit by unit (``timeline_units``);
either way its cycles are those of ``attribution``, cause by cause. All launches of a layer that
repeats stand at its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accsim.base.errors import InputError
from accsim.engine import attribution, compiled
from accsim.engine.perfetto import Counter, Slices, Trace, check_path, write_trace
from accsim.engine.slots import Slots, fits
from accsim.engine.timeline_drawing import Drawing, Samples, Scale
from accsim.engine.timeline_slots import draw_slots
from accsim.engine.timeline_units import draw_units
from accsim.files.hardware import device_of
from accsim.spec.schedule import Played, Schedule
from accsim.spec.workload import Layer, Workload

if TYPE_CHECKING:
    from accsim.sparsity.masks import Masks

LAYERS = "layers"
MAX_SLICES = 200_000
_EDGE_SLICES = 8  # the layer, its launch, first load (and three causes), last store (and its cause)


@dataclass(frozen=True)
class TimelineSummary:
    """What a timeline file holds: of ``aggregated_layers``, how many tiles one slice stands for."""

    layers: int
    slices: int
    cycles: int
    file_bytes: int
    aggregated_layers: dict[str, int]


class _Layer(NamedTuple):
    """A drawn layer: what is said of it, and its cycles from ``begin`` on."""

    name: str
    begin: int
    cycles: int
    numbers: dict[str, int]
    texts: dict[str, str]
    drawing: Drawing

    @property
    def end(self) -> int:
        return self.begin + self.cycles


class Part(NamedTuple):
    """What runs for a while: a schedule, or ``cycles`` of work that has no tiles."""

    name: str
    texts: dict[str, str]
    schedule: Schedule | None = None
    cycles: int = 0


def write_timeline(
    workload: Workload,
    hardware: Any,
    masks: Masks,
    path: str | Path,
    *,
    energy_j: Sequence[float] | None = None,
    max_slices: int = MAX_SLICES,
) -> TimelineSummary:
    """Write the timeline of ``workload`` on ``hardware`` for ui.perfetto.dev.

    Args:
        workload: the network.
        hardware: a device that spells out tiles (of timing ``physical``, if it has several).
        masks: the masks the run used, for layers whose passes follow them.
        path: ``.pftrace`` or ``.perfetto-trace`` (protobuf), or ``.json`` (Chrome's trace events).
        energy_j: of each layer, for the power counter.
        max_slices: beyond it, slices of the layers with most tiles stand for several tiles each.

    Raises:
        InputError: another timing, a layer the device cannot hold, a path of another ending or
            that cannot be written, or fewer ``max_slices`` than the layers take at least.
    """
    path = check_path(path)
    _check_timing(hardware)
    layers = list(_network(workload, hardware, masks, max_slices))
    clock = hardware.clock_ghz
    counters = []
    if energy_j is not None:
        watt = [e * 1e9 * clock / max(x.cycles, 1) for e, x in zip(energy_j, layers, strict=True)]
        samples = [
            (layer, Samples("power, mean of the layer", "W", np.zeros(1, int), np.array([value])))
            for layer, value in zip(layers, watt, strict=True)
        ]
        counters.append(_counter(samples, clock, distinct=False))
    return _write(f"{workload.name} on {hardware.name}", layers, counters, clock, path)


def write_parts_timeline(
    parts: Sequence[Part],
    path: str | Path,
    *,
    clock_ghz: float,
    name: str,
    max_slices: int = MAX_SLICES,
) -> TimelineSummary:
    """Write the timeline of parts that follow each other: schedules, and work without tiles.

    Args:
        parts: what runs, in order.
        path: ``.pftrace`` or ``.perfetto-trace`` (protobuf), or ``.json`` (Chrome's trace events).
        clock_ghz: of all of them, for the time axis.
        name: of the process shown.
        max_slices: beyond it, slices stand for several tiles each.

    Raises:
        InputError: a path of another ending or that cannot be written, or too few ``max_slices``.
    """
    path = check_path(path)
    found = [_prepared(x.schedule, 1) if x.schedule is not None else None for x in parts]
    slots = [one for one in found if isinstance(one, Slots)]
    share = max(max_slices // len(found) - 1, 1)
    room = _pieces_a_layer(slots, max_slices - (share + 1) * (len(found) - len(slots)), name)
    layers, begin = [], 0
    for part, one in zip(parts, found, strict=True):
        scale = Scale(clock_ghz, begin)
        if one is None:
            drawn = part.cycles, _numbers(0, part.cycles, {}, {}), Drawing((), [], [], 1, "whole")
        elif isinstance(one, Slots):
            drawn = _slot_layer(one, room, scale)
        else:
            drawn = _played_layer(one, share, scale)
        cycles, numbers, drawing = drawn
        layers.append(_Layer(part.name, begin, cycles, numbers, part.texts, drawing))
        begin += cycles
    return _write(name, layers, [], clock_ghz, path)


def write_schedule_timeline(
    schedule: Schedule,
    played: Played,
    path: str | Path,
    *,
    clock_ghz: float,
    name: str = "schedule",
    max_slices: int = MAX_SLICES,
) -> TimelineSummary:
    """Write the timeline of one played schedule, unit by unit.

    Args:
        schedule: any schedule, of any device.
        played: what a player made of it.
        path: ``.pftrace`` or ``.perfetto-trace`` (protobuf), or ``.json`` (Chrome's trace events).
        clock_ghz: of the units, for the time axis.
        name: of the process shown.
        max_slices: beyond it, slices stand for several tiles each.

    Raises:
        InputError: a path of another ending or that cannot be written, or too few ``max_slices``.
    """
    path = check_path(path)
    drawing = draw_schedule(schedule, played, clock_ghz=clock_ghz, max_slices=max_slices - 1)
    numbers = _numbers_of(schedule, played)
    layer = _Layer(name, 0, played.total_cycles, numbers, {}, drawing)
    return _write(name, [layer], [], clock_ghz, path)


def draw_schedule(
    schedule: Schedule,
    played: Played,
    *,
    clock_ghz: float,
    begin: int = 0,
    max_slices: int = MAX_SLICES,
) -> Drawing:
    """Return the slices and samples of one played schedule that starts at cycle ``begin``."""
    return draw_units(schedule, played, Scale(clock_ghz, begin), max_slices)


def _check_timing(hardware: Any) -> None:
    if "events" not in device_of(hardware.kind).levels:
        raise InputError(
            f"a timeline needs a device that spells out tiles; {hardware.kind} "
            f"'{hardware.name}' has levels {', '.join(device_of(hardware.kind).levels)}"
        )
    timing = getattr(hardware, "timing", "physical")
    if timing != "physical":
        raise InputError(
            f"a timeline needs timing physical, which spells out tiles; '{hardware.name}' has "
            f"timing {timing}, a closed form without them"
        )


# --- the layers of a network ----------------------------------------------------------------------


def _network(workload: Workload, hardware: Any, masks: Masks, max_slices: int) -> Iterator[_Layer]:
    device = device_of(hardware.kind)(hardware)
    found = [_prepared(device.schedule(x, masks), x.repeats) for x in workload.layers]
    slots = [one for one in found if isinstance(one, Slots)]
    share = max_slices // len(found) - 1  # of a layer that is played
    room = _pieces_a_layer(slots, max_slices - (share + 1) * (len(found) - len(slots)),
                           workload.name)  # fmt: skip
    begin = 0
    for layer, one in zip(workload.layers, found, strict=True):
        scale = Scale(hardware.clock_ghz, begin)
        drawn = _slot_layer(one, room, scale) if isinstance(one, Slots) else _played_layer(
            one, share, scale
        )  # fmt: skip
        cycles, numbers, drawing = drawn
        numbers |= {d: getattr(layer.gemm, d) for d in "tkn"} | {"runs": layer.runs}
        yield _Layer(layer.name, begin, cycles, numbers, _texts(layer), drawing)
        begin += cycles


def _prepared(schedule: Schedule, repeats: int) -> Slots | Schedule:
    """Return slots where there are any; else the schedule, launched as often as it repeats."""
    if fits(schedule):
        return Slots.of(schedule, repeats)
    launch = schedule.machine.launch_cycles * repeats
    return replace(schedule, machine=replace(schedule.machine, launch_cycles=launch))


def _texts(layer: Layer) -> dict[str, str]:
    return {"op": layer.op.kind, "pattern": str(layer.pattern), "dtype": layer.dtype}


def _slot_layer(slots: Slots, room: int, scale: Scale) -> tuple[int, dict[str, int], Drawing]:
    part = slots.pieces(room)
    cycles = int(part.column("cycles").sum())
    spent = {cause: int(part.cause(cause).sum()) for cause in slots.machine.causes}
    moved = {
        f"{channel.name}_{kind}": int(part.column(f"{kind}:{channel.name}").sum())
        for channel in slots.machine.channels
        for kind in ("load_bytes", "store_bytes")
    }
    return cycles, _numbers(slots.count, cycles, spent, moved), draw_slots(part, scale)


def _played_layer(
    schedule: Schedule, room: int, scale: Scale
) -> tuple[int, dict[str, int], Drawing]:
    played = compiled.play(schedule)
    drawing = draw_units(schedule, played, scale, room)
    return played.total_cycles, _numbers_of(schedule, played), drawing


def _numbers_of(schedule: Schedule, played: Played) -> dict[str, int]:
    moved = {
        f"{channel.name}_{kind}": schedule.runs * int(schedule.tiles[kind][:, level].sum())
        for level, channel in enumerate(schedule.machine.channels)
        for kind in ("load_bytes", "store_bytes")
    }
    spent = attribution.causes(schedule, played)
    return _numbers(len(played.unit), played.total_cycles, spent, moved)


def _numbers(
    tiles: int, cycles: int, causes: dict[str, int], moved: dict[str, int]
) -> dict[str, int]:
    spent = {f"{cause}_cycles": each for cause, each in causes.items()}
    return {"tiles": tiles, "cycles": cycles} | spent | moved


def _pieces_a_layer(slots: list[Slots], max_slices: int, name: str) -> int:
    """Return the most pieces any layer may have so that all slices together are in bounds."""
    if not slots:
        return 0
    count = np.array([x.count for x in slots], dtype=np.int64)
    each = np.array([x.slices_a_piece() for x in slots], dtype=np.int64)
    free = max_slices - _EDGE_SLICES * len(slots)
    if free < each.sum():
        raise InputError(
            f"max_slices must be at least {_EDGE_SLICES * len(slots) + int(each.sum())} for "
            f"{len(slots)} layers of '{name}'; got {max_slices}"
        )
    low, high = 1, max(int(count.max()), 1)
    while low < high:
        middle = (low + high + 1) // 2
        is_in = bool((each * np.minimum(count, middle)).sum() <= free)
        low, high = (middle, high) if is_in else (low, middle - 1)
    return low


# --- the trace ------------------------------------------------------------------------------------


def _write(
    process: str, layers: list[_Layer], counters: list[Counter], clock_ghz: float, path: Path
) -> TimelineSummary:
    """Write layers that follow each other; ``counters`` come behind those of the layers."""
    threads = dict.fromkeys([LAYERS, *(x for one in layers for x in one.drawing.threads)])
    slices = [_layer_slices(layers, clock_ghz)]
    slices += [batch for layer in layers for batch in layer.drawing.slices]
    trace = Trace(process, tuple(threads), slices, _counters(layers, clock_ghz) + counters)
    size = write_trace(trace, path)
    count = sum(len(batch) for batch in slices)
    merged = {
        x.name: x.drawing.tiles_a_slice for x in layers if x.drawing.tiles_a_slice > 1
    }  # fmt: skip
    return TimelineSummary(len(layers), count, layers[-1].end, size, merged)


def _layer_slices(layers: list[_Layer], clock_ghz: float) -> Slices:
    """Return a slice a layer: shape, cycles by cause, traffic, and how its tiles are drawn."""
    numbers = {
        key: np.array([x.numbers.get(key, 0) for x in layers], dtype=np.int64)
        for key in dict.fromkeys(key for x in layers for key in x.numbers)
    }
    numbers["tiles_a_slice"] = np.array([x.drawing.tiles_a_slice for x in layers])
    texts = {key: tuple(x.texts[key] for x in layers) for key in layers[0].texts}
    texts["drawn"] = tuple(x.drawing.drawn for x in layers)
    scale = Scale(clock_ghz)
    begin, end = (scale.ns(np.array([getattr(x, key) for x in layers])) for key in ("begin", "end"))
    names = tuple(x.name for x in layers)
    return Slices(LAYERS, names, np.arange(len(names)), begin, end, numbers, texts)


def _counters(layers: list[_Layer], clock_ghz: float) -> list[Counter]:
    """Return what layers sampled, one behind the other."""
    found: dict[str, list[tuple[_Layer, Samples]]] = {}
    for layer in layers:
        for samples in layer.drawing.samples:
            found.setdefault(samples.name, []).append((layer, samples))
    return [_counter(of_layers, clock_ghz) for of_layers in found.values()]


def _counter(
    of_layers: list[tuple[_Layer, Samples]], clock_ghz: float, *, distinct: bool = True
) -> Counter:
    """Return samples of successive layers as one counter, zero where a layer has none."""
    starts, values = [], []
    for at, (layer, samples) in enumerate(of_layers):
        is_followed = at + 1 < len(of_layers) and of_layers[at + 1][0].begin == layer.end
        starts.append(samples.starts + layer.begin)
        values.append(samples.values)
        if not is_followed:
            starts.append(np.array([layer.end]))
            values.append(np.zeros(1))
    at_cycle, value = np.concatenate(starts), np.concatenate(values)
    new = np.arange(len(value))
    if distinct:
        new = np.flatnonzero(np.append(True, np.diff(value) != 0))
    _, first = of_layers[0]
    return Counter(first.name, first.unit, Scale(clock_ghz).ns(at_cycle[new]), value[new])
