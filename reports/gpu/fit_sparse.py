"""Fit the sparse kernels of hwconfigs/rtx3090 and A100 to their measured rows, whole and by fold.

    python reports/gpu/fit_sparse.py            # write the folds and parameters the ledger reads
    python reports/gpu/fit_sparse.py --ranges   # print values ± standard errors for the YAML files

Needs scipy (``pip install 'accsim[studies]'``). Every family is fitted by itself: least squares of
log errors, soft-l1 with 0.05. Five folds by weight shape (n, k) on RTX 3090, by matrix on A100:
kernels, tokens and patterns of one shape share a fold. Standard errors are jackknives over folds'
keys. What starts a fit is what the YAML file has: run twice, nothing moves.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from accsim.validate.gpu_sparse import (
    FAMILIES,
    Measured,
    Point,
    hardware,
    key_of,
    roofline_us,
)
from accsim.validate.row import DATA

Floats = npt.NDArray[np.float64]
FOLDS = 5
SOFT = 0.05
# A parameter that the rows do not feel stays near where it starts: weight of ln(value / start).
# Dense and 2:4 GEMMs of one library have several that trade against each other; those start from
# the geometric mean over other GPUs, and stay near it by as much as these differ there.
PRIOR = 0.02
GEMM_START = {"launch_us": 4.2, "issue_share": 0.9, "tile_cycles": 1300.0, "dram_share": 0.77,
              "overlap": 3.8}  # fmt: skip
GEMM_PRIOR = {"launch_us": 0.1, "issue_share": 0.3, "tile_cycles": 0.07, "dram_share": 0.3,
              "overlap": 0.1}  # fmt: skip
MOST = {"issue_share": 1.0, "dram_share": 1.0, "gather_share": 2.0, "overlap": 10.0,
        "launch_us": 30.0}  # fmt: skip
LEAST = {"overlap": 1.0, "concurrency": 1.0}


def fit(family: Measured, points: Sequence[Point], evaluations: int = 60) -> dict[str, float]:
    """Return the family's numbers fitted to some of its rows."""
    kernel = family.kernel(hardware(family.gpu))
    gemm = family.section[0] == "kernels"
    start = np.log([
        GEMM_START[name] if gemm else getattr(kernel, name) or 1e-3 for name in family.own
    ])  # fmt: skip
    weights = np.array([GEMM_PRIOR[name] if gemm else PRIOR for name in family.own])
    least = np.log([LEAST.get(name, 1e-4) * 0.999 for name in family.own])
    most = np.log([MOST.get(name, 1e6) * 1.001 for name in family.own])
    measured = np.log(family.measured_us(points))

    def residuals(logs: Floats) -> Floats:
        us = family.us(points, dict(zip(family.own, np.exp(logs).tolist(), strict=True)))
        return np.concatenate([np.log(us) - measured, weights * (logs - start)])

    found = least_squares(
        residuals, np.clip(start, least + 1e-6, most - 1e-6), bounds=(least, most),
        loss="soft_l1", f_scale=SOFT, diff_step=1e-3, max_nfev=evaluations,
    )  # fmt: skip
    values = np.exp(found.x)
    return {name: float(f"{value:.6g}") for name, value in zip(family.own, values, strict=True)}


def roofline(family: Measured, points: Sequence[Point]) -> dict[str, float]:
    """Return launch, rate and bandwidth of a roofline fitted to some rows; best of nine starts."""
    names = ("launch_us", "macs_per_us", "bytes_per_us")
    measured = np.log(family.measured_us(points))

    def residuals(logs: Floats) -> Floats:
        return np.log(roofline_us(points, dict(zip(names, np.exp(logs), strict=True)))) - measured

    found = min(
        (least_squares(residuals, np.log([15.0, rate, bandwidth]), loss="soft_l1", f_scale=SOFT)
         for rate in (2e5, 2e6, 2e7) for bandwidth in (1e4, 1e5, 1e6)),
        key=lambda one: one.cost,
    )  # fmt: skip
    return {name: float(f"{x:.6g}") for name, x in zip(names, np.exp(found.x), strict=True)}


def folds() -> dict[str, str]:
    """Return the fold of each key, drawn once for each table."""
    found: dict[str, str] = {}
    for table in dict.fromkeys(family.table for family in FAMILIES.values()):
        keys = sorted({
            key_of(point) for family in FAMILIES.values() if family.table == table
            for point in family.points
        })  # fmt: skip
        order = np.random.default_rng(0).permutation(len(keys))
        found |= {keys[j]: str(i % FOLDS) for i, j in enumerate(order)}
    return found


def write() -> None:
    """Fit everything and write both tables."""
    of_key = folds()
    rows = []
    for family in FAMILIES.values():
        points = family.points
        for fold in ("all", *map(str, range(FOLDS))):
            own = [point for point in points if of_key[key_of(point)] != fold]
            if len(own) < len(points) or fold == "all":
                rows += [(family.name, fold, *item) for item in fit(family, own).items()]
                line = roofline(family, own).items()
                rows += [(f"{family.name}/roofline", fold, *item) for item in line]
    _save("gpu_sparse_folds.csv", ("key", "fold"), sorted(of_key.items()))
    _save("gpu_sparse_parameters.csv", ("family", "fold", "parameter", "value"), rows)


def _save(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with (DATA / name).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def ranges() -> None:
    """Print each family's values and their jackknifed standard errors."""
    for family in FAMILIES.values():
        points = family.points
        keys = sorted({key_of(point) for point in points})
        whole = fit(family, points)
        left = [fit(family, [p for p in points if key_of(p) != key], 20) for key in keys]
        for name, value in whole.items():
            others = np.array([one[name] for one in left])
            spread = (len(keys) - 1) / len(keys) * ((others - others.mean()) ** 2).sum()
            print(f"{family.name:14s} {name:15s} {value:10.5g} ± {spread**0.5:.3g}", flush=True)


if __name__ == "__main__":
    ranges() if "--ranges" in sys.argv else write()
