"""simulate: a workload on a device, at one of three levels of detail."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim import __version__
from accsim.base.errors import AccsimError, InputError, near, one_of
from accsim.cost.energy import energy_pj
from accsim.files.hardware import device_of
from accsim.result import Result
from accsim.sparsity.masks import Masks
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Evaluation
from accsim.spec.workload import Layer, Workload
from accsim.traces.replay import masks_of

Ints = npt.NDArray[np.int64]
LEVELS = ("closed", "events", "register")
Progress = Callable[[str], None]


def simulate(
    workload: Workload,
    hardware: Systolic,
    *,
    level: str = "closed",
    seed: int = 0,
    iid: bool = False,
    masks: Masks | None = None,
    progress: Progress | None = None,
) -> Result:
    """Return what ``workload`` costs on ``hardware``.

    Args:
        workload: a network, or ``accsim.gemm(t, k, n)``, pruned or not.
        hardware: a device from :func:`accsim.load_hardware`.
        level: ``closed`` (microseconds a layer), ``events`` (SimPy between tiles: the same cycles)
            or ``register`` (every register of the array, clock by clock, on real operands; the
            outputs are checked against the masked product).
        seed: of synthetic weights, masks and operands.
        iid: plain Gaussian weights instead of ones with row and column scales.
        masks: masks to reuse between calls (then ``seed`` and ``iid`` are theirs); by default those
            of the trace the workload was read from, else synthetic ones.
        progress: called with a layer's name before it is simulated (events, register).

    Raises:
        InputError: an unknown level, a layer the device cannot hold, or a missing energy entry.
    """
    if level not in LEVELS:
        raise InputError(
            f"level must be one of {one_of(LEVELS)}; got '{level}'{near(level, LEVELS)}"
        )
    for value, kind, what in ((workload, Workload, "workload"), (hardware, Systolic, "hardware")):
        if not isinstance(value, kind):
            raise InputError(
                f"{what} must be what load_{what} returns; got {type(value).__name__} "
                f"'{str(value)[:60]}'"
            )
    masks = masks or masks_of(workload, _whole(seed), iid=iid)
    device = device_of(hardware.kind)(hardware)
    found: Evaluation = device.evaluate(workload.layers, masks)
    if level != "closed":
        _refuse_closed_form_only(hardware, level)
        found = _replayed(workload, device, masks, found, level, progress)
    parts = energy_pj(found, [layer.dtype for layer in workload.layers], hardware)
    return Result(workload, hardware, level, masks.seed, found, parts, __version__, masks)


def _whole(seed: int) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise InputError(f"seed must be a whole number; got {seed!r}") from None


def _refuse_closed_form_only(hardware: Systolic, level: str) -> None:
    if hardware.timing != "physical":
        raise InputError(
            f"timing {hardware.timing} is a closed form: level must be closed; got '{level}'"
        )


def _replayed(
    workload: Workload,
    device: Any,
    masks: Masks,
    found: Evaluation,
    level: str,
    progress: Progress | None,
) -> Evaluation:
    """Play each distinct layer's tiles; the engine's cycles take the place of the closed form's."""
    play = _events if level == "events" else _registers
    known: dict[Any, int] = {}
    cycles = found.cycles.copy()
    for i, layer in enumerate(workload.layers):
        key: Any = (layer.shape_key, layer.pattern, layer.name)
        if level == "events":
            key = key[:2] if found.mode[i] != "adaptive" else key
        if key not in known:
            if progress is not None:
                progress(layer.name)
            known[key] = play(device, layer, masks)
        cycles[i] = known[key]
    return _waiting_as_played(found, cycles)


def _waiting_as_played(found: Evaluation, cycles: Ints) -> Evaluation:
    """Return the evaluation with an engine's cycles; what differs is waiting for memory."""
    waiting = found.causes["dram"] + (cycles - found.cycles)
    return replace(found, cycles=cycles, causes=found.causes | {"dram": waiting})


def _events(device: Any, layer: Layer, masks: Masks) -> int:
    from accsim.engine.events import play

    schedule = device.schedule(layer, masks)
    extra = (layer.repeats - 1) * schedule.machine.launch_cycles
    return int(play(schedule).total_cycles + extra)


def _registers(device: Any, layer: Layer, masks: Masks) -> int:
    """Clock every tile of a layer through the array, check its outputs, and time the pipeline."""
    from accsim.engine.closed import total_cycles

    schedule, compute = device.clock_tiles(layer, masks)
    planned = schedule.tiles["compute_cycles"]
    if not np.array_equal(compute, planned):
        at = int(np.flatnonzero(compute != planned)[0])
        raise AccsimError(
            f"layer '{layer.name}': tile {at} took {compute[at]} cycles at register level, "
            f"{planned[at]} in closed form (a bug of accsim: please report it)"
        )
    extra = (layer.repeats - 1) * schedule.machine.launch_cycles
    return int(total_cycles(schedule) + extra)
