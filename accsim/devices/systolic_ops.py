"""The GEMMs of a workload as arrays, one entry an operation, ready for the closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_folds import DATAFLOWS
from accsim.devices.systolic_modes import Mode
from accsim.spec.dtype import DTYPES
from accsim.spec.hardware import Systolic
from accsim.spec.workload import Conv2d, Layer

Ints = npt.NDArray[np.int64]


class Ops:
    """One array a quantity, all of one length. Bits are per element (or per stored slot)."""

    t: Ints
    k: Ints
    n: Ints
    runs: Ints
    lanes: Ints  # k rows one PE covers
    group: Ints  # k rows one packed group covers
    slots: Ints  # slots stored a group
    passes: Ints
    index_bits: Ints
    operand_bits: Ints
    sum_bits: Ints  # partial sums in the output buffer
    channels: Ints  # of the input map: the part of k that lies at one kernel position
    out_rows: Ints  # output map of one item, rows and columns
    out_cols: Ints
    reach: Ints  # input rows between the first and the last an output row needs, inclusive
    step: Ints  # input rows from one output row to the next
    in_rows: Ints  # input rows of one item that are used at all
    in_cols: Ints

    def __init__(self, table: Ints) -> None:
        self.table = table  # (quantities, …) in the order above, so that taking is one indexing
        for name, values in zip(Ops.__annotations__, table, strict=True):
            setattr(self, name, values)

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def take(self, which: npt.NDArray[np.intp]) -> Ops:
        """Return the chosen entries, in that order, repeats allowed."""
        return Ops(self.table[:, which])

    def pieces(self, t: Ints, k: Ints, n: Ints) -> Ops:
        """Return t × k × n pieces of the one operation there is, each run once."""
        table = np.repeat(self.table, len(t), axis=1)
        table[:4] = t, k, n, np.ones_like(t)
        return Ops(table)

    def widen(self, axes: int) -> Ops:
        """Return the same entries with ``axes`` axes of length 1 behind, for broadcasting."""
        return Ops(self.table.reshape(self.table.shape + (1,) * axes))

    def blocks(self, k: Ints) -> Ints:
        """Return PE rows' worth of blocks in k rows."""
        return -(-k // self.lanes)

    def stored(self, k: Ints) -> Ints:
        """Return the slots stored for k rows of one column."""
        slots: Ints = k // self.group * self.slots + np.minimum(self.slots, k % self.group)
        return slots

    def weight_bytes(self, k: Ints, n: Ints, *, metadata: bool = True) -> Ints:
        """Return the bytes of a k × n piece of packed weights, rounded up to whole bytes."""
        bits = self.operand_bits + (self.index_bits if metadata else 0)
        return -(-self.stored(k) * n * bits // 8)

    def x_bytes(self, t: Ints, k: Ints) -> Ints:
        """Return the bytes of the inputs that t × k lowered activations are made of.

        A convolution is lowered between buffer and array, so DRAM and buffer hold each input once:
        the input rows that whole output rows need, halo included, and never more than t · k.
        """
        return self.x_bytes_over(self.pixels(t), t, k)

    def x_bytes_over(self, pixels: Ints, t: Ints, k: Ints) -> Ints:
        """Return ``x_bytes(t, k)`` from the input positions under t output positions."""
        inputs = pixels * np.minimum(self.channels, k)
        nbytes: Ints = -(-np.minimum(t * k, inputs) * self.operand_bits // 8)
        return nbytes

    def mapped(self) -> npt.NDArray[np.bool_]:
        """Say which operations use an input several times (convolutions of more than one tap)."""
        return self.channels < self.k

    def x_shares(self, tile: Ints, count: Ints) -> Ints:
        """Return what the first, a middle and the last of ``count`` t tiles load, (…, 3) bytes.

        For inputs that stay on chip: the first tile brings all it needs, the others only what is
        new, so that the shares add up to every input once.
        """
        whole, last = self.x_bytes(self.t, self.k), self.t - tile * (count - 1)
        return deal(whole, self.x_bytes(tile, self.k), self.x_bytes(last, self.k), count)

    def pixels(self, t: Ints) -> Ints:
        """Return the input positions under t consecutive output positions (an upper bound)."""
        whole = self.out_rows * self.out_cols
        items = np.where(t % whole == 0, t // whole, (t - 1) // whole + 2)
        many = np.minimum(items, self.t // whole) * self.in_rows
        touched = np.where(t % self.out_cols == 0, t // self.out_cols, (t - 1) // self.out_cols + 2)
        one = np.minimum(touched, self.out_rows) - 1
        inside = np.minimum(one * self.step + self.reach, self.in_rows)
        # a tile that does not divide an item may end one and begin the next: two halos
        across = np.minimum((touched - 2) * self.step + 2 * self.reach, 2 * self.in_rows)
        straddles = (self.t > whole) & (whole % t != 0)
        few = np.where(straddles, np.maximum(inside, across), inside)
        return np.where(t >= whole, many, few) * self.in_cols

    def y_bytes(self, t: Ints, n: Ints) -> Ints:
        """Return the bytes of a t × n piece of outputs, stored in the operands' format."""
        return -(-t * n * self.operand_bits // 8)

    def sum_bytes(self, t: Ints, n: Ints) -> Ints:
        """Return the bytes of a t × n piece of partial sums."""
        return t * n * self.sum_bits // 8


def deal(whole: Ints, first: Ints, last: Ints, count: Ints) -> Ints:
    """Deal ``whole`` bytes out to ``count`` pieces: (…, first, a middle, last); they add up to it.

    The first piece brings ``first``, what it needs alone; the last at most ``last``, what it would
    need alone (and what does not divide evenly); those between share the rest.
    """
    now = np.where(count == 1, whole, np.minimum(whole, first))
    rest, between = whole - now, np.maximum(count - 2, 0)
    end = np.where(count == 2, rest, np.minimum(rest, last))
    middle = (rest - end) // np.maximum(between, 1)
    end = np.where(count == 1, now, rest - middle * between)
    return np.stack([now, middle, end], axis=-1)


def make_ops(layers: list[Layer], chosen: list[Mode], device: Systolic) -> Ops:
    """Return the arrays of layers, each in its chosen mode."""
    rows = [
        (
            layer.gemm.t, layer.gemm.k, layer.gemm.n, layer.runs,
            mode.lanes, mode.group, mode.slots, mode.passes, mode.index_bits,
            DTYPES[layer.dtype].bits,
            32 if DTYPES[layer.dtype].floating else device.array.accumulator_bits,
            *_input_map(layer),
        )
        for layer, mode in zip(layers, chosen, strict=True)
    ]  # fmt: skip
    return Ops(np.ascontiguousarray(np.array(rows, dtype=np.int64).T))


def _input_map(layer: Layer) -> tuple[int, ...]:
    """Return channels, output rows and columns, reach, step, used input rows and columns."""
    op = layer.op
    if not isinstance(op, Conv2d):
        return (layer.gemm.k, 1, 1, 1, 1, 1, 1)
    span, step = op.dilation[0] * (op.kernel[0] - 1) + 1, op.stride[0]
    rows, cols = (max(1, used) for used in op.touched)
    # A stride that skips inputs never loads them.
    steps = (span, step) if span >= step else (span, span)
    return (op.in_channels // op.groups, op.output(0), op.output(1), *steps, rows, cols)


def fold_extents(ops: Ops, dataflow: str, t: Ints, k: Ints, n: Ints) -> tuple[Ints, Ints, Ints]:
    """Return rows, columns and stream steps that a t × k × n piece occupies on the array."""
    along = {"t": t, "k": ops.blocks(k), "n": n}
    flow = DATAFLOWS[dataflow]
    repeat = ops.passes if dataflow != "ws" else 1
    return along[flow.rows], along[flow.cols], along[flow.stream] * repeat


def units(ops: Ops, device: Systolic) -> dict[str, Ints]:
    """Return the smallest piece of t, k and n a tile is cut in: a fold, or a stream step."""
    flow = DATAFLOWS[device.dataflow]
    size = {flow.rows: device.array.rows, flow.cols: device.array.cols, flow.stream: 1}
    one = np.ones(len(ops), dtype=np.int64)
    return {"t": one * size["t"], "k": ops.lanes * size["k"], "n": one * size["n"]}
