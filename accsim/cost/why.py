"""What bounds each layer, in words, and what would help: every number evaluated, none guessed.

A layer's cycles fall into stalls (the causes of its evaluation) and work, which the device's family
may divide further (``Counterfactuals.read``): padding and zeros are work on nothing useful.
The largest loss of at least ``LOSS`` of the cycles bounds the layer, else computing does;
but where DRAM hardly rests (``BUSY``) computing does not, since faster computing would wait longer.
The family's rules (:mod:`accsim.spec.why`) say how each bound is worded and which changes to try
against it. A change is tried by evaluating the changed device (or layer) in closed form, one call
for all layers that ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from accsim.base.errors import InputError
from accsim.files.hardware import device_of
from accsim.sparsity.masks import Masks
from accsim.spec.device import Device, dram_of
from accsim.spec.schedule import Evaluation
from accsim.spec.why import NO_STALLS, Rule
from accsim.spec.workload import Layer

LOSS = 0.25  # chosen: a loss of less than a quarter of the cycles does not bound a layer
BUSY = 0.9  # chosen: DRAM that transfers for so much of the cycles bounds the layer
GAIN = 0.01  # a change that saves less is not worth a mention
WIDTH = 160


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


_MINOR = {
    "dram": "DRAM", "metadata": "positions of non-zeros", "fill_drain": "fill and drain",
    "imbalance": "imbalance", "launch": "launch", "gather": "gather and scatter",
    "generator": "generator", "checker": "checker", "throttle": "power cap",
}  # fmt: skip


def why(
    found: Evaluation, layers: Sequence[Layer], device: Device, masks: Masks | None = None
) -> list[str]:
    """Return a line for every kind of layer: what bounds it and what would help, in cycles.

    Equal layers share a line; the lines are ordered by their share of all cycles. ``masks`` are
    those of the evaluation (only layers that ran ``adaptive`` need them).
    """
    return [finding.sentence for finding in findings(found, layers, device, masks)]


def findings(
    found: Evaluation, layers: Sequence[Layer], device: Device, masks: Masks | None = None
) -> list[Finding]:
    """Return what ``why`` says, with the numbers apart from the words."""
    masks = masks or Masks()
    same = _equal(found, layers)
    leads = [rows[0] for rows in same]
    facts = [_Facts.of(found, i, layers[i], device, masks) for i in leads]
    tried = _try_all([layers[i] for i in leads], facts, device, masks)
    whole = int(found.cycles.sum())
    listed = device_of(device.kind).counterfactuals()
    nothing = "nothing tried saves 1 %" if listed.what_ifs else ""
    out = []
    for rows, fact, changes in zip(same, facts, tried, strict=True):
        names = tuple(layers[i].name for i in rows)
        chosen = _chosen(fact.rule, changes, fact.cycles, list(listed.what_ifs))
        sentence, quoted = _sentence(names, fact, chosen, whole, nothing)
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
    rule: Rule
    words: dict[str, Any]

    @classmethod
    def of(cls, found: Evaluation, i: int, layer: Layer, device: Device, masks: Masks) -> _Facts:
        family = device_of(device.kind)
        listed, cycles = family.counterfactuals(), int(found.cycles[i])
        losses, own_words = listed.read(found, i, layer, device, masks)
        work = losses.pop("work")
        stalls = [name for name in losses if name not in NO_STALLS]
        worst = max(losses, key=lambda name: losses[name])
        bound = worst if losses[worst] >= LOSS * max(cycles, 1) else "work"
        dram = _Dram.of(found, i, device)
        if dram.busy >= BUSY and losses["dram"] == max(losses[stall] for stall in stalls) > 0:
            bound = "dram"
        peak = family.peak_macs_per_cycle(device, layer)
        words = {
            "lost": _percent(losses.get(bound, 0) / max(cycles, 1)),
            "level": bound.upper(),
            "work": _percent((work + losses["padding"]) / max(cycles, 1)),
            "peak": _percent(int(found.effective_macs[i]) / max(cycles * peak, 1)),
            "moved": _bytes(dram.moved),
            "busy": _percent(dram.busy),
            "rate": f"{dram.gb_per_s:g} GB/s",
            "index": _bytes(-(-int(found.metadata_bits[i]) // 8)),
            "pattern": str(layer.pattern),
            "mode": found.mode[i],
            "calls": "a call" if layer.repeats == 1 else f"{layer.repeats:,} calls",
        }
        return cls(cycles, losses, bound, dram.busy, listed.rule(bound), words | own_words)


class _Dram(NamedTuple):
    """What a layer asks of DRAM: its bytes, the bandwidth, and the share of cycles it is busy."""

    moved: int
    gb_per_s: float
    busy: float

    @classmethod
    def of(cls, found: Evaluation, i: int, device: Device) -> _Dram:
        level, cycles = dram_of(device), max(int(found.cycles[i]), 1)
        moved = int(np.broadcast_to(found.counts.of("dram_", "_bytes"), found.cycles.shape)[i])
        if level is None or level.bytes_per_cycle is None or "dram" not in found.causes:
            return cls(moved, math.inf, 0.0)
        rate = level.bytes_per_cycle
        return cls(moved, rate * device.clock_ghz, moved / rate / cycles)


def _try_all(
    layers: Sequence[Layer], facts: Sequence[_Facts], device: Device, masks: Masks
) -> list[dict[str, Tried]]:
    """Evaluate every change for the layers whose rule names it."""
    listed = device_of(device.kind).counterfactuals()
    answers = listed.asked(device)
    out: list[dict[str, Tried]] = [{} for _ in layers]
    for key, change in listed.what_ifs.items():
        asking = [i for i, fact in enumerate(facts) if key in _named(fact.rule)]
        changed = change.device(device) if key in answers else None
        if changed is None:
            continue
        new = {i: change.layer(layers[i], device, masks) for i in asking}
        pairs = [(i, layer) for i, layer in new.items() if layer is not None]
        for (i, layer), cycles in zip(
            pairs, _cycles(changed, [layer for _, layer in pairs], masks, layers), strict=True
        ):
            if cycles is not None:
                phrase = change.phrase.format(device=changed, layer=layer)
                spent = _at_clock(cycles, changed, device)
                out[i][key] = Tried(key, phrase, spent, change.items)
    return out


def _at_clock(cycles: int, changed: Device, device: Device) -> int:
    """Return cycles of a changed device in clocks of the one asked about."""
    if changed.clock_ghz == device.clock_ghz:
        return cycles
    return round(cycles * device.clock_ghz / changed.clock_ghz)


def _named(rule: Rule) -> tuple[str, ...]:
    return (rule.first, *rule.others) if rule.first else rule.others


def _cycles(
    device: Device, layers: list[Layer], masks: Masks, network: Sequence[Layer]
) -> list[int | None]:
    """Return the cycles of layers of a network on a device, None for one it cannot hold."""
    if not layers:
        return []
    try:
        family = device_of(device.kind)(device).in_network(network)
        found: Evaluation = family.evaluate(layers, masks)
    except InputError:
        if len(layers) == 1:
            return [None]
        return [cycles for layer in layers for cycles in _cycles(device, [layer], masks, network)]
    return [int(cycles) for cycles in found.cycles]


def _chosen(
    rule: Rule, changes: dict[str, Tried], cycles: int, order: Sequence[str]
) -> list[Tried]:
    """Return the changes worth a mention: the rule's first, then the best two of the others."""

    def each(tried: Tried) -> float:
        return tried.cycles / tried.items

    worth = {key: t for key, t in changes.items() if each(t) <= (1 - GAIN) * cycles}
    first = [worth.pop(rule.first)] if rule.first in worth else []
    best = sorted(worth.values(), key=lambda t: (each(t), order.index(t.key)))
    return first + best[: 2 - len(first)]


def _sentence(
    names: tuple[str, ...], fact: _Facts, tried: Sequence[Tried], whole: int, nothing: str
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
        help_ = "; ".join(map(str, quoted)) or nothing
        text = f"{body}{minor}; {help_}" if help_ else f"{body}{minor}"
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
