"""A training in a figure: time per epoch by part, and what keeps a step from its bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from accsim.report.style import (
    GREY,
    HEADER_IN,
    INK,
    LOOKS,
    MARGIN_IN,
    WIDTH_IN,
    Look,
    header,
    header_legend,
    house_style,
    light_grid,
    new_figure,
)
from accsim.report.text import plain, si

if TYPE_CHECKING:
    from accsim.training.over import Training
    from accsim.training.step import Step

DPI = 160
# Okabe and Ito again (style.py): hatches tell the parts apart in grey print.
PART_LOOKS = {
    "ff": Look("forward", "#0072B2", ""),
    "bp": Look("backward-data", "#56B4E9", "////"),
    "wu": Look("weight gradient", "#009E73", ""),
    "selection": Look("selection", "#F0E442", "//"),
    "optimiser": Look("optimiser", "#E69F00", "xxxx"),
    "batch_norm": Look("norms", "#CC79A7", "++++"),
    "activation": Look("activation", "#8C8C8C", "...."),
}
WORDS = {
    "bound": "bound: dense / {bound:.2f}",
    "first_layer": "first layer dense",
    "bp_missing": "first layer: no bp",
    "dense_layers": "layers not pruned",
    "unequal": "unequal products",
    "selection": "selection", "optimiser": "optimiser", "batch_norm": "norms",
    "activation": "activation", "memory": "memory", "padding": "padding",
    "fill_drain": "fill and drain", "launch": "launch",
}  # fmt: skip
PART_OF = {"memory": "dram"}
LEAST = 5e-4  # of the dense step; smaller entries are not drawn
BAR_IN, STEP_IN, LABEL_IN, AXIS_IN, GAP_IN, TITLE_IN = 0.36, 0.25, 1.55, 0.55, 0.55, 0.12


def part_word(part: str, bound: float) -> str:
    """Return what a part of the decomposition is called.

    >>> part_word("bound", 2.0), part_word("imbalance", 2.0)
    ('bound: dense / 2.00', 'imbalance')
    """
    return WORDS.get(part, part.replace("_", " ")).format(bound=bound)


def figure(found: Training) -> Figure:
    """Return the figure: left an epoch of each span, right the sparsest step over the bound."""
    with house_style():
        return _figure(found)


def save_figure(found: Training, folder: Path) -> list[Path]:
    """Write ``training.png`` and ``.svg``; the bytes depend on the answer alone."""
    files = []
    with house_style():
        drawn = _figure(found)
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            files.append(folder / f"training.{ending}")
            drawn.savefig(files[-1], dpi=DPI, metadata=metadata)
        drawn.clear()
    return files


def _figure(found: Training) -> Figure:
    step, bars = found.sparsest, _bars(found)
    steps = _steps(step)
    body = max(BAR_IN * len(bars), STEP_IN * (len(steps) + 1), 1.2)
    height = HEADER_IN + TITLE_IN + body + AXIS_IN
    drawn = new_figure(height)
    wide = (WIDTH_IN - 2 * MARGIN_IN - 0.95 - LABEL_IN - GAP_IN) / 2
    left = MARGIN_IN + 0.95
    bottom, tall = AXIS_IN / height, body / height
    epochs = drawn.add_axes((left / WIDTH_IN, bottom, wide / WIDTH_IN, tall))
    right = left + wide + GAP_IN + LABEL_IN
    bound = drawn.add_axes((right / WIDTH_IN, bottom, wide / WIDTH_IN, tall))
    _epochs(epochs, bars)
    _waterfall(bound, step, steps)
    header(drawn, *_title(found))
    used = [part for part in PART_LOOKS if any(by_pass[part] for _, by_pass in bars)]
    keys = [_patch(PART_LOOKS[part]) for part in used]
    header_legend(drawn, keys, 7)
    return drawn


def _title(found: Training) -> tuple[str, str]:
    step = found.sparsest
    title = (f"Training {plain(step.workload.name)} with {step.method.name} on "
             f"{plain(step.device.name)}")  # fmt: skip
    speedup = found.dense_seconds / found.seconds
    words = (f"batch {step.batch:,}  ·  {found.epochs:,} epochs of {found.steps_per_epoch:,} "
             f"steps: {si(found.seconds / 3600, '', 3)} h, {speedup:.2f}× over dense")  # fmt: skip
    return title, words


def _bars(found: Training) -> list[tuple[str, dict[str, float]]]:
    """Return (name, seconds by part) of an epoch: a dense one, then each kind of span."""
    epoch_s = found.steps_per_epoch / (found.sparsest.device.clock_ghz * 1e9)
    kinds = {span.step.state: span.step for span in found.spans}
    dense = {"dense": found.sparsest.dense}
    return [
        (state, {part: epoch_s * cycles for part, cycles in step.by_pass.items()})
        for state, step in (dense | kinds).items()
    ]  # fmt: skip


def _epochs(axes: Axes, bars: list[tuple[str, dict[str, float]]]) -> None:
    longest = max(sum(parts.values()) for _, parts in bars)
    scale, unit = (3600, "h") if longest > 7200 else (60, "min") if longest > 120 else (1, "s")
    for at, (_, parts) in enumerate(bars):
        reached = 0.0
        for part, look in PART_LOOKS.items():
            axes.barh(at, parts[part] / scale, left=reached, height=0.7, color=look.colour,
                      hatch=look.hatch, edgecolor="#FFFFFF", linewidth=0)  # fmt: skip
            reached += parts[part] / scale
        axes.text(reached + 0.012 * longest / scale, at, f"{reached:.3g}", va="center", size=8)
    axes.set_yticks(range(len(bars)), [state for state, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.13 * longest / scale)
    axes.set_xlabel(f"time of one epoch, {unit}")
    axes.set_title("An epoch by part", loc="left", size=9, pad=5)
    light_grid(axes, "x")


def _steps(step: Step) -> list[tuple[str, float]]:
    """Return the entries of the decomposition worth a bar, as shares of the dense step."""
    whole = step.dense.cycles
    found = [(part, cycles / whole) for part, cycles in step.decomposition.items()]
    shown = [x for x in found if x[0] == "bound" or abs(x[1]) >= LEAST]
    rest = sum(share for _, share in found) - sum(share for _, share in shown)
    return [*shown, ("rest", rest)] if abs(rest) >= LEAST else shown


def _waterfall(axes: Axes, step: Step, steps: list[tuple[str, float]]) -> None:
    """Draw the entries one behind the other; the axis begins below the lowest of them."""
    ends = np.cumsum([share for _, share in steps])
    low, high = min(ends), max(ends)
    room = max(high - low, 0.02)
    begin = max(low - 0.25 * room, 0.0)
    reached = begin
    for at, (part, share) in enumerate(steps):
        last, reached = reached, float(ends[at])
        look = _look(part)
        axes.barh(at, abs(reached - last), left=min(last, reached), height=0.66, color=look.colour,
                  hatch=look.hatch, edgecolor="#FFFFFF", linewidth=0)  # fmt: skip
        text = f"{100 * share:.1f} %" if part == "bound" else f"{100 * share:+.1f} %"
        axes.text(max(reached, last) + 0.03 * room, at, text, va="center", size=8)
        axes.plot([reached, reached], [at, at + 1], color=GREY, linewidth=0.6)
    axes.barh(len(steps), reached - begin, left=begin, height=0.66, color=INK)
    axes.text(reached + 0.03 * room, len(steps), f"{100 / step.speedup:.1f} %: {step.speedup:.2f}×",
              va="center", size=8, weight="bold")  # fmt: skip
    names = [part_word(part, step.bound) for part, _ in steps]
    axes.set_yticks(range(len(steps) + 1), [*names, f"{step.method.name} {step.state}"])
    axes.set_ylim(len(steps) + 0.5, -0.5)
    axes.set_xlim(begin, high + 0.75 * room)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}"))
    axes.set_xlabel(f"of the dense step, % (the axis begins at {100 * begin:.0f})")
    axes.set_title("A step over the bound of its MACs", loc="left", size=9, pad=5)
    light_grid(axes, "x")


def _look(part: str) -> Look:
    if part in PART_LOOKS:
        return PART_LOOKS[part]
    return LOOKS.get(PART_OF.get(part, part), LOOKS["work"])


def _patch(look: Look) -> Patch:
    return Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="#FFFFFF", linewidth=0,
                 label=look.label)  # fmt: skip
