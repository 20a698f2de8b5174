"""The map of a break-even: speed-up over t × shapes, one panel a device and pattern."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from accsim.report.style import (
    GRID,
    HEADER_IN,
    INK,
    MARGIN_IN,
    WIDTH_IN,
    header,
    header_legend,
    house_style,
    new_figure,
)
from accsim.report.text import plain, shorten

if TYPE_CHECKING:
    from accsim.break_even.table import Breakeven

Floats = npt.NDArray[np.float64]

DPI = 160
# Slower is vermillion, faster blue, no difference white: the two ends that Okabe and Ito (style.py)
# keep apart in every kind of colour blindness, darker outwards so that grey print tells amounts.
COLOURS = LinearSegmentedColormap.from_list(
    "speedup", ["#7A2E00", "#D55E00", "#F7C6A3", "#FFFFFF", "#A6CEE3", "#0072B2", "#003A5C"]
)
MOST_ACROSS = 3  # panels side by side
LABEL_IN, PANEL_GAP_IN, PANEL_HEAD_IN = 1.05, 0.22, 0.3
AXIS_IN, BAR_IN = 0.5, 0.62  # below each row of panels; below all: the colour bar
VALUE_IN = 0.3  # a cell this wide has room for its number
MARK = "*"
MOST_NAMED = 24  # t; beyond, only powers of two are named


def figure(found: Breakeven) -> Figure:
    """Return the map: t (log) × shapes for each device (down) and pattern (across).

    Colour: speed-up over dense, centred at 1. Thick lines: where it crosses 1. Hatched: the
    interval holds 1. A star: outside what the device was calibrated with.
    """
    with house_style():
        return _figure(found)


def save_figure(found: Breakeven, folder: Path) -> list[Path]:
    """Write ``breakeven.png`` and ``.svg``; the bytes depend on the answer alone."""
    files = []
    with house_style():
        drawn = _figure(found)
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            files.append(folder / f"breakeven.{ending}")
            drawn.savefig(files[-1], dpi=DPI, metadata=metadata)
        drawn.clear()
    return files


def _figure(found: Breakeven) -> Figure:
    asked = found.question
    pairs = [(noun.name, str(pattern)) for noun in asked.hardware for pattern in asked.patterns]
    across = min(len(asked.patterns), MOST_ACROSS) if len(pairs) > 1 else 1
    if len(asked.patterns) == 1:
        across = min(len(pairs), MOST_ACROSS - 1)
    down = -(-len(pairs) // across)
    row_in = min(max(7.5 / (down * len(asked.shapes)), 0.13), 0.34)
    panel = row_in * len(asked.shapes)
    height = HEADER_IN + down * (PANEL_HEAD_IN + panel + AXIS_IN) + BAR_IN + 0.1
    drawn = new_figure(height)
    wide = (WIDTH_IN - 2 * MARGIN_IN - LABEL_IN - (across - 1) * PANEL_GAP_IN) / across
    scale = Normalize(-_reach(found), _reach(found))
    for at, pair in enumerate(pairs):
        i, j = divmod(at, across)
        left = MARGIN_IN + LABEL_IN + j * (wide + PANEL_GAP_IN)
        top = height - HEADER_IN - PANEL_HEAD_IN - i * (PANEL_HEAD_IN + panel + AXIS_IN)
        rect = (left / WIDTH_IN, (top - panel) / height, wide / WIDTH_IN, panel / height)
        axes = drawn.add_axes(rect)
        last = at + across >= len(pairs)
        _panel(axes, found, pair, scale, wide, row_in, first=j == 0, last=last)
    _bar(drawn, scale, height)
    header(drawn, *_title(found))
    header_legend(drawn, _keys(found), 4)
    return drawn


def _title(found: Breakeven) -> tuple[str, str]:
    asked = found.question
    patterns = ", ".join(map(str, asked.patterns))
    title = f"Where {patterns} {'is' if len(asked.patterns) == 1 else 'are'} faster than dense"
    made = {"w": "  ·  W packed before every call", "x": "  ·  X packed before every call"}
    words = f"{', '.join(plain(x.name) for x in asked.hardware)}  ·  {asked.dtype}"
    words += made[asked.dynamic] if asked.dynamic else ""
    unsure = all(math.isnan(x) for x in found.columns["speedup_low"])
    return title, words + ("  ·  no intervals known" if unsure else "")


def _reach(found: Breakeven) -> float:
    """Return the largest |log2 speed-up| of the scale: at least 2×, at most 16×."""
    logs = np.abs(np.log2(np.array(found.columns["speedup"])))
    return float(np.clip(np.ceil(2 * logs.max()) / 2, 1.0, 4.0))


def _panel(
    axes: Axes, found: Breakeven, pair: tuple[str, str], scale: Normalize, wide: float,
    row_in: float, *, first: bool, last: bool,
) -> None:  # fmt: skip
    rows = [x for x in found.rows if (x["hardware"], x["pattern"]) == pair]
    ts, shapes = found.question.t, found.question.shapes
    edges = _edges(ts)
    size = (len(shapes), len(ts))
    cell_in = wide / len(ts)
    logs = np.log2([row["speedup"] for row in rows]).reshape(size)
    axes.pcolormesh(edges, np.arange(len(shapes) + 1), logs, cmap=COLOURS, norm=scale,
                    edgecolor=GRID, linewidth=0.4 if cell_in > 0.06 else 0)  # fmt: skip
    _hatch(axes, rows, edges, size)
    if cell_in >= VALUE_IN and row_in >= 0.16:
        _values(axes, rows, scale, size, edges)
    else:
        _stars(axes, rows, size, edges, min(cell_in, row_in))
    _contour(axes, found, pair)
    axes.set_xscale("log", base=2)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(len(shapes), 0)
    _ticks(axes, ts, wide)
    names = [f"{shape.k}×{shape.n}" for shape in shapes]
    axes.set_yticks(np.arange(len(shapes)) + 0.5, names if first else [""] * len(names))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if first:
        axes.set_ylabel("weights, k × n" if len(shapes) * row_in > 1 else "k × n")
        axes.yaxis.set_label_coords(-(LABEL_IN - 0.1) / wide, 0.5)
    if last:
        axes.set_xlabel("t, tokens (rows of X)")
    axes.set_title(_panel_title(rows, *pair, round(wide * 12.5)), loc="left", size=9, pad=4,
                   parse_math=False)  # fmt: skip


def _panel_title(rows: Sequence[dict[str, Any]], hardware: str, pattern: str, room: int) -> str:
    """Return what a panel shows in ``room`` characters; the device's name is cut first."""
    dense = all(row["why"] == "same kernel" for row in rows) and pattern != "dense"
    modes = dict.fromkeys(row["mode"] for row in rows)
    own = f", as {' and '.join(modes)}" if pattern not in modes else ""
    own = ": runs dense" if dense else own
    name = shorten(plain(hardware), max(room - len(pattern) - len(own) - 4, 8))
    return shorten(plain(f"{pattern} on {name}{own}"), max(room, 12))


def _edges(ts: Sequence[int]) -> Floats:
    """Return the borders of cells around each t, halfway to its neighbours in log."""
    logs = np.log2(np.array(ts, dtype=np.float64))
    steps = np.diff(logs) if len(logs) > 1 else np.ones(1)
    middle = (logs[1:] + logs[:-1]) / 2
    found: Floats = np.exp2([logs[0] - steps[0] / 2, *middle, logs[-1] + steps[-1] / 2])
    return found


def _hatch(
    axes: Axes, rows: Sequence[dict[str, Any]], edges: Floats, size: tuple[int, int]
) -> None:
    """Hatch runs of neighbouring cells whose interval holds 1."""
    open_ = np.array([row["verdict"] == "undecided" for row in rows]).reshape(size)
    for i, line in enumerate(open_):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
        for a, b in zip(ends[::2], ends[1::2], strict=True):
            axes.add_patch(Rectangle(
                (edges[a], i), edges[b] - edges[a], 1, fill=False, hatch="////",
                edgecolor="#00000055", linewidth=0, gid="undecided",
            ))  # fmt: skip


def _values(
    axes: Axes, rows: Sequence[dict[str, Any]], scale: Normalize, size: tuple[int, int],
    edges: Floats,
) -> None:  # fmt: skip
    """Write the speed-up into each cell, with a star where it is extrapolated."""
    halo = [withStroke(linewidth=1.5, foreground="#FFFFFFCC")]
    for at, row in enumerate(rows):
        i, j = divmod(at, size[1])
        red, green, blue, _ = COLOURS(scale(math.log2(row["speedup"])))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.58
        star = MARK if _starred(row) else ""
        axes.text(
            math.sqrt(edges[j] * edges[j + 1]), i + 0.52, f"{row['speedup']:.2f}{star}", size=6.5,
            ha="center", va="center", color="white" if dark else INK, zorder=4,
            path_effects=[] if dark or row["verdict"] != "undecided" else halo,
        )  # fmt: skip


def _stars(
    axes: Axes, rows: Sequence[dict[str, Any]], size: tuple[int, int], edges: Floats, room: float
) -> None:
    cells = [divmod(at, size[1]) for at, row in enumerate(rows) if _starred(row)]
    axes.plot(
        [math.sqrt(edges[j] * edges[j + 1]) for _, j in cells], [i + 0.5 for i, _ in cells],
        linestyle="", marker="*", markersize=min(18 * room, 3.5), color=INK, markeredgewidth=0,
    )  # fmt: skip


def _starred(row: dict[str, Any]) -> bool:
    """Say whether a cell is marked: a ratio of one kernel to itself is exact anywhere."""
    return bool(row["extrapolated"]) and row["why"] != "same kernel"


def _contour(axes: Axes, found: Breakeven, pair: tuple[str, str]) -> None:
    """Draw the contour at 1: a line through each row at its crossings, joined where they pair up.

    Shapes are no quantity, so between rows the line only leads from one to the next.
    """
    lines = [x.speedup.t for x in found.crossings if (x.hardware, x.pattern) == pair]
    for i, places in enumerate(lines):
        for t in places:
            axes.plot([t, t], [i, i + 1], color=INK, linewidth=1.8, solid_capstyle="butt",
                      gid="contour")  # fmt: skip
    for i, (here, there) in enumerate(pairwise(lines)):
        if len(here) == len(there):
            for a, b in zip(here, there, strict=True):
                axes.plot([a, b], [i + 1, i + 1], color=INK, linewidth=1.8, gid="contour")


def _ticks(axes: Axes, ts: Sequence[int], wide: float) -> None:
    """Name as many t as fit, the first one among them; powers of two where there are many."""
    if len(ts) > MOST_NAMED:
        ts = [2**i for i in range(ts[-1].bit_length()) if 2**i >= ts[0]] or ts
    across = 0.07 * max(len(_count(t)) for t in ts) + 0.12
    step = max(math.ceil(len(ts) * across / wide), 1)
    axes.xaxis.set_major_locator(FixedLocator([float(t) for t in ts[::step]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: _count(t)))


def _count(t: float) -> str:
    return f"{t:.0f}"


def _bar(drawn: Figure, scale: Normalize, height: float) -> None:
    left = (MARGIN_IN + LABEL_IN) / WIDTH_IN
    axes = drawn.add_axes((left, 0.42 / height, 0.4, 0.13 / height))
    reach = float(scale.vmax or 1.0)
    values = np.linspace(-reach, reach, 201)
    axes.pcolormesh(np.linspace(-reach, reach, 202), [0, 1], values[None, :], cmap=COLOURS,
                    norm=scale)  # fmt: skip
    marks = np.arange(-math.floor(reach), math.floor(reach) + 1)
    axes.set_xticks(marks, [f"{2.0**x:g}×" for x in marks])
    axes.set_yticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("speed-up over dense (log scale)")


def _keys(found: Breakeven) -> list[Any]:
    """Return the legend of what occurs in the figure."""
    verdicts = set(found.columns["verdict"])
    keys: list[Any] = []
    if any(crossing.speedup.t for crossing in found.crossings):
        keys.append(Line2D([], [], color=INK, linewidth=1.8, label="speed-up 1"))
    if "undecided" in verdicts:
        keys.append(Patch(facecolor="white", edgecolor="#00000088", hatch="////", linewidth=0,
                          label="undecided: the 90 % interval holds 1"))  # fmt: skip
    if any(map(_starred, found.rows)):
        keys.append(Line2D([], [], linestyle="", marker="*", color=INK, markersize=4,
                           label="outside what was calibrated"))  # fmt: skip
    return keys
