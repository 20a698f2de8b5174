"""How sure a latency is: the interval of its regime, wider outside the calibrated domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_costs import Costs
from accsim.devices.tensorcore_route import route
from accsim.spec.domain import Domain, interval_factor
from accsim.spec.gpu import Calibrated, FamilyName, Gpu
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# assumed: |log error| nine of ten predictions of an uncalibrated kernel stay within. Each GPU of
# gpu_gemm.csv predicted from the others' kernels gave 0.32, its L2 knee and raster being seen.
UNCALIBRATED = 0.45
FAMILIES: dict[str, FamilyName] = {"dense": "dense", "nm": "nm"}


def interval(calls: Costs, layers: Sequence[Layer], gpu: Gpu) -> tuple[Floats, Floats, Bools]:
    """Return low and high ends of each call's time, µs, and whether it is extrapolated.

    Nine of ten out-of-fold predictions of the calibration lay within the error of their regime;
    outside what was measured it grows (:mod:`accsim.spec.domain`). A format whose twin was measured
    in its place has the twin's errors, and counts as extrapolated.
    """
    total, regime = calls.total_us, calls.regime
    factor = np.full(len(layers), np.exp(UNCALIBRATED))
    outside = np.ones(len(layers), dtype=np.bool_)
    for (name, dtype), at in _by_kernel(layers, gpu).items():
        found = gpu.domain(name, dtype)
        if found is not None:
            gemms = [layers[i].gemm for i in at]
            extents = np.array([(x.t, x.k, x.n) for x in gemms], dtype=np.float64).T
            distance = domain_of(found).distance(str(found.dtype), name, *extents)
            widest = max(found.error.values())
            errors = [found.error.get(str(regime[i]), widest) for i in at]  # type: ignore[call-overload]
            factor[at] = interval_factor(errors, distance)
            outside[at] = (distance > 0) | (str(found.dtype) != dtype)
    return total / factor, total * factor, outside


def _by_kernel(layers: Sequence[Layer], gpu: Gpu) -> dict[tuple[FamilyName, str], list[int]]:
    found: dict[tuple[FamilyName, str], list[int]] = {}
    for i, layer in enumerate(layers):
        name = route(layer, gpu)
        if name in FAMILIES:
            key = FAMILIES[name], str(layer.dtype)
            found.setdefault(key, []).append(i)
    return found


def domain_of(found: Calibrated) -> Domain:
    """Return the box of what was measured."""
    record = found.model_dump(include={"dtype", "t", "k", "n", "intensity"})
    return Domain.of_record([{**record, "pattern": found.family}])
