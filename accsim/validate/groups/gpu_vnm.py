"""V:N:M, 2:4, dense, single weights and vectors on an RTX 3090, numbers fitted out of fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.validate.gpu_sparse import (
    ABLATION,
    FAMILIES,
    IDEAL,
    SOURCES,
    VNM_TABLE,
    Point,
    family_rows,
    fields,
    fold_of,
    numbers,
    parameters,
    percent,
    rank_correlation,
)
from accsim.validate.row import Row, read

Floats = npt.NDArray[np.float64]

LABELS = {
    "vnm": "V:2:M by Spatha",
    "nm_3090": "2:4 by cuSPARSELt",
    "dense_3090": "dense by cuBLAS",
    "sputnik": "98 % unstructured by Sputnik",
    "clasp": "98 % in vectors by CLASP",
}
AIM = 10.0  # %, mean
NEAR = 0.10  # of a median speed-up: two latencies, each within some percent


def rows() -> Iterator[Row]:
    """Yield errors by kernel, what nothing was fitted to, and speed-ups over cuBLAS."""
    for name, label in LABELS.items():
        yield from family_rows(name, label)
    spatha = FAMILIES["vnm"]
    points = spatha.points
    measured = spatha.measured_us(points)
    yield Row(
        id="gpu_vnm/vnm/aim", quantity="mean |error|, V:2:M by Spatha, out of fold", unit="%",
        source="this project's aim for V:N:M", high=AIM,
        ours=float(percent(spatha.held_out_us(), measured).mean()),
    )  # fmt: skip
    yield from _never_fitted(IDEAL, "without_positions", {"index_fills": 0.0, "index_bytes": 0.0})
    yield from _never_fitted(ABLATION, "ablation", {})
    yield from _speed_ups(points, measured)


def _never_fitted(kernel: str, name: str, changed: dict[str, Any]) -> Iterator[Row]:
    """Yield the error on a variant of Spatha, by numbers fitted to others of Spatha's rows."""
    spatha = FAMILIES["vnm"]
    points = [row for row in read(VNM_TABLE) if row["kernel"] == kernel]
    ours = [float(spatha.us([p], {**parameters("vnm", fold_of(p)), **changed})[0]) for p in points]
    error = percent(np.array(ours), spatha.measured_us(points))
    yield Row(
        id=f"gpu_vnm/vnm/{name}", quantity=f"mean |error|, {kernel}", unit="%",
        source=f"{SOURCES[VNM_TABLE]}; reference: this project's aim", high=AIM,
        ours=float(error.mean()), remark=f"{len(points)} rows, none fitted to",
    )  # fmt: skip


def _speed_ups(points: Sequence[Point], measured: Floats) -> Iterator[Row]:
    """Yield signs, ranks and medians of Spatha's speed-up over cuBLAS, both predicted."""
    dense = FAMILIES["dense_3090"].held_out_us(points)
    ours = dense / FAMILIES["vnm"].held_out_us()
    real = numbers(points, "cublas_ms") * 1e3 / measured
    about = f"{len(points)} pairs; Spatha and cuBLAS each fitted without the row's weight shape"
    trivial = fields(points, 2) / 2
    source = SOURCES[VNM_TABLE]
    right = float(((ours > 1) == (real > 1)).mean() * 100)
    yield Row(
        id="gpu_vnm/speedup/sign", quantity="pairs whose faster kernel is named", unit="%",
        source=f"{source}; Spatha is the faster one in {(real > 1).mean():.0%}", low=99.0,
        ours=right, remark=about,
    )  # fmt: skip
    yield Row(
        id="gpu_vnm/speedup/spearman", quantity="rank correlation of speed-ups", unit="rho",
        source=f"{source}; reference: that of the constant M/2",
        low=rank_correlation(trivial, real), ours=rank_correlation(ours, real), remark=about,
    )  # fmt: skip
    yield Row(
        id="gpu_vnm/speedup/mean", quantity="mean |error| of the speed-up", unit="%",
        source=f"{source}; reference: error of the constant M/2", ours=float(
            percent(ours, real).mean()), high=float(percent(trivial, real).mean()), remark=about,
    )  # fmt: skip
    patterns = np.array([point["pattern"] for point in points])
    for pattern in (f"128:2:{m}" for m in (4, 7, 8, 10, 20, 40, 100)):
        mine = patterns == pattern
        yield Row(
            id=f"gpu_vnm/speedup/{pattern}", quantity=f"median speed-up of {pattern}", unit="x",
            source=source, low=float(np.median(real[mine])), high=float(np.median(real[mine])),
            ours=float(np.median(ours[mine])), tolerance=NEAR, remark=f"{mine.sum()} pairs",
        )  # fmt: skip
