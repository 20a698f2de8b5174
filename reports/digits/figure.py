"""The figure and the table of accuracy.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from accsim.report.style import (
    GREY,
    HEADER_IN,
    INK,
    MARGIN_IN,
    WIDTH_IN,
    header,
    house_style,
    light_grid,
    new_figure,
    settle,
)

HERE = Path(__file__).parent
LABELS = {
    "dense": "dense", "2of4": "2:4 (SR-STE)", "bdwp-2of8": "2:8 both ways (BDWP)",
    "tw": "TW, 75 %", "tvw": "TVW, 75 %", "unstructured": "unstructured, 90 %",
}  # fmt: skip
COLOURS = {"cnn": "#0072B2", "transformer": "#D55E00"}
TITLES = {"cnn": "CNN", "transformer": "transformer"}


def summary(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Return mean, least and most accuracy over the seeds, and the mean loss against dense."""
    dense = accuracy[accuracy.variant == "dense"].set_index(["network", "seed"]).accuracy_percent
    keys = pd.MultiIndex.from_frame(accuracy[["network", "seed"]])
    accuracy = accuracy.assign(against_dense=accuracy.accuracy_percent - dense[keys].to_numpy())
    groups = accuracy.groupby(["network", "variant"], sort=False)
    table = groups.agg(
        density=("density", "mean"), mean=("accuracy_percent", "mean"),
        least=("accuracy_percent", "min"), most=("accuracy_percent", "max"),
        against_dense=("against_dense", "mean"), seeds=("seed", "count"),
    )  # fmt: skip
    return table.reset_index().round({"density": 4}).round(2)


def draw(accuracy: pd.DataFrame) -> None:
    """Draw a dot for every seed and a line for the mean, variant by variant."""
    with house_style():
        height = HEADER_IN + 2.1
        left = MARGIN_IN / WIDTH_IN
        room = (left, 0.03, 1 - 2 * left, 1 - (HEADER_IN - 0.28) / height - 0.03)
        figure = new_figure(height, room)
        panels = figure.subplots(1, len(TITLES), sharey=True)
        for axes, network in zip(panels, TITLES, strict=True):
            _panel(axes, accuracy[accuracy.network == network], network)
        settle(figure)
        seeds, images = accuracy.seed.nunique(), int(accuracy.images.iloc[0])
        header(
            figure, "Test accuracy of the traced digit networks",
            f"a dot a seed ({seeds}; equal ones side by side), a line for their mean"
            f"  ·  {images} test images: one is {100 / images:.2f} %",
        )  # fmt: skip
        for ending, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            figure.savefig(HERE / f"accuracy.{ending}", dpi=160, metadata=metadata)


def _panel(axes: Axes, rows: pd.DataFrame, network: str) -> None:
    for place, variant in enumerate(LABELS):
        mine = rows[rows.variant == variant].accuracy_percent
        for value, count in mine.value_counts().items():
            spread = [place + 0.13 * (i - (count - 1) / 2) for i in range(count)]
            axes.plot([value] * count, spread, "o", ms=4.5, mew=0, color=COLOURS[network])
        axes.plot([mine.mean()] * 2, [place - 0.36, place + 0.36], color=INK, lw=1.2)
        axes.annotate(
            f"{mine.mean():.1f}", (1.02, place), xycoords=("axes fraction", "data"),
            va="center", size=8, color=GREY,
        )  # fmt: skip
    axes.set_yticks(range(len(LABELS)), list(LABELS.values()))
    axes.set_ylim(len(LABELS) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("test accuracy (%), mean at the right")
    axes.set_title(TITLES[network], loc="left", size=9, weight="bold")
    light_grid(axes, "x")
