"""Measured sparse kernels of two GPUs as inputs of the closed forms, and parameters out of fold.

``data/gpu_sparse_parameters.csv`` holds what reports/gpu/fit_sparse.py fitted: one set on all rows
(fold ``all``, as the hardware files have it) and one for each fold, without that fold's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.devices import tensorcore_spmm, tensorcore_vnm
from accsim.devices.tensorcore_gemm import Gemms
from accsim.devices.tensorcore_gemm import costs as gemm_costs
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_ragged import Panels
from accsim.files.hardware import load_hardware
from accsim.spec.gpu import Gpu
from accsim.validate.row import Row, Status, read

Floats = npt.NDArray[np.float64]
Point = Mapping[str, str]
Predict = Callable[[Sequence[Point], Gpu, Any], Floats]  # points, GPU, kernel → µs

RTX3090, A100 = "rtx3090", "a100_sxm4_40gb"
VNM_TABLE, SPMM_TABLE = "rtx3090_vnm_24.csv", "a100_spmm_dlmc.csv"
SPATHA, IDEAL = "Spatha(V:N:M)", "Spatha w/o column-loc (ideal)"
ABLATION = "Spatha-2:4(ablation2)"
DENSITY = 0.02  # of all Sputnik and CLASP rows
SOURCES = {
    VNM_TABLE: "github.com/UDC-GAC/venom at 8ddaf38e (Apache-2.0), RTX 3090",
    SPMM_TABLE: "github.com/Shigangli/Magicube at 8f92b69e (numbers only), A100, masks of DLMC",
}
LINE = "a roofline of 3 numbers, out of fold"
FOLD_OF = {VNM_TABLE: "weight shape", SPMM_TABLE: "matrix"}


def numbers(points: Sequence[Point], name: str) -> Floats:
    """Return a column as numbers."""
    return np.array([float(point[name]) for point in points])


def fields(points: Sequence[Point], at: int) -> Floats:
    """Return the numbers between the colons of column ``pattern``: 0 for V, 2 for M."""
    return np.array([float(point["pattern"].split(":")[at]) for point in points])


def tkn(points: Sequence[Point]) -> tuple[Floats, Floats, Floats]:
    """Return t, k and n of RTX 3090 rows."""
    t, k, n = (numbers(points, name) for name in "tkn")
    return t, k, n


# --- what each kernel family makes of its points


def dense_us(points: Sequence[Point], gpu: Gpu, kernel: Any) -> Floats:
    """Return µs of cuBLAS rows; in the A100 table m is the dense operand's other side."""
    operands = operands_of("fp16", "dense", gpu)
    t, k, n = tkn(points) if "t" in points[0] else _swapped(points)
    return gemm_costs(Gemms.of(t, k, n, operands), gpu, kernel, operands, "dense").total_us


def nm_us(points: Sequence[Point], gpu: Gpu, kernel: Any) -> Floats:
    """Return µs of cuSPARSELt rows."""
    operands = operands_of("fp16", "nm", gpu)
    return gemm_costs(Gemms.of(*tkn(points), operands), gpu, kernel, operands, "2:4").total_us


def vnm_us(points: Sequence[Point], gpu: Gpu, kernel: Any) -> Floats:
    """Return µs of Spatha rows: V:2:M on random masks."""
    t, k, n = tkn(points)
    v, m = fields(points, 0), fields(points, 2)
    touched = tensorcore_vnm.touched_share(m, np.ceil(n / v))
    two, one = np.full_like(t, 2.0), np.ones_like(t)
    gemms = tensorcore_vnm.VnmGemms(t, k, n, one, v, two, m, touched, t * k, 0 * t)
    operands = operands_of("fp16", "nm", gpu)
    return tensorcore_vnm.costs(gemms, gpu, kernel, operands, [""] * len(t)).total_us


def random_us(points: Sequence[Point], gpu: Gpu, kernel: Any) -> Floats:
    """Return µs of Sputnik and CLASP rows: random vectors, whose masks are not known.

    The longest panel is the mean and √(2 ln panels) standard deviations of a binomial.
    """
    t, k, n = tkn(points)
    vector = np.array([float((p["pattern"] + "1")[2]) if p["kernel"] == "CLASP" else 1.0
                       for p in points])  # fmt: skip
    panels = np.ceil(n / vector)
    longest = k * DENSITY + np.sqrt(2 * np.log(panels) * k * DENSITY * (1 - DENSITY))
    vectors = panels * k * DENSITY
    found = Panels(t, k, n, np.ones_like(t), vector, panels, vectors, vectors, np.ceil(longest),
                   vectors * vector, np.ones_like(t), t * k, 0 * t)  # fmt: skip
    return _spmm_us(found, gpu, kernel, "fp16")


def panels_us(points: Sequence[Point], gpu: Gpu, kernel: Any) -> Floats:
    """Return µs of rows on real masks (DLMC), from what is kept of them: counts by panel.

    Blocked-ELL's rows were drawn with equal panels of the mask's density.
    """
    known = {row["dlmc_matrix"]: row for row in read("dlmc_panels.csv")}
    shapes = [known[point["dlmc_matrix"]] for point in points]
    t, k, n = _swapped(points)
    vector, panels, vectors = (numbers(points, "vec_len"), numbers(shapes, "panels"),
                               numbers(shapes, "nnz"))  # fmt: skip
    longest = np.ceil(numbers(shapes, "max_nnz") / kernel.step_k)
    steps = vectors if kernel.step_k == 1 else numbers(shapes, f"steps{kernel.step_k}")
    if kernel.equal_panels:
        longest = vectors / panels
    found = Panels(t, k, n, np.ones_like(t), vector, panels, vectors, steps, longest,
                   vectors * vector, np.ones_like(t), t * k, 0 * t)  # fmt: skip
    return _spmm_us(found, gpu, kernel, "int8" if kernel.family == "magicube" else "fp16")


def _swapped(points: Sequence[Point]) -> tuple[Floats, Floats, Floats]:
    """Return t, k, n of A100 rows: their sparse operand is m × k, the dense one k × n."""
    return numbers(points, "n"), numbers(points, "k"), numbers(points, "m")


def _spmm_us(panels: Panels, gpu: Gpu, kernel: Any, dtype: str) -> Floats:
    operands = tensorcore_spmm.operands(dtype, gpu, kernel)
    return tensorcore_spmm.costs(panels, gpu, kernel, operands, [""] * len(panels)).total_us


# --- what a trivial model says


def kept_macs(points: Sequence[Point]) -> Floats:
    """Return the multiply-accumulates with a kept weight."""
    if "dlmc_matrix" in points[0]:
        t, k, n = _swapped(points)
        known = {row["dlmc_matrix"]: row for row in read("dlmc_panels.csv")}
        kept = numbers([known[point["dlmc_matrix"]] for point in points], "nnz")
        dense = np.array([point["kernel"] == "cuBLAS" for point in points])
        return np.where(dense, t * k * n, kept * numbers(points, "vec_len") * t)
    t, k, n = tkn(points)
    return t * k * n * (1 - numbers(points, "sparsity"))


def roofline_us(points: Sequence[Point], numbers_of: Mapping[str, float]) -> Floats:
    """Return launch + max(operations / rate, bytes / bandwidth), 16-bit operands and results."""
    t, k, n = tkn(points) if "t" in points[0] else _swapped(points)
    macs = kept_macs(points)
    moved = 2 * (t * k + t * n + macs / t)
    rate, bandwidth = numbers_of["macs_per_us"], numbers_of["bytes_per_us"]
    return numbers_of["launch_us"] + np.maximum(macs / rate, moved / bandwidth)


# --- families


@dataclass(frozen=True)
class Measured:
    """Rows of one kernel family, and what is fitted to them.

    ``section`` is where the hardware file has the kernel; ``own``, numbers fitted; ``keep`` says
    which rows of the table are the family's.
    """

    name: str
    gpu: str
    section: tuple[str, ...]
    table: str
    keep: Callable[[Point], bool]
    predict: Predict
    own: tuple[str, ...]

    @property
    def points(self) -> list[Point]:
        """Rows of the family."""
        return [row for row in _table(self.table) if self.keep(row)]

    def measured_us(self, points: Sequence[Point]) -> Floats:
        """Return what was measured, µs."""
        column = "sparse_ms" if self.table == VNM_TABLE else "latency_ms"
        return numbers(points, column) * 1e3

    def kernel(self, gpu: Gpu) -> Any:
        """Return the kernel as the hardware file has it."""
        first, *keys = self.section
        if first == "kernels":
            family: Any = keys[0]
            return gpu.kernel(family, keys[1])
        found: Any = getattr(gpu, first)
        return found[keys[0]] if keys else found

    def us(self, points: Sequence[Point], fitted: Mapping[str, float] | None = None) -> Floats:
        """Return µs of points, with the kernel as shipped or with ``fitted`` numbers instead."""
        gpu = hardware(self.gpu)
        return self.predict(points, gpu, self.kernel(gpu).model_copy(update=dict(fitted or {})))

    def held_out_us(self, points: Sequence[Point] | None = None) -> Floats:
        """Return µs of points (its own) by numbers fitted without the fold of each."""
        return _by_fold(self.points if points is None else points,
                        lambda mine, fold: self.us(mine, parameters(self.name, fold)))  # fmt: skip

    def roofline_us(self) -> Floats:
        """Return what a roofline of three numbers says, fitted without the fold of each point."""
        return _by_fold(self.points, lambda mine, fold: roofline_us(
            mine, parameters(f"{self.name}/roofline", fold)))  # fmt: skip

    def constant_us(self) -> Floats:
        """Return the median of all measurements but those of each point's fold."""
        points = self.points
        folds = np.array([fold_of(point) for point in points])
        measured = self.measured_us(points)
        return np.array([np.median(measured[folds != fold]) for fold in folds])


def _by_fold(points: Sequence[Point], predict: Callable[[Sequence[Point], str], Floats]) -> Floats:
    folds = np.array([fold_of(point) for point in points])
    found = np.zeros(len(points))
    for fold in dict.fromkeys(folds.tolist()):
        at = np.flatnonzero(folds == fold)
        found[at] = predict([points[i] for i in at.tolist()], fold)
    return found


def family_rows(name: str, label: str) -> Iterator[Row]:
    """Yield a family's errors out of fold against trivial models', and those of its fit."""
    family = FAMILIES[name]
    points = family.points
    measured = family.measured_us(points)
    ours, roofline = (
        percent(family.held_out_us(), measured),
        percent(family.roofline_us(), measured),
    )
    constant = percent(family.constant_us(), measured)
    fitted = percent(family.us(points, parameters(name, "all")), measured)
    about = f"{len(points)} rows; numbers fitted without the row's {FOLD_OF[family.table]}"
    base = f"{label}, {SOURCES[family.table]}"
    cases: tuple[tuple[str, str, Floats, Floats, Any, Status, str], ...] = (
        ("mean", LINE, ours, roofline, np.mean, "predicted", about),
        ("median", LINE, ours, roofline, np.median, "predicted", about),
        ("over_constant", "the median measurement, out of fold", ours, constant, np.mean,
         "predicted", about),
        ("fitted", LINE, fitted, roofline, np.mean, "fitted",
         f"{len(family.own)} numbers fitted to these rows"),
    )  # fmt: skip
    group = "gpu_vnm" if family.table == VNM_TABLE else "gpu_spmm"
    for what, against, mine, other, average, status, remark in cases:
        kind = "median" if what == "median" else "mean"
        yield Row(
            id=f"{group}/{name}/{what}", quantity=f"{kind} |error|, {label}", unit="%",
            source=f"{base}; reference: error of {against}", high=float(average(other)),
            ours=float(average(mine)), status=status, remark=remark,
        )  # fmt: skip


@cache
def _table(name: str) -> tuple[Point, ...]:
    return tuple(read(name))


@cache
def hardware(name: str) -> Gpu:
    """Return a GPU of the catalogue."""
    found: Gpu = load_hardware(name)
    return found


@cache
def _folds() -> dict[str, str]:
    return {row["key"]: row["fold"] for row in read("gpu_sparse_folds.csv")}


def key_of(point: Point) -> str:
    """Return what folds are drawn by: (n, k) on RTX 3090, the matrix on A100."""
    return point["dlmc_matrix"] if "dlmc_matrix" in point else f"{point['n']}x{point['k']}"


def fold_of(point: Point) -> str:
    """Return the fold of a point."""
    return _folds()[key_of(point)]


@cache
def _parameters() -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in read("gpu_sparse_parameters.csv"):
        mine = found.setdefault((row["family"], row["fold"]), {})
        mine[row["parameter"]] = float(row["value"])
    return found


def parameters(name: str, fold: str) -> dict[str, float]:
    """Return the numbers of a family fitted without a fold; fold ``all``: to every row."""
    return _parameters()[name, fold]


def _named(kernel: str, *dtypes: str) -> Callable[[Point], bool]:
    return lambda point: point["kernel"] == kernel and (not dtypes or point["dtype"] in dtypes)


def _blocks(least: int, most: int) -> Callable[[Point], bool]:
    return lambda point: (
        point["kernel"] == "cuSPARSE-BlockedELL" and least <= int(point["vec_len"]) <= most
    )


VNM_OWN = ("launch_us", "latency_cycles", "gather_share", "dram_share")
GEMM_OWN = ("launch_us", "issue_share", "tile_cycles", "dram_share", "overlap")
PANEL_OWN = ("launch_us", "panel_cycles", "step_cycles", "concurrency")

FAMILIES: dict[str, Measured] = {
    family.name: family
    for family in (
        Measured("vnm", RTX3090, ("vnm",), VNM_TABLE, _named(SPATHA), vnm_us, VNM_OWN),
        Measured("dense_3090", RTX3090, ("kernels", "dense", "fp16"), VNM_TABLE, _named("cuBLAS"),
                 dense_us, GEMM_OWN),
        Measured("nm_3090", RTX3090, ("kernels", "nm", "fp16"), VNM_TABLE, _named("cuSPARSELt"),
                 nm_us, GEMM_OWN),
        Measured("sputnik", RTX3090, ("spmm", "sputnik"), VNM_TABLE, _named("Sputnik"), random_us,
                 ("launch_us", "step_cycles")),
        Measured("clasp", RTX3090, ("spmm", "vector"), VNM_TABLE, _named("CLASP"), random_us,
                 ("row_cycles", "step_cycles", "row_share")),
        Measured("vector", A100, ("spmm", "vector"), SPMM_TABLE, _named("vectorSparse"), panels_us,
                 ("launch_us", "step_cycles", "concurrency", "row_share")),
        Measured("magicube_r8", A100, ("spmm", "magicube_r8"), SPMM_TABLE,
                 _named("Magicube", "L16R8", "L8R8"), panels_us, PANEL_OWN),
        Measured("magicube_r4", A100, ("spmm", "magicube_r4"), SPMM_TABLE,
                 _named("Magicube", "L8R4", "L4R4"), panels_us, PANEL_OWN),
        Measured("blocked_ell_2", A100, ("spmm", "blocked_ell_2"), SPMM_TABLE, _blocks(2, 4),
                 panels_us, PANEL_OWN),
        Measured("blocked_ell_8", A100, ("spmm", "blocked_ell_8"), SPMM_TABLE, _blocks(8, 8),
                 panels_us, PANEL_OWN),
        Measured("dense_a100", A100, ("kernels", "dense", "fp16"), SPMM_TABLE,
                 _named("cuBLAS", "FP16"), dense_us, GEMM_OWN),
    )
}  # fmt: skip


def percent(ours: Floats, measured: Floats) -> Floats:
    """Return |error| in %."""
    found: Floats = np.abs(ours / measured - 1) * 100
    return found


def rank_correlation(a: Floats, b: Floats) -> float:
    """Return Spearman's ρ; ties share their mean rank.

    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.3, 0.2]))
    0.5
    """
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    return round(float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())), 12)


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found
