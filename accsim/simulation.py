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
from accsim.files.hardware import device_of, is_device
from accsim.result import Result
from accsim.sparsity.masks import Masks
from accsim.spec.device import LEVELS, Device, Family
from accsim.spec.schedule import COMPUTE_CAUSES, Evaluation
from accsim.spec.workload import Layer, Workload
from accsim.traces.replay import masks_of

Ints = npt.NDArray[np.int64]
Progress = Callable[[str], None]


def simulate(
    workload: Workload,
    hardware: Device,
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
        level: ``closed`` (microseconds a layer), ``events`` (SimPy between tiles; the same cycles
            on a systolic array) or ``register`` (every register of the array, clock by clock, on
            real operands; the outputs are checked against the masked product). A device family
            has ``closed`` and may have the others.
        seed: of synthetic weights, masks and operands.
        iid: plain Gaussian weights instead of ones with row and column scales.
        masks: masks to reuse between calls (then ``seed`` and ``iid`` are theirs); by default those
            of the trace the workload was read from, else synthetic ones.
        progress: called with a layer's name before it is simulated (events, register).

    Raises:
        InputError: a level that is unknown or that the device does not have, a layer it cannot
            hold, or a missing energy entry.
    """
    if level not in LEVELS:
        raise InputError(
            f"level must be one of {one_of(LEVELS)}; got '{level}'{near(level, LEVELS)}"
        )
    for value, right, what in (
        (workload, isinstance(workload, Workload), "workload"),
        (hardware, is_device(hardware), "hardware"),
    ):
        if not right:
            raise InputError(
                f"{what} must be what load_{what} returns; got {type(value).__name__} "
                f"'{str(value)[:60]}'"
            )
    family = device_of(hardware.kind)
    _check_level(family, hardware, level)
    masks = masks or masks_of(workload, _whole(seed), iid=iid)
    device = family(hardware).in_network(workload.layers)
    found: Evaluation = device.evaluate(workload.layers, masks)
    if level != "closed":
        found = _replayed(workload, device, masks, found, level, progress)
    parts = energy_pj(found, workload.layers, hardware)
    return Result(workload, hardware, level, masks.seed, found, parts, __version__, masks)


def _whole(seed: int) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise InputError(f"seed must be a whole number; got {seed!r}") from None


def _check_level(family: type[Family], hardware: Device, level: str) -> None:
    if level not in family.levels:
        raise InputError(
            f"{hardware.kind} '{hardware.name}': level must be one of {one_of(family.levels)}; "
            f"got '{level}'"
        )
    family.check_level(hardware, level)


def _replayed(
    workload: Workload,
    device: Family,
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
        alike = level == "events" and not device.follows_mask(layer, found.mode[i])
        key: Any = (layer.shape_key, layer.pattern, None if alike else layer.name)
        if key not in known:
            if progress is not None:
                progress(layer.name)
            known[key] = play(device, layer, masks)
        cycles[i] = known[key]
    return _waiting_as_played(found, cycles)


def _waiting_as_played(found: Evaluation, cycles: Ints) -> Evaluation:
    """Return the evaluation with an engine's cycles; what differs is waiting for a channel.

    More cycles are waits for the channel that is waited for most, the farthest of equal ones
    (without any channel, ``imbalance``). Fewer are taken off the waits, the longest first, and what
    is more than all of them off the other causes, the largest first.
    """
    causes = {name: spent.copy() for name, spent in found.causes.items()}
    waits = [name for name in causes if name not in (*COMPUTE_CAUSES, "launch")]
    for i in np.flatnonzero(cycles != found.cycles):
        spent = {name: int(each[i]) for name, each in causes.items()}
        more = int(cycles[i] - found.cycles[i])
        if more > 0:
            causes[max(waits or ["imbalance"], key=spent.__getitem__)][i] += more
        others = [name for name in causes if name not in waits]
        for name in (*_largest(waits, spent), *_largest(others, spent)):
            less = min(spent[name], max(-more, 0))
            causes[name][i] -= less
            more += less
    return replace(found, cycles=cycles, causes=causes)


def _largest(names: list[str], spent: dict[str, int]) -> list[str]:
    return sorted(names, key=lambda name: -spent[name])


def _events(device: Family, layer: Layer, masks: Masks) -> int:
    from accsim.engine.events import play

    schedule = device.schedule(layer, masks)
    extra = (device.launches(layer) - 1) * schedule.machine.launch_cycles
    return int(play(schedule).total_cycles + extra)


def _registers(device: Family, layer: Layer, masks: Masks) -> int:
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
