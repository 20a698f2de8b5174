"""Figures of a result: where the cycles go, and how far each layer is from the roofs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from accsim.base.errors import InputError, near, one_of
from accsim.report.style import (
    GREY,
    HEADER_IN,
    INK,
    MARGIN_IN,
    WIDTH_IN,
    along,
    header,
    header_legend,
    house_style,
    inside,
    light_grid,
    look,
    new_figure,
    settle,
    side,
    text_box,
)
from accsim.report.text import (
    Group,
    few_bars,
    headline,
    merged_name,
    patterns,
    percent,
    plain,
    shorten,
    si,
)

if TYPE_CHECKING:
    from accsim.result import Result

MOST_BARS = 60  # beyond, names on a page-high figure can no longer be read
MOST_LABELS = 6
MINOR_STALLS = 0.1  # of a layer's cycles; below, its dot has the colour of work
NAME_WIDTH = 52  # characters
DPI = 160


def figures(result: Result) -> dict[str, Figure]:
    """Return the figures by name.

    ``cycles``: a stacked bar a layer, by cause; beyond 60 layers, alike layers share a bar and the
    figure says so. ``roofline``: a dot for each distinct layer under the roofs of the device.
    """
    with house_style():
        return {"cycles": _cycles(result), "roofline": _roofline(result)}


_FIGURES = ("cycles", "roofline")


def figure(result: Result, kind: str) -> Figure:
    """Return one figure by name; InputError for a name that is not one of them."""
    if kind not in _FIGURES:
        raise InputError(
            f"plot must be one of {one_of(_FIGURES)}; got '{kind}'{near(kind, _FIGURES)}"
        )
    return figures(result)[kind]


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
    left, bottom = MARGIN_IN / WIDTH_IN, (0.26 if note else 0.06) / height
    rect = (left, bottom, 1 - 2 * left, 1 - HEADER_IN / height - bottom)
    figure = new_figure(height, rect)
    bars, right = figure.subplots(1, 2, sharey=True, width_ratios=(6, 1))
    drawn = _stack(bars, result, groups)
    _utilisation(right, result, groups)
    bars.set_yticks(range(len(groups)), [group.labelled(NAME_WIDTH) for group in groups])
    _literal(bars)
    bars.set_ylim(len(groups) - 0.5, -0.5)
    settle(figure)
    header(figure, *_title(result))
    header_legend(figure, _cause_keys(result, drawn), 6)
    if note:
        figure.text(left, 0.1 / height, note + ".", size=8, color=GREY, va="bottom")
    return figure


def _stack(axes: Axes, result: Result, groups: list[Group]) -> list[str]:
    """Draw the stacked bars; return the causes that occur."""
    ends = np.zeros(len(groups))
    drawn = [cause for cause, cycles in result.causes.items() if cycles] or ["work"]
    for cause in drawn:
        drawing = look(cause, list(result.causes))
        widths = np.array([group.sum(result.columns[f"{cause}_cycles"]) for group in groups], float)
        axes.barh(
            range(len(groups)), widths, 0.74, left=ends, label=cause,
            color=drawing.colour, hatch=drawing.hatch, edgecolor="white", linewidth=0,
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
    columns = result.columns
    room = [max(group.sum(result.room_macs), 1) for group in groups]
    used = [100 * g.sum(columns["effective_macs"]) / r for g, r in zip(groups, room, strict=True)]
    rows = range(len(groups))
    axes.hlines(rows, 0, used, color=GREY, linewidth=0.8)
    axes.plot(used, rows, "o", color=INK, markersize=3.5, clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100], ["0", "50", "100%"])
    axes.set_xlabel("utilisation")
    axes.tick_params(labelleft=False)
    light_grid(axes, "x")


def _cause_keys(result: Result, causes: list[str]) -> list[Patch]:
    looks = {cause: look(cause, list(result.causes)) for cause in causes}
    return [
        Patch(
            facecolor=drawn.colour, hatch=drawn.hatch, edgecolor="white", linewidth=0,
            label=f"{drawn.label} {percent(result.causes[cause], result.cycles)}",
        )
        for cause, drawn in looks.items()
    ]  # fmt: skip


def _literal(axes: Axes) -> None:
    """Let a dollar in a layer's name be a dollar, not the start of a formula."""
    for label in axes.get_yticklabels():
        label.set_parse_math(False)


class _Dot(NamedTuple):
    """One place in the roofline: the layers that fall on it."""

    name: str
    layer: int  # number of the first of them, from 1
    x: float  # effective MACs per DRAM byte, inf without DRAM bytes
    gmac_per_s: float
    share: float
    bound: str


def _dots(result: Result) -> list[_Dot]:
    """Return a dot for each distinct layer with work, the costliest first."""
    columns = result.columns
    apart = not result.dram_bytes  # then x is the layer's number, and each has its own
    keys = ["cycles", "effective_macs", "dram_read_bytes", "dram_write_bytes"]
    keys += [f"{cause}_cycles" for cause in result.causes]
    where: dict[Any, list[int]] = {}
    for i, key in enumerate(zip(*(columns[name] for name in keys), strict=True)):
        where.setdefault((*key, i if apart else 0), []).append(i)
    dots = []
    for (cycles, macs, read, written, *causes, _), rows in where.items():
        if macs and cycles:
            dots.append(
                _Dot(
                    name=_dot_name([plain(columns["layer"][i]) for i in rows]),
                    layer=rows[0] + 1,
                    x=macs / (read + written) if read + written else np.inf,
                    gmac_per_s=macs / cycles * result.hardware.clock_ghz,
                    share=len(rows) * cycles / result.cycles,
                    bound=_bound(cycles, dict(zip(result.causes, causes, strict=True))),
                )
            )
    return sorted(dots, key=lambda dot: -dot.share)


def _bound(cycles: int, causes: dict[str, int]) -> str:
    """Return the largest stall, or work where all stalls together are minor."""
    if cycles - causes["work"] < MINOR_STALLS * cycles:
        return "work"
    return max((cause for cause in causes if cause != "work"), key=lambda cause: causes[cause])


def _dot_name(names: list[str]) -> str:
    if len(names) == 1:
        return shorten(names[0], 34)
    merged = merged_name(names)
    if " … " in merged:
        return f"{shorten(names[0], 28)} and {len(names) - 1} equal"
    return Group(merged, tuple(range(len(names)))).labelled(38)


def _roofline(result: Result) -> Figure:
    dots = _dots(result)
    keys = _bound_keys(dots, list(result.causes))
    height = 6.0
    top = HEADER_IN - 0.12 + 0.2 * -(-len(keys) // 3)
    figure = new_figure(height)
    axes = figure.add_axes((0.085, 0.75 / height, 0.885, 1 - (top + 0.75) / height))
    counted = any(np.isfinite(dot.x) for dot in dots)
    dots = [dot._replace(x=_place(dot, dots, counted)) for dot in dots]
    _scales(axes, result, dots, counted)
    roofs = _roofs(axes, result, counted)
    _scatter(axes, dots, list(result.causes))
    _label(axes, dots, roofs)
    title, subtitle = _title(result)
    header(figure, f"{title}: roofline", subtitle)
    header_legend(figure, keys, 3)
    note = _roofline_note(result, dots, counted)
    figure.text(MARGIN_IN / WIDTH_IN, 0.1 / height, note, size=8, color=GREY, va="bottom")
    return figure


def _roofline_note(result: Result, dots: list[_Dot], counted: bool) -> str:
    if not dots:
        return "No layer has an effective MAC: nothing to show."
    words = ["Area of a dot, and percentages: share of all cycles."]
    if counted:
        words.append("Equal layers share a dot.")
        if not np.isfinite(_bandwidth(result)):
            words.append("DRAM bandwidth is unlimited.")
        if not np.all(np.isfinite([dot.x for dot in _dots(result)])):
            words.append("Layers without DRAM bytes stand at the right edge.")
    if len(set(result.peaks)) > 1:
        words.append("Peaks of layers differ; the roof is the highest.")
    return " ".join(words)


def _peak(result: Result) -> float:
    """Return the highest peak of any layer in effective GMAC/s."""
    return max(result.peaks) * float(result.hardware.clock_ghz)


def _bandwidth(result: Result) -> float:
    """Return the bandwidth of DRAM in GB/s, infinite where nothing limits it."""
    return math.inf if result.dram_gb_per_s is None else result.dram_gb_per_s


def _place(dot: _Dot, dots: list[_Dot], counted: bool) -> float:
    """Return where a dot stands: a layer without DRAM bytes right of all, or by its number."""
    if not counted:
        return float(dot.layer)
    if np.isfinite(dot.x):
        return dot.x
    return 4 * max(other.x for other in dots if np.isfinite(other.x))


def _scales(axes: Axes, result: Result, dots: list[_Dot], counted: bool) -> None:
    peak = _peak(result)
    slowest = min((dot.gmac_per_s for dot in dots), default=peak)
    axes.set_yscale("log")
    axes.set_ylim(min(slowest / 2.5, peak / 20), 1.6 * peak)
    axes.set_ylabel("effective GMAC/s  (1 GMAC/s = 0.002 TOPS)")
    _log_ticks(axes.yaxis)
    light_grid(axes, "both")
    if not counted:
        layers = len(result.workload.layers)
        axes.set_xlim(0.5 - 0.02 * layers, layers + 0.5 + 0.02 * layers)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("layer, by number  (this timing counts no DRAM bytes)")
        return
    xs = [dot.x for dot in dots]
    ridge = peak / _bandwidth(result)
    if min(xs) / 100 < ridge < max(xs) * 100:
        xs.append(ridge)
    low, high = min(xs) / 2, max(xs) * 3
    axes.set_xscale("log")
    axes.set_xlim(min(low, high / 30), high)
    _log_ticks(axes.xaxis)
    axes.set_xlabel("effective MACs per DRAM byte  (read and written)")


def _log_ticks(axis: Axis) -> None:
    low, high = axis.get_view_interval()
    steps = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _roofs(axes: Axes, result: Result, counted: bool) -> list[Bbox]:
    """Draw the roofs with their names; return the pixels they cover."""
    peak, bandwidth = _peak(result), _bandwidth(result)
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    sloped = counted and np.isfinite(bandwidth)
    ridge = min(max(peak / bandwidth, left), right) if sloped else left
    start = max(left, bottom / bandwidth) if sloped else left
    xs = [start, ridge, right] if sloped else [left, right]
    ys = [min(peak, bandwidth * x) if sloped else peak for x in xs]
    axes.plot(xs, ys, color=INK, linewidth=1.3, label="roofs", zorder=2)
    names = [
        axes.annotate(
            f"peak {peak:,.10g} GMAC/s", (right, ys[-1]), (-4, 4), textcoords="offset points",
            ha="right", size=8, color=INK,
        )
    ]  # fmt: skip
    pixels = axes.transData.transform(np.column_stack([xs, ys]))
    slope = pixels[1] - pixels[0]
    if sloped and float(np.hypot(*slope)) > 150:
        angle = float(np.degrees(np.arctan2(slope[1], slope[0])))
        names.append(
            axes.annotate(
                f"DRAM {bandwidth:,.10g} GB/s", (xs[0], ys[0]), tuple(0.36 * slope + (-4, 3)),
                textcoords="offset points", rotation=angle, rotation_mode="anchor", ha="left",
                size=8, color=INK,
            )
        )  # fmt: skip
    return along(pixels) + [text_box(name) for name in names]


def _radius(dot: _Dot, largest: float) -> float:
    """Radius in points: the area goes with the share of cycles, down to a dot one can still see."""
    return max(13 * math.sqrt(dot.share / largest), 2.2)


def _scatter(axes: Axes, dots: list[_Dot], causes: list[str]) -> None:
    for dot in dots:  # the costliest first, so that small dots lie on top
        axes.scatter(
            dot.x, dot.gmac_per_s, s=(2 * _radius(dot, dots[0].share)) ** 2, zorder=3,
            color=look(dot.bound, causes).colour, marker="o",
            alpha=0.8, edgecolor="white", linewidth=0.6, clip_on=False,
        )  # fmt: skip


def _label(axes: Axes, dots: list[_Dot], taken: list[Bbox]) -> None:
    """Name the costliest dots where there is room: no label touches a dot, a roof or a label."""
    scale = axes.get_figure().dpi / 72  # type: ignore[union-attr]
    for dot in dots:
        r = _radius(dot, dots[0].share) * scale
        x, y = axes.transData.transform((dot.x, dot.gmac_per_s))
        taken.append(Bbox.from_bounds(x - r, y - r, 2 * r, 2 * r))
    labels: list[Bbox] = []
    for dot in dots[:MOST_LABELS]:
        at = axes.transData.transform((dot.x, dot.gmac_per_s))
        for angle, further in _PLACES:
            reach = _radius(dot, dots[0].share) + 2.5 + further
            label = _name(axes, dot, angle, reach, further > 0)
            box = text_box(label)
            centre = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
            leader = along(np.array([at, centre])) if further else []
            free = not any(box.overlaps(other) for other in taken + labels)
            crossed = any(part.overlaps(other) for part in leader for other in labels)
            if free and not crossed and inside(box, axes.bbox):
                labels.append(box)
                taken += leader
                break
            label.remove()


def _name(axes: Axes, dot: _Dot, angle: float, reach: float, far: bool) -> Annotation:
    dx, dy = reach * np.cos(np.radians(angle)), reach * np.sin(np.radians(angle))
    return axes.annotate(
        f"{dot.name}  {percent(dot.share, 1)}", (dot.x, dot.gmac_per_s), (dx, dy),
        textcoords="offset points", size=8, color=INK, zorder=4, parse_math=False,
        ha=side(dx, ("right", "center", "left")), va=side(dy, ("top", "center", "bottom")),
        arrowprops=_LEADER if far else None,
    )  # fmt: skip


_ANGLES = (0, 180, 90, 270, 30, 150, 330, 210, 60, 120, 300, 240)
_PLACES = [(angle, further) for further in (0, 14, 30, 50, 75, 100) for angle in _ANGLES]
_LEADER = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}


def _bound_keys(dots: list[_Dot], causes: list[str]) -> list[Line2D]:
    keys = []
    for cause in causes:
        share = sum(dot.share for dot in dots if dot.bound == cause)
        if share:
            drawn = look(cause, causes)
            kind = "stalls below 10%" if cause == "work" else f"stalled most by {drawn.label}"
            keys.append(
                Line2D(
                    [], [], linestyle="", marker="o", color=drawn.colour,
                    label=f"{kind}: {percent(share, 1)}",
                )
            )  # fmt: skip
    return keys
