"""A break-even in the terminal: rows for a few shapes, maps of t × shapes for many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from accsim.report.text import plain, si

if TYPE_CHECKING:
    from accsim.break_even.table import Breakeven

MOST_ROWS = 12  # beyond, a map is easier to read
MARKS = {"wins": "+", "loses": "-", "even": "=", "undecided": "?"}
Row = dict[str, Any]


def breakeven_lines(found: Breakeven, width: int) -> Iterator[str]:
    """Yield the answer, no line of a table wider than ``width`` columns."""
    rows = list(found.rows)
    blocks: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        blocks.setdefault((row["hardware"], row["pattern"]), []).append(row)
    if len(rows) <= MOST_ROWS:
        yield from _few(rows)
    else:
        for (hardware, pattern), part in blocks.items():
            yield f"{pattern} against dense on {plain(hardware)}, {found.question.dtype}"
            if all(row["why"] == "same kernel" for row in part):
                yield "runs dense: no difference anywhere"
                yield ""
                continue
            yield from _map(part, found.question.t, width)
            yield from _crossings(found, hardware, pattern)
            yield ""
        yield _legend(rows)
    for note in found.notes:
        yield f"note: {plain(note)}"


def _legend(rows: Sequence[Row]) -> str:
    if all(math.isnan(row["speedup_low"]) for row in rows):
        words = "+ faster, - slower than dense, = within 5 %"
    else:
        words = ("+ wins, - loses: the whole 90 % interval on one side of 1; = within 5 %; "
                 "? the interval holds 1")  # fmt: skip
    return words + ("; * extrapolated" if any(row["extrapolated"] for row in rows) else "")


def _few(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line a row: times, the speed-up with its interval, the verdict and why."""
    head = ["hardware", "pattern", "runs as", "t", "k×n", "dense", "pruned", "speed-up",
            "interval", "verdict", "why"]  # fmt: skip
    cells = [head]
    for row in rows:
        known = not math.isnan(row["speedup_low"])
        ends = f"{row['speedup_low']:.2f} … {row['speedup_high']:.2f}" if known else "none"
        cells.append([
            plain(row["hardware"]), row["pattern"], row["mode"], str(row["t"]),
            f"{row['k']}×{row['n']}", si(row["dense_us"] * 1e-6, "s", 3),
            si(row["sparse_us"] * 1e-6, "s", 3), f"{row['speedup']:.2f}×", ends,
            row["verdict"] + ("*" if row["extrapolated"] else ""), row["why"],
        ])  # fmt: skip
    yield from _aligned(cells, left=(0, 1, 2, 9, 10))
    if any(row["extrapolated"] for row in rows):
        yield "* outside what the device was calibrated with"


def _map(rows: Sequence[Row], ts: Sequence[int], width: int) -> Iterator[str]:
    """Yield a line a shape and a column a t; too many columns go on below."""
    by_shape: dict[str, list[Row]] = {}
    for row in rows:
        by_shape.setdefault(f"{row['k']}×{row['n']}", []).append(row)
    head = max(map(len, ["k×n", *by_shape]))
    cell = max(6, *(len(_cell(row)) for row in rows), *(len(f"{t:,}") for t in ts)) + 1
    fitting = max((width - head) // cell, 1)
    for at in range(0, len(ts), fitting):
        shown = slice(at, at + fitting)
        yield f"{'k×n':<{head}}" + "".join(f"{f'{t:,}':>{cell}}" for t in ts[shown])
        for shape, part in by_shape.items():
            yield f"{shape:<{head}}" + "".join(f"{_cell(row):>{cell}}" for row in part[shown])


def _cell(row: Row) -> str:
    return f"{row['speedup']:.2f}{MARKS[row['verdict']]}{'*' if row['extrapolated'] else ''}"


def _crossings(found: Breakeven, hardware: str, pattern: str) -> Iterator[str]:
    """Yield where each shape breaks even, and from where that is sure."""
    cells = []
    for x in found.crossings:
        if (x.hardware, x.pattern) == (hardware, pattern):
            sure = [f"surely: {x.low}"] if x.low and x.speedup.kind != "same" else []
            slower = [f"possibly: {x.high}"] if x.high and x.high.t else []
            cells.append([f"{x.k}×{x.n}", f"faster: {x.speedup}", ",  ".join(sure + slower)])
    yield from _aligned(cells, left=(0, 1, 2))


def _aligned(cells: Sequence[Sequence[str]], left: Sequence[int]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        parts = [f"{x:<{w}}" if i in left else f"{x:>{w}}"
                 for i, (x, w) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(parts).rstrip()
