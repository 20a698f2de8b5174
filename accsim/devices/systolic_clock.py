"""Every tile of a layer through the register-level array, on real operands, outputs checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import AccsimError, InputError
from accsim.base.rng import stream
from accsim.devices.systolic_modes import Mode
from accsim.devices.systolic_register import run
from accsim.sparsity.masks import Masks
from accsim.spec.dtype import DTYPES
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Schedule
from accsim.spec.workload import Layer

Ints = npt.NDArray[np.int64]
Values = npt.NDArray[Any]

MAX_CELL_CYCLES = 2 * 10**12  # half an hour or so on one core


def clock_tiles(
    layer: Layer, mode: Mode, masks: Masks, schedule: Schedule, device: Systolic
) -> Ints:
    """Return the cycles each tile took, counted by the clock of the register-level array.

    Activations are seeded random values, weights the layer's synthetic ones under its mask. The
    outputs of all tiles together must equal the masked product: bit for bit for integers, within
    the rounding of a float32 sum for floats.

    Raises:
        InputError: the layer would take over ``MAX_CELL_CYCLES`` cell-cycles.
        AccsimError: an output is wrong (a bug of accsim).
    """
    array = device.array
    cells = schedule.tiles["compute_cycles"].sum() * array.rows * array.cols * array.multipliers
    if cells > MAX_CELL_CYCLES:
        raise InputError(
            f"layer '{layer.name}' takes {cells:.1e} cell-cycles at register level; at most "
            f"{MAX_CELL_CYCLES:.0e} (choose a smaller layer, or level 'closed')"
        )
    x, w, mask = _operands(layer, masks)
    laid = _padded(x, w, mask, mode)
    outputs = np.zeros((x.shape[0], w.shape[1]), dtype=_sum_type(layer))
    cycles = np.zeros(len(schedule), dtype=np.int64)
    for i, tile in enumerate(schedule.tiles):
        t, n = (slice(int(tile[d + "0"]), int(tile[d + "0"] + tile[d])) for d in "tn")
        blocks = -(-int(tile["k"]) // mode.lanes)
        k = slice(int(tile["k0"]), int(tile["k0"]) + blocks * mode.lanes)
        piece, cycles[i] = _clock(laid[0][t, k], laid[1][k, n], laid[2][k, n], mode, device)
        outputs[t, n] += piece.astype(outputs.dtype)
    _check(outputs, x, w, layer, device.array.accumulator_bits)
    return cycles


def _padded(
    x: Values, w: Values, mask: npt.NDArray[np.bool_], mode: Mode
) -> tuple[Values, Values, npt.NDArray[np.bool_]]:
    """Return operands with k padded to whole blocks, and the slots the array steps through."""
    rows = -len(w) % mode.lanes
    below = np.pad(mask, ((0, rows), (0, 0)))
    slots = below if mode.driven else filled(below, mode)
    return np.pad(x, ((0, 0), (0, rows))), np.pad(w, ((0, rows), (0, 0))), slots


def filled(mask: npt.NDArray[np.bool_], mode: Mode) -> npt.NDArray[np.bool_]:
    """Return the slots a mode with fixed passes steps through: each group filled with zeros.

    Every group of a (k, n) mask gets ``mode.slots`` slots, whether or not the mask uses them all;
    k must be whole groups. Kept weights come first, then free rows from the top.
    """
    k, n = mask.shape
    grouped = mask.reshape(-1, mode.group, n)
    order = np.argsort(~grouped, axis=1, kind="stable")
    result = np.zeros_like(grouped)
    np.put_along_axis(result, order[:, : mode.slots], True, axis=1)
    return result.reshape(k, n)


def _operands(layer: Layer, masks: Masks) -> tuple[Values, Values, npt.NDArray[np.bool_]]:
    """Return x (t, k), masked w (k, n) in the layer's format, and the mask."""
    gemm, dtype = layer.gemm, DTYPES[layer.dtype]
    rng = stream(masks.seed, "activations", layer.name)
    mask = masks.mask(layer)
    weights = np.where(mask, masks.weights(layer), 0)
    if not dtype.floating:
        top = 2 ** (dtype.bits - 1) - 1
        kind = np.dtype(f"int{dtype.bits}")
        x = rng.integers(-top - 1, top + 1, (gemm.t, gemm.k), dtype=kind)
        scale = top / max(float(np.abs(weights).max()), 1e-30)
        return x, np.rint(weights * scale).astype(kind), mask
    kind = _float_type(layer.dtype)
    x = rng.standard_normal((gemm.t, gemm.k), dtype=np.float32)
    return x.astype(kind), weights.astype(kind), mask


def _float_type(name: str) -> Any:
    import ml_dtypes

    small = {"fp4": "float4_e2m1fn", "fp8": "float8_e4m3fn", "bf16": "bfloat16"}
    if name in small:
        return getattr(ml_dtypes, small[name])
    return np.float16 if name == "fp16" else np.float32


def _sum_type(layer: Layer) -> Any:
    return np.float64 if DTYPES[layer.dtype].floating else np.int64


def _clock(
    x: Values, w: Values, slots: npt.NDArray[np.bool_], mode: Mode, device: Systolic
) -> tuple[Values, int]:
    """Return the outputs of one tile and the cycles of the busiest array."""
    array = device.array
    along = {"ws": w.shape[1], "os": w.shape[1], "is": x.shape[0]}[device.dataflow]
    folds = -(-along // array.cols)
    share = -(-folds // array.count) * array.cols
    outputs = np.zeros((x.shape[0], w.shape[1]), dtype=np.float64)
    cycles = 0
    for start in range(0, along, share):
        part = slice(start, start + share)
        rows = part if device.dataflow == "is" else slice(None)
        cols = slice(None) if device.dataflow == "is" else part
        done = run(
            x[rows], w[:, cols], slots[:, cols], rows=array.rows, cols=array.cols,
            slots=array.multipliers, lanes=mode.lanes, dataflow=device.dataflow,
            double_buffered=array.double_buffering,
            acc_bits=array.accumulator_bits if w.dtype.kind == "i" else 32,
        )  # fmt: skip
        outputs[rows, cols] = done.outputs
        cycles = max(cycles, done.cycles)
    return outputs, cycles


def _check(outputs: Values, x: Values, w: Values, layer: Layer, bits: int) -> None:
    exact = x.astype(np.float64) @ w.astype(np.float64)
    if DTYPES[layer.dtype].floating:
        # |error| of a float32 sum of k products: k · 2^-24 · Σ|x||w|  (Higham, eq. 3.5)
        reach = np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64))
        wrong = np.abs(outputs - exact) > (layer.gemm.k + 2) * 2.0**-24 * reach + 1e-30
    else:
        wrong = (outputs - exact.astype(np.int64)) % 2**bits != 0
    if wrong.any():
        t, n = map(int, np.argwhere(wrong)[0])
        raise AccsimError(
            f"layer '{layer.name}': output ({t}, {n}) is {outputs[t, n]} at register level, "
            f"{exact[t, n]} as a masked product (a bug of accsim: please report it)"
        )
