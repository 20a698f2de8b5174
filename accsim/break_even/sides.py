"""Both sides of the comparison: times of layers with their ends, by cause, as a device says them.

Only the ``Family`` protocol is used, so any device family has a break-even. A family gives ends of
its latency in the extra columns ``latency_low_s`` and ``latency_high_s``, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.break_even.question import Question, Shape
from accsim.files.hardware import device_of
from accsim.sparsity.masks import Masks
from accsim.spec.device import Family
from accsim.spec.pattern import DENSE, Pattern
from accsim.spec.schedule import COMPUTE_CAUSES, Evaluation
from accsim.spec.workload import Layer, gemm

Floats = npt.NDArray[np.float64]
OWN_PORT = "shared"  # a channel of one unit alone: waiting for it is no memory bound


@dataclass(frozen=True, eq=False)
class Side:
    """One kind of layer at every t: µs with ends (or none), by cause, and how it ran."""

    us: Floats
    low: Floats | None
    high: Floats | None
    causes: dict[str, Floats]
    mode: tuple[str, ...]
    regime: npt.NDArray[np.str_]
    extrapolated: npt.NDArray[np.bool_] | None

    def where(self, chosen: npt.NDArray[np.bool_], other: Side) -> Side:
        """Return this side where ``chosen``, the other one elsewhere; both of one device."""
        zero = np.zeros_like(self.us)

        def pick(mine: Any, its: Any) -> Any:
            return None if mine is None or its is None else np.where(chosen, mine, its)

        names = dict.fromkeys([*self.causes, *other.causes])
        return Side(
            pick(self.us, other.us),
            pick(self.low, other.low),
            pick(self.high, other.high),
            {x: pick(self.causes.get(x, zero), other.causes.get(x, zero)) for x in names},
            tuple(pick(np.array(self.mode), np.array(other.mode)).tolist()),
            pick(self.regime, other.regime),
            pick(self.extrapolated, other.extrapolated),
        )

    def after(self, value: Floats, low: Floats, high: Floats) -> Side:
        """Return the side with a time spent before each call; the errors of the two add squared."""
        us = self.us + value
        ends = [None if end is None else us + way * np.hypot(self.us - end, value - edge)
                for way, end, edge in ((-1, self.low, low), (1, self.high, high))]  # fmt: skip
        causes = self.causes | {"generator": self.causes["generator"] + value}
        regime = np.where(value > 0.5 * us, "generator", self.regime)
        return replace(self, us=us, low=ends[0], high=ends[1], causes=causes, regime=regime)


def layers_of(question: Question, shape: Shape, pattern: Pattern) -> list[Layer]:
    """Return the layer at every t; its name says k × n only, so that all t share one mask.

    When X is made sparse, the sparse product is Yᵀ = Wᵀ·Xᵀ: t and n change places.
    """
    swap = question.dynamic == "x" and pattern != DENSE
    made = []
    for t in question.t:
        rows, columns = (shape.n, t) if swap else (t, shape.n)
        try:
            one = gemm(rows, shape.k, columns, dtype=question.dtype, name=f"{shape.k}x{columns}")
        except InputError as error:
            raise InputError(f"t {t} with shapes {shape}: {error.message}") from None
        made.append(one.prune(pattern).layers[0])
    return made


def dense_side(noun: Any, question: Question, shape: Shape, masks: Masks) -> Side:
    """Return the dense layer at every t.

    Raises:
        InputError: the device refuses the layer, for one because of its number format.
    """
    family, layers = device_of(noun.kind), layers_of(question, shape, DENSE)
    try:
        return _side(noun, family(noun).evaluate(layers, masks))
    except InputError as error:
        raise InputError(f"dtype {question.dtype}: {error.message}") from None


def sparse_side(
    noun: Any, question: Question, shape: Shape, pattern: Pattern, masks: Masks, dense: Side
) -> Side:
    """Return the pruned layer at every t, with the time of making it where that is at run time.

    Where the device has no kernel for the pattern it runs the dense one.
    """
    if pattern == DENSE:
        return dense
    family = device_of(noun.kind)
    layers = layers_of(question, shape, pattern)
    before = _before(family, noun, question, layers, pattern)
    side = _side(noun, family(noun).evaluate(layers, masks))
    if question.dynamic == "x":
        own = np.array([a != b for a, b in zip(side.mode, dense.mode, strict=True)])
        side = side.where(own, dense)
    return side if before is None else side.after(*before)


def _before(
    family: type[Family], noun: Any, question: Question, layers: Sequence[Layer], pattern: Pattern
) -> tuple[Floats, Floats, Floats] | None:
    """Return (value, low, high) of what is spent before each call, µs."""
    compress, setup = question.dynamic is not None, question.uncached_setup
    if not (compress or setup):
        return None
    part = "dynamic" if compress else "uncached_setup"
    found = family.generator_us(noun, layers, compress=compress, setup=setup)
    if found is None:
        raise InputError(
            f"{part}: '{noun.name}' states no time of making operands at run time "
            "(a GPU's file has it in the section 'compress')"
        )
    if np.isnan(found[0]).any():
        raise InputError(
            f"{part}: no time is known of making an operand {pattern} at run time on "
            f"'{noun.name}'; only of 2:4"
        )
    return tuple(end.astype(np.float64) for end in found)  # type: ignore[return-value]


def _side(noun: Any, found: Evaluation) -> Side:
    per_us = noun.clock_ghz * 1e3
    causes = {name: cycles / per_us for name, cycles in found.causes.items()}
    low, high = (found.extra.get(f"latency_{end}_s") for end in ("low", "high"))
    outside = found.extra.get("extrapolated")
    return Side(
        found.cycles / per_us,
        None if low is None else low * 1e6,
        None if high is None else high * 1e6,
        causes,
        found.mode,
        _regimes(causes, found.extra.get("memory_bound")),
        None if outside is None else outside > 0,
    )


def _regimes(causes: dict[str, Floats], said: Floats | None) -> npt.NDArray[np.str_]:
    """Return what bounds each layer: launch (over half its time), memory, compute.

    Memory where the device says so (1 in its column ``memory_bound``); where it says nothing, if
    waiting for memories is over half the rest.
    """
    total = np.sum(list(causes.values()), axis=0)
    rest = total - causes["launch"]
    inside = (*COMPUTE_CAUSES, "launch", OWN_PORT)
    waits = [spent for name, spent in causes.items() if name not in inside]
    waiting = np.sum(waits, axis=0) if waits else np.zeros_like(total)
    said = np.full_like(total, np.nan) if said is None else said
    memory = np.where(np.isnan(said), waiting > 0.5 * rest, said > 0)
    found = np.where(memory, "memory", "compute")
    return np.where(causes["launch"] > rest, "launch", found)
