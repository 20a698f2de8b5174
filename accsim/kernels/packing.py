"""Pack a masked weight matrix into the slots of tensor PEs (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedWeights:
    """Weights of k×n in blocks of `lanes` k rows, `slots` of them a pass.

    Attributes:
        values: (passes, blocks, n, slots), dtype of the matrix; an empty slot holds 0.
        index: (passes, blocks, n, slots) int32, lane 0 ... lanes - 1; an empty slot names lane 0.
        passes: (blocks, n) int64, passes that column n needs in this block: ceil(weights / slots).
    """

    values: npt.NDArray[Any]
    index: npt.NDArray[np.int32]
    passes: npt.NDArray[np.int64]


def pack(
    weights: npt.NDArray[Any], mask: npt.NDArray[np.bool_], *, slots: int, lanes: int
) -> PackedWeights:
    """Return the kept weights in slot order: pass j holds the j-th group of `slots` of a block.

    Inside a block weights keep their k order. A kept weight takes a slot even if its value is 0.
    There is at least one pass, empty if nothing is kept. Weights that are not kept are not read.

    Args:
        weights: (k, n), any dtype.
        mask: (k, n), True where the weight is kept.
        slots: multipliers of a tensor PE, at least 1.
        lanes: k rows of a block, at least 1; k is filled up with empty rows to a multiple.

    >>> w = np.array([[5], [6], [0], [7]])
    >>> packed = pack(w, w != 0, slots=2, lanes=4)
    >>> packed.values[:, 0, 0].tolist(), packed.index[:, 0, 0].tolist()
    ([[5, 6], [7, 0]], [[0, 1], [3, 0]])
    """
    k, n = weights.shape
    blocks = -(-k // lanes)
    kept = np.zeros((blocks * lanes, n), np.bool_)
    kept[:k] = mask
    by_block = kept.reshape(blocks, lanes, n)
    rank = (np.cumsum(by_block, axis=1) - 1).reshape(blocks * lanes, n)
    passes = -(-by_block.sum(axis=1, dtype=np.int64) // slots)
    shape = (max(1, int(passes.max())), blocks, n, slots)
    values, index = np.zeros(shape, weights.dtype), np.zeros(shape, np.int32)
    row, col = np.nonzero(kept)
    at, slot = np.divmod(rank[row, col], slots)
    values[at, row // lanes, col, slot] = weights[row, col]
    index[at, row // lanes, col, slot] = row % lanes
    return PackedWeights(values=values, index=index, passes=passes)


def block_activations(x: npt.NDArray[Any], *, lanes: int, blocks: int) -> npt.NDArray[Any]:
    """Return x (t×k) as (t, blocks, lanes), filled with 0 behind k."""
    t, k = x.shape
    filled = np.zeros((t, blocks * lanes), x.dtype)
    filled[:, :k] = x
    return filled.reshape(t, blocks, lanes)
