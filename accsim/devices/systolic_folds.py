"""Cycles of a run of folds on the array: the closed form, and the fold-by-fold recurrence.

A fold holds r ≤ R used rows and c ≤ C used columns (top and left) for s stream steps. Row i gets
step τ at cycle S + τ + i; operands move one PE a cycle, so the last multiply of a fold is in cycle
S + s + r + c − 2 (counted from 1). docs/systolic.md says more.

stationary (ws, is): the stationary tile shifts in from the north, r cycles; results of a step pass
all R rows. With a second register a fold may start as soon as the one before has streamed and its
own tile is in: S' = S + max(s, r'). Without, folds follow each other: r + s + R + c − 2 each.

os: results shift out through all R rows, starting when the fold's last row is done. With a second
register that overlaps the next fold, whose first row may not be done before the last row of this
one: S' = S + s + max(0, r − s'), for equal steps S + max(s, r). Without: s + r + c − 2 + R each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataflow:
    """Which extent lies along the rows, along the columns, and which is streamed."""

    rows: str
    cols: str
    stream: str

    @property
    def stationary(self) -> bool:
        """Whether an operand (not the output) stays in the PEs."""
        return self.stream != "k"


DATAFLOWS = {
    "ws": Dataflow(rows="k", cols="n", stream="t"),
    "os": Dataflow(rows="t", cols="n", stream="k"),
    "is": Dataflow(rows="k", cols="t", stream="n"),
}


class FoldCycles(NamedTuple):
    """Cycles of a tile's folds: ``total = work + fill``; work is the steps streamed, no skew."""

    total: Any
    work: Any


def uniform_folds(
    rows_used: Any, cols_used: Any, steps: Any, passes: Any,
    *, rows: Any, cols: Any, stationary: bool, double_buffering: bool,
) -> FoldCycles:  # fmt: skip
    """Return the cycles of rows_used × cols_used PEs' worth of work, cut in folds of rows × cols.

    Sizes broadcast; every fold streams ``steps`` steps. ``passes`` repeats each fold of a
    stationary dataflow (os has its passes in ``steps``).
    """
    row_folds, col_folds = -(-rows_used // rows), -(-cols_used // cols)
    folds = row_folds * col_folds
    repeat = passes if stationary else 1
    if not double_buffering:  # every fold pays its own fill, skew and drain: R rows
        skewed = repeat * (folds * (steps - 2) + col_folds * rows_used + row_folds * cols_used)
        return FoldCycles(total=skewed + repeat * folds * rows, work=repeat * folds * steps)

    last_r, last_c = rows_used - rows * (row_folds - 1), cols_used - cols * (col_folds - 1)
    long, short = np.maximum(steps, rows), np.maximum(steps, last_r)
    if stationary:  # S_last = r_first + Σ max(s, r) over every fold but the first
        group = passes * ((row_folds - 1) * long + short)
        first = np.where(row_folds > 1, rows, last_r)
        start = first + col_folds * group - np.maximum(steps, first)
        before, edge = start - group, rows
    else:  # S_last = Σ max(s, r) over every fold but the last
        start = (row_folds - 1) * col_folds * long + (col_folds - 1) * short
        before, edge = start - short, last_r + rows
    # a ragged last column may end before the full one that precedes it
    ahead = np.where(col_folds > 1, before + cols, 0)
    total = np.maximum(start + last_c, ahead) + steps + edge - 2
    return FoldCycles(total=total, work=repeat * folds * steps)


def fold_sequence(
    r: Ints, c: Ints, s: Ints, *, rows: int, stationary: bool, double_buffering: bool
) -> FoldCycles:
    """Return the cycles of folds given one by one, in order: the recurrence above."""
    if len(r) == 0:
        return FoldCycles(0, 0)
    skew = r + c - 2
    if not double_buffering:
        return FoldCycles(int((s + skew).sum()) + rows * len(r), int(s.sum()))
    if stationary:
        starts = r[0] + np.concatenate(([0], np.cumsum(np.maximum(s[:-1], r[1:]))))
        ends = starts + s + rows + c - 2
    else:
        starts = np.concatenate(([0], np.cumsum(s[:-1] + np.maximum(0, r[:-1] - s[1:]))))
        ends = starts + s + skew + rows
    return FoldCycles(int(ends.max()), int(s.sum()))
