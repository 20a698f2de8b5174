"""House style of the figures: colours and hatches by cause, fonts, light grid, header, labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

from accsim.report.text import shorten


class Look(NamedTuple):
    """How a cause of cycles is drawn in every figure."""

    label: str
    colour: str
    hatch: str


# Colours: Okabe and Ito, "Color Universal Design" (2008), as in Wong, Nature Methods 8 (2011) 441.
# Hatches say the same once more, for print in grey.
LOOKS = {
    "work": Look("work", "#0072B2", ""),
    "padding": Look("padding", "#A6CEE3", ".."),
    "fill_drain": Look("fill and drain", "#56B4E9", "////"),
    "imbalance": Look("imbalance", "#E69F00", "xxxx"),
    "metadata": Look("metadata", "#009E73", "...."),
    "gather": Look("gather", "#66C2A5", "oo"),
    "generator": Look("generator", "#F0E442", "//"),
    "checker": Look("checker", "#000000", "--"),
    "throttle": Look("power cap", "#8C8C8C", "||"),
    "dram": Look("DRAM", "#D55E00", "\\\\\\\\"),
    "launch": Look("launch", "#CC79A7", "++++"),
}
_LEVELS = ("#F2A477", "#8C3B00")  # memories between DRAM and the buffers, the farthest first


def look(cause: str, causes: Sequence[str]) -> Look:
    """Return how a cause is drawn; one of ``causes`` that has no look of its own is a memory."""
    if cause in LOOKS:
        return LOOKS[cause]
    place = [name for name in causes if name not in LOOKS].index(cause)
    return Look(cause.upper(), _LEVELS[place % len(_LEVELS)], "\\\\")


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


def new_figure(height_in: float, rect: tuple[float, float, float, float] | None = None) -> Figure:
    """Return a figure of the house width on an Agg canvas, known to nobody else.

    ``rect`` (left, bottom, width, height, as fractions) is room to lay axes out in, names included.
    """
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="white")
    FigureCanvasAgg(figure)
    if rect is not None:
        figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect, w_pad=0, h_pad=0, wspace=0.03))
    return figure


def settle(figure: Figure) -> None:
    """Lay out once and for all, rounded: the last bits of the solver differ from run to run."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        x, y, width, height = (round(value, 4) for value in axes.get_position().bounds)
        axes.set_position((x, y, width, height))


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


def along(pixels: npt.NDArray[np.float64]) -> list[Bbox]:
    """Return small boxes along a polyline of shape (points, 2): where a label must not lie."""
    boxes = []
    for a, b in pairwise(pixels):
        steps = max(int(np.hypot(*(b - a)) // 6), 1)
        for i in range(steps + 1):
            x, y = a + (b - a) * i / steps
            boxes.append(Bbox.from_bounds(x - 1.5, y - 1.5, 3, 3))
    return boxes


def text_box(label: Text) -> Bbox:
    """Return the pixels of a text with some air, without the leader line of an annotation."""
    label.get_window_extent()  # puts an annotation where its offset says
    return Text.get_window_extent(label).padded(1.5)


def inside(box: BboxBase, room: BboxBase) -> bool:
    """Return whether ``box`` lies in ``room``."""
    wide = room.x0 <= box.x0 and box.x1 <= room.x1
    return bool(wide and room.y0 <= box.y0 and box.y1 <= room.y1)


def side(offset: float, words: tuple[str, str, str]) -> Any:
    """Return the alignment of a text that stands below, at, or above zero from its point."""
    return words[1] if abs(offset) < 1 else words[0] if offset < 0 else words[2]
