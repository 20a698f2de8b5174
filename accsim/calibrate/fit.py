"""Robust least squares on log-latencies: a model's few numbers from measurements of a device.

The model is any function of named numbers. Two things of latency models shape the method. Latencies
span five decades and err by a factor, so residuals are ln(predicted / measured). And a model with a
search inside (tiles) is only piecewise smooth: derivatives are taken over steps of 0.1 %, wide
enough to step over most of its corners, the search begins at several points, and a plain search
along the axes, which needs no derivative, finishes it.

Standard errors are those of the model being right, its errors independent: a model that is wrong
in a way that repeats from product to product is less certain than they say. Cross-validation
(``held_out``) sees that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.base.rng import stream

Floats = npt.NDArray[np.float64]
Model = Callable[[dict[str, float]], npt.NDArray[Any]]
Loss = Literal["linear", "soft_l1", "huber", "cauchy"]

MAX_PARAMETERS = 8  # more, and some of them only describe the noise
STEP = 1e-3  # of a derivative: ln for a logarithmic parameter, else of its range
POLISH_FROM, POLISH_TO = 0.05, 1e-5
CORRELATED = 0.95
AT_BOUND = 1e-3


@dataclass(frozen=True)
class Parameter:
    """A number to be fitted, within ``low`` to ``high``; ``log``: by factors, not by differences.

    ``spread``: how far from ``start`` it is expected to lie before anything is measured, one
    standard deviation of the search coordinate (of ln for a logarithmic one); None: anywhere.
    ``begin``: where the search begins, if not there.

    Raises:
        InputError: start outside its bounds, or bounds that do not suit a logarithm.
    """

    name: str
    start: float
    low: float
    high: float
    unit: str
    log: bool = True
    spread: float | None = None
    begin: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.low, self.start, self.high)
        if not all(math.isfinite(x) for x in numbers) or not self.low < self.high:
            raise InputError(f"parameter '{self.name}': needs finite low < high; got {numbers}")
        if not self.low <= self.start <= self.high:
            raise InputError(
                f"parameter '{self.name}': start must be {self.low:g} to {self.high:g} "
                f"{self.unit}; got {self.start:g}"
            )
        if self.log and self.low <= 0:
            raise InputError(f"parameter '{self.name}': low must be above 0; got {self.low:g}")

    def inward(self, value: float) -> float:
        """Return the search coordinate: ln(value), or the place in the range from 0 to 1."""
        return math.log(value) if self.log else (value - self.low) / (self.high - self.low)

    def outward(self, coordinate: float) -> float:
        """Return the value at a search coordinate, kept within the bounds."""
        wide = self.high - self.low
        value = math.exp(coordinate) if self.log else self.low + coordinate * wide
        return min(max(value, self.low), self.high)

    def slope(self, value: float) -> float:
        """Return d value / d coordinate."""
        return value if self.log else self.high - self.low


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fitted values with what is known about them.

    ``covariance`` and ``correlation`` are (parameters, parameters) in the parameters' order, the
    covariance in their units (by the delta method where a parameter is logarithmic).
    ``residuals`` is ln(predicted / measured) of every measurement. ``warnings`` names parameters
    that are tied to one another, at a bound, or undetermined: not to be read alone.
    """

    parameters: tuple[Parameter, ...]
    values: Mapping[str, float]
    standard_errors: Mapping[str, float]
    covariance: Floats
    correlation: Floats
    warnings: tuple[str, ...]
    residuals: Floats
    loss: Loss
    scale: float
    cost: float

    @property
    def n(self) -> int:
        """Number of measurements."""
        return len(self.residuals)

    def interval(self, name: str, level: float = 0.9) -> tuple[float, float]:
        """Return the confidence interval of a parameter, not cut at its bounds (Student's t).

        By factors for a logarithmic parameter, by differences otherwise; (0 or -inf, inf) for one
        that is undetermined.
        """
        found = [p for p in self.parameters if p.name == name]
        if not found or not 0 < level < 1:
            names = one_of(self.values)
            raise InputError(
                f"no interval of '{name}' at level {level:g}{near(name, self.values)}; "
                f"parameters are {names}, levels from 0 to 1"
            )
        value, error = self.values[name], self.standard_errors[name]
        if not math.isfinite(error):
            return (0.0 if found[0].log else -math.inf), math.inf
        half = error * float(
            _scipy("scipy.special").stdtrit(self.n - len(self.parameters), 0.5 + level / 2)
        )
        if not found[0].log:
            return value - half, value + half
        factor = math.exp(min(half / value, 700.0))
        return value / factor, value * factor


def fit(
    model: Model,
    measured_us: npt.NDArray[Any],
    parameters: Sequence[Parameter],
    *,
    loss: Loss = "soft_l1",
    scale: float = 0.05,
    weights: npt.NDArray[Any] | None = None,
    starts: int = 6,
    seed: int = 0,
) -> Fit:
    """Return the parameters under which ``model`` is nearest to the measurements.

    Minimises Σ ρ(r²) with r = √weight · ln(model / measured) / scale: residuals below ``scale``
    count squared, those far above it by their size (soft_l1, huber) or hardly at all (cauchy);
    "linear" is ordinary least squares. Parameters with a ``spread`` add the square of their
    distance from ``start`` over it: one that the measurements say nothing of stays there.

    Args:
        model: values by name → latencies (µs) of all measurements, positive within the bounds.
        measured_us: latencies, µs.
        parameters: at most eight.
        loss: ρ, one of linear, soft_l1, huber, cauchy.
        scale: relative error of an ordinary measurement.
        weights: inverse relative variances, 1 where None.
        starts: points the search begins at: the parameters' own, then drawn within the bounds.
        seed: of those draws.

    Raises:
        InputError: scipy is missing, more than eight parameters or fewer measurements than them,
            a loss, weight or latency out of its range, or a model that gives no latencies.
    """
    task = _task(model, measured_us, parameters, loss, scale, weights)
    if starts < 1:
        raise InputError(f"starts must be at least 1; got {starts}")
    least_squares = _scipy("scipy.optimize").least_squares
    begun = [task.first]
    draws = stream(seed, "calibrate", "starts")
    begun += [draws.uniform(task.low, task.high) for _ in range(starts - 1)]
    best = task.first
    for start in begun:
        found = least_squares(
            task.scaled, start, task.slopes, (task.low, task.high), method="trf", loss=loss,
            x_scale="jac", ftol=1e-10, xtol=1e-10, gtol=1e-10, max_nfev=100,
        ).x  # fmt: skip
        best = min(best, np.asarray(found, dtype=np.float64), key=task.cost)
    return _fitted(task, task.polished(best))


@dataclass(frozen=True)
class _Task:
    """What is minimised, as a function of search coordinates."""

    model: Model
    log_measured: Floats
    parameters: tuple[Parameter, ...]
    loss: Loss
    scale: float
    root_weights: Floats

    @property
    def first(self) -> Floats:
        return np.array(
            [p.inward(p.start if p.begin is None else p.begin) for p in self.parameters]
        )

    @property
    def low(self) -> Floats:
        return np.array([p.inward(p.low) for p in self.parameters])

    @property
    def high(self) -> Floats:
        return np.array([p.inward(p.high) for p in self.parameters])

    def values(self, at: Floats) -> dict[str, float]:
        return {p.name: p.outward(float(x)) for p, x in zip(self.parameters, at, strict=True)}

    def residuals(self, at: Floats) -> Floats:
        """Return ln(predicted / measured)."""
        values = self.values(at)
        predicted = np.asarray(self.model(values), dtype=np.float64)
        if predicted.shape != self.log_measured.shape:
            raise InputError(
                f"the model must give {len(self.log_measured)} latencies; got shape "
                f"{predicted.shape}"
            )
        if not (np.isfinite(predicted).all() and (predicted > 0).all()):
            where = ", ".join(f"{name} = {value:g}" for name, value in values.items())
            bad = predicted[~(np.isfinite(predicted) & (predicted > 0))][0]
            raise InputError(f"the model must give latencies above 0; got {bad:g} at {where}")
        return np.asarray(np.log(predicted) - self.log_measured, dtype=np.float64)

    def scaled(self, at: Floats) -> Floats:
        """Return scaled residuals, and behind them the distances from what was expected."""
        expected = [
            (x - p.inward(p.start)) / p.spread
            for x, p in zip(at, self.parameters, strict=True)
            if p.spread is not None
        ]
        return np.append(self.residuals(at) * self.root_weights / self.scale, expected)

    def slopes(self, at: Floats) -> Floats:
        """Return d scaled / d coordinate by differences over two steps, one at a bound."""
        columns = []
        for i, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            below, above = at.copy(), at.copy()
            below[i], above[i] = max(at[i] - STEP, low), min(at[i] + STEP, high)
            wide = above[i] - below[i]
            columns.append((self.scaled(above) - self.scaled(below)) / wide)
        return np.stack(columns, axis=1)

    def cost(self, at: Floats) -> float:
        return float(np.sum(_rho(self.scaled(at), self.loss))) / 2

    def polished(self, at: Floats) -> Floats:
        """Return the end of a search along the axes: the step halves when no axis goes down."""
        step, cost = POLISH_FROM, self.cost(at)
        while step >= POLISH_TO:
            improved = False
            for i, sign in [(i, sign) for i in range(len(at)) for sign in (1, -1)]:
                tried = at.copy()
                tried[i] = min(max(at[i] + sign * step, self.low[i]), self.high[i])
                if (new := self.cost(tried)) < cost * (1 - 1e-9):
                    at, cost, improved = tried, new, True
            step = step if improved else step / 2
        return at


def _task(
    model: Model,
    measured_us: npt.NDArray[Any],
    parameters: Sequence[Parameter],
    loss: Loss,
    scale: float,
    weights: npt.NDArray[Any] | None,
) -> _Task:
    measured = np.asarray(measured_us, dtype=np.float64)
    weight = np.ones(measured.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    names = [p.name for p in parameters]
    if not 1 <= len(names) <= MAX_PARAMETERS:
        raise InputError(f"a fit must have 1 to {MAX_PARAMETERS} parameters; got {len(names)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"parameter '{twice[0]}' stands twice")
    free = sum(p.spread is None for p in parameters)
    if measured.ndim != 1 or len(measured) <= free:
        raise InputError(
            f"{free} parameters need more than {free} measurements; got shape {measured.shape}"
        )
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise InputError("measured latencies must be finite and above 0")
    if weight.shape != measured.shape or not (np.isfinite(weight) & (weight > 0)).all():
        raise InputError("weights must be finite and above 0, one for each measurement")
    if loss not in get_args(Loss):
        raise InputError(f"loss must be one of {one_of(get_args(Loss))}; got '{loss}'")
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be above 0; got {scale:g}")
    return _Task(model, np.log(measured), tuple(parameters), loss, scale, np.sqrt(weight))


def _scipy(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InputError("fitting needs scipy: pip install 'accsim[calibrate]'") from None


def _rho(r: Floats, loss: Loss) -> Floats:
    """Return ρ(r²), as scipy.optimize.least_squares defines its losses."""
    z = r**2
    if loss == "soft_l1":
        return np.asarray(2 * (np.sqrt(1 + z) - 1))
    if loss == "huber":
        return np.where(z <= 1, z, 2 * np.sqrt(np.maximum(z, 1)) - 1)
    return np.log1p(z) if loss == "cauchy" else z


def _psi(r: Floats, loss: Loss) -> tuple[Floats, Floats]:
    """Return ψ = ½ dρ/dr and dψ/dr."""
    z = r**2
    if loss == "soft_l1":
        return r / np.sqrt(1 + z), (1 + z) ** -1.5
    if loss == "huber":
        return np.clip(r, -1, 1), np.where(z <= 1, 1.0, 0.0)
    if loss == "cauchy":
        return r / (1 + z), (1 - z) / (1 + z) ** 2
    return r, np.ones_like(r)


def _fitted(task: _Task, at: Floats) -> Fit:
    values = task.values(at)
    inner = _covariance(task, at)
    slope = np.array([p.slope(values[p.name]) for p in task.parameters])
    covariance = inner * np.outer(slope, slope)
    deviation = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore"):
        correlation = covariance / np.outer(deviation, deviation)
    names = list(values)
    return Fit(
        parameters=task.parameters,
        values=values,
        standard_errors=dict(zip(names, map(float, deviation), strict=True)),
        covariance=covariance,
        correlation=correlation,
        warnings=tuple(_warnings(task, at, np.sqrt(np.diag(inner)), correlation)),
        residuals=task.residuals(at),
        loss=task.loss,
        scale=task.scale,
        cost=task.cost(at),
    )


def _covariance(task: _Task, at: Floats) -> Floats:
    """Return the covariance of the coordinates (Huber 1981, section 7.6): for "linear" s² (JᵀJ)⁻¹.

    Parameters that the data leave undetermined, alone or together, have an infinite variance and
    no covariances; the others are as if those were known.
    """
    slopes, (psi, bend) = task.slopes(at), _psi(task.scaled(at), task.loss)
    count, wide = slopes.shape
    length = np.linalg.norm(slopes, axis=0)
    free = length > 1e-9 * max(float(length.max()), 1e-300)
    unit = slopes[:, free] / length[free]
    _, sizes, axes = np.linalg.svd(unit, full_matrices=False)
    lost = axes[sizes < 1e-7 * sizes.max(initial=1e-300)]
    free[np.flatnonzero(free)[(np.abs(lost) > 1e-3).any(axis=0)]] = False
    covariance = np.diag(np.where(free, 0.0, np.inf))
    mean_bend = max(float(np.mean(bend)), 1e-3)
    variance = float(np.sum(psi**2)) / (count - wide) / mean_bend**2
    # Huber's correction for few measurements.
    correction = 1 + wide / count * float(np.var(bend)) / mean_bend**2
    kept = slopes[:, free]
    covariance[np.ix_(free, free)] = correction**2 * variance * np.linalg.pinv(kept.T @ kept)
    return covariance


def _warnings(task: _Task, at: Floats, deviation: Floats, correlation: Floats) -> list[str]:
    said = []
    for i, p in enumerate(task.parameters):
        low, high, x = task.low[i], task.high[i], at[i]
        for end, bound, word in ((low, p.low, "lower"), (high, p.high, "upper")):
            if abs(x - end) <= AT_BOUND * (high - low):
                said.append(f"{p.name} is at its {word} bound, {bound:g} {p.unit}")
        if deviation[i] > high - low:
            said.append(
                f"{p.name} is undetermined: its standard error is wider than its range "
                f"{p.low:g} to {p.high:g} {p.unit}"
            )
        for j in range(i):
            if abs(correlation[i, j]) > CORRELATED:
                said.append(
                    f"{task.parameters[j].name} and {p.name} are tied (correlation "
                    f"{correlation[i, j]:.3f}): their values are not to be read alone"
                )
    return said
