"""Run one GEMM on a systolic array clocked register by register.

The slow witness of the closed forms: outputs bit by bit in hardware order, cycles counted by the
clock. This module cuts the GEMM into folds and lays operands out along the edges of the array;
the registers are in `accsim.kernels.systolic`, which is compiled on first use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.kernels.packing import PackedWeights, block_activations, pack

Values = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisterFaults:
    """Bit flips in registers, one per entry; all fields are int arrays of one length.

    At the start of `cycle` register number `slot` (a lane or a slot; 0 for sums) of kind
    `register` (REG_STREAM ... of accsim.kernels.systolic) in PE (`row`, `col`) is XOR-ed with
    `mask`, a pattern of 32 bits; a float32 register is XOR-ed in its IEEE bit pattern. A flip
    after the end of the run does nothing.
    """

    cycle: Ints
    row: Ints
    col: Ints
    register: Ints
    slot: Ints
    mask: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisterRun:
    """What the array gave.

    Attributes:
        outputs: (t, n) int32 (sign-extended from acc_bits) or float32.
        cycles: clock cycles until the last output has left the south edge.
        folds: (folds, 4) int64: used rows, used columns, stream steps and start (the cycle in
            which step 0 is in PE (0, 0)), in time order.
    """

    outputs: Values
    cycles: int
    folds: Ints


class _Fold(NamedTuple):
    """A line of the kernel's fold table, but for its two times."""

    rows: int
    cols: int
    steps: int
    step_base: int
    west_base: int
    north_base: int
    out_base: int
    out_row: int
    out_col: int


class _Edges(NamedTuple):
    """Folds in time order and what they read at the edges; shapes as in the kernel."""

    folds: list[_Fold]
    step_west: Ints
    step_out: Ints
    west_values: Values
    west_index: npt.NDArray[np.int32]
    north_values: Values
    north_index: npt.NDArray[np.int32]


def run(
    x: Values,
    w: Values,
    mask: npt.NDArray[np.bool_],
    *,
    rows: int,
    cols: int,
    slots: int,
    lanes: int,
    dataflow: str,
    double_buffered: bool,
    acc_bits: int = 32,
    faults: RegisterFaults | None = None,
) -> RegisterRun:
    """Multiply x by the kept weights on a clocked array and count the cycles.

    Args:
        x: (t, k) activations. Integers up to 32 bits, or floats up to float32 (float16, and
            bfloat16 and fp8 of ml_dtypes). Integer products and sums wrap; floats are multiplied
            and added in float32.
        w: (k, n) weights, the same kind.
        mask: (k, n), True where a weight is kept.
        rows, cols: tensor PEs of the array.
        slots: multipliers of a PE; the adder tree adds neighbours level by level, an odd one
            waits: three products give (p0 + p1) + p2.
        lanes: activations a PE row gets, one block of k.
        dataflow: ws, is or os.
        double_buffered: ws, is: load the next fold behind shadow registers; os: drain a fold
            while the next one runs.
        acc_bits: width of integer sums, 1 ... 32; two's complement wrap-around.
        faults: registers to flip, in any order.

    Raises:
        InputError: an argument breaks a rule above.
    """
    x, w, mask = np.asarray(x), np.asarray(w), np.asarray(mask)
    _check_array(rows=rows, cols=cols, slots=slots, lanes=lanes, acc_bits=acc_bits)
    _check_operands(x, w, mask)
    if dataflow not in _EDGES:
        known = one_of(_EDGES)
        hint = near(dataflow, _EDGES)
        raise InputError(f"dataflow must be one of {known}; got {dataflow!r}{hint}")
    dtype = _register_type(x, w, acc_bits)
    packed = pack(w.astype(dtype), mask, slots=slots, lanes=lanes)
    blocks = block_activations(x.astype(dtype), lanes=lanes, blocks=packed.passes.shape[0])
    if lanes == 1:  # a plain PE selects nothing and has no index registers
        packed = replace(packed, index=packed.index[..., :0])
    edges = _EDGES[dataflow](blocks, packed, rows, cols)
    outputs: Values = np.zeros((x.shape[0], w.shape[1]), dtype)
    if dataflow == "is":
        outputs = np.zeros((w.shape[1], x.shape[0]), dtype)
    table = _fold_table(edges.folds, rows, dataflow, double_buffered)
    cycles = _clock(edges, table, dataflow, double_buffered, faults, outputs)
    outputs = outputs.T.copy() if dataflow == "is" else outputs
    if dtype == np.int32:
        # Sums modulo 2**32 know the sum modulo 2**acc_bits: wrapping once at the end is exact.
        outputs = (outputs << (32 - acc_bits)) >> (32 - acc_bits)
    return RegisterRun(outputs=outputs, cycles=cycles, folds=table[:-1, [1, 2, 3, 0]])


def _check_array(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} must be at least 1; got {size}")
    if sizes["acc_bits"] > 32:
        raise InputError(f"acc_bits must be at most 32; got {sizes['acc_bits']}")


def _check_operands(x: Values, w: Values, mask: Values) -> None:
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[0] or not x.size or not w.size:
        raise InputError(f"x must be t×k and w k×n, none empty; got {x.shape} and {w.shape}")
    if mask.shape != w.shape or mask.dtype != np.bool_:
        raise InputError(f"mask must be bool {w.shape} like w; got {mask.dtype} {mask.shape}")


def _register_type(x: Values, w: Values, acc_bits: int) -> type[np.int32] | type[np.float32]:
    for dtype in (np.int32, np.float32):
        if np.can_cast(x.dtype, dtype) and np.can_cast(w.dtype, dtype):
            if dtype is np.float32 and acc_bits != 32:
                raise InputError(f"acc_bits must be 32 for floats; got {acc_bits}")
            return dtype
    raise InputError(f"x and w must fit int32 or float32; got {x.dtype} and {w.dtype}")


def _spans(extent: int, size: int) -> list[tuple[int, int]]:
    """First element and length of every tile of an extent."""
    return [(first, min(size, extent - first)) for first in range(0, extent, size)]


def _stack(tiles: list[Values], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values:
    """Tiles one after the other along axis 0, each filled with 0 to `shape` along the others."""
    joined = np.zeros((sum(len(tile) for tile in tiles), *shape), dtype)
    base = 0
    for tile in tiles:
        joined[base : base + len(tile), : tile.shape[1]] = tile
        base += len(tile)
    return joined


def _steps(counts: Ints) -> tuple[Ints, Ints]:
    """Unroll counts[i] passes of every i: which i, and which pass of it.

    >>> [part.tolist() for part in _steps(np.array([2, 0, 1]))]
    [[0, 0, 2], [0, 1, 0]]
    """
    owner = np.repeat(np.arange(counts.size), counts)
    return owner, np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)


def _no_index(entries: int, width: int) -> npt.NDArray[np.int32]:
    return np.zeros((entries, width, 0), np.int32)


def _held_weights(blocks: Values, packed: PackedWeights, rows: int, cols: int) -> _Edges:
    """Edges of ws: a fold for every n-fold, k-fold and pass; t streams."""
    t, lanes = blocks.shape[0], blocks.shape[2]
    slots, dtype = packed.values.shape[3], blocks.dtype
    k_spans = _spans(packed.passes.shape[0], rows)
    folds: list[_Fold] = []
    values: list[Values] = []
    index: list[Values] = []
    base = 0
    for n0, c in _spans(packed.passes.shape[1], cols):
        for at, (b0, r) in enumerate(k_spans):
            for each in range(packed.passes[b0 : b0 + r, n0 : n0 + c].max()):
                folds.append(_Fold(r, c, t, 0, at * t, base, 0, 0, n0))
                values.append(packed.values[each, b0 : b0 + r, n0 : n0 + c][::-1])
                index.append(packed.index[each, b0 : b0 + r, n0 : n0 + c][::-1])
                base += r
    west = _stack([blocks[:, b0 : b0 + r] for b0, r in k_spans], (rows, lanes), dtype)
    return _Edges(
        folds=folds,
        step_west=np.arange(t),
        step_out=np.arange(t),
        west_values=west,
        west_index=_no_index(len(west), rows),
        north_values=_stack(values, (cols, slots), dtype),
        north_index=_stack(index, (cols, packed.index.shape[3]), packed.index.dtype),
    )


def _held_lanes(blocks: Values, packed: PackedWeights, rows: int, cols: int) -> _Edges:
    """Edges of is: a fold for every t-fold and k-fold; n and its passes stream."""
    lanes, slots, dtype = blocks.shape[2], packed.values.shape[3], blocks.dtype
    k_spans = _spans(packed.passes.shape[0], rows)
    streams = [_steps(packed.passes[b0 : b0 + r].max(axis=0)) for b0, r in k_spans]
    sources = [
        (each, slice(b0, b0 + r), n) for (n, each), (b0, r) in zip(streams, k_spans, strict=True)
    ]
    step_out = np.concatenate([n for n, _ in streams])
    bases = np.cumsum([0] + [n.size for n, _ in streams]).tolist()
    folds: list[_Fold] = []
    north: list[Values] = []
    base = 0
    for t0, c in _spans(blocks.shape[0], cols):
        for at, (b0, r) in enumerate(k_spans):
            if streams[at][0].size:
                steps, first = streams[at][0].size, bases[at]
                folds.append(_Fold(r, c, steps, first, 0, base, first, 0, t0))
                north.append(blocks[t0 : t0 + c, b0 : b0 + r].swapaxes(0, 1)[::-1])
                base += r
    north_values = _stack(north, (cols, lanes), dtype)
    return _Edges(
        folds=folds,
        step_west=np.arange(step_out.size),
        step_out=step_out,
        west_values=_stack([packed.values[s] for s in sources], (rows, slots), dtype),
        west_index=_stack(
            [packed.index[s] for s in sources], (rows, packed.index.shape[3]), packed.index.dtype
        ),
        north_values=north_values,
        north_index=_no_index(len(north_values), cols),
    )


def _held_sums(blocks: Values, packed: PackedWeights, rows: int, cols: int) -> _Edges:
    """Edges of os: a fold for every t-fold and n-fold; k-blocks and their passes stream."""
    _, depth, lanes = blocks.shape
    slots, dtype = packed.values.shape[3], blocks.dtype
    t_spans, n_spans = _spans(blocks.shape[0], rows), _spans(packed.passes.shape[1], cols)
    counts = [packed.passes[:, n0 : n0 + c].max(axis=1) for n0, c in n_spans]
    for count in counts:
        # Without any weight one empty step still runs: its sum, 0, has to get out.
        count[0] += not count.any()
    streams = [_steps(count) for count in counts]
    sources = [
        (each, b, slice(n0, n0 + c)) for (b, each), (n0, c) in zip(streams, n_spans, strict=True)
    ]
    step_west = np.concatenate([b for b, _ in streams])
    bases = np.cumsum([0] + [b.size for b, _ in streams]).tolist()
    west = _stack([blocks[t0 : t0 + r].swapaxes(0, 1) for t0, r in t_spans], (rows, lanes), dtype)
    folds = [
        _Fold(r, c, streams[j][0].size, bases[j], i * depth, bases[j], 0, t0 + r - 1, n0)
        for i, (t0, r) in enumerate(t_spans)
        for j, (n0, c) in enumerate(n_spans)
    ]
    return _Edges(
        folds=folds,
        step_west=step_west,
        step_out=-np.arange(rows),  # the last row leaves first
        west_values=west,
        west_index=_no_index(len(west), rows),
        north_values=_stack([packed.values[s] for s in sources], (cols, slots), dtype),
        north_index=_stack(
            [packed.index[s] for s in sources], (cols, packed.index.shape[3]), packed.index.dtype
        ),
    )


_EDGES = {"ws": _held_weights, "is": _held_lanes, "os": _held_sums}


def _fold_table(folds: list[_Fold], rows: int, dataflow: str, double_buffered: bool) -> Ints:
    """Return the kernel's table: (start, rows, cols, steps, preload, bases and places).

    The last line is the fold that never starts, which the kernel wants at the end.
    """
    table = np.zeros((len(folds) + 1, 11), np.int64)
    table[-1, [0, 4]] = 2**62
    free = 0  # single-buffered: end of the fold before
    for f, fold in enumerate(folds):
        before = folds[f - 1]
        preload, start = free, free
        if dataflow != "os":
            start = preload + fold.rows
            if double_buffered and f:
                preload = table[f - 1, 0]
                start = preload + max(before.steps, fold.rows)
        elif double_buffered and f:
            # The first capture of this fold must not meet the last one before its release.
            start = table[f - 1, 0] + before.steps + max(0, before.rows - fold.steps)
        drain = rows if dataflow != "os" else fold.rows + rows
        free = start + fold.steps + drain + fold.cols - 2
        table[f] = (start, *fold[:3], preload, *fold[3:])
    return table


def _clock(
    edges: _Edges,
    table: Ints,
    dataflow: str,
    double_buffered: bool,
    faults: RegisterFaults | None,
    outputs: Values,
) -> int:
    """Run the kernel; outputs is written. Return the cycles."""
    from accsim.kernels import systolic  # compiled on import: only who runs it pays

    flips = _fault_table(faults, edges, dataflow, double_buffered)
    with np.errstate(over="ignore", invalid="ignore"):  # uncompiled runs warn where hardware wraps
        if dataflow == "os":
            return systolic.resident(table, *edges[1:], flips, outputs)
        held = dataflow == "is"
        return systolic.flow(table, *edges[1:], held, double_buffered, flips, outputs)


def _fault_table(
    faults: RegisterFaults | None, edges: _Edges, dataflow: str, double_buffered: bool
) -> Ints:
    """Return the kernel's fault table, sorted by cycle; refuse registers that do not exist."""
    if faults is None:
        return np.zeros((0, 6), np.int64)
    fields = (faults.cycle, faults.row, faults.col, faults.register, faults.slot, faults.mask)
    table = np.stack([np.asarray(field, np.int64) for field in fields], axis=1)
    table = table[np.argsort(table[:, 0], kind="stable")]
    rows, cols = edges.west_values.shape[1], edges.north_values.shape[1]
    slots = max(edges.west_index.shape[2], edges.north_index.shape[2])
    held, drains = edges.north_values.shape[2], dataflow == "os"
    shadow = double_buffered and not drains
    depth = (  # in the order of the register codes
        edges.west_values.shape[2], held, held * shadow, 1, int(drains), slots,
        edges.north_index.shape[2] * shadow,
    )  # fmt: skip
    for _, row, col, register, slot, _ in table.tolist():
        inside = 0 <= row < rows and 0 <= col < cols and 0 <= register < len(depth)
        if not (inside and 0 <= slot < depth[register]):
            place = f"register {register} slot {slot} of PE ({row}, {col})"
            raise InputError(f"a fault must hit a register of the array; got {place}")
    return table
