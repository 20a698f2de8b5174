"""The timeline of one unit: laid out as SimPy plays it, cause by cause as attribution counts it."""

import re
from collections import Counter as Tally
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from devices.test_systolic_levels import buffers, device
from engine.random_schedules import pick
from engine.random_schedules import random_schedule as any_schedule
from engine.test_timeline_files import by_thread, read_json

import accsim
from accsim.base.errors import InputError
from accsim.engine import closed, events
from accsim.engine.attribution import causes
from accsim.engine.slots import Slots
from accsim.engine.timeline import LAYERS, write_timeline
from accsim.engine.timeline_drawing import IN_TILE, Scale
from accsim.engine.timeline_slots import COMPUTE, LOAD, STALLS, STORE, draw_slots
from accsim.sparsity.masks import Masks
from accsim.spec.schedule import COMPUTE_CAUSES, Channel, Machine, Pool, Schedule, tile_dtype
from accsim.spec.workload import Workload

ARRAY = {"array.rows": 4, "array.cols": 4}


def schedule_of(rows, *, runs=1, bandwidth=4.0, latency=0, double=True, launch=0):
    """Tiles from (compute, work, imbalance, load, metadata, store)."""
    tiles = np.zeros(len(rows), dtype=tile_dtype(1))
    names = ("compute_cycles", "work_cycles", "imbalance_cycles")
    for name, values in zip(names, list(zip(*rows, strict=True))[:3], strict=True):
        tiles[name] = values
    tiles["fill_drain_cycles"] = (
        tiles["compute_cycles"] - tiles["work_cycles"] - tiles["imbalance_cycles"]
    )
    for name, values in zip(
        ("load_bytes", "metadata_bytes", "store_bytes"),
        list(zip(*rows, strict=True))[3:],
        strict=True,
    ):
        tiles[name][:, 0] = values
    channel = Channel("dram", bandwidth, latency)
    swap = "lockstep" if double else "sequential"
    return Schedule(tiles, Machine((channel,), swap=swap, launch_cycles=launch), runs)


def random_schedule(rng):
    """Of one unit, with none to three channels."""
    found = any_schedule(rng, pick(rng, ("lockstep", "lockstep", "sequential")))
    found.tiles["pool"] = 0
    return Schedule(found.tiles, replace(found.machine, pools=(Pool("array"),)), found.runs)


def drawn(schedule, pieces=None, begin=0):
    """Thread → [(name, start, end, arguments)] of one schedule at 1 GHz: a cycle is a ns."""
    slots = Slots.of(schedule)
    part = slots.pieces(slots.count if pieces is None else pieces)
    return by_thread(draw_slots(part, Scale(1.0, begin)).slices), part


def assert_apart(slices):
    for (_, _, end, _), (_, start, _, _) in pairwise(sorted(slices, key=lambda x: x[1:3])):
        assert end <= start


# --- the layout -----------------------------------------------------------------------------------


def test_three_tiles_by_hand():
    """Bandwidth 4, latency 1: loads of 5, 3, 9 cycles, stores of 2 (1 + 4/4).

    With two buffers: launch 2, load 5, slots max(6, 1+8/4=3)=6, max(4, 1+36/4=10)=10,
    max(8, 2)=8, store 2.
    """
    rows = [(6, 5, 1, 16, 0, 4), (4, 4, 0, 8, 0, 4), (8, 6, 0, 32, 8, 4)]
    found, part = drawn(schedule_of(rows, latency=1, launch=2), begin=100)
    spans = {
        thread: [(name, a - 100, b - 100) for name, a, b, _ in slices]
        for thread, slices in found.items()
    }
    assert spans == {
        LOAD: [("load", 2, 7), ("load", 7, 10), ("load", 15, 23)],
        COMPUTE: [("compute", 7, 13), ("compute", 13, 17), ("compute", 23, 31)],
        STORE: [("store", 13, 15), ("store", 23, 25), ("store", 31, 33)],
        STALLS: [
            ("launch", 0, 2), ("dram", 2, 7), ("imbalance", 12, 13),
            ("dram", 17, 21), ("metadata", 21, 23), ("fill_drain", 29, 31), ("dram", 31, 33),
        ],
    }  # fmt: skip
    assert [x[3]["tile"] for x in found[LOAD]] == [0, 1, 2]
    assert [x[3]["tile"] for x in found[STORE]] == [0, 1, 2]
    assert [x[3]["dram_bytes"] for x in found[LOAD]] == [16, 8, 32]
    assert part.column("cycles").sum() == 33


def test_three_tiles_by_hand_with_one_buffer():
    rows = [(6, 5, 1, 16, 0, 4), (8, 6, 0, 32, 8, 4)]
    found, _ = drawn(schedule_of(rows, latency=1, double=False))
    spans = {thread: [x[:3] for x in slices] for thread, slices in found.items()}
    assert spans == {
        LOAD: [("load", 0, 5), ("load", 13, 22)],
        COMPUTE: [("compute", 5, 11), ("compute", 22, 30)],
        STORE: [("store", 11, 13), ("store", 30, 32)],
        STALLS: [
            ("dram", 0, 5), ("imbalance", 10, 11), ("dram", 11, 13), ("dram", 13, 20),
            ("metadata", 20, 22), ("fill_drain", 28, 30), ("dram", 30, 32),
        ],
    }  # fmt: skip


def test_the_channel_shares_a_slot_between_store_and_load():
    """9 bytes of 8 a cycle with latency 3: 4 + 1 cycles; 2 + 1 bytes: 3 + 1 (not 4 + 0)."""
    for store, load, spans in ((8, 1, [(0, 4), (4, 5)]), (2, 1, [(0, 3), (3, 4)])):
        rows = [(9, 9, 0, 0, 0, store), (9, 9, 0, 0, 0, 0), (9, 9, 0, load, 0, 0)]
        found, _ = drawn(schedule_of(rows, bandwidth=8.0, latency=3), begin=-9)
        assert [x[1:3] for x in (*found[STORE], *found[LOAD])] == spans


@pytest.mark.parametrize("double", [True, False])
def test_a_piece_says_which_tiles_it_stands_for(double):
    """3 runs of 5 tiles in 6 pieces of 2, 3, 2, 3, 2, 3; a load is one tile ahead."""
    schedule = schedule_of([(5, 5, 0, 4, 0, 4)] * 5, runs=3, double=double)
    found, _ = drawn(schedule, 6)
    counts = [2, 3, 2, 3, 2, 3]
    expected = {LOAD: counts, COMPUTE: counts, STORE: counts}
    if double:  # first load and last store have slots of their own
        expected = {LOAD: [1, *counts[:5], 2], COMPUTE: counts, STORE: [1, *counts[1:], 1]}
    for thread, sizes in expected.items():
        at = [x[3]["run"] * 5 + x[3]["tile"] for x in found[thread]]
        assert [x[3]["tiles"] for x in found[thread]] == sizes
        assert at == [0, *np.cumsum(sizes)[:-1]]
        names = [x[0].split(" × ")[-1] for x in found[thread]]
        assert names == [f"{n} tiles" if n > 1 else thread.split(" ")[0] for n in sizes]


@pytest.mark.parametrize("case", range(300))
def test_random_schedules_match_simpy_and_the_closed_form(case):
    rng = np.random.default_rng(case)
    schedule = random_schedule(rng)
    found, part = drawn(schedule)
    total = closed.total_cycles(schedule)
    played = events.play(schedule)
    spent = causes(schedule, played)
    assert part.column("cycles").sum() == total == played.total_cycles
    assert {cause: part.cause(cause).sum() for cause in schedule.machine.causes} == spent
    for level, channel in enumerate(schedule.machine.channels):
        for kind in ("load_bytes", "store_bytes"):
            moved = schedule.runs * schedule.tiles[kind][:, level].sum()
            assert part.column(f"{kind}:{channel.name}").sum() == moved

    starts, ends = played.compute_start, played.compute_end
    busy = ends > starts
    shown = found.get(COMPUTE, [])
    assert [x[1] for x in shown] == starts[busy].tolist()
    assert [x[2] for x in shown] == ends[busy].tolist()
    moving = found.get(LOAD, []) + found.get(STORE, [])
    assert sum(b - a for _, a, b, _ in moving) == cycles_on_channels(schedule, played)

    assert_apart(moving)
    for slices in found.values():
        assert_apart(slices)
        assert slices == sorted(slices, key=lambda x: x[1])
        assert all(0 <= a < b <= total for _, a, b, _ in slices)
        assert all(b - a == arguments["cycles"] for _, a, b, arguments in slices)
        for *_, place in slices:
            assert place["tile"] < len(schedule)
            assert place.get("run", 0) < schedule.runs
    stalls = Tally()
    for name, start, end, _ in found.get(STALLS, []):
        stalls[name] += end - start
    assert stalls + Tally(work=spent["work"]) == Tally(spent)


def cycles_on_channels(schedule, played):
    """Cycles in which a transfer is under way: of one unit, they follow each other."""
    transfers = {
        *zip(played.load_request.tolist(), played.load_done.tolist(), strict=True),
        *zip(played.store_request.tolist(), played.store_done.tolist(), strict=True),
    }
    return sum(done - request for request, done in transfers)


def test_every_cause_of_computing_is_drawn():
    assert sorted(IN_TILE) == sorted(COMPUTE_CAUSES)
    assert IN_TILE[0] == "work"


@pytest.mark.parametrize("case", range(60))
def test_loads_come_before_and_stores_after_their_tile(case):
    schedule = random_schedule(np.random.default_rng(1000 + case))
    found, _ = drawn(schedule)

    def when(thread):
        return {(x[3].get("run", 0), x[3]["tile"]): x[1:3] for x in found.get(thread, [])}

    loads, computes, stores = when(LOAD), when(COMPUTE), when(STORE)
    assert len(loads) == len(found.get(LOAD, [])), "each tile is loaded once"
    for tile, (start, end) in computes.items():
        assert loads.get(tile, (0, 0))[1] <= start
        assert stores.get(tile, (end, end))[0] >= end


@pytest.mark.parametrize("case", range(100))
def test_any_number_of_pieces_has_the_same_sums_and_borders(case):
    rng = np.random.default_rng(2000 + case)
    schedule = random_schedule(rng)
    slots = Slots.of(schedule)
    whole = slots.pieces(slots.count)
    count = int(rng.integers(1, slots.count + 1))
    found, part = drawn(schedule, count)
    assert np.array_equal(part.sums.sum(axis=1), whole.sums.sum(axis=1))
    assert set(np.cumsum(part.column("cycles"))) <= set(np.cumsum(whole.column("cycles")))
    inside = part.tiles[part.first >= 0]
    assert inside[: count if slots.overlapped else None].sum() == slots.count
    assert_apart(found.get(LOAD, []) + found.get(STORE, []))
    for slices in found.values():
        assert_apart(slices)
    assert sum(map(len, found.values())) <= 8 + count * slots.slices_a_piece()


# --- layers of a workload -------------------------------------------------------------------------


def network(rng):
    def one():
        t, k, n = (int(x) for x in rng.integers(1, 60, 3))
        return accsim.gemm(t, k, n).layers[0]

    layers = [one().model_copy(update={"name": f"l{i}"}) for i in range(3)]
    repeated = layers[1].model_copy(update={"repeats": int(rng.integers(2, 4)), "name": "again"})
    return Workload(name="net", layers=(*layers, repeated))


@pytest.mark.parametrize("case", range(40))
def test_causes_and_bytes_are_the_closed_forms(case, tmp_path):
    rng = np.random.default_rng(case)
    hardware = accsim.load_hardware(
        ["systolic_nm_32x32", "systolic_os_32x32", "systolic_is_32x32"][case % 3],
        ARRAY | {f"memory.sram.{x}.bytes": int(rng.integers(300, 2000)) for x in "xwy"}
        | {"memory.sram.double_buffered": bool(case % 2), "clock_ghz": 1.0}
        | {"launch_us": 0.004, "memory.dram.latency_ns": int(rng.integers(0, 9))},
    )  # fmt: skip
    pattern = "2:4" if case % 4 == 0 else "unstructured@0.8"
    net, masks = network(rng).prune(pattern), Masks(case)
    result = accsim.simulate(net, hardware, masks=masks)
    summary = write_timeline(net, hardware, masks, tmp_path / "a.json")
    assert (summary.layers, summary.cycles) == (4, result.cycles)

    found = read_json(tmp_path / "a.json")["slices"]
    names = [f"{cause}_cycles" for cause in result.causes] + ["cycles"]
    columns = result.columns | {
        "dram_load_bytes": result.columns["dram_read_bytes"],
        "dram_store_bytes": result.columns["dram_write_bytes"],
    }
    for i, (name, _, _, arguments) in enumerate(found[LAYERS]):
        assert name == net.layers[i].name
        for key in (
            *names,
            "dram_load_bytes",
            "dram_store_bytes",
            "op",
            "t",
            "k",
            "n",
            "pattern",
            "dtype",
        ):
            assert arguments[key] == columns[key][i], (name, key)
    assert [x[1] for x in found[LAYERS]] == [0, *np.cumsum(columns["cycles"])[:-1]]
    assert_layers_hold_their_slices(found)


def assert_layers_hold_their_slices(found):
    """Between start and end of each layer, stalls and work make up its cycles."""
    for _, start, end, arguments in found[LAYERS]:
        inside = {
            thread: [x for x in slices if start <= x[1] < end]
            for thread, slices in found.items()
            if thread != LAYERS
        }
        assert all(x[2] <= end for slices in inside.values() for x in slices)
        work = sum(x[3]["work_cycles"] for x in inside.get(COMPUTE, []))
        stalled = sum(x[3]["cycles"] for x in inside.get(STALLS, []))
        assert work + stalled == end - start == arguments["cycles"]


def test_aggregation_keeps_to_the_limit_and_says_so(tmp_path):
    hardware = accsim.load_hardware("systolic_nm_32x32")
    net = accsim.load_workload("mobilenet_v2").prune("2:4")
    whole = write_timeline(net, hardware, Masks(0), tmp_path / "whole.json")
    assert whole.aggregated_layers == {}
    few = write_timeline(net, hardware, Masks(0), tmp_path / "few.json", max_slices=3000)
    assert 1500 < few.slices <= 3000 < whole.slices
    assert few.cycles == whole.cycles
    full, brief = (read_json(tmp_path / f"{x}.json")["slices"] for x in ("whole", "few"))
    assert sum(map(len, brief.values())) == few.slices
    for one, other in zip(full[LAYERS], brief[LAYERS], strict=True):
        assert one[:3] == other[:3]
        same = set(one[3]) - {"tiles_a_slice", "drawn"}
        assert {key: one[3][key] for key in same} == {key: other[3][key] for key in same}
        size = few.aggregated_layers.get(other[0], 1)
        assert other[3]["tiles_a_slice"] == size
        assert other[3]["drawn"].startswith("aggregated" if size > 1 else "tile by tile")
    for thread in (LOAD, COMPUTE, STORE, STALLS):
        assert_apart(brief[thread])
        assert cycles_by_name(brief[thread]) == cycles_by_name(full[thread])
    assert any(name.startswith("compute × ") for name, *_ in brief[COMPUTE])
    tiles = sum(x[3].get("tiles", 1) for x in brief[COMPUTE])
    assert tiles == len(full[COMPUTE]) == sum(x[3]["tiles"] for x in full[LAYERS])


def cycles_by_name(slices):
    total = Tally()
    for name, _, _, arguments in slices:
        total[name.split(" × ")[0]] += arguments["cycles"]
    return total


def test_the_least_number_of_slices_is_enough(tmp_path):
    hardware = accsim.load_hardware("systolic_nm_32x32", {"launch_us": 1})
    net = accsim.load_workload("mobilenet_v2").prune("2:4")
    call = (net, hardware, Masks(0), tmp_path / "a.json")
    with pytest.raises(InputError, match=r"of 'mobilenet_v2'; got 9") as caught:
        write_timeline(*call, max_slices=9)
    least = int(re.search(r"at least (\d+) for 53 layers", str(caught.value))[1])
    with pytest.raises(InputError, match="at least"):
        write_timeline(*call, max_slices=least - 1)
    assert not (tmp_path / "a.json").exists()
    assert write_timeline(*call, max_slices=least).slices <= least


def test_levels_between_have_bandwidth_and_causes_of_their_own(tmp_path):
    level = {"name": "l2", "bytes": 3000, "bandwidth_gb_per_s": 2.5, "latency_ns": 2.0}
    slow = {"memory__dram__bandwidth_gb_per_s": 2.0}
    hardware = device(memory__onchip=[level], **slow, **buffers(300, 300, 300))
    net, masks = network(np.random.default_rng(5)), Masks(0)
    result = accsim.simulate(net, hardware, masks=masks)
    write_timeline(net, hardware, masks, tmp_path / "a.json")
    found = read_json(tmp_path / "a.json")
    for i, (*_, arguments) in enumerate(found["slices"][LAYERS]):
        for cause in result.causes:
            assert arguments[f"{cause}_cycles"] == result.columns[f"{cause}_cycles"][i]
    assert {"dram", "l2"} <= {name for name, *_ in found["slices"][STALLS]}
    names = [name for name, _ in found["counters"]]
    assert names[:2] == [f"{x} bandwidth, mean of a slot" for x in ("DRAM", "L2")]
    for (_, kind), samples in list(found["counters"].items())[1:2]:
        moved = sum(value * (b - a) for (a, value), (b, _) in pairwise(samples))
        layers = found["slices"][LAYERS]
        expected = sum(x[3]["l2_load_bytes"] + x[3]["l2_store_bytes"] for x in layers)
        assert (kind, moved) == ("GB/s", pytest.approx(expected, rel=1e-6))
