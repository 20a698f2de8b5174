"""Tables and figures of the measured GPU products against the closed form.

    python reports/gpu_gemm/make.py            # all tables and figures: a few seconds
    python reports/gpu_gemm/make.py --figure   # figures again, from the tables

The parameters are those kept by fit.py; the closed form is evaluated anew.
Needs pandas and matplotlib.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import figures
import numpy as np
import pandas as pd

from accsim.calibrate.gpu import FAMILIES, base_values, comparable
from accsim.calibrate.held_out import error_table
from accsim.calibrate.measurements import Measurements, read
from accsim.validate import gpu_gemm_model as model
from accsim.validate.groups import gpu_gemm as group
from accsim.validate.row import DATA

HERE = Path(__file__).parent
TABLES = ("points", "errors", "speedups")
SHAPE = ["device", "dtype", "t", "k", "n"]
# Of one prediction a product; the fourth, from 24 products, has three draws and is added below.
MODELS = {
    "out of fold": "predicted_us",
    "roofline, out of fold": "roofline_us",
    "datasheet only": "datasheet_us",
}


def points() -> pd.DataFrame:
    """Return every compared product, its predictions, and what bounds it."""
    return pd.concat([_points(case) for case in model.cases()], ignore_index=True)


def _points(case: model.Case) -> pd.DataFrame:
    rows, predicted = case.rows, model.out_of_fold(case)
    return pd.DataFrame({
        "device": case.device, "dtype": case.dtype, "pattern": case.pattern,
        "t": rows.t, "k": rows.k, "n": rows.n,
        "measured_us": rows.latency_us, "predicted_us": predicted,
        "error": predicted / rows.latency_us - 1,
        "regime": case.costs(model.values_of(case, "all")).regime,
        "datasheet_us": case.predict(model.from_others(case)),
        "roofline_us": model.out_of_fold(case, "roofline"),
        "flags": rows.flags,
    })  # fmt: skip


def errors(compared: pd.DataFrame) -> pd.DataFrame:
    """Return sizes and bias of errors by device, format, pattern and regime, for each model."""
    found = []
    for (device, dtype, pattern), mine in compared.groupby([*SHAPE[:2], "pattern"], sort=False):
        for name, column in MODELS.items():
            table = error_table(mine.measured_us, mine[column], mine.regime)
            found += [(device, dtype, pattern, name, row) for row in table]
    found += [(*case.key, "24 products", row) for case in model.cases() for row in _few(case)]
    for pattern, mine in compared.groupby("pattern", sort=False):
        for name, column in MODELS.items():
            table = error_table(mine.measured_us, mine[column], mine.regime)
            found += [("all", "all", pattern, name, row) for row in table]
    found += _left_out()
    columns = ("n", "median", "mean", "p90", "worst", "bias")
    return pd.DataFrame([
        {"device": device, "dtype": dtype, "pattern": pattern, "model": name, "regime": row.regime}
        | {column: getattr(row, column) for column in columns}
        for device, dtype, pattern, name, row in found
    ])  # fmt: skip


def _few(case: model.Case) -> list:
    """Return the errors of all draws of 24 products, on the products they did not use."""
    measured = case.rows.latency_us
    regime = case.costs(model.values_of(case, "all")).regime
    draws = [(us[rest], measured[rest], regime[rest]) for us, rest in model.few_shot(case)]
    us, measured, regime = (np.concatenate(x) for x in zip(*draws, strict=True))
    return error_table(measured, us, regime)


def _left_out() -> Iterator[tuple]:
    """Yield the errors of the shipped device on dense products flagged as not comparable."""
    rows = read(DATA / model.POINTS)
    for device in model.HARDWARE:
        for dtype in dict.fromkeys(rows.dtype[rows.device == device].tolist()):
            mine = rows.take((rows.device == device) & (rows.dtype == dtype))
            mine = mine.take((mine.pattern == "dense") & ~comparable(mine))
            if len(mine):
                row = error_table(mine.latency_us, _shipped(mine), np.full(len(mine), "x"))[-1]
                yield device, dtype, "dense", "shipped, rows left out", row


def _shipped(rows: Measurements) -> np.ndarray:
    device, dtype = str(rows.device[0]), str(rows.dtype[0])
    case = model.Case(device, dtype, "dense", rows)
    return case.predict(base_values(case.gpu, FAMILIES["dense"], dtype))


def pairs(compared: pd.DataFrame) -> pd.DataFrame:
    """Return measured and predicted speed-ups of 2:4 of the shapes that have both."""
    dense, sparse = (compared[compared.pattern == pattern] for pattern in ("dense", "2:4"))
    both = dense.merge(sparse, on=SHAPE, suffixes=("_dense", "_sparse"), validate="1:1")
    return both[SHAPE].assign(
        measured=both.measured_us_dense / both.measured_us_sparse,
        predicted=both.predicted_us_dense / both.predicted_us_sparse,
    )


def speedups(compared: pd.DataFrame) -> pd.DataFrame:
    """Return how well faster and slower, and the order of speed-ups, are told."""
    both = pairs(compared)
    found = []
    for device in (*model.HARDWARE, "all"):
        mine = both if device == "all" else both[both.device == device]
        for dtype in ("all", *mine.dtype.unique()) if device != "all" else ("all",):
            found.append((device, dtype, mine if dtype == "all" else mine[mine.dtype == dtype]))
    return pd.DataFrame([
        {"device": device, "dtype": dtype} | _told(mine.measured, mine.predicted)
        for device, dtype, mine in found
    ])  # fmt: skip


def _told(measured: pd.Series, predicted: pd.Series) -> dict[str, float]:
    theirs, ours = measured.to_numpy(), predicted.to_numpy()
    slower = theirs < 1 / (1 + group.CLEAR)
    return {
        "shapes": len(theirs),
        "clear": int((np.abs(np.log(theirs)) > np.log1p(group.CLEAR)).sum()),
        "slower": int(slower.sum()),
        "slower_told": int((ours[slower] < 1).sum()),
        "sign_percent": group.sign_percent(theirs, ours),
        "always_faster_percent": group.sign_percent(theirs, np.full_like(theirs, 2.0)),
        "spearman": group.rank_correlation(theirs, ours),
        "spread": float(np.std(np.log(theirs))),
        "misfit": float(np.std(np.log(ours / theirs))),
    }


def tables() -> None:
    """Write the tables."""
    compared = points()
    for name, table in zip(TABLES, (compared, errors(compared), speedups(compared)), strict=True):
        table.to_csv(HERE / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")


def main() -> None:
    """Write the tables unless only figures are wanted; draw the figures from them."""
    if "--figure" not in sys.argv:
        tables()
    found = {name: pd.read_csv(HERE / f"{name}.csv", keep_default_na=False) for name in TABLES}
    figures.draw(found["points"], found["errors"], found["speedups"], pairs(found["points"]))


if __name__ == "__main__":
    main()
