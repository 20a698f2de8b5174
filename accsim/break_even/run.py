"""breakeven: every pattern against dense, over t and shapes, on every device asked for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.break_even.question import DEFAULT_T, Question, Shape, question
from accsim.break_even.sides import Side, dense_side, sparse_side
from accsim.break_even.table import COLUMNS, Breakeven
from accsim.sparsity.masks import Masks
from accsim.spec.pattern import Pattern

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int, str], None]  # done, of how many, what comes next

EVEN = 1.05  # a speed-up within this factor of 1 is no difference one would change a model for
CAUSE_WORDS = {"dram": "DRAM", "l2": "L2", "fill_drain": "fill and drain", "throttle": "power cap",
               "shared": "shared memory"}  # fmt: skip


def breakeven(
    hardware: Any,
    patterns: Any = ("2:4",),
    t: Any = DEFAULT_T,
    shapes: Any = None,
    *,
    dtype: str = "fp16",
    dynamic: bool | str = False,
    uncached_setup: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Breakeven:
    """Return where each pattern wins and loses against dense, by how much and how sure.

    Args:
        hardware: a device, a catalogue name or a file; or several.
        patterns: words such as ``"2:4"``, or patterns.
        t: a number, a list, or a geometric range ``"1:65536"``, ``"1:65536:33"``.
        shapes: pairs (k, n), ``"4096x4096,4096x11008"``, a workload or its name (its distinct
            weight matrices); by default six layers of BERT and Llama (``DEFAULT_SHAPES``).
        dtype: number format of both sides.
        dynamic: the sparse operand is made at run time: ``"w"`` (also True), weights packed before
            every call; ``"x"``, activations packed, t × k, in the product Yᵀ = Wᵀ·Xᵀ.
        uncached_setup: the library's handle and plan are made anew for every call.
        seed: of synthetic weights and masks, for kernels that follow them.
        progress: called with (done, of how many, what is next) before each step.

    Raises:
        InputError: its line begins with the name of the argument.
    """
    asked = question(
        hardware, patterns, t, shapes, dtype=dtype, dynamic=dynamic,
        uncached_setup=uncached_setup, seed=seed,
    )  # fmt: skip
    jobs = list(product(asked.shapes, asked.patterns, asked.hardware))
    masks = Masks(asked.seed)
    dense: dict[tuple[str, Shape], Side] = {}
    parts: dict[tuple[str, Pattern, Shape], dict[str, list[Any]]] = {}
    # Shapes outermost: a mask that takes seconds to make serves every device.
    for done, (shape, pattern, noun) in enumerate(jobs):
        if progress is not None:
            progress(done, len(jobs), f"{pattern} {shape} on {noun.name}")
        key = (noun.name, shape)
        if key not in dense:
            dense[key] = dense_side(noun, asked, shape, masks)
        sparse = sparse_side(noun, asked, shape, pattern, masks, dense[key])
        parts[noun.name, pattern, shape] = rows_of(asked, noun.name, pattern, shape,
                                                   dense[key], sparse)  # fmt: skip
    ordered = [parts[noun.name, pattern, shape]
               for noun, pattern, shape in product(asked.hardware, asked.patterns, asked.shapes)
               ]  # fmt: skip
    columns = {name: [x for part in ordered for x in part[name]] for name in COLUMNS}
    return Breakeven(asked, columns)


def rows_of(
    asked: Question, hardware: str, pattern: Pattern, shape: Shape, dense: Side, sparse: Side
) -> dict[str, list[Any]]:
    """Return the columns of one pattern, shape and device, one entry a t."""
    count = len(asked.t)
    speedup = dense.us / sparse.us
    same = np.array([a == b for a, b in zip(sparse.mode, dense.mode, strict=True)])
    same &= sparse.us == dense.us
    low, high = speedup_ends(dense, sparse, same)
    outside: list[bool | None] = [None] * count
    if dense.extrapolated is not None and sparse.extrapolated is not None:
        outside = (dense.extrapolated | sparse.extrapolated).tolist()
    why, why_us = _reasons(dense, sparse, same)
    return {
        "hardware": [hardware] * count, "pattern": [str(pattern)] * count,
        "dtype": [asked.dtype] * count, "t": list(asked.t), "k": [shape.k] * count,
        "n": [shape.n] * count, "dense_us": dense.us.tolist(), "sparse_us": sparse.us.tolist(),
        "speedup": speedup.tolist(), "speedup_low": low.tolist(), "speedup_high": high.tolist(),
        "verdict": [verdict(*row) for row in zip(speedup, low, high, strict=True)],
        "dense_regime": dense.regime.tolist(), "sparse_regime": sparse.regime.tolist(),
        "dense_mode": list(dense.mode), "mode": list(sparse.mode),
        "generator_us": (sparse.causes["generator"] - dense.causes["generator"]).tolist(),
        "extrapolated": outside, "why": why, "why_us": why_us,
    }  # fmt: skip


def speedup_ends(dense: Side, sparse: Side, same: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the interval of each speed-up; not-a-number where a side has none.

    The errors of the two sides are taken as independent: their distances to the value, as logs, add
    squared. One and the same kernel is off by the same on both sides, and the ratio is exact.
    """
    none = np.full(len(dense.us), np.nan)
    if dense.low is None or dense.high is None or sparse.low is None or sparse.high is None:
        return none, none
    speedup = dense.us / sparse.us
    with np.errstate(divide="ignore"):  # a device may say 0 and infinity: it does not know
        below = np.hypot(np.log(dense.us / dense.low), np.log(sparse.high / sparse.us))
        above = np.hypot(np.log(dense.high / dense.us), np.log(sparse.us / sparse.low))
    low, high = speedup * np.exp(-below), speedup * np.exp(above)
    return np.where(same, speedup, low), np.where(same, speedup, high)


def verdict(speedup: float, low: float, high: float) -> str:
    """Return ``wins``, ``loses``, ``even`` or ``undecided``.

    With an interval: ``even`` if all of it is within 5 % of 1, else by whether all of it is on one
    side of 1. Without: ``even`` if the speed-up is within 5 % of 1, else by its side.

    >>> verdict(1.4, 1.2, 1.6), verdict(1.4, 0.9, 2.1), verdict(1.4, float("nan"), float("nan"))
    ('wins', 'undecided', 'wins')
    """
    if np.isnan(low) or np.isnan(high):
        low = high = speedup
    if low >= 1 / EVEN and high <= EVEN:
        return "even"
    return "wins" if low > 1 else "loses" if high < 1 else "undecided"


def _reasons(
    dense: Side, sparse: Side, same: npt.NDArray[np.bool_]
) -> tuple[list[str], list[float]]:
    """Return the cause that makes most of each difference, in words and µs (sparse − dense)."""
    names = list(dict.fromkeys([*dense.causes, *sparse.causes]))
    zero = np.zeros_like(dense.us)
    more = np.stack([sparse.causes.get(x, zero) - dense.causes.get(x, zero) for x in names])
    faster = sparse.us < dense.us
    which = np.where(faster, np.argmin(more, axis=0), np.argmax(more, axis=0))
    words, amounts = [], []
    for i, at in enumerate(which):
        cause = CAUSE_WORDS.get(names[at], names[at])
        words.append("same kernel" if same[i] else f"{'less' if faster[i] else 'more'} {cause}")
        amounts.append(0.0 if same[i] else float(more[at, i]))
    return words, amounts
