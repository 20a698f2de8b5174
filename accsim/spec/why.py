"""What ``why`` needs of a device family: how bounds are worded, and which changes to try.

:mod:`accsim.cost.why` finds what bounds a layer and evaluates the changes; a family brings its list
of them (``Family.counterfactuals``), such as ``devices/systolic_why.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from accsim.spec.schedule import Evaluation

# Of a layer's losses: those of working on nothing useful.
NO_STALLS = ("work", "padding", "zeros")
# How bounds are worded, whatever the device. "onchip" is waiting for any channel but DRAM.
WORDS = {
    "dram": "{lost} waiting for DRAM ({moved} at {rate}, {busy} busy)",
    "onchip": "{lost} waiting for {level}",
    "metadata": "{lost} waiting for the positions of non-zeros ({index})",
    "fill_drain": "{lost} filling and draining",
    "imbalance": "{lost} waiting for the fullest unit ({pattern})",
    "launch": "{lost} starting {calls}",
    "gather": "{lost} gathering and scattering operands",
    "generator": "{lost} waiting for masks or packed operands to be made",
    "checker": "{lost} waiting for the checker",
    "throttle": "{lost} lost to a clock below the reference one, under a power cap",
    "padding": "compute-bound ({work} work), {lost} of it on padding",
    "zeros": "compute-bound ({work} work), {lost} on slots without a kept weight "
    "({pattern} as {mode})",
    "work": "compute-bound ({work} work, {peak} of peak)",
}


@dataclass(frozen=True)
class WhatIf:
    """A change of the device or of the layer; None where it does not apply.

    ``phrase`` is formatted with the changed ``device`` and ``layer``. ``items`` is how many times
    the work the changed layer does. ``device`` takes the device, ``layer`` the layer, the device
    and the masks.
    """

    phrase: str
    device: Callable[[Any], Any] = lambda device: device
    layer: Callable[..., Any] = lambda layer, *_: layer
    items: int = 1


@dataclass(frozen=True)
class Rule:
    """How a bound is worded, the change quoted first, and those of which the best are quoted."""

    words: str
    first: str | None = None
    others: tuple[str, ...] = ()


class Reading(NamedTuple):
    """What a family reads out of one layer.

    ``losses``: cycles by cause, as in the evaluation, but ``work`` may be divided further: what is
    left under ``work`` was work to be done; ``padding`` and ``zeros`` were not. Together no more
    than the layer's cycles. ``words``: what its rules are formatted with, beside the usual ones.
    """

    losses: dict[str, float]
    words: dict[str, str]


def causes_alone(found: Evaluation, i: int, *_: Any) -> Reading:
    """Return the causes of layer ``i`` as they are."""
    return Reading({name: int(spent[i]) for name, spent in found.causes.items()}, {})


@dataclass(frozen=True)
class Counterfactuals:
    """A family's part of ``why``; without any, bounds are said and nothing is tried.

    ``rules``: what bounds a layer → its :class:`Rule`, the usual words where there is none; those
    of a channel without one are of ``onchip``. ``what_ifs``: the changes, by the keys rules name
    them with, in the order equal ones are quoted. ``read(found, i, layer, device, masks)`` divides
    a layer's cycles. ``answers(device)``: the changes that mean something on it, all if None.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    what_ifs: Mapping[str, WhatIf] = field(default_factory=dict)
    read: Callable[..., Reading] = causes_alone
    answers: Callable[[Any], Collection[str]] | None = None

    def rule(self, bound: str) -> Rule:
        """Return how a bound is worded and what to try: a memory's name stands for ``onchip``."""
        for name in (bound, "onchip") if bound not in WORDS else (bound,):
            if name in self.rules:
                return self.rules[name]
        return Rule(WORDS.get(bound, WORDS["onchip"]))

    def asked(self, device: Any) -> Collection[str]:
        """Return the keys of the changes that mean something on a device."""
        return self.what_ifs if self.answers is None else self.answers(device)
