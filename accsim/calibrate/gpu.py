"""A GPU's library kernels from measurements: fit, errors out of fold, a file that extends the base.

Every number format and pattern is fitted by itself: eight parameters of :class:`Kernel`, expected
near the base's. The chip's own numbers stay the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, one_of
from accsim.calibrate.fit import Fit, Parameter, fit
from accsim.calibrate.held_out import ErrorRow, cross_validated, error_table
from accsim.calibrate.measurements import Measurements
from accsim.devices.tensorcore_costs import Costs
from accsim.devices.tensorcore_gemm import Gemms, costs
from accsim.devices.tensorcore_operands import operands_of
from accsim.spec.domain import Domain, Intervals
from accsim.spec.gpu import PARAMETERS, FamilyName, Gpu, Kernel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[str], None]

FOLDS = 5
LEAST = 12  # measurements of one format and pattern: eight parameters need more than eight
FAMILIES: dict[str, FamilyName] = {"dense": "dense", "2:4": "nm"}
# low, high, unit, and how far from the base's value a device is expected to lie (ln; assumed, about
# the spread of the four GPUs the shipped kernels were fitted on)
RANGES: dict[str, tuple[float, float, str, float]] = {
    "launch_us": (0.3, 60.0, "us", 0.5),
    "issue_share": (0.2, 1.0, "", 0.15),
    "tile_cycles": (50.0, 20_000.0, "cycles", 0.75),
    "step_ns": (5.0, 1_000.0, "ns", 0.5),
    "dram_share": (0.2, 1.0, "", 0.15),
    "mac_pj": (0.01, 20.0, "pJ", 0.35),
    "burst_us": (1.0, 5_000.0, "us", 1.0),
    "overlap": (1.0, 10.0, "", 0.5),
}
# A row whose dense product another note says is no baseline for 2:4.
NOT_COMPARABLE = ("INT32", "suspect")


@dataclass(frozen=True, eq=False)
class KernelFit:
    """One format and pattern: what was measured, what the base and the fit say, out of fold."""

    family: FamilyName
    dtype: str
    rows: Measurements
    fit: Fit
    kernel: Kernel
    before_us: Floats
    after_us: Floats  # out of fold
    regime: npt.NDArray[np.str_]

    @property
    def before(self) -> list[ErrorRow]:
        """Errors of the base by regime, all of them last."""
        return error_table(self.rows.latency_us, self.before_us, self.regime)

    @property
    def after(self) -> list[ErrorRow]:
        """Errors of fits that did not see the (k, n) they predict, by regime."""
        return error_table(self.rows.latency_us, self.after_us, self.regime)

    @property
    def intervals(self) -> Intervals:
        """90 % quantiles of |log error| out of fold, by regime."""
        return Intervals.of(self.rows.latency_us, self.after_us, self.regime)

    @property
    def domain(self) -> Domain:
        """The box that was measured."""
        rows = self.rows
        size = len(rows)
        return Domain.of([self.dtype] * size, [self.family] * size, rows.t, rows.k, rows.n)


def calibrate(
    base: Gpu,
    rows: Measurements,
    *,
    output_bytes: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[KernelFit]:
    """Return a fit for every number format and pattern that was measured.

    Args:
        base: the GPU to start from; its chip is kept, its kernels are what is expected.
        rows: measurements of one device.
        output_bytes: bytes of an element of Y by format, where not 2 (4 for 32 bits).
        seed: of folds and starting points.
        progress: called with what is being fitted.

    Raises:
        InputError: several devices, a format or pattern the base does not have, or fewer than 12
            measurements of one, or of fewer than five (k, n).
    """
    devices = sorted(set(rows.device.tolist()))
    if len(devices) > 1:
        raise InputError(
            f"measurements are of {len(devices)} devices: {one_of(devices)}; choose one"
        )
    strange = sorted(set(output_bytes or {}) - set(rows.dtype.tolist()))
    if strange:
        raise InputError(f"output bytes of {strange[0]}: no such format was measured")
    found = []
    for dtype, pattern in dict.fromkeys(
        zip(rows.dtype.tolist(), rows.pattern.tolist(), strict=True)
    ):
        chosen = rows.take((rows.dtype == dtype) & (rows.pattern == pattern))
        mine = chosen.take(comparable(chosen))
        if not len(mine):
            continue
        family = _family(base, dtype, pattern, mine)
        if progress is not None:
            progress(f"{dtype} {pattern}: {len(mine)} measurements")
        found.append(fit_kernel(base, family, dtype, mine, (output_bytes or {}).get(dtype), seed))
    if not found:
        raise InputError("no measurement is left to fit to: all are flagged as not comparable")
    return found


def comparable(rows: Measurements) -> Bools:
    """Say which rows are fitted to: not dense ones flagged as no baseline."""
    flagged = np.array([any(word in flags for word in NOT_COMPARABLE) for flags in rows.flags])
    dense: Bools = rows.pattern == "dense"
    return ~(dense & flagged) if len(rows) else dense


def _family(base: Gpu, dtype: str, pattern: str, rows: Measurements) -> FamilyName:
    if pattern not in FAMILIES:
        raise InputError(f"pattern must be one of {one_of(FAMILIES)} to calibrate; got '{pattern}'")
    family = FAMILIES[pattern]
    rates = base.tensor.fma_per_clock if family == "dense" else base.tensor.sparse_gain
    if dtype not in rates or family not in base.kernels:
        known = f"it has {one_of(rates)}" if rates else "it has none in any format"
        raise InputError(f"base '{base.name}' has no {pattern} kernels in {dtype}; {known}")
    shapes = len({*zip(rows.k.tolist(), rows.n.tolist(), strict=True)})
    for count, least, what in ((len(rows), LEAST, "measurements"), (shapes, FOLDS, "(k, n)")):
        if count < least:
            raise InputError(f"{dtype} {pattern} must have at least {least} {what}; got {count}")
    return family


def fit_kernel(
    base: Gpu,
    family: FamilyName,
    dtype: str,
    rows: Measurements,
    y_bytes: float | None = None,
    seed: int = 0,
    starts: int = 1,
) -> KernelFit:
    """Return the fit of one format and pattern, with its errors out of fold."""
    expected = base_values(base, family, dtype)
    everything = np.ones(len(rows), dtype=np.bool_)

    def fitted(train: Bools, first: Mapping[str, float], begun: int) -> Fit:
        chosen = rows.take(train)
        model = model_of(base, family, dtype, chosen, y_bytes)
        return fit(
            lambda values: model(values).total_us, chosen.latency_us,
            parameters(expected, first), starts=begun, seed=seed,
        )  # fmt: skip

    whole = fitted(everything, expected, starts)

    def fitter(train: Bools) -> Callable[[Bools], Floats]:
        values = fitted(train, whole.values, 1).values
        return lambda held: model_of(base, family, dtype, rows.take(held), y_bytes)(values).total_us

    after = cross_validated(fitter, rows.groups, FOLDS, seed)
    model = model_of(base, family, dtype, rows, y_bytes)
    changed = {**whole.values, "y_bytes": y_bytes} if y_bytes else dict(whole.values)
    kernel = base.kernel(family, dtype).model_copy(update=changed)
    found = model(whole.values)
    before = model(expected).total_us
    return KernelFit(family, dtype, rows, whole, kernel, before, after, found.regime)


def model_of(
    base: Gpu, family: FamilyName, dtype: str, rows: Measurements, y_bytes: float | None = None
) -> Callable[[Mapping[str, float]], Costs]:
    """Return what the closed form says of the rows' products, by the kernels' eight parameters."""
    kernel, operands = base.kernel(family, dtype), operands_of(dtype, family, base, y_bytes)
    gemms = Gemms.of(rows.t, rows.k, rows.n, operands)

    def model(values: Mapping[str, float]) -> Costs:
        changed = kernel.model_copy(update=dict(values))
        return costs(gemms, base, changed, replace(operands, mac_pj=values["mac_pj"]), family)

    return model


def base_values(base: Gpu, family: FamilyName, dtype: str) -> dict[str, float]:
    """Return the base's eight parameters; the energy of a MAC is the board's if none is given."""
    kernel = base.kernel(family, dtype)
    values = {name: getattr(kernel, name) for name in PARAMETERS}
    values["mac_pj"] = operands_of(dtype, family, base).mac_pj
    return {name: float(value) for name, value in values.items()}


def parameters(expected: Mapping[str, float], first: Mapping[str, float]) -> list[Parameter]:
    """Return the parameters to fit: expected near one set of values, begun at another."""
    found = []
    for name, (low, high, unit, spread) in RANGES.items():
        start = min(max(expected[name], low), high)
        begin = min(max(first[name], low), high)
        found.append(Parameter(name, start, low, high, unit, spread=spread, begin=begin))
    return found


def described(fits: list[KernelFit]) -> Iterator[str]:
    """Yield one line a regime: errors before and after."""
    yield "format  pattern  regime      n   before: median  mean   after: median  mean   p90"
    for found in fits:
        word = "2:4" if found.family == "nm" else "dense"
        for old, new in zip(found.before, found.after, strict=True):
            errors = f"{old.median:14.1%} {old.mean:6.1%} {new.median:15.1%} {new.mean:6.1%}"
            yield f"{found.dtype:7} {word:8} {new.regime:9} {new.n:4d} {errors} {new.p90:6.1%}"
