"""Timing ``compiled``: a TPU-like device whose compiler picks between two fixed schedules.

Unlike the ``physical`` timing, tiles are not searched for: what is measured on a Cloud TPU
(tests/data/tpu_matmul.csv) is an ahead-of-time compiler's choice, and its loads, computing and
stores do not overlap while everything fits on chip. With X, W, Y in bytes as they lie in memory:

    resident = (X + W) / HBM + blocks · block_cycles / arrays + min(t, n)
    streamed = prologue + unsplit·[panels of all k fit]
               + max((1 + wide·[t < n])·(X·⌈n/b⌉ + W·⌈t/b⌉) / HBM, folds · rows / arrays)
    total    = launch + turn·[k ≤ min(t, n)] + Y / HBM + the schedule taken

*resident*: all operands are loaded, then multiplied, then stored. X streams past W; when n fits one
column of arrays the two swap. Fold columns are dealt whole to the cores, the busiest sets the time,
and feeding each streamed block costs one more block time: blocks = ⌈k/R⌉·(cores·⌈rows·cols/cores⌉ +
rows). *streamed*: double-buffered output blocks of b × b, bound by memory or by the arrays. The
faster one is taken, but always the resident one where n fits the arrays in one pass and all
operands are kept on chip. The causes of ``turn`` and ``wide`` are not known; ``prologue`` acts on
large products only. Errors and limits: docs/systolic.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.spec.counts import Counts
from accsim.spec.hardware import Compiled, Systolic
from accsim.spec.schedule import Evaluation, all_causes
from accsim.spec.workload import Layer

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Parts:
    """Cycles of one run, as floats; ``memory`` is all waiting for HBM."""

    launch: Floats
    work: Floats
    fill: Floats
    imbalance: Floats
    memory: Floats
    read_bytes: Ints
    write_bytes: Ints
    resident: npt.NDArray[np.bool_]

    @property
    def total(self) -> Floats:
        return self.launch + self.work + self.fill + self.imbalance + self.memory


def evaluate_compiled(
    layers: Sequence[Layer], effective_macs: Ints, device: Systolic
) -> Evaluation:
    """Return the evaluation of layers under the compiled schedules; every pattern runs dense."""
    compiled = device.compiled
    assert compiled is not None  # the noun refuses timing 'compiled' without its section
    t, k, n = (np.array([getattr(x.gemm, d) for x in layers], dtype=np.int64) for d in "tkn")
    runs = np.array([layer.runs for layer in layers], dtype=np.int64)
    parts = _time(t, k, n, compiled, device)
    cycles = np.ceil(runs * parts.total).astype(np.int64)
    causes = {
        name: np.floor(runs * getattr(parts, field)).astype(np.int64)
        for name, field in (("work", "work"), ("fill_drain", "fill"), ("imbalance", "imbalance"),
                            ("launch", "launch"))
    }  # fmt: skip
    causes |= {"dram": cycles - sum(causes.values())}
    return Evaluation(
        cycles=cycles,
        causes=all_causes(causes, ["dram"], cycles),
        counts=_counts(t, k, n, runs, parts, effective_macs, device),
        metadata_bits=np.zeros_like(cycles),
        effective_macs=effective_macs,
        mode=tuple("resident" if resident else "streamed" for resident in parts.resident),
    )


def _time(t: Ints, k: Ints, n: Ints, compiled: Compiled, device: Systolic) -> _Parts:
    array = device.array
    per_byte = 1 / device.dram_bytes_per_cycle
    x, w, y = (a * b * compiled.stored_bits // 8 for a, b in ((t, k), (k, n), (t, n)))
    row_folds, k_folds, col_folds = -(-t // array.rows), -(-k // array.rows), -(-n // array.cols)
    folds = row_folds * k_folds * col_folds
    work = folds * array.rows / array.count

    swap = col_folds == 1
    rows = np.where(swap, col_folds, row_folds)
    cols = np.where(swap, row_folds, col_folds)
    block = max(compiled.block_cycles, array.rows) / array.count
    busiest = compiled.cores * -(-rows * cols // compiled.cores)
    imbalance = k_folds * (busiest - rows * cols) * block
    array_busy = k_folds * (rows * cols + rows) * block + np.minimum(t, n)
    resident = (x + w) * per_byte + array_busy + imbalance

    size = compiled.block
    traffic = x * -(-n // size) + w * -(-t // size)
    whole_k = 4 * size * k * (compiled.stored_bits // 8) <= compiled.panel_bytes
    prologue = (compiled.prologue_us + compiled.unsplit_us * whole_k) * 1e3 * device.clock_ghz
    slowed = 1 + compiled.wide_share * (t < n)
    streamed = prologue + np.maximum(slowed * traffic * per_byte, work)

    kept = (x + w) * compiled.multiplied_bits // compiled.stored_bits + t * n * 4
    fits = (kept <= compiled.resident_bytes) & (w <= compiled.resident_w_bytes)
    fits &= n <= array.cols * array.count
    stays = fits | (resident <= streamed)
    fill = np.where(stays, array_busy - work, 0.0)
    lost = np.where(stays, imbalance, 0.0)
    store = y * per_byte
    turn = np.where(k <= np.minimum(t, n), compiled.turn_us, 0.0)
    return _Parts(
        launch=(device.launch_us + turn) * 1e3 * device.clock_ghz,
        work=work,
        fill=fill,
        imbalance=lost,
        memory=np.where(stays, resident, streamed) + store - work - fill - lost,
        read_bytes=np.where(stays, x + w, traffic),
        write_bytes=y,
        resident=stays,
    )


def _counts(
    t: Ints, k: Ints, n: Ints, runs: Ints, parts: _Parts, macs: Ints, device: Systolic
) -> Counts:
    """Count actions as for weight-stationary folds of the operands' formats in memory."""
    compiled, array = device.compiled, device.array
    assert compiled is not None
    size = compiled.stored_bits // 8
    x, w, sums = t * k * size, k * n * size, t * n * 4
    k_folds, col_folds = -(-k // array.rows), -(-n // array.cols)
    steps = t * k * n
    none = np.zeros_like(steps)
    operand = compiled.multiplied_bits
    return Counts({
        "macs": macs,
        "select_bits": none,
        "register_bits": runs * (steps * (operand + 32) + k * n * array.rows * operand),
        "sram_x_read_bytes": runs * x * col_folds,
        "sram_w_read_bytes": runs * w,
        "sram_y_read_bytes": runs * sums * k_folds,
        "sram_x_write_bytes": runs * np.minimum(x, parts.read_bytes),
        "sram_w_write_bytes": runs * (parts.read_bytes - np.minimum(x, parts.read_bytes)),
        "sram_y_write_bytes": runs * sums * k_folds,
        "dram_read_bytes": runs * parts.read_bytes,
        "dram_write_bytes": runs * parts.write_bytes,
    })  # fmt: skip
