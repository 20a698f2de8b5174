"""Timing ``scalesim_v3`` against runs of SCALE-Sim 3.0.0 itself: its numbers, to the last digit.

The timing is built to reproduce that simulator, two known bugs included: agreement says that it
does, and nothing about hardware.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from accsim.devices import scalesim
from accsim.validate.row import Row, read

SOURCE = "SCALE-Sim 3.0.0 from PyPI (MIT), run by this project; data/README.md"
VIT_S = "ViT-S, one block, sum of its five layers of vit_s.csv, 32x32 {flow}"
QUANTITIES = {
    "overall_util_pct": "overall utilisation",
    "mapping_efficiency_pct": "mapping efficiency",
    "compute_util_pct": "compute utilisation",
    "ifmap_reads": "SRAM reads of the input",
    "filter_reads": "SRAM reads of the filter",
    "ofmap_writes": "SRAM writes of the output",
}


def rows() -> Iterator[Row]:
    """Yield one row a run, one a further quantity over all runs, and the totals of ViT-S."""
    runs = read("scalesim_v3.csv")
    agreeing = dict.fromkeys(QUANTITIES, 0)
    for run in runs:
        shape = tuple(int(run[key]) for key in ("t", "k", "n", "rows", "cols"))
        pattern = tuple(int(run[key] or 1) for key in ("pattern_n", "pattern_m"))
        given = (*shape, run["dataflow"], *pattern)
        for name, found in _others(given).items():
            agreeing[name] += float(found) == float(run[name])
        yield _cycles(run, given)
    for name, what in QUANTITIES.items():
        yield Row(
            id=f"scalesim/{name}", quantity=f"{what}: runs that agree to the last digit",
            unit="runs", source=SOURCE, low=len(runs), high=len(runs), ours=agreeing[name],
        )  # fmt: skip
    for flow, total in (("os", 352_781), ("ws", 397_875), ("is", 380_249)):
        block = [run for run in runs if run["net"] == "vit_s" and run["dataflow"] == flow]
        t, k, n = (np.array([int(run[key]) for run in block]) for key in "tkn")
        ours = int(scalesim.cycles(t, k, n, 32, 32, flow).sum())
        yield Row(
            id=f"scalesim/vit_s/{flow}", quantity=VIT_S.format(flow=flow), unit="cycles",
            source="SCALE-Sim 3.0.0, totals quoted in facts/systolic_abft.md",
            low=total, high=total, ours=ours,
        )  # fmt: skip


def _cycles(run: dict[str, str], given: tuple[Any, ...]) -> Row:
    t, k, n, rows, cols, flow, *_ = given
    pattern = f" {run['pattern_n']}:{run['pattern_m']}" if run["pattern_n"] else ""
    total = int(run["total_cycles"])
    return Row(
        id=f"scalesim/{t}x{k}x{n}/{rows}x{cols}/{flow}{pattern.replace(' ', '/')}",
        quantity=f"cycles of {t}x{k}x{n}{pattern} on {rows}x{cols} {flow}", unit="cycles",
        source=SOURCE, low=total, high=total, ours=int(scalesim.cycles(*given)),
    )  # fmt: skip


def _others(given: tuple[Any, ...]) -> dict[str, Any]:
    used, counts = scalesim.utilisations(*given), scalesim.sram_counts(*given)
    shares = (used.overall, used.mapping_efficiency, used.compute)
    accesses = (counts.ifmap_reads, counts.filter_reads, counts.ofmap_writes)
    return dict(zip(QUANTITIES, (*shares, *accesses), strict=True))
