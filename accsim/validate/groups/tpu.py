"""Timing ``compiled`` against measured Cloud-TPU matmuls, by group and half."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from accsim.devices.systolic import SystolicDevice
from accsim.files.hardware import load_hardware
from accsim.sparsity.masks import Masks
from accsim.spec.workload import gemm
from accsim.validate.row import Row, read

SOURCE = (
    "Cloud-TPU matmuls of SCALE-Sim-validation (MIT); error of {line} fitted a group, as published"
)
BASELINES = {
    "scalesim_line": ("a line in SCALE-Sim's cycles", {"small": 2.7, "medium": 12.9, "large": 8.7}),
    "mac_line": ("a line in MACs", {"small": 5.2, "medium": 11.8, "large": 7.9}),
}
SEEN = "half not fitted to, but the form of the model was chosen seeing all points"


def held_out(t: str, k: str, n: str) -> bool:
    """Say whether a point belongs to the half that no number was fitted to."""
    return bool(hashlib.sha256(f"{t},{k},{n}".encode()).digest()[-1] & 1)


def errors_percent() -> dict[tuple[str, bool], float]:
    """Return the mean absolute error by group and whether held out, of hwconfigs/tpu_cloud."""
    points = read("tpu_matmul.csv")
    layers = [
        gemm(int(p["t"]), int(p["k"]), int(p["n"]), dtype="fp32", name=f"p{i}").layers[0]
        for i, p in enumerate(points)
    ]
    hardware = load_hardware("tpu_cloud")
    found = SystolicDevice(hardware).evaluate(layers, Masks())
    ours_us = found.cycles / hardware.clock_ghz * 1e-3
    measured_us = np.array([float(p["avg_us"]) for p in points])
    error = np.abs(ours_us / measured_us - 1) * 100
    keys = [(p["group"], held_out(p["t"], p["k"], p["n"])) for p in points]
    return {
        key: float(error[[other == key for other in keys]].mean()) for key in dict.fromkeys(keys)
    }


def rows() -> Iterator[Row]:
    """Yield each group against both published baselines, and the half fitted to."""
    found = errors_percent()
    for name, (line, published) in BASELINES.items():
        for group, percent in published.items():
            yield Row(
                id=f"tpu/{group}/{name}", quantity=f"mean |error|, {group}, held out", unit="%",
                source=SOURCE.format(line=line), high=percent, ours=found[group, True],
                remark=SEEN,
            )  # fmt: skip
    for group, percent in BASELINES["scalesim_line"][1].items():
        yield Row(
            id=f"tpu/{group}/fitted_half", quantity=f"mean |error|, {group}, half fitted to",
            unit="%", source=SOURCE.format(line=BASELINES["scalesim_line"][0]), high=percent,
            ours=found[group, False], status="fitted", remark="six numbers fitted to this half",
        )  # fmt: skip
