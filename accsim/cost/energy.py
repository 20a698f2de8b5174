"""Energy of an evaluation: action counts × what the device says each costs, and static power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import AccsimError
from accsim.files.hardware import device_of
from accsim.spec.device import Family
from accsim.spec.schedule import Evaluation
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.floating[Any]]


def energy_pj(found: Evaluation, layers: Sequence[Layer], device: Any) -> dict[str, Floats]:
    """Return the energy of each layer in pJ, by part; the total is the sum of the parts.

    The device's family may have its own way (``Family.energy_pj``). If not, parts are those of its
    prices, in their order, and ``static`` last.

    Args:
        found: cycles and action counts, one entry a layer.
        layers: the layers.
        device: the hardware.

    Raises:
        InputError: the device's energy table has no entry for a layer's number format or for
            its DRAM protocol.
        AccsimError: an action was counted that the device has no price for.
    """
    family = device_of(device.kind)
    own = family.energy_pj(found, layers, device)
    return _priced(family, found, layers, device) if own is None else own


def _priced(
    family: type[Family], found: Evaluation, layers: Sequence[Layer], device: Any
) -> dict[str, Floats]:
    prices = family.prices(device, [layer.dtype for layer in layers])
    unpriced = [name for name in found.counts if name not in prices]
    if unpriced:
        raise AccsimError(f"device '{device.name}' counts {unpriced[0]} but has no price for it")
    parts = {price.part: np.zeros(len(found.cycles)) for price in prices.values()}
    for name, price in prices.items():
        if name in found.counts:
            parts[price.part] = parts[price.part] + found.counts[name] * price.pj
    static = family.static_mw(device) * found.cycles / device.clock_ghz  # mW · ns = pJ
    return parts | {"static": static}
