"""Predictions of the measured GPU products: out of fold, from other devices, from few points.

Which parameters a prediction uses is kept in ``data/gpu_gemm_fits.csv``, made by
``reports/gpu_gemm/fit.py``; the products and the closed form are evaluated anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.rng import stream
from accsim.calibrate.gpu import FAMILIES, comparable, model_of
from accsim.calibrate.held_out import fold_of
from accsim.calibrate.measurements import Measurements, read
from accsim.devices.tensorcore_operands import operands_of
from accsim.files.hardware import load_hardware
from accsim.spec.gpu import PARAMETERS, Gpu
from accsim.validate.row import DATA
from accsim.validate.row import read as read_data

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POINTS = "gpu_gemm.csv"
FITS = "gpu_gemm_fits.csv"
HARDWARE = {
    "a100-pcie-80gb": "a100_pcie_80gb",
    "h100-pcie-80gb": "h100_pcie_80gb",
    "rtx5080": "rtx5080",
    "gb10": "gb10",
}
FOLDS, FEW, DRAWS = 5, 24, 3
LEAST = 20  # points of a device, format and pattern; fewer are not cross-validated
ROOFLINE = ("launch_us", "tera_macs_per_s", "gb_per_s")


@dataclass(frozen=True, eq=False)
class Case:
    """The measured products of one device, number format and pattern."""

    device: str
    dtype: str
    pattern: str
    rows: Measurements

    @property
    def key(self) -> tuple[str, str, str]:
        """What its fits are kept under."""
        return self.device, self.dtype, self.pattern

    @property
    def gpu(self) -> Gpu:
        """The device as it is shipped."""
        return gpu_of(self.device)

    @property
    def y_bytes(self) -> float:
        """Bytes of an output: the dense int8 products write int32, the others 16 bits."""
        return 4.0 if (self.dtype, self.pattern) == ("int8", "dense") else 2.0

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """The fold of each product, by (n, k)."""
        return fold_of(self.rows.groups, FOLDS)

    def few(self, draw: int) -> Bools:
        """Return which 24 products a draw uses."""
        order = stream(draw, "gpu_gemm", "few", self.device, self.dtype).permutation(1000)
        chosen = np.zeros(len(self.rows), dtype=np.bool_)
        chosen[[i for i in order if i < len(self.rows)][:FEW]] = True
        return chosen

    def predict(self, values: Mapping[str, float], gpu: Gpu | None = None) -> Floats:
        """Return µs of the closed form with a kernel's eight parameters."""
        found: Floats = self.costs(values, gpu).total_us
        return found

    def costs(self, values: Mapping[str, float], gpu: Gpu | None = None) -> Any:
        """Return the closed form's costs with a kernel's eight parameters."""
        found = gpu or self.gpu
        return model_of(found, FAMILIES[self.pattern], self.dtype, self.rows, self.y_bytes)(values)

    def roofline(self, values: Mapping[str, float]) -> Floats:
        """Return µs of the trivial model: launch + max(MACs / rate, bytes / bandwidth)."""
        rows = self.rows
        operands = operands_of(self.dtype, FAMILIES[self.pattern], self.gpu, self.y_bytes)
        t, k, n = (x.astype(np.float64) for x in (rows.t, rows.k, rows.n))
        moved = n * k * operands.packed_bytes + t * k * operands.x_bytes + t * n * operands.y_bytes
        math = t * k * n / values["tera_macs_per_s"] * 1e-6
        found: Floats = values["launch_us"] + np.maximum(math, moved / values["gb_per_s"] * 1e-3)
        return found


@cache
def gpu_of(device: str) -> Gpu:
    """Return the shipped hardware of a measured device."""
    found: Gpu = load_hardware(HARDWARE[device])
    return found


@cache
def cases() -> tuple[Case, ...]:
    """Return every device, format and pattern with points enough, those not comparable left out."""
    points = read(DATA / POINTS)
    found = []
    for device in HARDWARE:
        for dtype in dict.fromkeys(points.dtype[points.device == device].tolist()):
            for pattern in FAMILIES:
                mine = points.take(
                    (points.device == device)
                    & (points.dtype == dtype)
                    & (points.pattern == pattern)
                )
                mine = mine.take(comparable(mine))
                if len(mine) >= LEAST:
                    found.append(Case(device, dtype, pattern, mine))
    return tuple(found)


@cache
def _fits() -> dict[tuple[str, ...], dict[str, float]]:
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for row in read_data(FITS):
        names = PARAMETERS if row["model"] == "gemm" else ROOFLINE
        key = (row["model"], row["device"], row["dtype"], row["pattern"], row["role"], row["index"])
        found[key] = {name: float(row[f"p{i + 1}"]) for i, name in enumerate(names)}
    return found


def values_of(case: Case, role: str, index: int = 0, model: str = "gemm") -> dict[str, float]:
    """Return kept parameters: role ``all``, ``fold`` or ``few``."""
    return _fits()[(model, *case.key, role, str(index))]


def out_of_fold(case: Case, model: str = "gemm") -> Floats:
    """Return each product's µs by a fit that did not see its (n, k)."""
    folds = case.folds
    found = np.zeros(len(folds))
    for fold in range(FOLDS):
        values = values_of(case, "fold", fold, model)
        us = case.predict(values) if model == "gemm" else case.roofline(values)
        found[folds == fold] = us[folds == fold]
    return found


def from_others(case: Case) -> dict[str, float]:
    """Return parameters from the other devices' fits alone: what a datasheet user has.

    The median over the other devices' formats of each parameter; the energy of a MAC is the one
    the device's own board file states.
    """
    others = [
        values_of(other, "all")
        for other in cases()
        if other.device != case.device and other.pattern == case.pattern
    ]
    found = {name: float(np.median([x[name] for x in others])) for name in PARAMETERS}
    return found | {"mac_pj": stated_mac_pj(case)}


def stated_mac_pj(case: Case) -> float:
    """Return the energy of an executed MAC as the board states it, nothing calibrated."""
    table = case.gpu.board.energy
    pj = {str(name): value for name, value in table.mma_pj.items()}[case.dtype]
    return pj * (table.sparse_mma_factor if case.pattern == "2:4" else 1.0)


def few_shot(case: Case) -> Iterator[tuple[Floats, Bools]]:
    """Yield, for each draw of 24 products, predictions of all of them and which were not used."""
    for draw in range(DRAWS):
        yield case.predict(values_of(case, "few", draw)), ~case.few(draw)
