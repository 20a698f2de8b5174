"""Cycles of a t × k × n tile on the array of tensor PEs, in each dataflow (docs/fpga.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.devices.fpga_ops import Ops
from accsim.spec.fpga import TensorPes

Ints = npt.NDArray[np.int64]


class TileCycles(NamedTuple):
    """Cycles of a tile: ``total``, ``streaming`` of them, ``useful`` of these if no PE idled."""

    total: Ints
    streaming: Ints
    useful: Ints


def weights_stay(ops: Ops, t: Ints, k: Ints, n: Ints, array: TensorPes) -> TileCycles:
    """Return the cycles of tiles whose weights stay in the PEs while rows of X pass.

    A fold is R groups of k × C columns; its rows pass once for each step of a group. A pass lasts L
    at least, since the next adds to the same sums; a fold at least as long as loading the next.
    """
    rows, latency, steps = array.rows, array.adder_latency, ops.steps
    folds = -(-ops.groups(k) // rows) * -(-n // array.cols)
    sweep = np.maximum(t, latency)
    between: Ints = (folds - 1) * steps * np.maximum(sweep, rows)
    last: Ints = (steps - 1) * sweep + t + (rows + 1) * latency + array.cols - 2
    return TileCycles(
        rows * steps + between + last, folds * steps * t, _useful(ops, t, k, n, array)
    )


def sums_stay(ops: Ops, t: Ints, k: Ints, n: Ints, array: TensorPes) -> TileCycles:
    """Return the cycles of tiles whose sums stay in the PEs while X and W pass.

    A PE holds up to L sums that take turns in its adder (one without interleaving); a step of all
    of them takes L cycles even if they are fewer.
    """
    rows, latency = array.rows, array.adder_latency
    held = latency if array.interleave else 1
    deep: Ints = -(-t // rows)  # sums of a PE, all blocks of rows together
    blocks: Ints = -(-deep // held)
    columns: Ints = -(-n // array.cols)
    steps: Ints = ops.groups(k) * ops.steps
    filling: Ints = blocks * (rows + array.cols - 2) + (deep - blocks) + rows * deep
    turns: Ints = blocks * steps * latency
    return TileCycles(
        columns * (turns + filling), columns * steps * deep, _useful(ops, t, k, n, array)
    )


def _useful(ops: Ops, t: Ints, k: Ints, n: Ints, array: TensorPes) -> Ints:
    """Return the cycles all multipliers together need for the stored weights."""
    return -(-t * n * ops.stored(k) // (array.rows * array.cols * array.multipliers))


FLOWS: dict[str, Callable[[Ops, Ints, Ints, Ints, TensorPes], TileCycles]] = {
    "ws": weights_stay,
    "os": sums_stay,
}
