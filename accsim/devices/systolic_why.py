"""What may help a layer on the systolic array: the changes that ``why`` tries, bound by bound.

Work divides further into padding (PEs of ragged edge folds that hold nothing), zeros (multiplier
slots without a kept weight) and use. Timing ``scalesim_v3`` counts everything as work: its layers
are all compute-bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accsim.devices.systolic_folds import DATAFLOWS
from accsim.devices.systolic_modes import modes
from accsim.devices.systolic_ops import fold_extents, make_ops
from accsim.sparsity.masks import Masks
from accsim.spec.base import MAX_EXTENT, MAX_MACS
from accsim.spec.hardware import Systolic
from accsim.spec.memory import OnChip
from accsim.spec.pattern import parse_pattern
from accsim.spec.schedule import Evaluation
from accsim.spec.why import WORDS, Counterfactuals, Reading, Rule, WhatIf
from accsim.spec.workload import Layer

BATCH = 8  # by how much the batch is enlarged to see what reuse would bring


def _set(noun: Any, path: str, value: Any) -> Any:
    """Return a noun with the field at a dotted path replaced."""
    head, _, rest = path.partition(".")
    return noun.model_copy(update={head: _set(getattr(noun, head), rest, value) if rest else value})


def _field(path: str, value: Any) -> Callable[[Systolic], Systolic | None]:
    return lambda device: _set(device, path, value)


def _twice_the_buffers(device: Systolic) -> Systolic:
    for name in ("x", "w", "y"):
        size = getattr(device.memory.sram, name).bytes
        device = _set(device, f"memory.sram.{name}.bytes", 2 * size)
    return device


def _levels(**changes: Callable[[OnChip], Any]) -> Callable[[Systolic], Systolic | None]:
    """Return what changes all memories beyond the buffers; nothing where there are none."""

    def change(device: Systolic) -> Systolic | None:
        levels = tuple(
            level.model_copy(update={name: new(level) for name, new in changes.items()})
            for level in device.memory.onchip
        )
        return _set(device, "memory.onchip", levels) if levels else None

    return change


_wide_levels = _levels(bandwidth_gb_per_s=lambda _: math.inf)
_twice_the_levels = _levels(bytes=lambda level: 2 * level.bytes)


def _reshaped(rows: float, cols: float) -> Callable[[Systolic], Systolic | None]:
    def change(device: Systolic) -> Systolic | None:
        shape = device.array.rows * rows, device.array.cols * cols
        if any(side % 1 or side > 65536 for side in shape):
            return None
        wider: Systolic = _set(device, "array.rows", int(shape[0]))
        return _set(wider, "array.cols", int(shape[1]))  # type: ignore[no-any-return]

    return change


def _larger_batch(layer: Layer, *_: Any) -> Layer | None:
    if layer.macs * BATCH > MAX_MACS or max(layer.gemm.t, layer.batch) * BATCH > MAX_EXTENT:
        return None
    fields = {name: getattr(layer, name) for name in Layer.model_fields}
    return Layer.model_validate(fields | {"batch": layer.batch * BATCH})


def _structured(layer: Layer, device: Systolic, masks: Masks) -> Layer | None:
    """Return the layer pruned to the device's n:m level nearest to its density."""
    levels = [level for level in device.array.levels if level != "dense"]
    if not levels or not (layer.prunable and layer.has_weights):
        return None
    kept = masks.kept(layer) / (layer.gemm.k * layer.gemm.n)
    nearest = min(levels, key=lambda level: abs(_density(level) - kept))
    if str(layer.pattern) == nearest:
        return None
    return layer.model_copy(update={"pattern": parse_pattern(nearest)})


def _density(level: str) -> float:
    n, m = level.split(":")
    return int(n) / int(m)


WHAT_IFS = {
    "bandwidth": WhatIf("infinite bandwidth", _field("memory.dram.bandwidth_gb_per_s", math.inf)),
    "levels": WhatIf("infinite bandwidth on the chip", _wide_levels),
    "capacity": WhatIf("twice the memories beyond the buffers", _twice_the_levels),
    "latency": WhatIf("no DRAM latency", _field("memory.dram.latency_ns", 0.0)),
    "buffers": WhatIf("twice the buffers", _twice_the_buffers),
    "double_buffers": WhatIf("double-buffered SRAM", _field("memory.sram.double_buffered", True)),
    "registers": WhatIf("a second register a PE", _field("array.double_buffering", True)),
    "rows": WhatIf("{device.array.rows}×{device.array.cols} PEs", _reshaped(2, 1)),
    "cols": WhatIf("{device.array.rows}×{device.array.cols} PEs", _reshaped(1, 2)),
    "wide": WhatIf("as {device.array.rows}×{device.array.cols} PEs", _reshaped(0.5, 2)),
    "tall": WhatIf("as {device.array.rows}×{device.array.cols} PEs", _reshaped(2, 0.5)),
    "ws": WhatIf("dataflow ws", _field("dataflow", "ws")),
    "os": WhatIf("dataflow os", _field("dataflow", "os")),
    "is": WhatIf("dataflow is", _field("dataflow", "is")),
    "batch": WhatIf("batch {layer.batch}", layer=_larger_batch, items=BATCH),
    "pattern": WhatIf("pruned {layer.pattern}", layer=_structured),
}
_FLOWS = ("ws", "os", "is")
_SHAPES = ("wide", "tall")
_DRAM = ("buffers", "capacity", "batch", "latency", "double_buffers")

RULES = {
    "dram": Rule(WORDS["dram"], "bandwidth", _DRAM),
    "onchip": Rule(WORDS["onchip"], "levels", _DRAM),
    "metadata": Rule(WORDS["metadata"], "bandwidth", _DRAM),
    "fill_drain": Rule(
        "{lost} filling and draining the array ({steps} a {fold} fold)",
        "registers", ("batch", *_FLOWS, *_SHAPES),
    ),
    "imbalance": Rule(
        "{lost} waiting for the fullest PE of each fold ({pattern})", "pattern", _SHAPES
    ),
    "launch": Rule(WORDS["launch"], None, ("batch",)),
    "gather": Rule(WORDS["gather"], None, ("batch", "pattern")),
    "generator": Rule(WORDS["generator"], None, ("batch",)),
    "checker": Rule(WORDS["checker"], None, ("batch",)),
    "throttle": Rule(WORDS["throttle"]),
    "padding": Rule(
        "compute-bound ({work} work), padded: {padding}", None, (*_FLOWS, *_SHAPES, "pattern")
    ),
    "zeros": Rule(WORDS["zeros"], "pattern", ("rows", "cols")),
    "work": Rule(WORDS["work"], None, ("rows", "cols", "pattern")),
}  # fmt: skip
# A timing whose numbers were fitted to one device, or that has no memory, answers fewer questions.
_ANSWERS = {
    "physical": frozenset(WHAT_IFS),
    "scalesim_v3": frozenset({*_FLOWS, *_SHAPES, "rows", "cols", "batch"}),
    "compiled": frozenset({"bandwidth", "batch"}),
}


def read(found: Evaluation, i: int, layer: Layer, device: Systolic, masks: Masks) -> Reading:
    """Return a layer's losses, work divided in padding, zeros and use, and words for its rules."""
    losses: dict[str, float] = {name: int(spent[i]) for name, spent in found.causes.items()}
    fit = _Fit.of(layer, found.mode[i], device, masks)
    work = int(losses["work"])
    if device.timing != "physical":  # then all that streams counts as work
        losses["padding"] = work * (1 - fit.filled)
        work -= int(losses["padding"])
    losses |= {"work": work, "zeros": work * (1 - fit.kept)}
    words = {
        "steps": "1 step" if fit.steps == 1 else f"{fit.steps:,} steps",
        "fold": f"{device.array.rows}×{device.array.cols}",
        "padding": fit.padding + (f" ({layer.runs:,} GEMMs)" if layer.runs > 1 else ""),
    }
    return Reading(losses, words)


@dataclass(frozen=True)
class _Fit:
    """How a layer fills the array: shares from 0 to 1, steps of a fold, and the worse side."""

    filled: float
    kept: float
    steps: int
    padding: str

    @classmethod
    def of(cls, layer: Layer, level: str, device: Systolic, masks: Masks) -> _Fit:
        array, flow = device.array, DATAFLOWS[device.dataflow]
        known = {mode.level: mode for mode in modes(layer.pattern, array)}
        if level not in known and str(layer.pattern) != "dense":
            return cls(1.0, 1.0, getattr(layer.gemm, flow.stream), "")
        mode = known.get(level, known["dense"])
        ops = make_ops([layer], [mode], device)
        rows, cols, steps = (
            int(v[0]) for v in fold_extents(ops, device.dataflow, ops.t, ops.k, ops.n)
        )
        dealt = array.cols * (array.count if device.timing == "physical" else 1)
        sides = [
            (rows, -(-rows // array.rows) * array.rows, flow.rows, "rows"),
            (cols, -(-cols // dealt) * dealt, flow.cols, "columns"),
        ]
        used, slots, dim, side = min(sides, key=lambda s: s[0] / s[1])
        extent = getattr(layer.gemm, dim)
        held = int(ops.blocks(ops.k)[0]) * layer.gemm.n * array.multipliers * mode.passes
        kept = masks.kept(layer)
        return cls(
            filled=math.prod(s[0] / s[1] for s in sides),
            kept=1.0 if mode.driven else min(kept / held, 1.0),
            steps=steps if mode.passes or flow.stream != "k" else layer.gemm.k,
            padding=f"{dim} = {extent:,} fills {used:,} of {slots:,} PE {side}",
        )


SYSTOLIC = Counterfactuals(RULES, WHAT_IFS, read, lambda device: _ANSWERS[device.timing])
