"""GEMMs of training passes as arrays: what a PE does with them, how many bytes their pieces take.

Equations: docs/fpga.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.sparsity.nm import index_bits
from accsim.spec.dtype import DTYPES
from accsim.spec.fpga import Fpga, TensorPes

Ints = npt.NDArray[np.int64]
SUM_BYTES = 4  # sums are kept in fp32, or int32
MOST = 2**62  # a piece's elements times its share's numerator


@dataclass(frozen=True, eq=False)
class PassOps:
    """Products Y[t×n] = X[t×k] · W[k×n], one entry an operation; all in the device's format.

    ``count`` such GEMMs run in a row. ``x_unique`` elements of X are moved, of t · k (a
    convolution's map, each input once). W, the second operand, is
    packed at ``levels``: ``"dense"`` or ``"n:m"`` along k.

    Raises:
        InputError: arrays of unequal length, or a number out of its range.
    """

    t: Ints
    k: Ints
    n: Ints
    count: Ints
    x_unique: Ints
    levels: tuple[str, ...]

    def __post_init__(self) -> None:
        table = self.table
        if table.shape[1] != len(self.levels):
            raise InputError(f"levels must have {table.shape[1]} entries; got {len(self.levels)}")
        t, k, _, _, x = table
        wrong = (table.min(axis=0, initial=1) < 1) | (x > t * k)
        wrong |= _reduced(x, np.maximum(t * k, 1))[0] * (t * k / MOST) > 1
        if wrong.any():
            at = int(wrong.argmax())
            raise InputError(
                f"operation {at}: t, k, n, count must be at least 1 and x_unique 1 … t·k; "
                f"got {table[:, at].tolist()}"
            )

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def table(self) -> Ints:
        """Its numbers, (5, operations): t, k, n, count, x_unique."""
        return np.array([self.t, self.k, self.n, self.count, self.x_unique], dtype=np.int64)


class Mode(NamedTuple):
    """What a PE does at a level: a group is ``group`` of k, taken in ``steps`` cycles.

    ``kept`` values are stored for each ``block`` of k, with ``index_bits`` each.
    """

    group: int
    steps: int
    kept: int
    block: int
    index_bits: int


@lru_cache(maxsize=4096)
def mode_of(level: str, array: TensorPes) -> Mode:
    """Return how a PE runs a level.

    Raises:
        InputError: a level the array does not have.
    """
    if level not in array.levels:
        raise InputError(
            f"array.levels must be one of {one_of(array.levels)}; "
            f"got '{level}'{near(level, array.levels)}"
        )
    if level == "dense":
        steps = array.lanes // array.multipliers  # lanes that do not fill a step are not used
        return Mode(array.multipliers * steps, steps, 1, 1, 0)
    n, m = (int(word) for word in level.split(":"))
    blocks = array.lanes // m
    return Mode(blocks * m, -(-blocks * n // array.multipliers), n, m, index_bits(m))


class Ops:
    """Operations ready for the closed form: one array a quantity, all of one length."""

    t: Ints
    k: Ints
    n: Ints
    count: Ints
    x_moved: Ints  # of x_whole elements of X: a fraction in lowest terms
    x_whole: Ints
    group: Ints
    steps: Ints
    kept: Ints
    block: Ints
    index_bits: Ints
    bits: Ints  # of an element

    def __init__(self, table: Ints) -> None:
        self.table = table  # (quantities, …) in the order above, so that taking is one indexing
        for name, values in zip(Ops.__annotations__, table, strict=True):
            setattr(self, name, values)

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def take(self, which: npt.NDArray[np.intp]) -> Ops:
        """Return the chosen entries, in that order, repeats allowed."""
        return Ops(self.table[:, which])

    def widen(self) -> Ops:
        """Return the same entries with an axis of length 1 behind, for broadcasting."""
        return Ops(self.table[..., None])

    def groups(self, k: Ints) -> Ints:
        """Return the groups in k positions."""
        return -(-k // self.group)

    def stored(self, k: Ints) -> Ints:
        """Return the values of W stored for k positions of one column."""
        stored: Ints = k // self.block * self.kept + np.minimum(self.kept, k % self.block)
        return stored

    def w_bytes(self, k: Ints, n: Ints, *, metadata: bool = True) -> Ints:
        """Return the bytes of a k × n piece of packed W."""
        bits = self.bits + (self.index_bits if metadata else 0)
        return -(-self.stored(k) * n * bits // 8)

    def x_bytes(self, t: Ints, k: Ints) -> Ints:
        """Return the bytes of a t × k piece of X: its share of the elements moved."""
        elements = -(-t * k * self.x_moved // self.x_whole)
        return -(-elements * self.bits // 8)

    def y_bytes(self, t: Ints, n: Ints) -> Ints:
        """Return the bytes of a t × n piece of Y."""
        return -(-t * n * self.bits // 8)


def make_ops(passes: PassOps, device: Fpga) -> Ops:
    """Return the arrays of operations on a device.

    Raises:
        InputError: a level the array does not have.
    """
    modes = np.array([mode_of(level, device.array) for level in passes.levels], dtype=np.int64)
    bits = np.full((1, len(passes)), DTYPES[device.format].bits)
    t, k, n, count, x = passes.table
    return Ops(
        np.concatenate([[t, k, n, count, *_reduced(x, t * k)], modes.reshape(-1, 5).T, bits])
    )


def _reduced(part: Ints, whole: Ints) -> tuple[Ints, Ints]:
    """Return part / whole in lowest terms: no product of it and a piece then overflows."""
    common = np.gcd(part, whole)
    return part // common, whole // common
