"""Figures checked by what they show: bars, sums, words, room for every text, equal bytes."""

from __future__ import annotations

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation, Text

import accsim
from accsim.report.figures import MOST_BARS, figures, save_figures
from accsim.report.style import LOOKS, inside
from accsim.report.text import percent
from accsim.spec.schedule import COMPUTE_CAUSES
from accsim.spec.workload import Layer, Workload

HARDWARE = "systolic_nm_32x32"
ONE = accsim.gemm(256, 256, 128)


def run(workload, **overrides):
    if isinstance(workload, str):
        workload = accsim.load_workload(workload).with_dtype("int8")
    return accsim.simulate(workload, accsim.load_hardware(HARDWARE, overrides))


def linear(name, tokens=1, features=8):
    op = {"kind": "linear", "tokens": tokens, "in_features": features, "out_features": features}
    return Layer.model_validate({"name": name, "op": op})


def many_different_layers():
    names = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(320)]
    return Workload(
        name="different", layers=tuple(linear(n, i + 1, 8 + i) for i, n in enumerate(names))
    )


CASES = {
    "one": lambda: run(ONE.prune("2:4")),
    "alexnet": lambda: run("alexnet"),
    "resnet50": lambda: run(accsim.load_workload("resnet50").prune("2:4")),
    "mixtral": lambda: run("mixtral-8x7b-prefill"),
    "different": lambda: run(many_different_layers()),
    "scalesim": lambda: run("alexnet", timing="scalesim_v3"),
}
BARS = {"one": 1, "alexnet": 8, "resnet50": 54, "mixtral": 11, "different": 54, "scalesim": 8}


@pytest.fixture(scope="module", params=CASES)
def drawn(request):
    found = CASES[request.param]()
    return request.param, found, figures(found)


def segments(figure):
    """Return cycles by bar and cause: one row a bar."""
    causes = [box.get_label() for box in figure.axes[0].containers]
    widths = [[bar.get_width() for bar in box] for box in figure.axes[0].containers]
    return causes, np.array(widths).T


def texts(figure):
    """Return the texts that are drawn: ticks outside the axes keep a label but do not show it."""
    hidden = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    found = (text for text in figure.findobj(Text) if text not in hidden)
    return [text for text in found if text.get_visible() and text.get_text()]


def test_one_bar_a_layer_or_group_and_no_cycle_lost(drawn):
    case, found, plots = drawn
    causes, widths = segments(plots["cycles"])
    assert len(widths) == BARS[case] <= MOST_BARS
    assert widths.sum() == found.cycles
    by_cause = dict(zip(causes, widths.sum(axis=0), strict=True))
    assert by_cause == {cause: n for cause, n in found.causes.items() if n}


def test_each_bar_is_its_layer(drawn):
    case, found, plots = drawn
    if BARS[case] != len(found.columns["layer"]):
        pytest.skip("layers share bars")
    _, widths = segments(plots["cycles"])
    np.testing.assert_array_equal(widths.sum(axis=1), found.columns["cycles"])
    names = [label.get_text() for label in plots["cycles"].axes[0].get_yticklabels()]
    assert names == found.columns["layer"]


def test_bars_stand_end_to_end(drawn):
    for bars in zip(*drawn[2]["cycles"].axes[0].containers, strict=True):
        ends = [bar.get_x() + bar.get_width() for bar in bars]
        np.testing.assert_allclose([bar.get_x() for bar in bars[1:]], ends[:-1])


def test_merged_bars_are_announced():
    words = [text.get_text() for text in texts(figures(CASES["mixtral"]())["cycles"])]
    assert "model.layers.0…31.self_attn.q_proj ×32" in words
    assert any(word.startswith("321 layers; a bar ×N") for word in words)
    words = [text.get_text() for text in texts(figures(CASES["different"]())["cycles"])]
    assert any("a bar adds up 6 consecutive layers" in word for word in words)


def test_title_says_what_ran(drawn):
    _, found, plots = drawn
    for figure in plots.values():
        words = " ".join(text.get_text() for text in figure.texts)
        for part in (found.workload.name, found.hardware.name, found.level, f"{found.cycles:,}"):
            assert part in words
        assert "s at 1 GHz" in words


def test_legend_gives_share_of_each_cause(drawn):
    _, found, plots = drawn
    entries = [text.get_text() for text in plots["cycles"].legends[0].get_texts()]
    assert len(entries) == sum(n > 0 for n in found.causes.values())
    for cause, cycles in found.causes.items():
        entry = [e for e in entries if e.startswith(LOOKS[cause].label)]
        assert bool(entry) == bool(cycles)
    shares = [float(e.split()[-1].strip("<>%")) for e in entries]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_axes_have_units(drawn):
    plots = drawn[2]
    assert "cycles" in plots["cycles"].axes[0].get_xlabel()
    assert "%" in plots["cycles"].axes[1].get_xticklabels()[-1].get_text()
    roofline = plots["roofline"].axes[0]
    assert "GMAC/s" in roofline.get_ylabel()
    expected = "no DRAM bytes" if drawn[0] == "scalesim" else "MACs per DRAM byte"
    assert expected in roofline.get_xlabel()


def assert_texts_inside(figure):
    figure.canvas.draw()
    for text in texts(figure):
        assert inside(text.get_window_extent(), figure.bbox), text.get_text()


def test_no_text_leaves_the_figure(drawn):
    for figure in drawn[2].values():
        assert_texts_inside(figure)


def test_names_of_neighbouring_bars_do_not_overlap(drawn):
    figure = drawn[2]["cycles"]
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))


def labels_of(axes):
    return [child for child in axes.get_children() if isinstance(child, Annotation)]


def test_labels_of_the_roofline_do_not_overlap(drawn):
    figure = drawn[2]["roofline"]
    figure.canvas.draw()
    boxes = [Text.get_window_extent(label) for label in labels_of(figure.axes[0])]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_dots_lie_under_the_roofs(drawn):
    """A law: no layer is faster than the array or than DRAM lets it be."""
    case, found, plots = drawn
    peak = found.hardware.peak_macs_per_cycle * found.hardware.clock_ghz
    bandwidth = found.hardware.memory.dram.bandwidth_gb_per_s
    dots = np.concatenate([dots.get_offsets() for dots in plots["roofline"].axes[0].collections])
    assert len(dots) == {"one": 1, "alexnet": 8, "scalesim": 8}.get(case, len(dots))
    roof = peak if case == "scalesim" else np.minimum(peak, bandwidth * dots[:, 0])
    assert (dots[:, 1] <= roof * (1 + 1e-9)).all()


def test_costliest_layer_is_labelled_and_coloured_by_what_stalls_it():
    found = CASES["alexnet"]()
    axes = figures(found)["roofline"].axes[0]
    fc6 = found.columns["layer"].index("fc6")
    assert found.columns["cycles"][fc6] == max(found.columns["cycles"])
    share = percent(found.columns["cycles"][fc6], found.cycles)
    assert f"fc6  {share}" in [label.get_text() for label in labels_of(axes)]
    stalls = {c: found.columns[f"{c}_cycles"][fc6] for c in found.causes if c != "work"}
    colour = LOOKS[max(stalls, key=stalls.get)].colour
    assert to_hex(axes.collections[0].get_facecolor()[0]) == colour.lower()


def test_every_cause_has_its_own_colour_and_hatch():
    assert tuple(LOOKS) == (*COMPUTE_CAUSES, "dram", "launch")
    assert len({look.colour for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.hatch for look in LOOKS.values()}) == len(LOOKS)


@pytest.mark.parametrize("bandwidth", [0.01, 1e9, float("inf")])
def test_extreme_bandwidths(bandwidth):
    found = run("alexnet", **{"memory.dram.bandwidth_gb_per_s": bandwidth})
    for figure in figures(found).values():
        assert_texts_inside(figure)


def test_hostile_names_are_drawn_literally():
    layer = linear("$x_{$ \\frac$\x1b" + "y" * 180)
    found = run(Workload(name="$\\alpha$", layers=(layer,)))
    for figure in figures(found).values():
        assert_texts_inside(figure)
        assert any("$" in text.get_text() and not text.get_parse_math() for text in texts(figure))


def test_files_are_written_with_equal_bytes(tmp_path):
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        files = save_figures(CASES["alexnet"](), tmp_path / run)
        assert [f.name for f in files] == [
            "cycles.png",
            "cycles.svg",
            "roofline.png",
            "roofline.svg",
        ]
    for file in files:
        assert file.read_bytes() == (tmp_path / "a" / file.name).read_bytes()
        assert b"<dc:date>" not in file.read_bytes()


def test_global_settings_stay_and_do_not_leak_in(tmp_path):
    found = CASES["one"]()
    before = save_figures(found, tmp_path)[1].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        settings = dict(matplotlib.rcParams)
        assert save_figures(found, tmp_path)[1].read_bytes() == before
        assert dict(matplotlib.rcParams) == settings
