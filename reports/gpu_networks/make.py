"""networks.csv and its figure: whole networks on an A100, GEMMs alone and end to end.

python reports/gpu_networks/make.py
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

import accsim
from accsim.network import EndToEnd, end_to_end
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
from accsim.sparsity.masks import Masks
from accsim.spec.workload import Workload

HERE = Path(__file__).parent
GPU, DTYPE, SEED, DPI = "a100_pcie_80gb", "fp16", 0, 160
# What is drawn under each pattern: its families are 50 % (2:4) or 75 % sparse.
PATTERNS = {
    "dense": "dense", "2:4": "2:4\n50 %", "tw:128@0.75": "TW\n75 %", "tvw:128@0.75": "TVW\n75 %",
    "bsr:32@0.75": "block 32\n75 %", "unstructured@0.75": "unstr.\n75 %",
}  # fmt: skip


class Network(NamedTuple):
    """A network, its batch; layers that stay dense; alike blocks, of which the first is run."""

    name: str
    batch: int
    title: str
    skip: tuple[str, ...] = ()
    block: str = ""
    blocks: int = 0


LLAMA: Any = {"skip": ("lm_head",), "block": "model.layers.0.*", "blocks": 32}
NETWORKS = (
    Network("bert-base", 32, "BERT-base, 128 tokens, batch 32"),
    Network("resnet50", 32, "ResNet-50, batch 32"),
    Network("vgg16", 32, "VGG-16, batch 32"),
    Network("llama-3-8b-prefill", 1, "Llama 3 8B prefill, 2048 tokens", **LLAMA),
    Network("llama-3-8b-decode", 1, "Llama 3 8B decode, batch 1", **LLAMA),
    Network("llama-3-8b-decode", 32, "Llama 3 8B decode, batch 32", **LLAMA),
)
BAR = {False: ("GEMMs alone", "#0072B2", ""), True: ("end to end, fused", "#E69F00", "////")}


class Gemms(NamedTuple):
    """Seconds, joules and modes of a network's GEMMs."""

    seconds: float
    joules: float
    modes: tuple[str, ...]


def gemms(network: Network, workload: Workload, hardware: Any, masks: Masks) -> Gemms:
    """Return the GEMMs of a network; of alike blocks only the first has masks made."""
    if not network.blocks:
        found = end_to_end(accsim.simulate(workload, hardware, masks=masks))
        return Gemms(found.gemm_s, found.gemm_energy_j, found.modes)
    block = end_to_end(accsim.simulate(workload.select(network.block), hardware, masks=masks))
    rest = accsim.simulate(workload.select(*network.skip), hardware, masks=masks)
    return Gemms(
        block.gemm_s * network.blocks + rest.latency_s,
        block.gemm_energy_j * network.blocks + rest.energy_j,
        block.modes,
    )


def rows(hardware: Any, masks: Masks) -> list[dict[str, Any]]:
    """Return one row a network and pattern; what is no GEMM is the same for all patterns.

    Pattern by pattern, so that networks of the same matrices share their masks.
    """
    dense = [accsim.load_workload(x.name, batch=x.batch, dtype=DTYPE) for x in NETWORKS]
    runs = [accsim.simulate(workload, hardware) for workload in dense]
    others = [{fused: end_to_end(run, fused) for fused in (False, True)} for run in runs]
    base = [gemms(x, w, hardware, masks) for x, w in zip(NETWORKS, dense, strict=True)]
    made: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(NETWORKS))}
    for pattern in PATTERNS:
        for i, network in enumerate(NETWORKS):
            start = time.perf_counter()
            workload = dense[i].prune(pattern, skip=network.skip)
            found = gemms(network, workload, hardware, masks)
            made[i].append(_row(network, pattern, found, base[i], others[i]))
            print(f"{pattern} {network.name}: {time.perf_counter() - start:.1f} s", flush=True)
    return [row for each in made.values() for row in each]


def _row(
    network: Network, pattern: str, found: Gemms, base: Gemms, others: dict[bool, EndToEnd]
) -> dict[str, Any]:
    row = {
        "network": network.name, "pattern": pattern, "batch": network.batch, "dtype": DTYPE,
        "modes": " + ".join(found.modes), "gemm_ms": found.seconds * 1e3,
        "gemm_energy_mj": found.joules * 1e3, "gemm_speedup": base.seconds / found.seconds,
    }  # fmt: skip
    for fused, word in ((True, "fused"), (False, "not_fused")):
        other = others[fused]
        total = found.seconds + other.other_s
        row |= {
            f"{word}_ms": total * 1e3,
            f"{word}_energy_mj": (found.joules + other.other_energy_j) * 1e3,
            f"{word}_speedup": (base.seconds + other.other_s) / total,
            f"{word}_other_share": other.other_s / total,
        }
    return row


def draw(table: pd.DataFrame) -> None:
    """Draw the speed-ups: a panel a network, two bars a pattern, the line of 1×."""
    with house_style():
        height = HEADER_IN + 4.8
        left = MARGIN_IN / WIDTH_IN
        figure = new_figure(height, (left, 0.03, 1 - 2 * left, 1 - HEADER_IN / height - 0.03))
        panels = figure.subplots(2, 3, sharey=True).flat
        for axes, network in zip(panels, NETWORKS, strict=True):
            mine = table[(table.network == network.name) & (table.batch == network.batch)]
            _panel(axes, mine[mine.pattern != "dense"], network.title)
        for axes in figure.axes[::3]:
            axes.set_ylabel("speed-up over dense (×)")
            axes.set_ylim(0, 1.2 * table[["gemm_speedup", "fused_speedup"]].to_numpy().max())
        settle(figure)
        header(
            figure, "Pruned networks on an A100 PCIe 80 GB: GEMMs alone and end to end",
            "fp16  ·  predicted  ·  pale: no kernel for the pattern, runs dense",
        )  # fmt: skip
        legend = [Patch(facecolor=c, hatch=h, edgecolor="white", label=w)
                  for w, c, h in BAR.values()]  # fmt: skip
        header_legend(figure, legend, 2)
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            figure.savefig(HERE / f"speedup.{ending}", dpi=DPI, metadata=metadata)


def _panel(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    light_grid(axes, "y")
    columns = {False: "gemm_speedup", True: "fused_speedup"}
    for at, row in enumerate(rows.to_dict("records")):
        pale = row["modes"] == "dense"
        for whole, column in columns.items():
            _, colour, hatch = BAR[whole]
            x, value = at + (0.2 if whole else -0.2), row[column]
            axes.bar(x, value, 0.38, color=_lighter(colour) if pale else colour, hatch=hatch,
                     edgecolor="white", linewidth=0)  # fmt: skip
            axes.annotate(f"{value:.2f}", (x, value), (0, 3), textcoords="offset points",
                          ha="center", va="bottom", size=7, color=INK, rotation=90,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})  # fmt: skip
    axes.axhline(1.0, color=GREY, linewidth=1.0, linestyle="--", zorder=0.9)
    axes.set_xticks(range(len(rows)), [PATTERNS[x] for x in rows.pattern])
    axes.set_title(title, size=9, loc="left")


def _lighter(colour: str) -> Any:
    """Return a colour mixed with two thirds of white."""
    return tuple(1 - (1 - part) / 3 for part in to_rgb(colour))


def main() -> None:
    """Write networks.csv, speedup.png and speedup.svg."""
    hardware, masks = accsim.load_hardware(GPU), Masks(SEED)
    table = pd.DataFrame(rows(hardware, masks))
    table.to_csv(HERE / "networks.csv", index=False, float_format="%.4g", lineterminator="\n")
    draw(table)


if __name__ == "__main__":
    main()
