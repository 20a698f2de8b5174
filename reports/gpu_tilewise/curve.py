"""Published and predicted speed-up of TW-128 on V100, and what the prediction hangs on.

    python reports/gpu_tilewise/curve.py    # writes curve.csv, sensitivity.csv, curve.png and .svg

Needs scipy: constants that were assumed are changed, and the four fitted numbers refitted to the
six timings; fitted ones are moved by a standard error, the others as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fit
import numpy as np
import pandas as pd

import accsim
from accsim.devices.tensorcore_tilewise import tilewise_costs, tilewise_dense_costs
from accsim.devices.tensorcore_tilewise_schedule import tilewise_schedule
from accsim.engine import compiled
from accsim.report.style import (
    LOOKS,
    header,
    header_legend,
    house_style,
    light_grid,
    new_figure,
    settle,
)
from accsim.spec.gpu import Gpu
from accsim.validate.groups.gpu_tilewise import (
    GPU,
    MIX,
    TOKENS,
    WIDTH,
    layers_of,
    masks_of,
    mixed_us,
    speedup,
    with_kernel,
)
from accsim.validate.row import read

HERE = Path(__file__).parent
SEEDS = range(4)
GRID = [*range(0, 95, 5), 92, 94, 95, 96, 97, 98]
CAUSES = ("work", "padding", "fill_drain", "gather", "imbalance", "throttle", "launch")


def published() -> pd.DataFrame:
    """Return the five digitised points."""
    lines = read("tw_v100_bert_speedup.csv")
    return pd.DataFrame({
        "sparsity_percent": [float(x["sparsity_pct"]) for x in lines],
        "published": [float(x["tw128_speedup_over_dense"]) for x in lines],
    })  # fmt: skip


def played_speedup(gpu: Gpu, sparsity: float) -> float:
    """Return the speed-up if tile-wise calls take what the engine plays, and the power cap's."""
    layers = layers_of(f"tw:{WIDTH}@{sparsity:g}")
    cycles = np.array(
        [compiled.total_cycles(tilewise_schedule(x, masks_of(0), gpu)) for x in layers]
    )
    us = cycles / gpu.clock_ghz * 1e-3
    us += tilewise_costs(layers, masks_of(0), gpu).times_us["throttle"]
    return mixed_us(tilewise_dense_costs(layers_of(), gpu)) / float(us @ np.array(MIX))


def curve(gpu: Gpu) -> pd.DataFrame:
    """Return the speed-up by sparsity: closed form over seeds of the masks, and played."""
    rows = []
    for percent in GRID:
        found = [speedup(gpu, percent / 100, seed=seed) for seed in SEEDS]
        rows.append((percent, np.mean(found), min(found), max(found),
                     played_speedup(gpu, percent / 100)))  # fmt: skip
    names = ["sparsity_percent", "predicted", "least_of_seeds", "most_of_seeds", "played"]
    table = pd.DataFrame(rows, columns=names)
    table = table.merge(published(), on="sparsity_percent", how="left")
    table["error_percent"] = (table.predicted / table.published - 1) * 100
    return table


# --- sensitivity


@dataclass(frozen=True)
class Change:
    """One thing changed: numbers of the kernel, of the GPU, of its board, or what is run."""

    what: str
    kernel: dict[str, Any] = field(default_factory=dict)
    gpu: dict[str, Any] = field(default_factory=dict)
    board: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    refit: bool = True


def changes(gpu: Gpu) -> list[Change]:
    """Return what is tried: each assumed number at its ends, each fitted one a standard error."""
    found = [Change("as it is", refit=False)]
    found += [Change(f"residents {n}", kernel={"residents": n}) for n in (1, 3, 4)]
    ends = {name: gpu.sources[f"tilewise.{name}"] for name in ("dense_edge_us", "launch_us")}
    found += [Change(f"{name} {end:g}", kernel={name: end})
              for name, source in ends.items() for end in (source.low, source.high)]  # fmt: skip
    found += [Change(f"clock {ghz:g} GHz", gpu={"clock_ghz": ghz}) for ghz in (1.2, 1.53)]
    found += [Change(f"cap {watts:g} W", board={"cap_w": watts}) for watts in (200.0, 1000.0)]
    for name in fit.START:
        source = gpu.sources[f"tilewise.{name}"]
        found += [Change(f"{name} {end:g}, not refitted", kernel={name: end}, refit=False)
                  for end in (source.low, source.high)]  # fmt: skip
    found += [Change(f"{t} tokens in the curve", run={"tokens": t}, refit=False)
              for t in (4096, 8192, 16384)]  # fmt: skip
    found += [Change(f"mix {' : '.join(map(str, mix))}", run={"mix": mix}, refit=False)
              for mix in ((3, 1, 1), (4, 1, 0), (1, 1, 1))]  # fmt: skip
    return found


def changed(gpu: Gpu, change: Change) -> Gpu:
    """Return the GPU with the change, refitted if it asks for it."""
    board = gpu.board.model_copy(update=change.board)
    new = with_kernel(gpu.model_copy(update={**change.gpu, "board": board}), **change.kernel)
    if not change.refit:
        return new
    return with_kernel(new, **dict(zip(fit.START, fit.fit(new)[0].tolist(), strict=True)))


def sensitivity(gpu: Gpu) -> pd.DataFrame:
    """Return the error of the six timings and of the five points under every change, in %."""
    rows, points = [], published()
    for change in changes(gpu):
        new = changed(gpu, change)
        values = np.array([getattr(new.tilewise, name) for name in fit.START])
        six = np.sqrt(np.mean(fit.errors(values, new) ** 2)) * 100
        found = [speedup(new, s / 100, **change.run) for s in points.sparsity_percent]
        rows.append((change.what, "yes" if change.refit else "no", six,
                     *((np.array(found) / points.published - 1) * 100), *values))  # fmt: skip
    at = [f"error_at_{s:g}_percent" for s in points.sparsity_percent]
    return pd.DataFrame(rows, columns=["change", "refitted", "six_rms_percent", *at, *fit.START])


# --- the figure


def figure(table: pd.DataFrame, gpu: Gpu) -> None:
    """Draw the curve, and where the time of BERT's GEMMs goes."""
    with house_style():
        picture = new_figure(4.3, (0.005, 0.02, 0.99, 0.76))
        left, right = picture.subplots(1, 2, width_ratios=(1.15, 1))
        _curves(left, table)
        handles = _shares(right, gpu)
        error = table.error_percent.abs().max()
        header(
            picture, "Tile-wise sparsity on V100: fitted to six timings, none of the curve",
            f"BERT's GEMMs, {TOKENS} tokens, TW-{WIDTH}: published points within {error:.1f} %",
        )  # fmt: skip
        header_legend(picture, handles, 7)
        settle(picture)
        picture.savefig(HERE / "curve.svg", metadata={"Date": None})
        picture.savefig(HERE / "curve.png", dpi=150, metadata={"Software": None})


def _curves(axes: Any, table: pd.DataFrame) -> None:
    axes.plot(table.sparsity_percent, table.predicted, color="#0072B2", lw=1.6, label="predicted")
    axes.plot(table.sparsity_percent, table.played, color="#56B4E9", lw=1.1, ls="--",
              label="tiles played by the engine")  # fmt: skip
    axes.plot(table.sparsity_percent, table.published, "o", ms=6, color="#D55E00",
              label="published (SC'20, fig. 11)")  # fmt: skip
    for row in table.dropna().itertuples():
        low = row.sparsity_percent < 60
        axes.annotate(f"{row.error_percent:+.1f} %", (row.sparsity_percent, row.published),
                      xytext=(8, -16) if low else (-8, 3), textcoords="offset points",
                      ha="left" if low else "right", fontsize=8)  # fmt: skip
    axes.axhline(1, color="#5F5F5F", lw=0.8)
    axes.set(yscale="log", xlabel="sparsity (%)", ylabel="speed-up over dense", ylim=(0.6, 8),
             xlim=(-4, 100))  # fmt: skip
    axes.set_yticks([0.7, 1, 1.5, 2, 3, 5], ["0.7", "1", "1.5", "2", "3", "5"])
    axes.minorticks_off()
    axes.legend(loc="upper left")
    light_grid(axes, "y")


def _shares(axes: Any, gpu: Gpu) -> list[Any]:
    costs = {"dense": tilewise_dense_costs(layers_of(), gpu)}
    for percent in published().sparsity_percent:
        pruned = layers_of(f"tw:{WIDTH}@{percent / 100:g}")
        costs[f"{percent:g} %"] = tilewise_costs(pruned, masks_of(0), gpu)
    below, handles = np.zeros(len(costs)), []
    for cause in CAUSES:
        ms = np.array([x.time(cause) @ np.array(MIX) for x in costs.values()]) * 1e-3
        label, colour, hatch = LOOKS[cause]
        handles.append(axes.bar(list(costs), ms, 0.7, bottom=below, label=label, color=colour,
                                hatch=hatch, ec="white", lw=0.4))  # fmt: skip
        below += ms
    for at, total in enumerate(below):
        axes.annotate(f"{total:.2f}", (at, total), xytext=(0, 3), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    axes.set(ylabel="time of BERT's GEMMs (ms)", xlabel="sparsity")
    light_grid(axes, "y")
    return handles


def main() -> None:
    """Write both tables and the figure."""
    gpu = accsim.load_hardware(GPU)
    table = curve(gpu)
    table.round(4).to_csv(HERE / "curve.csv", index=False)
    found = sensitivity(gpu)
    found.round(2).to_csv(HERE / "sensitivity.csv", index=False)
    print(table.dropna().round(3).to_string(index=False))
    print(found.round(1).to_string(index=False))
    figure(table, gpu)


if __name__ == "__main__":
    main()
