"""Training schedules: which pattern holds at which step, and how many mask bits change.

Written ``0-10:dense,10-90:2:8``: half-open spans of steps (or epochs: the unit is the user's) that
start at 0 and follow each other. Options come after a semicolon: ``;decay=0.0002`` is SR-STE's λ,
``;fade=10-50`` the steps over which MdGf's β falls from 1 to 0.

Sources: SR-STE, MdGf, SdGf as in N:M training recipes; none of them states how fast masks change,
so :func:`churn` measures it on weights that drift.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError, near
from accsim.base.rng import stream
from accsim.spec.pattern import DENSE, Pattern, parse_pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]

SR_STE_DECAY = 2e-4  # the co-author's code (facts/fpga_training.md)
LADDER = ("15:16", "8:16", "4:16", "2:16", "1:16")  # SdGf
OPTIONS = ("decay", "fade")


@dataclass(frozen=True)
class Phase:
    """One pattern over the steps first … end − 1."""

    first: int
    end: int
    pattern: Pattern

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end:
            raise InputError(f"a phase needs 0 <= first < end; got '{self.first}-{self.end}'")

    def __str__(self) -> str:
        return f"{self.first}-{self.end}:{self.pattern}"


@dataclass(frozen=True)
class TrainingSchedule:
    """Step → pattern, over all of training.

    ``decay`` is the λ of SR-STE: the gradient of a pruned weight w gets λ·w added. ``fade`` is the
    half-open span in which MdGf multiplies pruned weights by β = 1 … 0, not 0 yet: products
    cost what dense ones cost, so these steps must be in dense phases; afterwards β is 0.

    >>> schedule = TrainingSchedule.parse("0-10:dense,10-90:2:8")
    >>> str(schedule.pattern_at(9)), str(schedule.pattern_at(10)), schedule.end
    ('dense', '2:8', 90)
    """

    phases: tuple[Phase, ...]
    decay: float = 0.0
    fade: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError("a training schedule needs at least one phase, e.g. 0-90:2:8; got ''")
        reached = 0
        for phase in self.phases:
            if phase.first != reached:
                what = "leaves a gap before" if phase.first > reached else "overlaps before"
                raise InputError(
                    f"training schedule {what} '{phase}': the phase must start at {reached}; "
                    f"got {phase.first}"
                )
            reached = phase.end
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise InputError(f"training schedule: decay must be at least 0; got '{self.decay}'")
        if self.fade:
            self._check_fade(*self.fade)

    def _check_fade(self, first: int, end: int) -> None:
        if not 0 <= first < end <= self.end:
            raise InputError(
                f"training schedule: fade must lie in 0-{self.end}; got '{first}-{end}'"
            )
        for phase in self.phases:
            if phase.pattern != DENSE and phase.first < end and first < phase.end:
                raise InputError(
                    f"training schedule: fade {first}-{end} is dense until β = 0; got '{phase}'"
                )

    @classmethod
    def parse(cls, text: str) -> TrainingSchedule:
        """Return the schedule a text writes; InputError in one line if it breaks a rule."""
        spans, *options = text.split(";")
        parts = re.split(r",(?=\s*\d+\s*-)", spans)
        return cls(tuple(_phase(part.strip(), text) for part in parts), **_options(options, text))

    def __str__(self) -> str:
        words = ",".join(map(str, self.phases))
        decay = f";decay={self.decay!r}" if self.decay else ""
        fade = f";fade={self.fade[0]}-{self.fade[1]}" if self.fade else ""
        return words + decay + fade

    @property
    def end(self) -> int:
        """The number of steps."""
        return self.phases[-1].end

    def pattern_at(self, step: int) -> Pattern:
        """Return the pattern whose products step ``step`` computes."""
        for phase in self.phases:
            if phase.first <= step < phase.end:
                return phase.pattern
        raise InputError(f"step must be in 0…{self.end - 1}; got {step}")

    def beta(self, step: int) -> float:
        """Return what pruned weights are multiplied by in MdGf: 1 before the fade, 0 after.

        Linear in between: the sources state the end points only. 0 in a schedule without fade.
        """
        if self.fade is None:
            return 0.0
        first, end = self.fade
        return min(1.0, max(0.0, (end - step) / (end - first)))


def _phase(text: str, whole: str) -> Phase:
    match = re.fullmatch(r"(\d{1,12})\s*-\s*(\d{1,12})\s*:(.+)", text)
    if match is None:
        raise InputError(f"training schedule must be written 0-10:dense,10-90:2:8; got '{whole}'")
    return Phase(int(match[1]), int(match[2]), parse_pattern(match[3].strip()))


def _options(options: Sequence[str], whole: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in options:
        name, _, value = (word.strip() for word in option.partition("="))
        if name not in OPTIONS or name in found:
            raise InputError(
                f"training schedule: options are decay and fade, each once; "
                f"got '{option}' in '{whole}'{near(name, OPTIONS)}"
            )
        found[name] = _decay(value, whole) if name == "decay" else _span(value, whole)
    return found


def _decay(value: str, whole: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(
            f"training schedule: decay must be a number; got '{value}' in '{whole}'"
        ) from None


def _span(value: str, whole: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,12})-(\d{1,12})", value)
    if match is None:
        raise InputError(f"training schedule: fade must be like 10-50; got '{value}' in '{whole}'")
    return int(match[1]), int(match[2])


def sr_ste(
    pattern: Pattern, *, steps: int, dense: int = 0, decay: float = SR_STE_DECAY
) -> TrainingSchedule:
    """Return SR-STE: one pattern after ``dense`` steps, its mask taken anew at every step.

    >>> from accsim.sparsity.nm import NM
    >>> str(sr_ste(NM(2, 8), steps=90))
    '0-90:2:8;decay=0.0002'
    """
    return TrainingSchedule(_then(dense, [Phase(dense, steps, pattern)]), decay=decay)


def sdgf(*, steps: int, dense: int, ladder: Sequence[str] = LADDER) -> TrainingSchedule:
    """Return SdGf: after ``dense`` steps the ladder of patterns in equal frames, rounded down.

    >>> str(sdgf(steps=60, dense=10, ladder=("8:16", "4:16")))
    '0-10:dense,10-35:8:16,35-60:4:16'
    """
    if not ladder or steps - dense < len(ladder):
        raise InputError(
            f"sdgf needs a step for each of {len(ladder)} rungs after the dense ones; "
            f"got steps {steps}, dense {dense}"
        )
    edges = [dense + (steps - dense) * rung // len(ladder) for rung in range(len(ladder) + 1)]
    spans = zip(edges[:-1], edges[1:], ladder, strict=True)
    return TrainingSchedule(_then(dense, [Phase(a, b, parse_pattern(p)) for a, b, p in spans]))


def mdgf(pattern: Pattern, *, steps: int, fade: tuple[int, int]) -> TrainingSchedule:
    """Return MdGf: pruned weights fade out over ``fade``; the cost is dense until β = 0.

    >>> from accsim.sparsity.nm import NM
    >>> str(mdgf(NM(2, 8), steps=90, fade=(10, 50)))
    '0-50:dense,50-90:2:8;fade=10-50'
    """
    return TrainingSchedule(_then(fade[1], [Phase(fade[1], steps, pattern)]), fade=fade)


def _then(dense: int, phases: list[Phase]) -> tuple[Phase, ...]:
    return (Phase(0, dense, DENSE), *phases) if dense else tuple(phases)


def mask_churn(before: BoolArray, after: BoolArray) -> float:
    """Return the share of mask bits that differ.

    >>> mask_churn(np.array([[True, False]]), np.array([[True, True]]))
    0.5
    """
    return float(np.count_nonzero(before != after)) / before.size if before.size else 0.0


def churn(
    schedule: TrainingSchedule,
    weights: FloatArray,
    *,
    drift: float,
    learning_rate: float = 0.0,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Return the share of mask bits that change into each step: (steps,) float64, the first 0.

    A model, not a measurement: before each step every weight moves to √(1 − drift²)·w + drift·σ·g,
    with g standard normal and σ the scale of that weight at the start (its row's and column's
    root mean square, so that the scales of the network stay), and the mask is taken anew. Pruned
    weights shrink by learning_rate·decay a step (SR-STE). ``drift`` must come from the user:
    no source states it. 0: only changes of the pattern change the mask. Of a bidirectional pattern
    the forward mask is counted.
    """
    if not 0 <= drift <= 1:
        raise InputError(f"churn needs a drift 0 <= d <= 1; got '{drift}'")
    if not 0 <= learning_rate * schedule.decay <= 1:
        raise InputError(f"churn needs 0 <= learning rate · decay <= 1; got '{learning_rate}'")
    rng = stream(seed, "churn", *weights.shape)
    now = weights.astype(np.float32)
    sigma, stay = _scales(now), np.float32(math.sqrt(1 - drift**2))
    mask = schedule.pattern_at(0).mask(now)
    changed = np.zeros(schedule.end)
    for step in range(1, schedule.end):
        now = np.where(mask, now, now * np.float32(1 - learning_rate * schedule.decay))
        if drift:
            now = stay * now + drift * sigma * rng.standard_normal(now.shape, dtype=np.float32)
        last, mask = mask, schedule.pattern_at(step).mask(now)
        changed[step] = mask_churn(last, mask)
    return changed


def _scales(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    squares = np.square(weights, dtype=np.float64)
    whole = squares.mean()
    rank_one = squares.mean(axis=1, keepdims=True) * squares.mean(axis=0, keepdims=True)
    scale = np.sqrt(rank_one / whole) if whole else np.zeros_like(squares)
    return np.asarray(scale, dtype=np.float32)
