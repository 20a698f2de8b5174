"""What bounds each layer, in words, and what would help: every number evaluated, none guessed.

A layer's cycles fall into stalls (the causes of its evaluation) and work; work divides further into
padding (PEs of ragged edge folds that hold nothing), zeros (multiplier slots without a kept weight)
and use. The largest loss of at least ``LOSS`` of the cycles bounds the layer, else computing does;
but where DRAM hardly rests (``BUSY``) computing does not, since faster computing would wait longer.
Timing ``scalesim_v3`` counts everything as work: its layers are all compute-bound.
``RULES`` says how each bound is worded and which changes to try against it; ``WHAT_IFS`` what a
change is. A change is tried by evaluating the changed device (or layer) in closed form, one call
for all layers that ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accsim.base.errors import InputError
from accsim.devices.systolic_folds import DATAFLOWS
from accsim.devices.systolic_modes import modes
from accsim.devices.systolic_ops import fold_extents, make_ops
from accsim.files.hardware import device_of
from accsim.sparsity.masks import Masks
from accsim.spec.base import MAX_EXTENT, MAX_MACS
from accsim.spec.hardware import Systolic
from accsim.spec.memory import OnChip
from accsim.spec.pattern import parse_pattern
from accsim.spec.schedule import Evaluation
from accsim.spec.workload import Layer

LOSS = 0.25  # chosen: a loss of less than a quarter of the cycles does not bound a layer
BUSY = 0.9  # chosen: DRAM that transfers for so much of the cycles bounds the layer
GAIN = 0.01  # a change that saves less is not worth a mention
WIDTH = 160
BATCH = 8  # by how much the batch is enlarged to see what reuse would bring
NO_STALLS = ("work", "padding", "zeros")  # of the losses: those of working on nothing useful


@dataclass(frozen=True)
class Tried:
    """A change: its key in WHAT_IFS, its wording, and the cycles of ``items`` times the work."""

    key: str
    phrase: str
    cycles: int
    items: int = 1

    def __str__(self) -> str:
        times = f"{self.items}× the work in " if self.items > 1 else ""
        return f"{self.phrase} → {times}{self.cycles:,}"


@dataclass(frozen=True)
class Finding:
    """What is said of equal layers: their names, the cycles of one, what bounds it, what helps."""

    layers: tuple[str, ...]
    cycles: int
    bound: str
    tried: tuple[Tried, ...]
    sentence: str


@dataclass(frozen=True)
class WhatIf:
    """A change of the device or of the layer; None where it does not apply.

    ``phrase`` is formatted with the changed ``device`` and ``layer``. ``items`` is how many times
    the work the changed layer does.
    """

    phrase: str
    device: Callable[[Systolic], Systolic | None] = lambda device: device
    layer: Callable[[Layer, Systolic, Masks], Layer | None] = lambda layer, *_: layer
    items: int = 1


@dataclass(frozen=True)
class Rule:
    """How a bound is worded, the change quoted first, and those of which the best are quoted."""

    words: str
    first: str | None
    others: tuple[str, ...]


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
    "dram": Rule("{lost} waiting for DRAM ({moved} at {rate}, {busy} busy)", "bandwidth", _DRAM),
    "onchip": Rule("{lost} waiting for {level}", "levels", _DRAM),
    "metadata": Rule(
        "{lost} waiting for the positions of non-zeros ({index})", "bandwidth", _DRAM
    ),
    "fill_drain": Rule(
        "{lost} filling and draining the array ({steps} a {fold} fold)",
        "registers", ("batch", *_FLOWS, *_SHAPES),
    ),
    "imbalance": Rule(
        "{lost} waiting for the fullest PE of each fold ({pattern})", "pattern", _SHAPES
    ),
    "launch": Rule("{lost} starting {calls}", None, ("batch",)),
    "gather": Rule("{lost} gathering and scattering operands", None, ("batch", "pattern")),
    "generator": Rule("{lost} waiting for masks or packed operands to be made", None, ("batch",)),
    "checker": Rule("{lost} waiting for the checker", None, ("batch",)),
    "padding": Rule(
        "compute-bound ({work} work), padded: {padding}", None, (*_FLOWS, *_SHAPES, "pattern")
    ),
    "zeros": Rule(
        "compute-bound ({work} work), {lost} on slots without a kept weight ({pattern} as {mode})",
        "pattern", ("rows", "cols"),
    ),
    "work": Rule("compute-bound ({work} work, {peak} of peak)", None, ("rows", "cols", "pattern")),
}  # fmt: skip
_MINOR = {
    "dram": "DRAM", "metadata": "positions of non-zeros", "fill_drain": "fill and drain",
    "imbalance": "imbalance", "launch": "launch", "gather": "gather and scatter",
    "generator": "generator", "checker": "checker",
}  # fmt: skip
# A timing whose numbers were fitted to one device, or that has no memory, answers fewer questions.
_ANSWERS = {
    "physical": frozenset(WHAT_IFS),
    "scalesim_v3": frozenset({*_FLOWS, *_SHAPES, "rows", "cols", "batch"}),
    "compiled": frozenset({"bandwidth", "batch"}),
}


def why(
    found: Evaluation, layers: Sequence[Layer], device: Systolic, masks: Masks | None = None
) -> list[str]:
    """Return a line for every kind of layer: what bounds it and what would help, in cycles.

    Equal layers share a line; the lines are ordered by their share of all cycles. ``masks`` are
    those of the evaluation (only layers that ran ``adaptive`` need them).
    """
    return [finding.sentence for finding in findings(found, layers, device, masks)]


def findings(
    found: Evaluation, layers: Sequence[Layer], device: Systolic, masks: Masks | None = None
) -> list[Finding]:
    """Return what ``why`` says, with the numbers apart from the words."""
    masks = masks or Masks()
    same = _equal(found, layers)
    leads = [rows[0] for rows in same]
    facts = [_Facts.of(found, i, layers[i], device, masks) for i in leads]
    tried = _try_all([layers[i] for i in leads], facts, device, masks)
    whole = int(found.cycles.sum())
    out = []
    for rows, fact, changes in zip(same, facts, tried, strict=True):
        names = tuple(layers[i].name for i in rows)
        chosen = _chosen(fact.rule, changes, fact.cycles)
        sentence, quoted = _sentence(names, fact, chosen, whole)
        out.append(Finding(names, fact.cycles, fact.bound, quoted, sentence))
    out.sort(key=lambda finding: -finding.cycles * len(finding.layers))  # stable: network order
    return out


def _equal(found: Evaluation, layers: Sequence[Layer]) -> list[list[int]]:
    """Return the rows of layers of equal shape, pattern and cycles by cause."""
    rows: dict[Any, list[int]] = {}
    for i, layer in enumerate(layers):
        causes = tuple(int(spent[i]) for spent in found.causes.values())
        key = (layer.shape_key, layer.pattern, layer.prunable, found.mode[i], causes)
        rows.setdefault(key, []).append(i)
    return list(rows.values())


@dataclass(frozen=True)
class _Facts:
    """A layer's losses in cycles, what bounds it, and the words its rule may use."""

    cycles: int
    losses: dict[str, float]
    bound: str
    busy: float  # share of the cycles in which DRAM transfers
    words: dict[str, Any]

    @property
    def rule(self) -> Rule:
        """How its bound is worded: waiting for any memory beyond the buffers alike."""
        return RULES.get(self.bound, RULES["onchip"])

    @classmethod
    def of(cls, found: Evaluation, i: int, layer: Layer, device: Systolic, masks: Masks) -> _Facts:
        cycles, work = int(found.cycles[i]), int(found.causes["work"][i])
        losses: dict[str, float] = {name: int(spent[i]) for name, spent in found.causes.items()}
        fit = _Fit.of(layer, found.mode[i], device, masks)
        if device.timing != "physical":  # then all that streams counts as work
            losses["padding"] = work * (1 - fit.filled)
            work -= int(losses["padding"])
        losses["zeros"] = losses.pop("work") and work * (1 - fit.kept)
        stalls = [name for name in losses if name not in NO_STALLS]
        worst = max(losses, key=lambda name: losses[name])
        bound = worst if losses[worst] >= LOSS * max(cycles, 1) else "work"
        moved = int(np.broadcast_to(found.counts.of("dram_", "_bytes"), found.cycles.shape)[i])
        busy = moved / device.dram_bytes_per_cycle / max(cycles, 1)
        if busy >= BUSY and losses["dram"] == max(losses[stall] for stall in stalls) > 0:
            bound = "dram"
        use = int(found.effective_macs[i]) / max(cycles * device.peak_macs_per_cycle, 1)
        words = {
            "lost": _percent(losses.get(bound, 0) / max(cycles, 1)),
            "level": bound.upper(),
            "work": _percent((work + losses["padding"]) / max(cycles, 1)),
            "peak": _percent(use),
            "moved": _bytes(moved),
            "busy": _percent(busy),
            "rate": f"{device.memory.dram.bandwidth_gb_per_s:g} GB/s",
            "index": _bytes(-(-int(found.metadata_bits[i]) // 8)),
            "steps": "1 step" if fit.steps == 1 else f"{fit.steps:,} steps",
            "fold": f"{device.array.rows}×{device.array.cols}",
            "padding": fit.padding + (f" ({layer.runs:,} GEMMs)" if layer.runs > 1 else ""),
            "pattern": str(layer.pattern),
            "mode": found.mode[i],
            "calls": "a call" if layer.repeats == 1 else f"{layer.repeats:,} calls",
        }
        return cls(cycles, losses, bound, busy, words)


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


def _try_all(
    layers: Sequence[Layer], facts: Sequence[_Facts], device: Systolic, masks: Masks
) -> list[dict[str, Tried]]:
    """Evaluate every change for the layers whose rule names it."""
    answers = _ANSWERS[device.timing]
    out: list[dict[str, Tried]] = [{} for _ in layers]
    for key, change in WHAT_IFS.items():
        asking = [i for i, fact in enumerate(facts) if key in _named(fact.rule)]
        changed = change.device(device) if key in answers else None
        if changed is None:
            continue
        new = {i: change.layer(layers[i], device, masks) for i in asking}
        pairs = [(i, layer) for i, layer in new.items() if layer is not None]
        for (i, layer), cycles in zip(
            pairs, _cycles(changed, [layer for _, layer in pairs], masks), strict=True
        ):
            if cycles is not None:
                phrase = change.phrase.format(device=changed, layer=layer)
                out[i][key] = Tried(key, phrase, cycles, change.items)
    return out


def _named(rule: Rule) -> tuple[str, ...]:
    return (rule.first, *rule.others) if rule.first else rule.others


def _cycles(device: Systolic, layers: list[Layer], masks: Masks) -> list[int | None]:
    """Return the cycles of layers on a device, None for one it cannot hold."""
    if not layers:
        return []
    try:
        found: Evaluation = device_of(device.kind)(device).evaluate(layers, masks)
    except InputError:
        if len(layers) == 1:
            return [None]
        return [cycles for layer in layers for cycles in _cycles(device, [layer], masks)]
    return [int(cycles) for cycles in found.cycles]


def _chosen(rule: Rule, changes: dict[str, Tried], cycles: int) -> list[Tried]:
    """Return the changes worth a mention: the rule's first, then the best two of the others."""

    def each(tried: Tried) -> float:
        return tried.cycles / tried.items

    worth = {key: t for key, t in changes.items() if each(t) <= (1 - GAIN) * cycles}
    first = [worth.pop(rule.first)] if rule.first in worth else []
    best = sorted(worth.values(), key=lambda t: (each(t), list(WHAT_IFS).index(t.key)))
    return first + best[: 2 - len(first)]


def _sentence(
    names: tuple[str, ...], fact: _Facts, tried: Sequence[Tried], whole: int
) -> tuple[str, tuple[Tried, ...]]:
    """Return the line, and the changes it had room for."""
    stalls = {name: lost for name, lost in fact.losses.items() if name not in NO_STALLS}
    stall = max(stalls, key=lambda cause: stalls[cause])
    share = stalls[stall] / max(fact.cycles, 1)
    minor = ""
    if fact.bound not in stalls and share >= GAIN:
        minor = f", {_percent(share)} {_MINOR.get(stall, stall.upper())}"
    elif fact.bound != "dram" and fact.busy >= BUSY:
        minor = f", DRAM {_percent(fact.busy)} busy"
    times = f" ×{len(names)}" if len(names) > 1 else ""
    part = _percent(fact.cycles * len(names) / max(whole, 1))
    body = f"{times} ({part} of all): {fact.cycles:,} cycles, "
    body += fact.rule.words.format(**fact.words)
    attempts = [(minor, list(tried)), (minor, list(tried[:1])), ("", list(tried[:1]))]
    for minor, quoted in attempts:  # what helps is worth more than the smaller stall
        help_ = "; ".join(map(str, quoted)) or "nothing tried saves 1 %"
        text = f"{body}{minor}; {help_}"
        if len(text) <= WIDTH - min(len(names[0]), 24):
            break
    return _shortened(names[0], WIDTH - len(text)) + text, tuple(quoted)


def _shortened(name: str, width: int) -> str:
    """Return a name in at most ``width`` characters (but 8), its end, which tells layers apart."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    width = max(width, 8)
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]


def _percent(share: float) -> str:
    if 0 < share < 0.01:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def _bytes(count: int) -> str:
    """Return bytes in binary units, three significant digits."""
    power = 0 if count < 1000 else 1 if count < 1000 * 2**10 else 2 if count < 1000 * 2**20 else 3
    return f"{count / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
