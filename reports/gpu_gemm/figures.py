"""Figures of the measured GPU products, from the tables of make.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from accsim.report.style import (
    GREY,
    HEADER_IN,
    INK,
    MARGIN_IN,
    WIDTH_IN,
    header,
    header_legend,
    house_style,
    light_grid,
    new_figure,
    settle,
)

HERE = Path(__file__).parent
DEVICES = {
    "a100-pcie-80gb": "A100 PCIe 80 GB",
    "h100-pcie-80gb": "H100 PCIe 80 GB",
    "rtx5080": "RTX 5080",
    "gb10": "GB10",
}
# Okabe and Ito, as in accsim.report.style; shapes and hatches say the same once more.
COLOURS = {"dense": "#0072B2", "2:4": "#D55E00"}
MARKS = {"dense": "o", "2:4": "^"}
SIDES = {"dense": -0.2, "2:4": 0.2}
REGIMES = ("launch", "memory", "compute")
STEPS = {
    "datasheet only": ("nothing of it fitted", "#A6CEE3", "////"),
    "24 products": ("fitted to 24 products, on the others", "#56B4E9", ".."),
    "out of fold": ("fitted to four fifths, on the fifth", "#0072B2", ""),
}
ROOFLINE = "roofline, out of fold"
FORMATS = ("bf16", "fp16", "fp8", "int8", "fp4")
DTYPES = {"bf16": "#0072B2", "fp16": "#E69F00", "fp8": "#009E73", "fp4": "#CC79A7"}
DTYPE_MARKS = {"bf16": "o", "fp16": "s", "fp8": "^", "fp4": "D"}
WRONG = "#EDEDED"
BAND, BAND_COLOUR = 0.1, "#D2D2D2"


def draw(
    points: pd.DataFrame, errors: pd.DataFrame, speedups: pd.DataFrame, pairs: pd.DataFrame
) -> None:
    """Draw and write all figures."""
    with house_style():
        _save(predicted(points), "predicted")
        _save(residuals(points), "residuals")
        _save(speedup(pairs, speedups), "speedup")
        _save(before_after(errors), "before_after")


def _save(figure: Figure, name: str) -> None:
    for ending, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        figure.savefig(HERE / f"{name}.{ending}", dpi=160, metadata=metadata)


def _panels(rows: int, columns: int, height_in: float, **shared: str | bool) -> tuple:
    """Return a figure with room for a header and a legend, and its axes."""
    height, left = HEADER_IN + height_in, MARGIN_IN / WIDTH_IN
    room = (left, 0.02, 1 - 2 * left, 1 - HEADER_IN / height - 0.02)
    figure = new_figure(height, room)
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _entitled(axes: Axes, device: str) -> None:
    axes.set_title(DEVICES[device], loc="left", size=9.5, weight="bold", color=INK)


def _mark(label: str, colour: str, mark: str) -> Line2D:
    return Line2D([], [], ls="", marker=mark, ms=5, mew=0, color=colour, label=label)


def _of_devices(axes: np.ndarray) -> Iterator[tuple[Axes, str]]:
    yield from zip(axes.ravel(), DEVICES, strict=True)


# --- predicted against measured


def predicted(points: pd.DataFrame) -> Figure:
    """Return predicted against measured time, a panel a device."""
    figure, axes = _panels(2, 2, 7.4)
    for panel, device in _of_devices(axes):
        _predicted_panel(panel, points[points.device == device], device)
    for panel in axes[-1]:
        panel.set_xlabel("measured (µs)")
    for panel in axes[:, 0]:
        panel.set_ylabel("predicted out of fold (µs)")
    settle(figure)
    header(
        figure, "Time of a product, predicted against measured",
        "closed form; its eight numbers fitted to the other four fifths of (k, n)",
    )  # fmt: skip
    marks = [_mark(pattern, COLOURS[pattern], MARKS[pattern]) for pattern in COLOURS]
    header_legend(figure, [*marks, Patch(color=BAND_COLOUR, label="within ±10 %")], 3)
    return figure


def _predicted_panel(axes: Axes, mine: pd.DataFrame, device: str) -> None:
    times = mine[["measured_us", "predicted_us"]].to_numpy()
    ends = np.array([times.min() / 1.6, times.max() * 1.6])
    axes.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=BAND_COLOUR, lw=0)
    axes.plot(ends, ends, color=GREY, lw=0.7)
    words = []
    for pattern in COLOURS:
        of = mine[mine.pattern == pattern]
        axes.plot(of.measured_us, of.predicted_us, MARKS[pattern], color=COLOURS[pattern], ms=3.2,
                  mew=0, alpha=0.55)  # fmt: skip
        size = of.error.abs()
        words.append(f"{pattern}: {len(of)} products, |error| {100 * size.mean():.1f} % mean, "
                     f"{100 * size.median():.1f} % median")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.text(0.03, 0.97, "\n".join(words), transform=axes.transAxes, va="top", size=8, color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, numticks=12))
        axis.set_minor_locator(NullLocator())
    light_grid(axes, "both")
    _entitled(axes, device)


# --- residuals by regime


def residuals(points: pd.DataFrame) -> Figure:
    """Return signed errors by what bounds a product, a panel a device."""
    figure, axes = _panels(2, 2, 6.4, sharey=True)
    low, high = (20 * round_(x * 5) for round_, x in
                 ((math.floor, points.error.min()), (math.ceil, points.error.max())))  # fmt: skip
    for panel, device in _of_devices(axes):
        panel.set_ylim(low - 12, high + 2)
        _residuals_panel(panel, points[points.device == device], device)
        panel.yaxis.set_major_locator(FixedLocator(range(low, high + 1, 20)))
    for panel in axes[:, 0]:
        panel.set_ylabel("predicted over measured, less 1 (%)")
    settle(figure)
    header(
        figure, "Errors by what bounds a product",
        "out of fold; a dot a product, their number below; box: middle half, line: median",
    )  # fmt: skip
    marks = [_mark(pattern, COLOURS[pattern], MARKS[pattern]) for pattern in COLOURS]
    header_legend(figure, [*marks, Patch(color=BAND_COLOUR, label="within ±10 %")], 3)
    return figure


def _residuals_panel(axes: Axes, mine: pd.DataFrame, device: str) -> None:
    axes.axhspan(-BAND * 100, BAND * 100, color=BAND_COLOUR, lw=0)
    axes.axhline(0, color=GREY, lw=0.7)
    for place, regime in enumerate(REGIMES):
        for pattern, side in SIDES.items():
            of = mine[(mine.pattern == pattern) & (mine.regime == regime)]
            _strip(axes, place + side, of.error.to_numpy() * 100, pattern)
    axes.set_xticks(range(len(REGIMES)), [f"{regime}-bound" for regime in REGIMES])
    axes.set_xlim(-0.5, len(REGIMES) - 0.5)
    light_grid(axes, "y")
    _entitled(axes, device)


def _strip(axes: Axes, at: float, percent: np.ndarray, pattern: str) -> None:
    bottom = axes.get_ylim()[0] + 2
    axes.text(at, bottom, f"{len(percent)}", ha="center", va="bottom", size=7.5, color=GREY)
    if not len(percent):
        return
    order = np.argsort(np.argsort(percent))
    spread = ((order * 0.618034) % 1 - 0.5) * 0.3  # golden-ratio steps: neighbours lie apart
    axes.plot(
        at + spread, percent, MARKS[pattern], color=COLOURS[pattern], ms=2.6, mew=0, alpha=0.5
    )
    low, middle, high = np.quantile(percent, (0.25, 0.5, 0.75))
    if len(percent) >= 10:
        axes.add_patch(
            Rectangle((at - 0.17, low), 0.34, high - low, fill=False, ec=INK, lw=0.8, zorder=3)
        )
        axes.plot([at - 0.17, at + 0.17], [middle] * 2, color=INK, lw=1.4)


# --- speed-up of 2:4


def speedup(pairs: pd.DataFrame, told: pd.DataFrame) -> Figure:
    """Return predicted against measured speed-ups of 2:4, a panel a device."""
    figure, axes = _panels(2, 2, 7.4)
    whole = told[told.dtype == "all"].set_index("device")
    ends = pairs[["measured", "predicted"]].to_numpy()
    ends = np.array([ends.min() / 1.08, ends.max() * 1.08])
    for panel, device in _of_devices(axes):
        _speedup_panel(panel, pairs[pairs.device == device], whole.loc[device], ends)
        _entitled(panel, device)
    for panel in axes[-1]:
        panel.set_xlabel("measured: dense time over 2:4 time")
    for panel in axes[:, 0]:
        panel.set_ylabel("predicted out of fold")
    settle(figure)
    header(
        figure, "Speed-up of 2:4 over dense, predicted against measured",
        "a dot a shape; grey: faster and slower mistaken, counted over 5 % from 1; dashed: ±10 %",
    )  # fmt: skip
    header_legend(figure, [_mark(x, DTYPES[x], DTYPE_MARKS[x]) for x in DTYPES], 4)
    return figure


def _speedup_panel(axes: Axes, mine: pd.DataFrame, told: pd.Series, ends: np.ndarray) -> None:
    low, high = ends
    axes.fill_between([low, 1], 1, high, color=WRONG, lw=0)
    axes.fill_between([1, high], low, 1, color=WRONG, lw=0)
    for factor in (1 - BAND, 1.0, 1 + BAND):
        axes.plot(ends, ends * factor, color=GREY, lw=0.7, ls="-" if factor == 1 else "--")
    axes.axhline(1, color=INK, lw=0.9)
    axes.axvline(1, color=INK, lw=0.9)
    for dtype in DTYPES:
        of = mine[mine.dtype == dtype]
        axes.plot(of.measured, of.predicted, DTYPE_MARKS[dtype], color=DTYPES[dtype], ms=3.4, mew=0,
                  alpha=0.65)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    light_grid(axes, "both")
    words = (
        f"sign right {told.sign_percent:.1f} % of {told.clear:.0f}\n"
        f"(always 'faster': {told.always_faster_percent:.1f} %)\n"
        f"slower told {told.slower_told:.0f} of {told.slower:.0f}\n"
        f"Spearman {told.spearman:.2f}"
    )
    axes.text(0.97, 0.03, words, transform=axes.transAxes, va="bottom", ha="right", size=8)


# --- errors before and after calibration


def before_after(errors: pd.DataFrame) -> Figure:
    """Return mean errors of each device and format: nothing fitted, 24 products, four fifths."""
    whole = errors[(errors.regime == "all") & (errors.device != "all")]
    wide = whole.pivot_table(index=["pattern", "device", "dtype"], columns="model", values="mean")
    wide = wide * 100
    figure, axes = _panels(1, 2, 7.2, sharex=True, sharey=True)
    keys = [(x, y) for x in DEVICES for y in FORMATS if ("2:4", x, y) in wide.index]
    gaps = [list(DEVICES).index(device) * 0.5 for device, _ in keys]
    places = dict(zip(keys, np.arange(len(keys)) + gaps, strict=True))
    for panel, pattern in zip(axes[0], COLOURS, strict=True):
        _bars(panel, wide.loc[pattern].dropna(subset=list(STEPS)), places)
        panel.set_title(pattern, loc="left", size=9.5, weight="bold", color=INK)
    panel.set_xlim(0, 1.06 * wide[[*STEPS, ROOFLINE]].max(axis=None))
    settle(figure)
    header(
        figure, "Error before and after calibration",
        "mean |predicted over measured, less 1|; dotted: what the project set itself, 12 % for 24 "
        "products, 20 % for none",
    )  # fmt: skip
    bars = [Patch(fc=c, ec="white", hatch=h, lw=0, label=w) for w, c, h in STEPS.values()]
    tick = Line2D([], [], ls="", marker="|", ms=8, mew=1.6, color=INK,
                  label="roofline of three numbers, out of fold")  # fmt: skip
    header_legend(figure, [*bars, tick], 4)
    return figure


def _bars(axes: Axes, mine: pd.DataFrame, places: dict[tuple[str, str], float]) -> None:
    at = np.array([places[key] for key in mine.index])
    for i, (name, (_, colour, hatch)) in enumerate(STEPS.items()):
        axes.barh(at + (i - 1) * 0.26, mine[name], 0.26, color=colour, hatch=hatch, ec="white",
                  lw=0)  # fmt: skip
    axes.plot(mine[ROOFLINE], at + 0.26, "|", color=INK, ms=8, mew=1.6)
    for target in (12, 20):
        axes.axvline(target, color=INK, lw=0.8, ls=":")
    for key, place in places.items():
        word = "left out" if key not in mine.index else ""
        word = "28 products" if key[1] == "fp4" else word
        at_x = 0.6 if key not in mine.index else mine.loc[[key], list(STEPS)].max(axis=None) + 1
        axes.text(at_x, place, word, va="center", size=7.5, color=GREY)
    axes.set_yticks(
        list(places.values()), [f"{DEVICES[x].split(' PCIe')[0]} {y}" for x, y in places]
    )
    axes.set_ylim(max(places.values()) + 0.6, -0.6)
    axes.set_xlabel("mean |error| (%)")
    light_grid(axes, "x")
