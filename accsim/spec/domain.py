"""Where a calibration holds, and how far a prediction can be off there and beyond.

The domain of a number format and pattern is a box: what was measured spans a range in each of
log₂ t, log₂ k, log₂ n and log₂ of the arithmetic intensity, t·k·n / (t·k + k·n + t·n) (products per
operand element; bytes would only shift it). Inside the box a prediction has the errors seen on
products held out of the fit. Outside its interval widens with the distance, and it is flagged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, one_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Key = tuple[str, str]

AXES = ("t", "k", "n", "intensity")
# Assumed: nothing measured says how fast a model degrades away from its measurements.
WIDER_PER_OCTAVE = 0.15
ROUNDING = 1e-9


def intensity(t: npt.ArrayLike, k: npt.ArrayLike, n: npt.ArrayLike) -> Floats:
    """Return the products of a matrix product per element of its operands and result.

    >>> float(intensity(6, 6, 6))
    2.0
    """
    inverse = sum(1.0 / np.asarray(x, dtype=np.float64) for x in (t, k, n))
    return np.asarray(1.0 / inverse, dtype=np.float64)


def _axes(t: npt.ArrayLike, k: npt.ArrayLike, n: npt.ArrayLike) -> Floats:
    """Return log₂ of the four axes, (entries, 4)."""
    extents = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (t, k, n)))
    if any((x < 1).any() or not np.isfinite(x).all() for x in extents):
        raise InputError("t, k and n must be at least 1")
    return np.asarray(np.log2(np.stack([*extents, intensity(*extents)], axis=-1)), np.float64)


@dataclass(frozen=True)
class Domain:
    """The box of every (dtype, pattern): log₂ of t, k, n and intensity, low and high, shape (2, 4).

    >>> domain = Domain.of(["bf16"] * 2, ["dense"] * 2, [64, 512], [768, 4096], [768, 4096])
    >>> bool(domain.inside("bf16", "dense", 128, 1024, 1024))
    True
    >>> float(domain.distance("bf16", "dense", 128, 1024, 16384))
    2.0
    """

    boxes: Mapping[Key, Floats]

    @classmethod
    def of(
        cls,
        dtype: Iterable[str],
        pattern: Iterable[str],
        t: npt.ArrayLike,
        k: npt.ArrayLike,
        n: npt.ArrayLike,
    ) -> Domain:
        """Return the domain that measurements span; refuses t, k, n below 1 and an empty list."""
        points = np.atleast_2d(_axes(t, k, n))
        keys = [(str(d), str(p)) for d, p in zip(dtype, pattern, strict=True)]
        if not keys or len(keys) != len(points):
            raise InputError(f"a domain needs measurements; got {len(keys)} and {len(points)}")
        boxes = {}
        for key in sorted(set(keys)):
            chosen = points[[x == key for x in keys]]
            boxes[key] = np.stack([chosen.min(axis=0), chosen.max(axis=0)])
        return cls(boxes)

    def distance(
        self, dtype: str, pattern: str, t: npt.ArrayLike, k: npt.ArrayLike, n: npt.ArrayLike
    ) -> Floats:
        """Return how far outside the box products lie, in octaves: along the axis worst of all.

        0 inside; infinite where nothing of this dtype and pattern was measured.
        """
        points = _axes(t, k, n)
        box = self.boxes.get((dtype, pattern))
        if box is None:
            return np.full(points.shape[:-1], np.inf)
        over = np.maximum(box[0] - points, points - box[1]).max(axis=-1)
        return np.where(over > ROUNDING, over, 0.0)

    def inside(
        self, dtype: str, pattern: str, t: npt.ArrayLike, k: npt.ArrayLike, n: npt.ArrayLike
    ) -> Bools:
        """Return whether products lie within what was measured; those outside are to be flagged."""
        return np.asarray(self.distance(dtype, pattern, t, k, n) == 0)

    def record(self) -> list[dict[str, Any]]:
        """Return plain values for a file: the ends of every axis, as numbers, not as logarithms."""
        rows = []
        for (dtype, pattern), box in self.boxes.items():
            ends = {
                axis: [float(f"{2.0**x:.12g}") for x in box[:, i]] for i, axis in enumerate(AXES)
            }
            rows.append({"dtype": dtype, "pattern": pattern, **ends})
        return rows

    @classmethod
    def of_record(cls, rows: Iterable[Mapping[str, Any]]) -> Domain:
        """Return the domain of ``record``'s values; InputError for what is none."""
        boxes = {}
        for row in rows:
            try:
                ends = np.array([row[axis] for axis in AXES], dtype=np.float64).T
                key = (str(row["dtype"]), str(row["pattern"]))
            except (KeyError, TypeError, ValueError):
                raise InputError(
                    f"a domain needs dtype, pattern and [low, high] of {one_of(AXES)}"
                ) from None
            good = ends.shape == (2, len(AXES)) and np.isfinite(ends).all()
            if not good or not ((ends[0] > 0) & (ends[0] <= ends[1])).all():
                raise InputError(f"a domain needs 0 < low <= high for {one_of(AXES)}")
            boxes[key] = np.log2(ends)
        return cls(boxes)


def interval_factor(quantile: npt.ArrayLike, distance: npt.ArrayLike) -> Floats:
    """Return the factor f of an interval predicted / f … predicted · f.

    ``quantile`` q is the regime's 90 % quantile of |ln(predicted / measured)| on products held
    out; it is widened by 15 % (assumed) an octave d outside the domain: exp(q · (1 + 0.15 d)).
    Infinite at an infinite distance.

    >>> round(float(interval_factor(0.1, 0)), 4), round(float(interval_factor(0.1, 2)), 4)
    (1.1052, 1.1388)
    """
    far = np.asarray(distance, dtype=np.float64)
    known = np.where(np.isinf(far), 0.0, far)
    widened = np.asarray(quantile, dtype=np.float64) * (1 + WIDER_PER_OCTAVE * known)
    return np.where(np.isinf(far), np.inf, np.exp(np.minimum(widened, 700.0)))


@dataclass(frozen=True)
class Intervals:
    """The quantile of |ln(predicted / measured)| of every regime, at ``level``.

    ``of`` takes out-of-fold predictions: residuals of the fit itself are too small. Of m residuals
    it takes the ⌈level · (m + 1)⌉-th smallest, which covers a new product of the same kind with at
    least ``level`` (the quantile of split conformal prediction, Vovk et al. 2005). A regime of too
    few residuals for that has the larger of its worst and the quantile of all; one never seen has
    the widest.
    """

    quantiles: Mapping[str, float]
    level: float = 0.9

    @classmethod
    def of(
        cls,
        measured_us: npt.NDArray[Any],
        predicted_us: npt.NDArray[Any],
        regime: npt.NDArray[Any],
        level: float = 0.9,
    ) -> Intervals:
        """Return the intervals that measurements and their out-of-fold predictions say."""
        if not 0 < level < 1:
            raise InputError(f"level must be between 0 and 1; got {level:g}")
        names = np.asarray(regime).astype(str)
        if not len(names) or not (len(names) == len(measured_us) == len(predicted_us)):
            raise InputError("measured, predicted and regime must be of one length, not empty")
        size = np.abs(np.log(np.asarray(predicted_us) / np.asarray(measured_us)))
        if not np.isfinite(size).all():
            raise InputError("latencies must be finite and above 0")
        pooled = _quantile(size, level)
        every = float(size.max()) if pooled is None else pooled
        quantiles = {}
        for name in sorted(set(names.tolist())):
            of_it = size[names == name]
            own = _quantile(of_it, level)
            quantiles[name] = max(float(of_it.max()), every) if own is None else own
        return cls(quantiles, level)

    def bounds(
        self, predicted_us: npt.ArrayLike, regime: npt.ArrayLike, distance: npt.ArrayLike = 0.0
    ) -> tuple[Floats, Floats]:
        """Return the low and high ends (µs) of predictions; (0, inf) at an infinite distance."""
        predicted = np.asarray(predicted_us, dtype=np.float64)
        widest = max(self.quantiles.values())
        names = np.asarray(regime).astype(str)
        quantile = np.array([self.quantiles.get(str(x), widest) for x in names.ravel()])
        factor = interval_factor(quantile.reshape(names.shape), distance)
        return predicted / factor, predicted * factor


def _quantile(size: Floats, level: float) -> float | None:
    """Return the conformal quantile; None where there are too few values for it."""
    at = math.ceil(level * (len(size) + 1) - 1e-9)
    return float(np.sort(size)[at - 1]) if at <= len(size) else None
