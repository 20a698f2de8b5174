"""House style of the figures: colours and hatches by cause, fonts, sizes, light grid, header."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from accsim.report.text import shorten


class Look(NamedTuple):
    """How a cause of cycles is drawn everywhere: as bar (colour, hatch) and as dot (marker)."""

    label: str
    colour: str
    hatch: str
    marker: str


# Colours: Okabe and Ito, "Color Universal Design" (2008), as in Wong, Nature Methods 8 (2011) 441.
# Hatches and markers say the same once more, for print in grey.
LOOKS = {
    "work": Look("work", "#0072B2", "", "o"),
    "fill_drain": Look("fill and drain", "#56B4E9", "////", "s"),
    "imbalance": Look("imbalance", "#E69F00", "xxxx", "D"),
    "metadata": Look("metadata", "#009E73", "....", "^"),
    "memory": Look("memory", "#D55E00", "\\\\\\\\", "v"),
    "launch": Look("launch", "#CC79A7", "++++", "P"),
}

INK, GREY, GRID = "#1A1A1A", "#5F5F5F", "#E3E3E3"
WIDTH_IN = 9.0
MARGIN_IN = 0.18
HEADER_IN = 1.0

_HOUSE: dict[str, Any] = {
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "accsim",
    "svg.fonttype": "path",
}


def house_style() -> AbstractContextManager[None]:
    """Return a context with the house rcParams over matplotlib's defaults; restored on leaving."""
    return style.context(["default", _HOUSE])


def new_figure(height_in: float, **how: Any) -> Figure:
    """Return a figure of the house width on an Agg canvas, known to nobody else."""
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="white", **how)
    FigureCanvasAgg(figure)
    return figure


def header(figure: Figure, title: str, subtitle: str) -> None:
    """Write a bold title and a grey line below it, at a fixed distance from the top edge."""
    height = figure.get_figheight()
    for text, below_in, size, weight, colour, room in (
        (title, 0.14, 12, "bold", INK, 78),
        (subtitle, 0.40, 9, "normal", GREY, 118),
    ):
        figure.text(
            MARGIN_IN / WIDTH_IN, 1 - below_in / height, shorten(text, room),
            size=size, weight=weight, color=colour, va="top", ha="left", parse_math=False,
        )  # fmt: skip


def header_legend(figure: Figure, handles: list[Any], columns: int) -> None:
    """Put the legend under the header, flush left."""
    figure.legend(
        handles=handles, ncols=columns, loc="upper left", borderaxespad=0, borderpad=0,
        handlelength=1.5, handleheight=1.0, handletextpad=0.5, columnspacing=1.4,
        bbox_to_anchor=(MARGIN_IN / WIDTH_IN, 1 - 0.66 / figure.get_figheight()),
    )  # fmt: skip


def light_grid(axes: Axes, axis: Any) -> None:
    """Draw grid lines of one axis (or both) behind the data, and no tick marks."""
    axes.grid(True, axis=axis)
    axes.tick_params(length=0)
