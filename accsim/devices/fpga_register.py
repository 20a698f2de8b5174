"""Run one product on an FPGA's array clocked register by register, or select n of m weights.

The slow witness of docs/fpga.md: outputs bit by bit in hardware order, cycles counted by the
clock. This module cuts the product into tiles and lays out operands; the registers are in
`accsim.kernels.fpga`, which is compiled on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import AccsimError, InputError, near, one_of
from accsim.kernels.packing import block_activations, pack
from accsim.spec.fpga import TensorPes

Values = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisterRun:
    """What the array gave.

    Attributes:
        outputs: (t, n) int32 (modulo 2³²) or float32.
        cycles: of all tiles, one after the other.
        tiles: (tiles,) int64, cycles of each; os: tiles of n inside tiles of t; ws: tiles of t.
    """

    outputs: Values
    cycles: int
    tiles: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """What the selection engines gave: of each group of m of each column the n largest |w|.

    Attributes:
        values: (groups, columns, n), dtype of w; 0 where fewer than n are present.
        index: (groups, columns, n) int32, places 0 … m - 1 in order; -1 where fewer are present.
        mask: (k, columns), True where a weight is kept.
        cycles: until the last group is written.
    """

    values: Values
    index: npt.NDArray[np.int32]
    mask: Mask
    cycles: int


@dataclass(frozen=True, eq=False)
class _Laid:
    """Operands as PEs see them: x (t, groups, lanes), the rest (passes, groups, n, multipliers)."""

    x: Values
    values: Values
    index: npt.NDArray[np.int32]


def run(
    x: Values,
    w: Values,
    mask: Mask | None = None,
    *,
    array: TensorPes,
    flow: str,
    level: str = "dense",
    tile_rows: int | None = None,
) -> RegisterRun:
    """Multiply x by the kept weights on a clocked array and count the cycles.

    Args:
        x: (t, k). Integers up to 32 bits, or floats up to float32 (float16, and bfloat16 of
            ml_dtypes). Integer products and sums wrap; floats are multiplied and added in float32.
        w: (k, n), the same kind.
        mask: (k, n), True where a weight is kept; all by default. Others are not read.
        array: the PEs.
        flow: ws or os.
        level: mode of the PEs, one of ``array.levels``; n:m takes masks of at most n of every m.
        tile_rows: ws: rows of t that pass in one tile (what the y buffer holds); all by default.

    Raises:
        InputError: an argument breaks a rule above.
        AccsimError: the array's control is wrong (a bug of accsim).
    """
    x, w = np.asarray(x), np.asarray(w)
    mask = np.ones(w.shape, np.bool_) if mask is None else np.asarray(mask)
    _check_operands(x, w, mask)
    if flow not in _FLOWS:
        raise InputError(f"flow must be one of {one_of(_FLOWS)}; got {flow!r}{near(flow, _FLOWS)}")
    if tile_rows is not None and tile_rows < 1:
        raise InputError(f"tile_rows must be at least 1; got {tile_rows}")
    dtype = _register_type(x, w)
    laid = _lay_out(x.astype(dtype), w.astype(dtype), mask, array, level)
    outputs: Values = np.zeros((x.shape[0], w.shape[1]), dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # uncompiled runs warn where hardware wraps
        tiles = _FLOWS[flow](laid, array, tile_rows or x.shape[0], outputs)
    if min(tiles) < 0:
        what = {-1: "operands of two steps met in a PE", -2: "weights had not arrived at a PE"}
        raise AccsimError(f"{flow}: {what[min(tiles)]} (a bug of accsim)")
    return RegisterRun(outputs=outputs, cycles=sum(tiles), tiles=np.array(tiles, np.int64))


def select(w: Values, n: int, m: int, *, engines: int = 1) -> Selected:
    """Find the n largest |w| of every m consecutive k of each column, clock by clock.

    Args:
        w: (k, columns) integers up to 16 bits or floats up to float32, no NaN.
        n, m: 1 <= n <= m; a shorter last group keeps min(n, its length). Ties keep the lowest k.
        engines: side by side; the k of a column come one after the other.

    Raises:
        InputError: an argument breaks a rule above.

    >>> select(np.array([[3], [-5], [5], [1]], np.int8), 2, 4).index[0, 0].tolist()
    [1, 2]
    """
    from accsim.kernels import fpga  # compiled on import: only who runs it pays

    w = np.asarray(w)
    if not (1 <= n <= m and engines >= 1):
        raise InputError(f"need 1 <= n <= m and engines >= 1; got {n}:{m}, {engines}")
    if w.ndim != 2 or not w.size or not np.can_cast(w.dtype, np.float32):
        raise InputError(f"w must be k×n, not empty, and fit float32; got {w.dtype} {w.shape}")
    if np.isnan(w.astype(np.float32)).any():
        raise InputError("w must hold no NaN")
    k, columns = w.shape
    groups = -(-k // m)
    padded = np.zeros((groups * m, columns), np.float32)
    padded[:k] = w
    stream = np.ascontiguousarray(padded.reshape(groups, m, columns).swapaxes(1, 2))
    lengths = np.repeat(np.minimum(m, k - m * np.arange(groups)), columns)
    chosen = np.zeros((groups * columns, n), np.float32)
    index = np.full(chosen.shape, -1, np.int32)
    cycles = fpga.select(stream.reshape(-1, m), lengths, engines, chosen, index)
    kept = np.zeros((groups * columns, m), np.bool_)
    group, slot = np.nonzero(index >= 0)
    kept[group, index[group, slot]] = True
    return Selected(
        values=np.where(index >= 0, chosen, 0).astype(w.dtype).reshape(groups, columns, n),
        index=index.reshape(groups, columns, n),
        mask=kept.reshape(groups, columns, m).swapaxes(1, 2).reshape(-1, columns)[:k],
        cycles=cycles,
    )


def _check_operands(x: Values, w: Values, mask: Mask) -> None:
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[0] or not x.size or not w.size:
        raise InputError(f"x must be t×k and w k×n, none empty; got {x.shape} and {w.shape}")
    if mask.shape != w.shape or mask.dtype != np.bool_:
        raise InputError(f"mask must be bool {w.shape} like w; got {mask.dtype} {mask.shape}")


def _register_type(x: Values, w: Values) -> type[np.int32] | type[np.float32]:
    for dtype in (np.int32, np.float32):
        if np.can_cast(x.dtype, dtype) and np.can_cast(w.dtype, dtype):
            return dtype
    raise InputError(f"x and w must fit int32 or float32; got {x.dtype} and {w.dtype}")


def _group(array: TensorPes, level: str) -> tuple[int, int]:
    """Return the k of a group and the values it keeps at most."""
    if level not in array.levels:
        hint = near(level, array.levels)
        raise InputError(f"level must be one of {one_of(array.levels)}; got '{level}'{hint}")
    if level == "dense":
        # Lanes that do not fill a step are not used.
        group = array.lanes // array.multipliers * array.multipliers
        return group, group
    n, m = (int(word) for word in level.split(":"))
    return array.lanes // m * m, array.lanes // m * n


def _lay_out(x: Values, w: Values, mask: Mask, array: TensorPes, level: str) -> _Laid:
    group, kept = _group(array, level)
    if level == "dense":
        w, mask = np.where(mask, w, w.dtype.type(0)), np.ones(w.shape, np.bool_)
    else:
        n, m = (int(word) for word in level.split(":"))
        most = np.add.reduceat(mask, np.arange(0, len(mask), m), axis=0, dtype=np.int64).max()
        if most > n:
            raise InputError(f"mask must keep at most {n} of every {m} k; one group keeps {most}")
    steps = -(-kept // array.multipliers)
    packed = pack(w, mask, slots=array.multipliers, lanes=group)
    found, blocks, columns, slots = packed.values.shape
    values = np.zeros((steps, blocks, columns, slots), w.dtype)
    index = np.full(values.shape, -1, np.int32)
    filled = np.zeros((blocks * group, columns), np.bool_)
    filled[: len(mask)] = mask
    counts = filled.reshape(blocks, group, columns).sum(axis=1)
    place = np.arange(found)[:, None, None, None] * slots + np.arange(slots)
    values[:found] = packed.values
    index[:found] = np.where(place < counts[..., None], packed.index, -1)
    return _Laid(block_activations(x, lanes=group, blocks=blocks), values, index)


def _padded(values: Values, shape: tuple[int, ...], fill: int = 0) -> Values:
    padded = np.full(shape, fill, values.dtype)
    padded[tuple(slice(size) for size in values.shape)] = values
    return padded


def _sums_stay(laid: _Laid, array: TensorPes, _: int, outputs: Values) -> list[int]:
    """Run tiles of os one after the other; outputs is written."""
    from accsim.kernels import fpga

    rows, cols = array.rows, array.cols
    most = rows * (array.adder_latency if array.interleave else 1)
    steps, groups, n, slots = laid.values.shape
    cycles = []
    for t0 in range(0, len(laid.x), most):
        piece = laid.x[t0 : t0 + most]
        turns = -(-len(piece) // rows)
        x = _padded(piece, (turns * rows, *piece.shape[1:])).reshape(turns, rows, groups, -1)
        x = np.ascontiguousarray(x.transpose(2, 0, 1, 3))
        for n0 in range(0, n, cols):
            shape = (groups * steps, cols, slots)
            columns = slice(n0, n0 + cols)
            values = laid.values[:, :, columns].swapaxes(0, 1).reshape(shape[0], -1, slots)
            index = laid.index[:, :, columns].swapaxes(0, 1).reshape(shape[0], -1, slots)
            y = np.zeros((turns, rows, cols), outputs.dtype)
            operands = (x, _padded(values, shape), _padded(index, shape, -1))
            cycles.append(fpga.stay(*operands, array.adder_latency, y))
            target = outputs[t0 : t0 + most, columns]
            target[:] = y.reshape(-1, cols)[: len(target), : target.shape[1]]
    return cycles


def _weights_stay(laid: _Laid, array: TensorPes, tile_rows: int, outputs: Values) -> list[int]:
    """Run tiles of ws one after the other, all folds of each in one run; outputs is written."""
    from accsim.kernels import fpga

    rows, cols = array.rows, array.cols
    steps, groups, n, slots = laid.values.shape
    deep, wide = -(-groups // rows), -(-n // cols)

    def folds(packed: Values, fill: int) -> Values:
        """(passes, groups, n, slots) → (blocks of n · folds of k, R, passes, C, slots)."""
        full = _padded(packed, (steps, deep * rows, wide * cols, slots), fill)
        cut = full.reshape(steps, deep, rows, wide, cols, slots).transpose(3, 1, 2, 0, 4, 5)
        return np.ascontiguousarray(cut.reshape(wide * deep, rows, steps, cols, slots))

    weights = (folds(laid.values, 0), folds(laid.index, -1))
    source, block = np.tile(np.arange(deep), wide), np.repeat(np.arange(wide), deep)
    cycles = []
    for t0 in range(0, len(laid.x), tile_rows):
        piece = laid.x[t0 : t0 + tile_rows]
        x = _padded(piece, (len(piece), deep * rows, piece.shape[2]))
        x = np.ascontiguousarray(x.reshape(len(piece), deep, rows, -1).swapaxes(0, 1))
        y = np.zeros((wide, len(piece), cols), outputs.dtype)
        started = np.full(len(source) + 1, -1, np.int64)
        cycles.append(fpga.flow(x, *weights, source, block, array.adder_latency, y, started))
        outputs[t0 : t0 + tile_rows] = y.swapaxes(0, 1).reshape(len(piece), -1)[:, :n]
    return cycles


_FLOWS = {"ws": _weights_stay, "os": _sums_stay}
