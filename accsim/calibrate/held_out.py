"""What a fit is worth on products it has not seen: cross-validation, errors by regime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.base.rng import stream

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# A fit to the measurements of a mask, as what predicts (µs) the measurements of another mask.
Fitter = Callable[[Bools], Callable[[Bools], npt.NDArray[Any]]]

REGIMES = ("launch", "memory", "compute")


def fold_of(groups: npt.NDArray[Any], folds: int, seed: int = 0) -> Ints:
    """Return the fold, from 0, of every entry; entries of one group share a fold.

    The groups in sorted order are shuffled under ``seed`` and dealt out in turn, so folds differ by
    at most one group, and the order of the entries does not matter.

    Args:
        groups: shape (entries,) or (entries, columns): a group is a value, or a row such as (n, k).
        folds: at least 2, at most the number of groups.
        seed: of the shuffle.

    Raises:
        InputError: folds out of range.
    """
    _, group = np.unique(np.asarray(groups), axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = int(group.max(initial=-1)) + 1
    if not 2 <= folds <= count:
        raise InputError(f"folds must be 2 to {count}, the number of groups; got {folds}")
    dealt = np.empty(count, dtype=np.int64)
    dealt[stream(seed, "calibrate", "folds").permutation(count)] = np.arange(count) % folds
    return dealt[group]


def cross_validated(
    fitter: Fitter, groups: npt.NDArray[Any], folds: int = 5, seed: int = 0
) -> Floats:
    """Return a prediction (µs) of every measurement by a fit that did not see its group.

    ``fitter(train)`` fits to the measurements of the mask ``train`` and returns a function, which
    is asked for those of the fold left out. Folds: ``fold_of``.

    Raises:
        InputError: folds out of range, or predictions that are not latencies.
    """
    fold = fold_of(groups, folds, seed)
    predicted = np.full(len(fold), np.nan)
    for i in range(folds):
        held = fold == i
        found = np.asarray(fitter(~held)(held), dtype=np.float64)
        if found.shape != (int(held.sum()),) or not (np.isfinite(found) & (found > 0)).all():
            raise InputError(f"fold {i}: predictions must be {int(held.sum())} latencies above 0")
        predicted[held] = found
    return predicted


@dataclass(frozen=True)
class ErrorRow:
    """Errors of one regime, |predicted / measured − 1|, and their bias.

    ``bias`` is the geometric mean of predicted / measured, less 1: above 0 is too slow. ``worst``
    keeps its sign.
    """

    regime: str
    n: int
    median: float
    mean: float
    p90: float
    worst: float
    bias: float


def error_table(
    measured_us: npt.NDArray[Any], predicted_us: npt.NDArray[Any], regime: npt.NDArray[Any]
) -> list[ErrorRow]:
    """Return the errors by regime (launch, memory, compute, others by name), then of all.

    Raises:
        InputError: arrays of different lengths, nothing in them, or latencies not above 0.
    """
    measured, predicted = _latencies(measured_us), _latencies(predicted_us)
    names = np.asarray(regime).astype(str)
    if not (measured.shape == predicted.shape == names.shape):
        raise InputError(
            f"measured, predicted and regime must be as long as one another; got "
            f"{len(measured)}, {len(predicted)}, {len(names)}"
        )
    found = set(names.tolist())
    ordered = [x for x in REGIMES if x in found] + sorted(found - set(REGIMES))
    rows = [_row(x, measured[names == x], predicted[names == x]) for x in ordered]
    return [*rows, _row("all", measured, predicted)]


def _latencies(values: npt.NDArray[Any]) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not (np.isfinite(found) & (found > 0)).all():
        raise InputError("latencies must be a list of finite numbers above 0")
    return found


def _row(regime: str, measured: Floats, predicted: Floats) -> ErrorRow:
    signed = predicted / measured - 1
    size = np.abs(signed)
    return ErrorRow(
        regime=regime,
        n=len(signed),
        median=float(np.median(size)),
        mean=float(np.mean(size)),
        p90=float(np.quantile(size, 0.9)),
        worst=float(signed[np.argmax(size)]),
        bias=float(np.expm1(np.mean(np.log(predicted / measured)))),
    )
