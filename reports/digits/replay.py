"""Cycles under the trained masks against masks of synthetic weights; writes replay.csv.

    python reports/digits/replay.py               # seconds, without torch

Patterns whose cycles depend on the mask alone, int8 (fp32 waits for DRAM, whatever the mask).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import accsim
from accsim.sparsity.masks import Masks
from accsim.traces.load import load_workload
from accsim.traces.replay import masks_of

HERE = Path(__file__).parent
TRACES = HERE.parent.parent / "workloads" / "traces"
HARDWARE = ("systolic_nm_32x32", "systolic_nm8_32x32", "systolic_nm_16x16")
SEEDS = range(5)  # of the synthetic weights


def compared(name: str, hardware: str) -> dict[str, object]:
    """Return the cycles of a trace and the mean over synthetic masks of the same patterns."""
    net = load_workload(TRACES / f"{name}.trace", dtype="int8")
    device = accsim.load_hardware(hardware)
    found = accsim.simulate(net, device, masks=masks_of(net))
    synthetic = [accsim.simulate(net, device, masks=Masks(seed)).cycles for seed in SEEDS]
    mean = sum(synthetic) / len(synthetic)
    return {
        "trace": name, "hardware": hardware, "cycles": found.cycles,
        "adaptive_layers": found.columns["mode"].count("adaptive"),
        "synthetic_mean": round(mean),
        "difference_percent": round(100 * (found.cycles / mean - 1), 1),
    }  # fmt: skip


def main() -> None:
    """Compare every trace on every device."""
    names = [
        f"digits-{network}-{variant}"
        for network in ("cnn", "transformer")
        for variant in ("tw", "tvw", "unstructured")
    ]
    table = pd.DataFrame([compared(name, hardware) for name in names for hardware in HARDWARE])
    table.to_csv(HERE / "replay.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
