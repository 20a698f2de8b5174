"""The timeline of played schedules: several units, finite buffers, tiles that wait for others."""

import re
from collections import Counter as Tally
from itertools import pairwise

import numpy as np
import pytest
from devices.test_systolic_levels import device
from engine.random_schedules import SWAPS, random_schedule
from engine.test_timeline_files import by_thread, read_json, read_protobuf

import accsim
from accsim.base.errors import InputError
from accsim.devices.systolic import SystolicDevice
from accsim.engine import events
from accsim.engine import timeline as module
from accsim.engine.attribution import causes, unit_ledger
from accsim.engine.timeline import LAYERS, draw_schedule, write_schedule_timeline, write_timeline
from accsim.engine.timeline_units import MAX_TRACKS, groups_of
from accsim.sparsity.masks import Masks
from accsim.spec.schedule import Channel, Machine, Pool, Schedule, tile_dtype


def schedules(swap, count, first=0):
    for case in range(first, first + count):
        schedule = random_schedule(np.random.default_rng([case, *swap.encode()]), swap)
        yield case, schedule, events.play(schedule)


def assert_apart(found, total):
    """Slices of one track are in order and never overlap."""
    for thread, slices in found.items():
        assert all(0 <= start <= end <= total for _, start, end, _ in slices), thread
        for (_, _, end, _), (_, start, _, _) in pairwise(slices):
            assert end <= start, thread


def labels(schedule):
    return [group.label for group in groups_of(schedule.machine)]


def unit_cycles(schedule, played):
    """Cause → unit-cycles of all units, from the tiles and the ledger."""
    ledger = unit_ledger(schedule, played)
    spent = Tally()
    for cause, start, end in zip(ledger.cause, ledger.start, ledger.end, strict=True):
        spent[schedule.machine.causes[cause]] += int(end - start)
    for field in schedule.tiles.dtype.names:
        if field.endswith("_cycles") and field != "compute_cycles":
            spent[field[:-7]] += schedule.runs * int(schedule.tiles[field].sum())
    return +spent


def shared(spent, units, total):
    """Unit-cycles by cause as cycles: largest remainder, in plain Python."""
    each = {cause: n // units for cause, n in spent.items()}
    order = sorted(spent, key=lambda cause: -(spent[cause] % units))
    for cause in order[: total - sum(each.values())]:
        each[cause] += 1
    return each


@pytest.mark.parametrize("swap", SWAPS)
def test_tile_by_tile_is_what_was_played(swap):
    for _, schedule, played in schedules(swap, 120):
        drawing = draw_schedule(schedule, played, clock_ghz=1.0)
        assert drawing.drawn == "tile by tile"
        found = by_thread(drawing.slices)
        assert set(found) <= set(drawing.threads)
        assert_apart(found, played.total_cycles)
        spent = Tally()
        for unit, label in enumerate(labels(schedule)):
            busy = (played.unit == unit) & (played.compute_end > played.compute_start)
            shown = found.get(f"compute {label}", [])
            assert [x[1] for x in shown] == played.compute_start[busy].tolist()
            assert [x[2] for x in shown] == played.compute_end[busy].tolist()
            tiles = [x[3].get("run", 0) * len(schedule) + x[3]["tile"] for x in shown]
            assert tiles == np.flatnonzero(busy).tolist()
            covered = sum(x[3]["work_cycles"] for x in shown)
            spent["work"] += covered
            for name, start, end, arguments in found.get(f"stalls {label}", []):
                assert arguments["cycles"] == end - start
                spent[name] += end - start
                covered += end - start
            assert covered == played.total_cycles
        assert +spent == unit_cycles(schedule, played)
        in_order = {c: spent[c] for c in schedule.machine.causes}
        expected = shared(in_order, schedule.machine.units, played.total_cycles)
        assert causes(schedule, played) == expected


@pytest.mark.parametrize("swap", SWAPS)
def test_transfers_are_drawn_within_their_time(swap):
    for _, schedule, played in schedules(swap, 60, first=200):
        found = by_thread(draw_schedule(schedule, played, clock_ghz=1.0).slices)
        for verb in ("load", "store"):
            begin, done = (getattr(played, f"{verb}_{x}") for x in ("begin", "done"))
            moved = schedule.tiles[f"{verb}_bytes"]
            for unit, label in enumerate(labels(schedule)):
                for name, start, end, arguments in found.get(f"{verb} {label}", []):
                    at = arguments.get("run", 0) * len(schedule) + arguments["tile"]
                    assert (name, played.unit[at]) == (verb, unit)
                    assert begin[at] <= start < end == done[at]
                    assert arguments["transfer_cycles"] == done[at] - begin[at]
                    request = getattr(played, f"{verb}_request")[at]
                    assert arguments["queued_cycles"] == begin[at] - request
                    for level, channel in enumerate(schedule.machine.channels):
                        nbytes = moved[arguments["tile"], level]
                        assert arguments[f"{channel.name}_bytes"] == nbytes
                covered = {
                    t for _, a, b, _ in found.get(f"{verb} {label}", []) for t in range(a, b)
                }
                mine = np.flatnonzero(played.unit == unit)
                wanted = [i for i in mine if moved[i % len(schedule)].any()]
                under_way = {t for i in wanted for t in range(begin[i], done[i])}
                assert covered <= under_way
                if len(schedule.machine.channels) == 1:  # else one may overtake the other
                    assert covered == under_way


@pytest.mark.parametrize("swap", SWAPS)
def test_steps_keep_all_sums(swap):
    seen = Tally()
    for case, schedule, played in schedules(swap, 100, first=400):
        whole = draw_schedule(schedule, played, clock_ghz=1.0)
        if not whole.slices:
            continue
        limit = least_of(schedule, played) * (1 + case % 5)
        brief = draw_schedule(schedule, played, clock_ghz=1.0, max_slices=limit)
        if brief.drawn == "tile by tile":
            continue
        seen["steps"] += 1
        assert brief.drawn.startswith("aggregated: ")
        assert brief.tiles_a_slice > 1
        assert brief.threads == whole.threads
        assert sum(len(x) for x in brief.slices) <= limit
        full, found = by_thread(whole.slices), by_thread(brief.slices)
        assert_apart(found, played.total_cycles)
        for label in labels(schedule):
            assert_same_unit(full, found, label, schedule)
    assert seen["steps"] > 30


def least_of(schedule, played):
    with pytest.raises(InputError) as caught:
        draw_schedule(schedule, played, clock_ghz=1.0, max_slices=0)
    message = str(caught.value)
    return int(re.search(r"max_slices must be at least (\d+) for \d+ tracks", message)[1])


def assert_same_unit(full, found, label, schedule):
    def total(slices, key):
        return sum(arguments[key] for *_, arguments in slices)

    fine, coarse = (x.get(f"compute {label}", []) for x in (full, found))
    assert total(fine, "cycles") == total(coarse, "unit_cycles")
    assert total(fine, "work_cycles") == total(coarse, "work_unit_cycles")
    assert all(name == "compute, mean of a step" for name, *_ in coarse)
    stalls = [Tally(), Tally()]
    for tally, slices in zip(stalls, (full, found), strict=True):
        for name, start, end, arguments in slices.get(f"stalls {label}", []):
            tally[name] += arguments.get("cycles", arguments.get("unit_cycles"))
            assert end - start == arguments.get("cycles", arguments.get("unit_cycles"))
    assert stalls[0] == stalls[1]
    for verb in ("load", "store"):
        fine, coarse = (x.get(f"{verb} {label}", []) for x in (full, found))
        assert total(fine, "cycles") == total(coarse, "cycles")


def many_units(units=70, count=600, **how):
    rng = np.random.default_rng(units)
    tiles = np.zeros(count, dtype=tile_dtype(2))
    for cause, most in (("work", 40), ("padding", 9), ("imbalance", 5)):
        tiles[f"{cause}_cycles"] = rng.integers(0, most, count)
        tiles["compute_cycles"] += tiles[f"{cause}_cycles"]
    tiles["pool"] = rng.integers(0, 2, count)
    tiles["load_bytes"] = rng.integers(1, 90, (count, 2))
    tiles["metadata_bytes"] = tiles["load_bytes"] // 5
    tiles["store_bytes"][:, 0] = rng.integers(0, 50, count)
    channels = (Channel("hbm", 40.0, 12), Channel("l2", 3.0, 1, shared=False))
    machine = Machine(channels, (Pool("SM", units - 3), Pool("vector", 3)), "elastic", **how)
    return Schedule(tiles, machine)


def test_many_units_are_drawn_in_groups():
    schedule = many_units(launch_cycles=6)
    played = events.play(schedule)
    groups = groups_of(schedule.machine)
    assert len(groups) <= MAX_TRACKS
    assert [x.first for x in groups] == np.cumsum([0, *(x.units for x in groups)])[:-1].tolist()
    assert groups[0].label == "SM[0–2] (mean of 3 units)"
    assert groups[-2].label == "SM[66]"
    assert groups[-1].label == "vector[0–2] (mean of 3 units)"
    drawing = draw_schedule(schedule, played, clock_ghz=1.0)
    assert drawing.drawn.endswith("units together in 24 tracks")
    found = by_thread(drawing.slices)
    assert_apart(found, played.total_cycles)
    spent, ended, moved = Tally(), 0, 0
    for thread, slices in found.items():
        for name, _, _, arguments in slices:
            if thread.startswith("compute"):
                spent["work"] += arguments["work_unit_cycles"]
                ended += arguments["tiles"]
            elif thread.startswith("stalls"):
                spent[name] += arguments["unit_cycles"]
            else:
                moved += arguments["hbm_bytes"]
    assert +spent == unit_cycles(schedule, played)
    assert ended == len(schedule)
    tiles = schedule.tiles
    assert moved == (tiles["load_bytes"] + tiles["store_bytes"])[:, 0].sum()
    in_order = {c: spent[c] for c in schedule.machine.causes}
    assert causes(schedule, played) == shared(in_order, 70, played.total_cycles)


def test_a_step_of_a_group_by_hand():
    """Three units of one pool at 2 cycles a tile of work: ns of the mean unit."""
    tiles = np.zeros(4, dtype=tile_dtype(0))
    tiles["work_cycles"], tiles["padding_cycles"], tiles["compute_cycles"] = 4, 2, 6
    machine = Machine((), (Pool("SM", 40),), "sequential")
    schedule = Schedule(tiles, machine)
    drawing = draw_schedule(schedule, events.play(schedule), clock_ghz=0.01, max_slices=100)
    found = by_thread(drawing.slices)
    label = "SM[0–1] (mean of 2 units)"
    # 40 units: 20 groups of 2. 4 units compute 0–6 at 0.01 GHz: 100 ns a cycle.
    assert [x[1:3] for x in found[f"compute {label}"]] == [(0, 600)]
    assert "padding" in {x[0] for x in found[f"stalls {label}"]}
    assert {x[0] for x in found["stalls SM[38–39] (mean of 2 units)"]} == {"imbalance"}


@pytest.mark.parametrize("swap", SWAPS)
def test_counters_integrate_to_bytes_and_work(swap):
    for case, schedule, played in schedules(swap, 60, first=600):
        total = played.total_cycles
        drawing = draw_schedule(schedule, played, clock_ghz=2.0)
        if not total:
            assert drawing.samples == []
            continue
        sums = {}
        for samples in drawing.samples:
            each = np.diff(np.append(samples.starts, total))
            sums[samples.name] = float((samples.values * each).sum())
            assert (samples.values >= 0).all()
        work = schedule.runs * int(schedule.tiles["work_cycles"].sum())
        share = sums.pop("utilisation of units: work share of a step")
        assert share / 100 * schedule.machine.units == pytest.approx(work)
        for level, channel in enumerate(schedule.machine.channels):
            tiles = schedule.tiles
            moved = int((tiles["load_bytes"] + tiles["store_bytes"])[:, level].sum())
            name = f"{channel.name.upper()} bandwidth, mean of a step"
            assert sums[name] / 2.0 == pytest.approx(schedule.runs * moved), case


def test_a_file_of_one_schedule(tmp_path):
    schedule = many_units(units=9)
    played = events.play(schedule)
    for suffix in ("json", "pftrace"):
        made = write_schedule_timeline(
            schedule, played, tmp_path / f"a.{suffix}", clock_ghz=1.5, name="matmul on 9 units"
        )
        assert made.file_bytes == (tmp_path / f"a.{suffix}").stat().st_size
    found = read_json(tmp_path / "a.json")
    assert found == read_protobuf(tmp_path / "a.pftrace")
    assert found["process"] == "matmul on 9 units"
    assert sum(map(len, found["slices"].values())) == made.slices
    ((name, start, end, arguments),) = found["slices"][LAYERS]
    assert (name, start, end) == ("matmul on 9 units", 0, round(played.total_cycles / 1.5))
    for cause, cycles in causes(schedule, played).items():
        assert arguments[f"{cause}_cycles"] == cycles
    assert arguments["tiles"] == len(schedule)
    assert arguments["hbm_load_bytes"] == schedule.tiles["load_bytes"][:, 0].sum()
    assert made.aggregated_layers == {}
    few = write_schedule_timeline(
        schedule, played, tmp_path / "b.json", clock_ghz=1.5, max_slices=500
    )
    assert few.slices <= 500
    assert few.aggregated_layers["schedule"] > 1


def test_no_tiles(tmp_path):
    for launch in (0, 5):
        machine = Machine((Channel("dram", 1.0),), (Pool("p", 2),), launch_cycles=launch)
        schedule = Schedule(np.zeros(0, dtype=tile_dtype(1)), machine)
        made = write_schedule_timeline(
            schedule, events.play(schedule), tmp_path / "a.json", clock_ghz=1.0
        )
        assert made.cycles == launch


def test_a_network_of_a_device_of_several_units(tmp_path, monkeypatch):
    """The systolic device's tiles on three arrays, as another device would spell them out."""

    class Three(SystolicDevice):
        def schedule(self, layer, masks):
            found = super().schedule(layer, masks)
            machine = Machine(
                found.machine.channels, (Pool("array", 3),), "elastic", launch_cycles=4
            )
            return Schedule(found.tiles, machine, found.runs)

    monkeypatch.setattr(module, "device_of", lambda kind: Three)
    small = {f"memory__sram__{x}__bytes": 400 for x in "xwy"}
    hardware, masks = device(**small), Masks(0)
    net = accsim.gemm(40, 40, 40)
    layers = [
        net.layers[0].model_copy(update={"name": name, "repeats": n})
        for name, n in (("a", 1), ("b", 3))
    ]
    net = net.model_copy(update={"layers": tuple(layers)})
    made = write_timeline(net, hardware, masks, tmp_path / "a.json")
    found = read_json(tmp_path / "a.json")
    assert made.layers == 2
    first, second = found["slices"][LAYERS]
    assert first[2] == second[1]
    assert made.cycles == second[2]
    assert (first[3]["launch_cycles"], second[3]["launch_cycles"]) == (4, 12)
    for thread, slices in found["slices"].items():
        assert_apart({thread: slices}, made.cycles)
    for unit in range(3):
        for _, begin, end, _ in (first, second):
            inside = [x for x in found["slices"][f"stalls array[{unit}]"] if begin <= x[1] < end]
            work = [x for x in found["slices"][f"compute array[{unit}]"] if begin <= x[1] < end]
            spent = sum(x[3]["cycles"] for x in inside) + sum(x[3]["work_cycles"] for x in work)
            assert spent == end - begin
    few = write_timeline(net, hardware, masks, tmp_path / "b.json", max_slices=120)
    assert few.slices <= 120
    assert set(few.aggregated_layers) == {"a", "b"}
