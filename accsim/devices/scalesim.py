"""SCALE-Sim 3.0.0's own numbers, quirks included: the ``scalesim_v3`` compatibility mode.

Closed forms of what SCALE-Sim (PyPI ``scalesim==3.0.0``, MIT) prints in ``COMPUTE_REPORT.csv`` and
``DETAILED_ACCESS_REPORT.csv`` when memory never stalls. They are not a model of hardware: each
docstring names where they depart from it. ``file.py:function`` means ``scalesim/compute/file.py``
unless a folder is given.

All extents are int64 scalars or arrays that broadcast together; nothing is checked, and a total
above 2**63 wraps. A GEMM is ``Y[t×n] = X[t×k] · W[k×n]`` with the layer's dense k; ``pattern_n`` of
every ``pattern_m`` weights are kept (SCALE-Sim's ``SparsitySupport: true`` with
``OptimizedMapping: false``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_folds import DATAFLOWS

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Ints = npt.ArrayLike

# SCALE-Sim averages over folds with a running float sum, whose last digits depend on the order.
# It is followed term by term up to this many folds; beyond, SCALE-Sim itself cannot answer (at
# 2 kB a cycle the smallest such run needs over 10 GB), and the exact mean is returned.
MAX_SUMMED_FOLDS = 2**20


class Utilisations(NamedTuple):
    """Three utilisations in percent, as in ``COMPUTE_REPORT.csv``."""

    overall: FloatArray
    mapping_efficiency: FloatArray
    compute: FloatArray


class SramCounts(NamedTuple):
    """On-chip accesses in elements, as in ``DETAILED_ACCESS_REPORT.csv``."""

    ifmap_reads: FloatArray
    filter_reads: IntArray
    ofmap_writes: IntArray
    psum_reads: IntArray


class _Folds(NamedTuple):
    """How a GEMM is cut to fit the array: extents along rows, columns, time, and fold counts."""

    along_rows: IntArray
    along_cols: IntArray
    stream: IntArray
    row_folds: IntArray
    col_folds: IntArray


def sparse_k(k: Ints, n: Ints, m: Ints) -> IntArray:
    """Return the reduction length SCALE-Sim computes for n:m weights.

    The first n of every m rows are kept, the same rows in every column, in any dataflow; nothing
    else of sparsity is modelled (``operand_matrix.py:create_filter_matrix``, and
    ``create_ifmap_matrix``, which drops the matching inputs).

    >>> sparse_k([8, 9, 11], 2, 4).tolist()
    [4, 5, 6]
    """
    k_, n_, m_ = _int64(k, n, m)
    kept: IntArray = n_ * (k_ // m_) + np.minimum(n_, k_ % m_)
    return kept


def cycles(
    t: Ints,
    k: Ints,
    n: Ints,
    rows: Ints,
    cols: Ints,
    dataflow: str,
    pattern_n: Ints = 1,
    pattern_m: Ints = 1,
) -> IntArray:
    """Return ``Total Cycles``, stall-free, as int64.

    Quirks. One cycle short: the index of the last cycle is printed, not the count
    (``memory/double_buffered_scratchpad_mem.py:service_memory_requests``). ``os`` omits the rows
    cycles of draining the outputs (``systolic_compute_os.py:create_ofmap_demand_mat``). No fold
    overlaps another, and every fold costs the full array even where it is ragged
    (``create_*_demand_mat`` of all three).

    >>> int(cycles(4, 4, 4, 4, 4, "os"))
    9
    """
    t_, k_, n_, rows_, cols_, pn, pm = _int64(t, k, n, rows, cols, pattern_n, pattern_m)
    folds = _fold(t_, sparse_k(k_, pn, pm), n_, rows_, cols_, dataflow)
    per_fold = _fold_cycles(folds.stream, rows_, cols_, dataflow)
    total: IntArray = folds.row_folds * folds.col_folds * per_fold - 1
    return total


def utilisations(
    t: Ints,
    k: Ints,
    n: Ints,
    rows: Ints,
    cols: Ints,
    dataflow: str,
    pattern_n: Ints = 1,
    pattern_m: Ints = 1,
) -> Utilisations:
    """Return overall utilisation, mapping efficiency and compute utilisation, in percent.

    Quirks. ``overall`` divides the *dense* MACs by the one-short cycles, so n:m goes above 100
    (``single_layer_sim.py:run``, ``calc_report_data``); where the cycles are 0 (a 1×1×1 product,
    ``os``, one PE) SCALE-Sim stops with ZeroDivisionError and this is infinite.
    ``mapping_efficiency`` and ``compute`` are means over folds of equal weight. ``compute`` takes
    a fold of ws and is to last 2R + 2C + stream − 3 cycles, C − 1 more than the cycles count: the
    columns are added twice (``systolic_compute_ws.py:create_filter_demand_mat``,
    ``systolic_compute_is.py:create_ifmap_demand_mat``). The last digits are those of a running
    sum, as Python up to 3.11 adds (3.12 compensates the rounding).
    """
    t_, k_, n_, rows_, cols_, pn, pm = _int64(t, k, n, rows, cols, pattern_n, pattern_m)
    folds = _fold(t_, sparse_k(k_, pn, pm), n_, rows_, cols_, dataflow)
    pes = rows_ * cols_
    total = cycles(t_, k_, n_, rows_, cols_, dataflow, pn, pm)
    macs = t_.astype(np.float64) * n_ * k_  # float: exact to 2**53, and no wrap beyond
    with np.errstate(divide="ignore"):
        overall: FloatArray = macs * 100 / (total.astype(np.float64) * pes)
    length = _fold_cycles(folds.stream, rows_, cols_, dataflow)
    length = length + (cols_ - 1 if DATAFLOWS[dataflow].stationary else 0)
    ones = np.ones_like(pes)
    return Utilisations(
        overall=overall,
        mapping_efficiency=_fold_mean(folds, rows_, cols_, ones, pes),
        compute=_fold_mean(folds, rows_, cols_, folds.stream, pes * length),
    )


def sram_counts(
    t: Ints,
    k: Ints,
    n: Ints,
    rows: Ints,
    cols: Ints,
    dataflow: str,
    pattern_n: Ints = 1,
    pattern_m: Ints = 1,
) -> SramCounts:
    """Return the elements read from and written to the on-chip memories.

    Quirks. ``os`` writes R + C elements too many per fold: after counting a fold's outputs it adds
    the *sum* of the padded tile's two extents (``systolic_compute_os.py:create_ofmap_demand_mat``,
    the second ``self.ofmap_writes +=``). ws and is write partial sums once per k-fold and never
    read them back, hence ``psum_reads`` of 0. With n:m, ws multiplies the compressed input reads
    by the float m/n, a running sum over folds (``systolic_compute_ws.py:create_ifmap_demand_mat``);
    os and is do not. ``ifmap_reads`` is therefore float64.
    """
    t_, k_, n_, rows_, cols_, pn, pm = _int64(t, k, n, rows, cols, pattern_n, pattern_m)
    kept = sparse_k(k_, pn, pm)
    folds = _fold(t_, kept, n_, rows_, cols_, dataflow)
    inputs, weights, outputs = t_ * kept, kept * n_, t_ * n_
    reads = inputs.astype(np.float64)
    if dataflow == "ws":
        reads = _weighted_reads(folds, t_, rows_, pm / pn)
        outputs = outputs * folds.row_folds
    elif dataflow == "is":
        weights, outputs = weights * folds.col_folds, outputs * folds.row_folds
    else:
        reads, weights = reads * folds.col_folds, weights * folds.row_folds
        outputs = outputs + folds.row_folds * folds.col_folds * (rows_ + cols_)
    return SramCounts(reads, weights, outputs, np.zeros_like(outputs))


def _int64(*values: Ints) -> tuple[IntArray, ...]:
    """Broadcast integers against each other."""
    return np.broadcast_arrays(*(np.asarray(value, dtype=np.int64) for value in values))


def _fold(
    t: IntArray, k: IntArray, n: IntArray, rows: IntArray, cols: IntArray, dataflow: str
) -> _Folds:
    flow, extents = DATAFLOWS[dataflow], {"t": t, "k": k, "n": n}
    along_rows, along_cols = extents[flow.rows], extents[flow.cols]
    return _Folds(
        along_rows, along_cols, extents[flow.stream], -(-along_rows // rows), -(-along_cols // cols)
    )


def _fold_cycles(stream: IntArray, rows: IntArray, cols: IntArray, dataflow: str) -> IntArray:
    preload = rows if DATAFLOWS[dataflow].stationary else 0
    length: IntArray = preload + rows + cols + stream - 2
    return length


def _used(extent: int, size: int) -> IntArray:
    """Return how many of ``size`` lanes each fold of ``extent`` occupies."""
    used = np.full(-(-extent // size), size, dtype=np.int64)
    used[-1] = extent - size * (len(used) - 1)
    return used


def _running_sum(terms: FloatArray) -> float:
    """Add left to right, as a Python loop does (``np.sum`` adds pairwise)."""
    return float(np.add.accumulate(terms)[-1])


def _fold_mean(
    folds: _Folds, rows: IntArray, cols: IntArray, work: IntArray, peak: IntArray
) -> FloatArray:
    """Return the mean over folds of (PEs used × work / peak), in percent."""

    def mean(along_rows: int, along_cols: int, r: int, c: int, work: int, peak: int) -> float:
        count = -(-along_rows // r) * -(-along_cols // c)
        if count > MAX_SUMMED_FOLDS:
            return along_rows * along_cols * work / (count * peak) * 100
        used = np.multiply.outer(_used(along_cols, c), _used(along_rows, r))
        return _running_sum((used * work / peak).ravel()) / count * 100

    return _each(mean, folds.along_rows, folds.along_cols, rows, cols, work, peak)


def _weighted_reads(folds: _Folds, t: IntArray, rows: IntArray, weight: FloatArray) -> FloatArray:
    """Return the ws input reads: per fold, t × rows used × ``weight``, added up fold by fold."""

    def reads(k: int, row_folds: int, col_folds: int, t: int, r: int, weight: float) -> float:
        if row_folds * col_folds > MAX_SUMMED_FOLDS:
            return k * t * col_folds * weight
        return _running_sum(np.tile(t * _used(k, r) * weight, col_folds))

    return _each(reads, folds.along_rows, folds.row_folds, folds.col_folds, t, rows, weight)


def _each(function: Callable[..., float], *arrays: npt.NDArray[Any]) -> FloatArray:
    """Apply a scalar function to every element, as Python numbers."""
    columns = (array.ravel().tolist() for array in arrays)
    values = [function(*element) for element in zip(*columns, strict=True)]
    return np.array(values, dtype=np.float64).reshape(arrays[0].shape)
