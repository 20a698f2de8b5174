"""Figures of a result: where the cycles go, and how far each layer is from the roofs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from accsim.report.style import (
    GREY, HEADER_IN, INK, LOOKS, MARGIN_IN, WIDTH_IN, header, header_legend, house_style,
    light_grid, new_figure,
)  # fmt: skip
from accsim.report.text import (
    Group, few_bars, headline, merged_name, patterns, percent, plain, shorten, si,
)  # fmt: skip
from accsim.spec.schedule import CAUSES

if TYPE_CHECKING:
    from accsim.result import Result

MOST_BARS = 60  # beyond, names on a page-high figure can no longer be read
MOST_LABELS = 6
DPI = 160


def figures(result: Result) -> dict[str, Figure]:
    """Return the figures by name.

    ``cycles``: a stacked bar a layer, by cause; beyond 60 layers, alike layers share a bar and the
    figure says so. ``roofline``: a dot for each distinct layer under the roofs of the device.
    """
    with house_style():
        return {"cycles": _cycles(result), "roofline": _roofline(result)}


def save_figures(result: Result, folder: Path) -> list[Path]:
    """Write each figure as PNG and SVG into ``folder``; the bytes depend on the result alone."""
    files = []
    with house_style():
        for name, figure in figures(result).items():
            for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                files.append(folder / f"{name}.{ending}")
                figure.savefig(files[-1], dpi=DPI, metadata=metadata)
            figure.clear()
    return files


def _title(result: Result) -> tuple[str, str]:
    subtitle = (
        f"pattern {patterns(result)}  ·  level {result.level}  ·  {result.cycles:,} cycles"
        f"  =  {si(result.latency_s, 's')} at {result.hardware.clock_ghz:g} GHz"
    )
    return headline(result), subtitle


def _cycles(result: Result) -> Figure:
    groups, note = few_bars(result.columns, MOST_BARS)
    row_in = min(max(9.6 / len(groups), 0.17), 0.32)
    below_in = 0.62 + (0.2 if note else 0.0)
    height = HEADER_IN + len(groups) * row_in + below_in
    figure = new_figure(height, layout="constrained")
    left = MARGIN_IN / WIDTH_IN
    bottom = (0.26 if note else 0.06) / height
    rect = (left, bottom, 1 - 2 * left, 1 - HEADER_IN / height - bottom)
    figure.get_layout_engine().set(rect=rect, w_pad=0, h_pad=0, wspace=0.03)  # type: ignore[union-attr]
    bars, side = figure.subplots(1, 2, sharey=True, width_ratios=(6, 1))
    drawn = _stack(bars, result, groups)
    _utilisation(side, result, groups)
    names = bars.set_yticks(range(len(groups)), [group.labelled(46) for group in groups])
    _literal(bars)
    del names
    bars.set_ylim(len(groups) - 0.5, -0.5)
    header(figure, *_title(result))
    header_legend(figure, _cause_keys(result, drawn), 6)
    if note:
        figure.text(left, 0.1 / height, note + ".", size=8, color=GREY, va="bottom")
    return figure


def _stack(axes: Axes, result: Result, groups: list[Group]) -> list[str]:
    """Draw the stacked bars; return the causes that occur."""
    ends = np.zeros(len(groups))
    drawn = [cause for cause in CAUSES if result.causes[cause]] or ["work"]
    for cause in drawn:
        look = LOOKS[cause]
        widths = np.array([group.sum(result.columns[f"{cause}_cycles"]) for group in groups], float)
        axes.barh(
            range(len(groups)), widths, 0.74, left=ends, label=cause,
            color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0,
        )  # fmt: skip
        ends += widths
    size = 7 if len(groups) > 20 else 8
    for row, end in enumerate(ends):
        axes.annotate(
            percent(end, result.cycles), (end, row), (3, 0), textcoords="offset points",
            va="center", size=size, color=GREY,
        )  # fmt: skip
    axes.set_xlim(0, 1.09 * max(ends.max(), 1))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: si(x)))
    axes.set_xlabel("cycles by cause  (percent: share of all cycles)")
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")
    return drawn


def _utilisation(axes: Axes, result: Result, groups: list[Group]) -> None:
    columns, peak = result.columns, result.hardware.peak_macs_per_cycle
    room = [max(group.sum(columns["cycles"]) * peak, 1) for group in groups]
    used = [100 * g.sum(columns["effective_macs"]) / r for g, r in zip(groups, room, strict=True)]
    rows = range(len(groups))
    axes.hlines(rows, 0, used, color=GREY, linewidth=0.8)
    axes.plot(used, rows, "o", color=INK, markersize=3.5, clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    axes.set_xlabel("utilisation")
    axes.tick_params(labelleft=False)
    light_grid(axes, "x")


def _cause_keys(result: Result, causes: list[str]) -> list[Patch]:
    return [
        Patch(
            facecolor=LOOKS[cause].colour, hatch=LOOKS[cause].hatch, edgecolor="white", linewidth=0,
            label=f"{LOOKS[cause].label}  {percent(result.causes[cause], result.cycles)}",
        )
        for cause in causes
    ]  # fmt: skip


def _literal(axes: Axes) -> None:
    """Let a dollar in a layer's name be a dollar, not the start of a formula."""
    for label in axes.get_yticklabels():
        label.set_parse_math(False)


class _Dot(NamedTuple):
    """One place in the roofline: the layers that fall on it."""

    name: str
    x: float
    gmac_per_s: float
    share: float
    bound: str


def _dots(result: Result) -> list[_Dot]:
    """Return a dot for each distinct layer, the costliest first; x is inf without DRAM bytes."""
    columns = result.columns
    shape = ("t", "k", "n", "repeats", "pattern", "mode", "dtype", "cycles", "effective_macs")
    keys = [*shape, "dram_read_bytes", "dram_write_bytes", *(f"{cause}_cycles" for cause in CAUSES)]
    where: dict[Any, list[int]] = {}
    for i, key in enumerate(zip(*(columns[name] for name in keys), strict=True)):
        where.setdefault(key, []).append(i)
    dots = []
    for rows in where.values():
        i = rows[0]
        moved = columns["dram_read_bytes"][i] + columns["dram_write_bytes"][i]
        macs, cycles = columns["effective_macs"][i], columns["cycles"][i]
        if not macs or not cycles:
            continue
        dots.append(
            _Dot(
                name=_dot_name([plain(columns["layer"][row]) for row in rows]),
                x=macs / moved if moved else np.inf,
                gmac_per_s=macs / cycles * result.hardware.clock_ghz,
                share=len(rows) * cycles / result.cycles,
                bound=max(CAUSES, key=lambda cause: columns[f"{cause}_cycles"][i]),
            )
        )
    return sorted(dots, key=lambda dot: -dot.share)


def _dot_name(names: list[str]) -> str:
    if len(names) == 1:
        return shorten(names[0], 34)
    merged = merged_name(names)
    if " … " in merged:
        return f"{shorten(names[0], 28)} +{len(names) - 1} equal"
    return Group(merged, tuple(range(len(names)))).labelled(38)


def _roofline(result: Result) -> Figure:
    dots = _dots(result)
    height = 6.0
    figure = new_figure(height)
    axes = figure.add_axes((0.085, 0.115, 0.885, 1 - (HEADER_IN + 0.28) / height - 0.115))
    counted = bool(dots) and bool(np.isfinite([dot.x for dot in dots]).any())
    if not counted:
        dots = [dot._replace(x=order + 1) for order, dot in enumerate(_in_order(result, dots))]
        dots.sort(key=lambda dot: -dot.share)
    else:
        edge = 3 * max(dot.x for dot in dots if np.isfinite(dot.x))
        dots = [dot if np.isfinite(dot.x) else dot._replace(x=edge) for dot in dots]
    _scales(axes, result, dots, counted)
    roofs = _roofs(axes, result, counted)
    _scatter(axes, dots)
    _label(axes, dots, roofs)
    title, subtitle = _title(result)
    header(figure, title + ": roofline", subtitle)
    header_legend(figure, _bound_keys(dots), 3)
    return figure
