"""Break-even: laws of the ratio, its interval and crossings; a plain twin; words, files, figure."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import accsim
from accsim.base.errors import InputError
from accsim.break_even.crossings import Crossed, crossed
from accsim.break_even.question import DEFAULT_SHAPES, patterns_of, question, shapes_of, ts_of
from accsim.break_even.run import rows_of, speedup_ends, verdict
from accsim.break_even.sides import Side
from accsim.break_even.table import COLUMNS, Breakeven
from accsim.cli import main
from accsim.report.breakeven import COLOURS, figure
from accsim.report.breakeven_text import breakeven_lines
from accsim.report.style import inside

GPU, OTHER, ARRAY = "a100_pcie_80gb", "h100_pcie_80gb", "systolic_nm_32x32"
SHAPES = [(768, 3072), (4096, 4096), (512, 96)]
MEASURED = Path(accsim.__file__).parent / "validate" / "data" / "gpu_gemm.csv"


@pytest.fixture(scope="module")
def found():
    return accsim.breakeven(GPU, ["2:4", "4:8"], "1:65536", SHAPES)


# --- laws


def test_dense_over_dense_is_exactly_one_and_certain():
    same = accsim.breakeven([GPU, ARRAY], "dense", "1:4096", SHAPES)
    assert set(same.columns["speedup"]) == {1.0}
    assert set(same.columns["verdict"]) == {"even"}
    gpu = same.table[same.table.hardware == GPU]
    assert (gpu.speedup_low == 1).all()
    assert (gpu.speedup_high == 1).all()
    assert {x.speedup.kind for x in same.crossings} == {"same"}


def test_a_pattern_without_a_kernel_runs_dense_and_says_so(found):
    rows = [row for row in found.rows if row["pattern"] == "4:8"]
    assert {(row["mode"], row["speedup"], row["why"]) for row in rows} == {
        ("dense", 1.0, "same kernel")
    }
    assert f"4:8 has no kernel on {GPU}: it runs dense" in found.notes
    assert any("runs dense" in line for line in breakeven_lines(found, 120))


def test_interval_holds_the_speedup_and_is_wider_than_either_side(found):
    rows = found.table[found.table.pattern == "2:4"]
    assert (rows.speedup_low < rows.speedup).all()
    assert (rows.speedup < rows.speedup_high).all()
    noun = accsim.load_hardware(GPU)
    one = accsim.simulate(accsim.gemm(512, 4096, 4096, dtype="fp16").prune("2:4"), noun)
    alone = one.columns["latency_high_s"][0] / one.columns["latency_s"][0]
    row = rows[(rows.t == 512) & (rows.k == 4096)].iloc[0]
    assert row.speedup / row.speedup_low > alone


def test_verdicts_follow_from_the_intervals(found):
    for row in found.rows:
        low, high = row["speedup_low"], row["speedup_high"]
        if row["verdict"] == "wins":
            assert low > 1
        elif row["verdict"] == "loses":
            assert high < 1
        elif row["verdict"] == "even":
            assert 1 / 1.05 <= low <= high <= 1.05
        else:
            assert low <= 1 <= high
    assert {"wins", "undecided"} <= set(found.columns["verdict"])


@pytest.mark.parametrize(
    ("speedup", "low", "high", "word"),
    [
        (1.2, 1.01, 1.4, "wins"), (0.8, 0.7, 0.99, "loses"), (1.02, 0.9, 1.1, "undecided"),
        (1.02, 1.001, 1.04, "even"), (0.97, 0.96, 0.98, "even"), (1.0, 1.0, 1.0, "even"),
        (1.04, math.nan, math.nan, "even"), (1.06, math.nan, math.nan, "wins"),
        (0.94, math.nan, math.nan, "loses"),
    ],
)  # fmt: skip
def test_verdict(speedup, low, high, word):
    assert verdict(speedup, low, high) == word


def test_half_widths_add_squared_on_the_log_scale():
    dense, sparse = side(8.0, 8 / math.e**0.3, 8 * math.e**0.4), side(4.0, 4 / math.e**0.3, 4.0)
    low, high = speedup_ends(dense, sparse, np.array([False]))
    assert low[0] == pytest.approx(2 * math.exp(-0.3))
    assert high[0] == pytest.approx(2 * math.exp(0.5))


def test_measured_speedups_lie_inside_as_often_as_the_interval_says():
    measured = pd.read_csv(MEASURED)
    measured = measured[measured["flags"].isna()]
    parts = []
    for (device, dtype), group in measured.groupby(["device", "dtype"]):
        name = device.replace("-", "_")
        found = accsim.breakeven(
            name, "2:4", sorted(set(group.t)), sorted(set(zip(group.k, group.n, strict=True))),
            dtype=dtype,
        )  # fmt: skip
        parts.append(found.table.merge(group, on=["t", "k", "n"], suffixes=("", "_measured")))
    rows = pd.concat(parts)
    assert len(rows) == len(measured)
    speedup = rows.dense_us_measured / rows.sparse24_us
    share = ((speedup >= rows.speedup_low) & (speedup <= rows.speedup_high)).mean()
    assert 0.88 < share < 0.99
    sure = rows.verdict.isin(["wins", "loses"])
    assert sure.mean() > 0.6
    assert ((rows.verdict == "wins") == (speedup > 1))[sure].mean() > 0.99


# --- crossings


def side(us, low, high):
    return Side(
        np.array([us]), np.array([low]), np.array([high]),
        {"work": np.array([us]), "generator": np.zeros(1)}, ("a",), np.array(["compute"]),
        np.array([False]),
    )  # fmt: skip


def synthetic(ts, at, slope, half):
    """Return a break-even whose speed-up is (t / at) ** slope, with ± half in the log."""
    asked = question(GPU, "2:4", ts, [(64, 64)], dtype="fp16", dynamic=False,
                     uncached_setup=False, seed=0)  # fmt: skip
    t = np.array(asked.t, dtype=float)
    one, speedup = np.ones_like(t), (t / at) ** slope

    def made(us, low, high, mode):
        causes = {"work": us, "generator": 0 * us}
        return Side(us, low, high, causes, (mode,) * len(us), np.array(["compute"] * len(us)),
                    np.zeros(len(us), dtype=bool))  # fmt: skip

    dense = made(speedup, speedup, speedup, "dense")
    sparse = made(one, one * math.exp(-half), one * math.exp(half), "2:4")
    columns = rows_of(asked, GPU, asked.patterns[0], asked.shapes[0], dense, sparse)
    return Breakeven(asked, columns)


def test_crossing_of_a_synthetic_device_is_found():
    made = synthetic("1:65536", at=300.0, slope=0.5, half=0.2)
    (crossing,) = made.crossings
    assert crossing.speedup.kind == "above"
    assert crossing.speedup.t == pytest.approx([300.0], rel=1e-4)
    assert crossing.low.t == pytest.approx([300 * math.exp(0.4)], rel=1e-4)
    assert crossing.high.t == pytest.approx([300 * math.exp(-0.4)], rel=1e-4)
    verdicts = dict(zip(made.columns["t"], made.columns["verdict"], strict=True))
    assert (verdicts[128], verdicts[256], verdicts[512]) == ("loses", "undecided", "wins")


def test_one_sided_and_falling_curves():
    assert synthetic("2:65536", 1.0, 0.1, 0.0).crossings[0].speedup == Crossed("always")
    assert synthetic("1:4096", 9999.0, 0.1, 0.0).crossings[0].speedup == Crossed("never")
    falling = synthetic("1:65536", 300.0, -1.0, 0.0).crossings[0].speedup
    assert falling.kind == "below"
    assert falling.t == pytest.approx([300.0], rel=1e-4)


def test_several_crossings_alternate_and_points_at_one_count_once():
    curve = crossed([1, 2, 4, 8, 16], [0.5, 2, 0.5, 1.0, 2])
    assert curve.kind == "above"
    assert curve.t == pytest.approx([2**0.5, 2**1.5, 8], rel=1e-5)
    assert str(curve) == "1.41 < t < 2.83, t > 8"
    assert crossed([1, 2, 4], [2, 1, 2]) == Crossed("always")
    assert crossed([1, 2], [1, 1]) == Crossed("same")
    assert str(crossed([1, 4, 16, 64], [2, 0.5, 2, 0.5])) == "t < 2, 8 < t < 32"


def test_a_device_that_does_not_know_is_undecided():
    dense, sparse = side(8.0, 0.0, math.inf), side(4.0, 0.0, math.inf)
    low, high = speedup_ends(dense, sparse, np.array([False]))
    assert (low[0], high[0], verdict(2.0, low[0], high[0])) == (0, math.inf, "undecided")
    assert crossed([1, 2, 4], [0, 0, 0]) == Crossed("never")
    assert crossed([1, 2], [math.inf, math.inf]) == Crossed("always")


# --- twin


def test_plain_loops_over_simulate_give_the_same_table(found):
    """The slow way: one simulate() a row, all in floats."""
    noun = accsim.load_hardware(GPU)
    for row in [row for row in found.rows if row["t"] in (1, 64, 512, 65536)]:
        layer = accsim.gemm(row["t"], row["k"], row["n"], dtype="fp16")
        dense = accsim.simulate(layer, noun)
        pruned = accsim.simulate(layer.prune(row["pattern"]), noun)
        assert row["dense_us"] == pytest.approx(1e6 * dense.latency_s, rel=1e-12)
        assert row["sparse_us"] == pytest.approx(1e6 * pruned.latency_s, rel=1e-12)
        assert row["speedup"] == pytest.approx(dense.latency_s / pruned.latency_s, rel=1e-12)
        assert (row["dense_mode"], row["mode"]) == (
            dense.columns["mode"][0], pruned.columns["mode"][0])  # fmt: skip
        causes = {c: 1e6 * (pruned.causes[c] - dense.causes[c]) / noun.clock_ghz / 1e9
                  for c in dense.causes}  # fmt: skip
        if row["mode"] == row["dense_mode"]:
            assert (row["why_us"], row["speedup_low"]) == (0, 1)
            continue
        pick = min if row["speedup"] > 1 else max
        assert row["why_us"] == pytest.approx(pick(causes.values()), abs=1e-9)
        ends = [
            [1e6 * res.columns[f"latency_{end}_s"][0] for end in ("low", "high")]
            for res in (dense, pruned)
        ]
        below = math.hypot(math.log(row["dense_us"] / ends[0][0]),
                           math.log(ends[1][1] / row["sparse_us"]))  # fmt: skip
        assert row["speedup_low"] == pytest.approx(row["speedup"] * math.exp(-below), rel=1e-9)
        outside = dense.columns["extrapolated"][0] + pruned.columns["extrapolated"][0] > 0
        assert row["extrapolated"] == outside


def test_rows_do_not_depend_on_what_else_is_asked(found):
    alone = accsim.breakeven(GPU, "2:4", 512, [(4096, 4096)])
    (row,) = alone.rows
    assert row in list(found.rows)


def test_regimes_are_those_of_the_kernel_model(found):
    from accsim.devices.tensorcore import TensorCoreDevice
    from accsim.sparsity.masks import Masks

    device = TensorCoreDevice(accsim.load_hardware(GPU))
    layers = [accsim.gemm(t, 4096, 4096, dtype="fp16").layers[0] for t in found.question.t]
    regimes = device.calls(layers, Masks()).regime.tolist()
    rows = [x for x in found.rows if x["k"] == 4096 and x["pattern"] == "2:4"]
    assert [row["dense_regime"] for row in rows] == regimes


def test_a_family_without_intervals_has_verdicts_by_five_per_cent_alone():
    array = accsim.breakeven(ARRAY, "2:4", [1, 64, 4096], [(64, 64), (512, 512)], dtype="int8")
    for row in array.rows:
        assert math.isnan(row["speedup_low"])
        assert row["verdict"] == verdict(row["speedup"], math.nan, math.nan)
        assert row["extrapolated"] is None
    assert array.crossings[0].low is None
    assert any("states no intervals" in note for note in array.notes)
    assert "no interval" in str(array.verdict(64, 512, 512))


# --- operands made at run time


def test_packing_4096_squared_takes_what_is_reported():
    row = next(accsim.breakeven(GPU, "2:4", 512, [(4096, 4096)], dynamic=True).rows)
    noun = accsim.load_hardware(GPU)
    bits = 4096 * 4096 * (16 + 8 + 1)  # read dense; written: half the values, a bit of position
    at_peak = bits / 8 / (noun.dram.gb_per_s * 1e3)
    expected = noun.launch.kernel_us + at_peak / noun.compress.share
    assert row["generator_us"] == pytest.approx(expected, rel=1e-9)
    for name in (GPU, OTHER):
        noun = accsim.load_hardware(name)
        layer = accsim.gemm(1, 4096, 4096, dtype="fp16").prune("2:4").layers
        from accsim.devices.tensorcore_generator import generator_us

        value, low, high = generator_us(layer, noun, compress=True, setup=False)
        assert 18 < low[0] < value[0] < high[0] < 125


def test_run_time_costs_add_to_the_sparse_side_only(found):
    plain_row = accsim.breakeven(GPU, "2:4", 512, [(4096, 4096)]).verdict(512, 4096, 4096).row
    packed = accsim.breakeven(GPU, "2:4", 512, [(4096, 4096)], dynamic="w").verdict(
        512, 4096, 4096).row  # fmt: skip
    setup = accsim.breakeven(GPU, "2:4", 512, [(4096, 4096)], uncached_setup=True).verdict(
        512, 4096, 4096).row  # fmt: skip
    assert packed["dense_us"] == plain_row["dense_us"] == setup["dense_us"]
    assert packed["sparse_us"] == pytest.approx(plain_row["sparse_us"] + packed["generator_us"])
    assert setup["generator_us"] == pytest.approx(460)
    assert setup["sparse_regime"] == "generator"
    assert setup["why"] == "more generator"
    assert packed["speedup_low"] < packed["speedup"] < packed["speedup_high"]


def test_packing_x_costs_by_t_and_swaps_the_product():
    moved = accsim.breakeven(GPU, "2:4", [512, 1024, 2048], [(4096, 4096)], dynamic="x")
    costs = np.diff(moved.columns["generator_us"])
    assert costs[1] == pytest.approx(2 * costs[0])  # bytes of X grow with t
    noun = accsim.load_hardware(GPU)
    kernel = accsim.simulate(accsim.gemm(4096, 4096, 512, dtype="fp16").prune("2:4"), noun)
    row = moved.verdict(512, 4096, 4096).row
    assert row["sparse_us"] - row["generator_us"] == pytest.approx(1e6 * kernel.latency_s)


def test_dense_fallbacks_pay_for_no_packing():
    for way in ("w", "x"):
        same = accsim.breakeven(GPU, "4:8", [1, 512], [(768, 3072)], dynamic=way)
        assert set(same.columns["speedup"]) == {1.0}
        assert set(same.columns["generator_us"]) == {0.0}


# --- what is asked


def test_ranges_lists_and_shapes():
    assert ts_of("1:65536") == tuple(2**i for i in range(17))
    assert ts_of("1:65536:3") == (1, 256, 65536)
    assert ts_of([64, 1]) == (1, 64)
    assert shapes_of("8x16, 4×4") == ((8, 16), (4, 4))
    assert shapes_of(None) == tuple(DEFAULT_SHAPES)
    bert = shapes_of("bert-base")
    assert (768, 768) in bert
    assert (768, 3072) in bert
    assert len(bert) == len(set(bert))
    assert shapes_of(accsim.load_workload("bert-base")) == bert
    assert [str(x) for x in patterns_of(["2:4", accsim.pattern("dense")])] == ["2:4", "dense"]


def test_verdict_of_a_shape_and_what_was_not_asked(found):
    answer = found.verdict(512, 4096, 4096, pattern="2:4")
    assert str(answer).startswith(f"{answer.word}: {answer.speedup:.2f}×")
    with pytest.raises(InputError, match="pattern must be one of 2:4, 4:8; got none"):
        found.verdict(512, 4096, 4096)
    with pytest.raises(InputError, match="t must be one of 1, 2"):
        found.verdict(513, 4096, 4096, pattern="2:4")
    with pytest.raises(InputError, match="768 × 4096"):
        found.verdict(512, 768, 4096, pattern="2:4")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--hw a100_pcie_80gc", "--hw: no hardware called 'a100_pcie_80gc', did you mean"),
        (f"--hw {GPU},{GPU}", f"--hw must differ from each other; '{GPU}' stands twice"),
        (f"--hw {GPU} --patterns 2:x", "--patterns: pattern must be one of"),
        (f"--hw {GPU} --patterns 2:4,2:4", "--patterns must differ from each other"),
        (f"--hw {GPU} --t 0", "--t must be a whole number from 1 to 100000000; got '0'"),
        (f"--hw {GPU} --t 9:3", "--t must be a range LO:HI with LO below HI; got '9:3'"),
        (f"--hw {GPU} --t 1:2:3:4", "--t must be LO:HI or LO:HI:POINTS"),
        (f"--hw {GPU} --t 1,,2", "--t must be values with commas between; got '1,,2'"),
        (f"--hw {GPU} --t 1:9:1", "--t: POINTS must be a whole number from 2 to 10000; got '1'"),
        (f"--hw {GPU} --shapes 40x", "--shapes must be KxN, e.g. 4096x11008"),
        (f"--hw {GPU} --shapes 0x4", "--shapes: k must be a whole number from 1"),
        (f"--hw {GPU} --shapes resnet51", "--shapes: no workload called 'resnet51', did you mean"),
        (f"--hw {GPU} --dtype fp61", "--dtype must be one of int8"),
        ("--hw v100_pcie_32gb --dtype bf16", "--dtype bf16: device 'v100_pcie_32gb' does not"),
        (f"--hw {GPU} --dynamic y", "--dynamic must be w (weights) or x (activations)"),
        (f"--hw {ARRAY} --dynamic", f"--dynamic: '{ARRAY}' states no time of making operands"),
        (f"--hw {GPU} --seed -1", "--seed must be a whole number from 0"),
        (f"--hw {GPU} --t 1:100000000:10000 --shapes resnet50 --patterns 2:4,1:4",
         "--t must leave at most 200,000 rows"),
        (f"--hw {GPU} --t 100000000 --shapes 1000000x1000000", "--t 100000000 with shapes 1000"),
        (f"--hw {GPU} --out .", "--out needs the name of a folder"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_the_option(words, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["breakeven", *words.split(" ")])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"accsim: error: {line}")


# --- what is shown and written


def test_command_prints_a_map_for_many_rows_and_lines_for_few(capsys):
    main(["breakeven", "--hw", GPU, "--shapes", "768x3072,4096x4096"])
    out = capsys.readouterr().out
    assert f"2:4 against dense on {GPU}, fp16" in out
    assert "768×3072" in out
    assert "faster:" in out
    assert max(map(len, out.splitlines())) <= 120
    main(["breakeven", "--hw", GPU, "--shapes", "4096x4096", "--t", "512"])
    few = capsys.readouterr().out
    assert "verdict" in few
    assert "…" in few
    main(["breakeven", "--hw", GPU, "--t", "512", "-q"])
    assert capsys.readouterr() == ("", "")


def test_json_and_files_hold_the_table(tmp_path, capsys, found):
    main(["breakeven", "--hw", ARRAY, "--dtype", "int8", "--shapes", "64x64", "--t", "1,64",
          "--json"])  # fmt: skip
    data = json.loads(capsys.readouterr().out)
    assert [row["t"] for row in data["rows"]] == [1, 64]
    assert data["rows"][0]["speedup_low"] is None
    assert data["provenance"]["config_sha256"]
    names = [path.name for path in found.save(tmp_path / "o")]
    assert names == ["breakeven.csv", "crossings.csv", "breakeven.json", "breakeven.png",
                     "breakeven.svg"]  # fmt: skip
    with (tmp_path / "o" / "breakeven.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == list(COLUMNS)
    assert [float(row["speedup"]) for row in rows] == found.columns["speedup"]
    whole = json.loads((tmp_path / "o" / "breakeven.json").read_text())
    assert whole["provenance"]["hardware_sources"][GPU]["compress.share"]["status"] == "assumed"
    assert len(whole["crossings"]) == len(found.crossings)
    again = found.save(tmp_path / "p")
    for path in again:
        assert path.read_bytes() == (tmp_path / "o" / path.name).read_bytes()


CASES = {
    "one": lambda: accsim.breakeven(GPU, "2:4", "1:65536", SHAPES),
    "grid": lambda: accsim.breakeven([GPU, OTHER], "2:4,4:8", "1:65536", SHAPES),
    "single": lambda: accsim.breakeven(GPU, "2:4", 7, [(64, 64)]),
    "fine": lambda: accsim.breakeven(GPU, "2:4,1:4,dense", "1:65536:100", SHAPES),
    "array": lambda: accsim.breakeven(
        [ARRAY, "systolic_ws_32x32"], "2:4,1:4,dense", "1:65536", "resnet50", dtype="int8"
    ),
    "dynamic": lambda: accsim.breakeven(GPU, "2:4", "1:65536", SHAPES, dynamic=True),
}


@pytest.fixture(scope="module", params=CASES)
def drawn(request):
    made = CASES[request.param]()
    return made, figure(made)


def panels(drawn_figure):
    return [axes for axes in drawn_figure.axes if axes.get_title(loc="left")]


def test_figure_has_a_panel_a_device_and_pattern_with_the_speedups(drawn):
    made, picture = drawn
    pairs = [(x.name, str(p)) for x in made.question.hardware for p in made.question.patterns]
    assert len(panels(picture)) == len(pairs)
    for axes, (hardware, pattern) in zip(panels(picture), pairs, strict=True):
        rows = [x for x in made.rows if (x["hardware"], x["pattern"]) == (hardware, pattern)]
        mesh = axes.collections[0]
        shown = np.exp2(np.asarray(mesh.get_array()).ravel())
        assert shown == pytest.approx([row["speedup"] for row in rows])
        assert mesh.norm.vmin == -mesh.norm.vmax  # centred at 1
        assert axes.get_title(loc="left").startswith(f"{pattern} on ")
        hatched = sum(row["verdict"] == "undecided" for row in rows)
        patches = [x for x in axes.patches if x.get_gid() == "undecided"]
        edges = np.unique(mesh.get_coordinates()[0, :, 0])
        cells = sum(
            np.sum((edges[:-1] >= p.get_x() * 0.999)
                   & (edges[1:] <= (p.get_x() + p.get_width()) * 1.001))
            for p in patches
        )  # fmt: skip
        assert cells == hatched
        lines = [x for x in axes.lines if x.get_gid() == "contour"]
        upright = {float(x.get_xdata()[0]) for x in lines if len(set(x.get_xdata())) == 1}
        places = {t for x in made.crossings if (x.hardware, x.pattern) == (hardware, pattern)
                  for t in x.speedup.t}  # fmt: skip
        assert upright >= places


def test_no_text_leaves_the_page_or_its_neighbours_titles(drawn):
    _, picture = drawn
    picture.draw_without_rendering()
    for text in picture.findobj(Text):
        if text.get_text().strip() and text.get_visible():
            assert inside(text.get_window_extent(), picture.bbox), text.get_text()
    heads = [axes._left_title.get_window_extent() for axes in panels(picture)]
    assert not any(a.overlaps(b) for i, a in enumerate(heads) for b in heads[:i])


def test_colours_are_symmetric_in_lightness_and_white_at_one():
    assert COLOURS(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.02)
    for way in (np.linspace(0.5, 1, 20), np.linspace(0.5, 0, 20)):
        red, green, blue, _ = COLOURS(way).T
        lightness = 0.3 * red + 0.59 * green + 0.11 * blue
        assert (np.diff(lightness) < 0).all()
