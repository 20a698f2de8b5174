"""Causes of played schedules: by a cycle-by-cycle twin, by hand, and as the device counts them."""

import time
from collections import Counter as Tally
from dataclasses import replace

import numpy as np
import pytest
from devices.test_systolic_levels import fitting, random_changes, random_layer
from engine.random_schedules import SWAPS, random_schedule

from accsim.devices.systolic import SystolicDevice
from accsim.engine import compiled, events
from accsim.engine.attribution import causes, unit_ledger
from accsim.sparsity.masks import Masks
from accsim.spec.schedule import Channel, Machine, Pool, Schedule, tile_dtype

DRAM, L2 = Channel("dram", 1.0), Channel("l2", 2.0)
ARRAY = Pool("array")


def schedule_of(rows, *, channels=(DRAM,), pools=(ARRAY,), of=0, runs=1, edges=(), **how):
    """Tiles from (work cycles, load, metadata, gather, store bytes, or one number a channel)."""
    tiles = np.zeros(len(rows), dtype=tile_dtype(len(channels)))
    names = ("load_bytes", "metadata_bytes", "gather_bytes", "store_bytes")
    for tile, (cycles, *moved) in zip(tiles, rows, strict=True):
        tile["compute_cycles"] = tile["work_cycles"] = cycles
        for name, nbytes in zip(names, moved, strict=True):
            tile[name] = nbytes
    tiles["pool"] = of
    edges = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return Schedule(tiles, Machine(tuple(channels), tuple(pools), **how), runs, edges)


def spent(schedule):
    return {name: n for name, n in causes(schedule, events.play(schedule)).items() if n}


def stalls(schedule, unit=0):
    """(cause, start, end) of one unit."""
    found = unit_ledger(schedule, events.play(schedule))
    names = schedule.machine.causes
    return [
        (names[cause], start, end)
        for start, end, of, cause in zip(
            *(x.tolist() for x in (found.start, found.end, found.unit, found.cause)), strict=True
        )
        if of == unit
    ]


# --- by hand --------------------------------------------------------------------------------------


def test_lockstep_by_hand():
    # launch 0–3; load 0 3–7, the last cycle for its metadata; slot 7–13: compute 0 7–9, load 1
    # until 13 (6 bytes, 3 of them metadata: without them until 10, so 9–10 dram, 10–13 metadata);
    # slot 13–18 compute 1, store 0 (2); 18–19 store 1
    rows = [(2, 4, 1, 0, 2), (5, 6, 3, 0, 1)]
    schedule = schedule_of(rows, swap="lockstep", launch_cycles=3)
    assert stalls(schedule) == [
        ("launch", 0, 3), ("dram", 3, 6), ("metadata", 6, 7), ("dram", 9, 10),
        ("metadata", 10, 13), ("dram", 18, 19),
    ]  # fmt: skip
    assert spent(schedule) == {"work": 7, "metadata": 4, "dram": 5, "launch": 3}


def test_gather_comes_before_metadata_and_after_the_channel():
    schedule = schedule_of([(1, 9, 2, 3, 0)], swap="sequential")
    assert stalls(schedule) == [("dram", 0, 4), ("gather", 4, 7), ("metadata", 7, 9)]


def test_the_channel_blamed_is_the_slowest_without_metadata():
    # dram 10 cycles, 4 of them positions; l2 8: without positions l2 is the slowest
    schedule = schedule_of([(1, (10, 16), (4, 0), 0, 0)], channels=(DRAM, L2), swap="lockstep")
    assert stalls(schedule) == [("l2", 0, 8), ("metadata", 8, 10)]


def test_elastic_waits_for_the_later_of_load_and_output_buffer():
    # test_events: output buffer holds computing up. Loads 0–2, 2–5, 5–6; computes 0 2–6;
    # store 0 6–9; computes 1 9–10; store 1 10–11; computes 2 11–16; store 2 16–18
    rows = [(4, 2, 0, 0, 3), (1, 3, 0, 0, 1), (5, 1, 0, 0, 2)]
    own = replace(DRAM, name="out")
    moved = [(c, (load, 0), 0, 0, (0, store)) for c, load, _, _, store in rows]
    schedule = schedule_of(moved, channels=(DRAM, own), pools=[Pool("p", 1, 3, 1)], swap="elastic")
    assert stalls(schedule) == [("dram", 0, 2), ("out", 6, 9), ("out", 10, 11), ("out", 16, 18)]


def test_a_dependency_and_the_end_of_others_are_imbalance():
    # tile 1 (unit 1) waits for tile 0: load 0 0–2, compute 2–6, store 6–9; load 1 9–12, compute
    # 12–13; unit 2 has nothing to do at all
    rows = [(4, 2, 0, 0, 3), (1, 3, 0, 0, 0)]
    schedule = schedule_of(rows, pools=[Pool("p", 3)], swap="sequential", edges=[(1, 0)])
    assert stalls(schedule, 0) == [("dram", 0, 2), ("dram", 6, 9), ("imbalance", 9, 13)]
    assert stalls(schedule, 1) == [("imbalance", 0, 9), ("dram", 9, 12)]
    assert stalls(schedule, 2) == [("imbalance", 0, 13)]
    # unit-cycles: work 5, dram 8, imbalance 26, of 3 · 13; a third: 1 2/3, 2 2/3, 8 2/3; two seats
    # are left for three equal remainders, and causes that are shown first take them
    assert spent(schedule) == {"work": 2, "imbalance": 9, "dram": 2}


def test_no_tiles_is_all_launch():
    for units in (1, 3):
        schedule = schedule_of([], pools=[Pool("p", units)], launch_cycles=7)
        assert spent(schedule) == {"launch": 7}
    assert spent(schedule_of([])) == {}


def test_without_channels():
    schedule = schedule_of([(3, (), (), (), ())] * 3, channels=(), pools=[Pool("p", 2)])
    assert spent(schedule) == {"work": 5, "imbalance": 1}


# --- random schedules -----------------------------------------------------------------------------


@pytest.mark.parametrize("swap", SWAPS)
def test_ledgers_cover_every_units_time(swap):
    rng = np.random.default_rng(list(swap.encode()))
    for case in range(250):
        schedule = random_schedule(rng, swap)
        played = events.play(schedule)
        found = unit_ledger(schedule, played)
        assert (found.end > found.start).all()
        busy = played.compute_end > played.compute_start
        unit = np.append(found.unit, played.unit[busy])
        start = np.append(found.start, played.compute_start[busy])
        end = np.append(found.end, played.compute_end[busy])
        for one in range(schedule.machine.units):
            mine = np.flatnonzero(unit == one)
            mine = mine[np.argsort(start[mine])]
            borders = np.append(start[mine], played.total_cycles), np.append(0, end[mine])
            assert np.array_equal(*borders), (case, one)
        spent = causes(schedule, played)
        assert tuple(spent) == schedule.machine.causes
        assert sum(spent.values()) == played.total_cycles
        assert min(spent.values()) >= 0


@pytest.mark.parametrize("swap", SWAPS)
def test_agrees_with_a_cycle_by_cycle_twin(swap):
    """Without metadata and gather: these are a matter of lengths, tested with the device."""
    rng = np.random.default_rng([7, *swap.encode()])
    seen = Tally()
    for case in range(150):
        schedule = random_schedule(rng, swap)
        for name in ("metadata_bytes", "gather_bytes"):
            schedule.tiles[name] = 0
        played = events.play(schedule)
        found = unit_ledger(schedule, played)
        for unit in range(schedule.machine.units):
            line = twin(schedule, played, unit)
            mine = found.take(np.flatnonzero(found.unit == unit))
            got = {}
            for start, end, cause in zip(mine.start, mine.end, mine.cause, strict=True):
                got |= dict.fromkeys(range(start, end), schedule.machine.causes[cause])
            assert got == line, (case, unit)
            seen.update(got.values())
    assert min(seen[x] for x in ("launch", "imbalance", "level0", "level1")) > 100


def twin(schedule, played, unit):
    """Cause of every cycle in which a unit does not compute, one cycle after the other."""
    machine, total = schedule.machine, played.total_cycles
    mine = [i for i, of in enumerate(played.unit.tolist()) if of == unit]
    busy = {t for i in mine for t in range(played.compute_start[i], played.compute_end[i])}
    pools = [p for p in machine.pools for _ in range(p.units)]
    line = {}
    for t in range(total):
        if t in busy:
            continue
        if t < machine.launch_cycles:
            line[t] = "launch"
            continue
        after = [at for at, i in enumerate(mine) if played.compute_start[i] > t]
        place = after[0] if after else len(mine)  # the tile it computes next
        awaited = []  # (complete, kind: of two complete at once the load counts, channel)
        if place < len(mine):
            i = mine[place]
            if played.load_request[i] <= t or machine.swap == "elastic":
                since = played.load_request[i]
                awaited.append((played.load_done[i], 1, played.load_channel[i], since))
        stored = mine[: len(mine) if place == len(mine) else place]
        if machine.swap == "elastic" and place < len(mine):
            stored = stored[: max(place + 1 - pools[unit].output_buffers, 0)]
        for at, i in enumerate(stored):
            if played.store_request[i] <= t < played.store_done[i]:
                first = -at if place == len(mine) else 0
                awaited.append((played.store_done[i], first - 1, played.store_channel[i], 0))
        awaited = [x for x in awaited if x[0] > t]
        if not awaited:
            line[t] = "imbalance"
            continue
        _, _, channel, since = max(awaited)
        line[t] = machine.channels[channel].name if since <= t else "imbalance"
    return line


# --- as the device counts them --------------------------------------------------------------------


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_the_systolic_device_counts_the_same(dataflow):
    """Random layers on random devices: one to three channels, adaptive layers too."""
    rng = np.random.default_rng(list(dataflow.encode()))
    seen = Tally()
    for case in range(250):
        changes = random_changes(rng) | {"dataflow": dataflow}
        layer, masks = random_layer(rng, "a"), Masks(case)
        sizes = [int(rng.integers(8, 600)) for _ in "xwy"]
        _, (found, schedule) = fitting(changes, sizes, lambda hw: planned(hw, layer, masks))  # noqa: B023
        expected = {name: int(cycles[0]) for name, cycles in found.causes.items()}
        expected["launch"] //= layer.repeats  # a schedule is launched once
        assert causes(schedule, events.play(schedule)) == expected, (case, schedule)
        seen.update([found.mode[0], f"{len(schedule.machine.channels)} channels"])
        seen.update(name for name, cycles in expected.items() if cycles)
    assert min(seen[x] for x in ("1 channels", "2 channels", "3 channels", "metadata", "dram",
                                 "l1", "l2", "padding", "adaptive")) > 5  # fmt: skip


def planned(hardware, layer, masks):
    made = SystolicDevice(hardware)
    return made.evaluate([layer], masks), made.schedule(layer, masks)


# --- several units --------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", ["elastic", "lockstep"])
@pytest.mark.parametrize("units", [1, 2, 6])
@pytest.mark.parametrize("shared", [True, False])
def test_metadata_is_about_what_would_be_saved_without(swap, units, shared):
    """The rule is local to a transfer; the truth is another play without metadata bytes."""
    rng = np.random.default_rng(units)
    count = 4000
    tiles = np.zeros(count, dtype=tile_dtype(1))
    tiles["work_cycles"] = tiles["compute_cycles"] = rng.integers(1, 100, count)
    tiles["load_bytes"][:, 0] = rng.integers(0, 9000, count)
    tiles["metadata_bytes"] = tiles["load_bytes"] // 8
    tiles["store_bytes"][:, 0] = rng.integers(0, 90, count)
    bare = tiles.copy()
    bare["load_bytes"] -= tiles["metadata_bytes"]
    bare["metadata_bytes"] = 0
    channel = Channel("dram", 8.0 * units, 0, shared)
    machine = Machine((channel,), (Pool("p", units),), swap)
    schedule, without = (Schedule(x, machine) for x in (tiles, bare))
    played = compiled.play(schedule)
    saved = played.total_cycles - compiled.play(without).total_cycles
    assert causes(schedule, played)["metadata"] == pytest.approx(saved, rel=0.06)


def test_a_million_tiles_take_about_a_second():
    count = 10**6
    tiles = np.zeros(count, dtype=tile_dtype(2))
    tiles["work_cycles"] = tiles["compute_cycles"] = 1 + np.arange(count) % 50
    tiles["load_bytes"] = np.arange(2 * count).reshape(-1, 2) % 900
    tiles["metadata_bytes"] = tiles["load_bytes"] // 9
    machine = Machine((replace(DRAM, bytes_per_cycle=80.0), L2), (Pool("p", 8),), "elastic")
    schedule = Schedule(tiles, machine)
    played = compiled.play(schedule)
    start = time.process_time()
    assert sum(causes(schedule, played).values()) == played.total_cycles
    assert time.process_time() - start < 3
