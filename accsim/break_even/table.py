"""Breakeven: the answer as a table, as crossings, as verdicts, as files and a figure."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accsim import __version__
from accsim.base.errors import InputError, one_of
from accsim.base.output import folder_to_write
from accsim.base.provenance import config_hash
from accsim.break_even.crossings import Crossed, Crossing, crossed
from accsim.break_even.question import Question
from accsim.result import json_text
from accsim.spec.pattern import DENSE

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

COLUMNS = {
    "hardware": "device",
    "pattern": "sparsity pattern of the pruned side",
    "dtype": "number format of both sides",
    "t": "rows of X: tokens, or output pixels × batch",
    "k": "reduction",
    "n": "columns of W: output features",
    "dense_us": "time of the dense layer, µs",
    "sparse_us": "time of the pruned layer, µs, with what making its operand takes at run time",
    "speedup": "dense_us / sparse_us",
    "speedup_low": "low end of its 90 % interval; the two sides' errors taken as independent",
    "speedup_high": "high end of the interval; empty for a device without intervals",
    "verdict": "wins, loses: the whole interval on one side of 1; even: within 5 % of 1; "
    "undecided: the interval holds 1",
    "dense_regime": "what bounds the dense layer: launch, memory or compute",
    "sparse_regime": "what bounds the pruned layer: launch, memory, compute or generator",
    "dense_mode": "how the device runs the dense layer",
    "mode": "how the device runs the pruned layer: dense where it has no kernel for the pattern",
    "generator_us": "of sparse_us, making the operand at run time",
    "extrapolated": "whether a side lies outside what the device was calibrated with",
    "why": "the cause that makes most of the difference",
    "why_us": "its time, pruned less dense, µs",
}
CROSSINGS = {
    "hardware": "device",
    "pattern": "sparsity pattern",
    "k": "reduction",
    "n": "columns of W",
    "crossing": "always, never, same (runs as dense); above, below: faster above, below the last t",
    "t": "every t where the speed-up crosses 1, log-log interpolation",
    "low_crossing": "the same of the low end of the interval: above 1 it is surely faster",
    "low_t": "its t",
    "high_crossing": "the same of the high end: below 1 it is surely slower",
    "high_t": "its t",
}


@dataclass(frozen=True)
class Verdict:
    """The answer for one shape; ``row`` holds every column of the table."""

    word: str
    speedup: float
    low: float
    high: float
    row: dict[str, Any]

    def __str__(self) -> str:
        ends = "no interval" if math.isnan(self.low) else f"{self.low:.2f} … {self.high:.2f}"
        return f"{self.word}: {self.speedup:.2f}× ({ends}), {self.row['why']}"


@dataclass(frozen=True, eq=False)
class Breakeven:
    """The outcome of :func:`accsim.breakeven`: one row a device, pattern, shape and t."""

    question: Question
    columns: dict[str, list[Any]]

    @property
    def table(self) -> pd.DataFrame:
        """The rows, a pandas DataFrame; columns as in ``COLUMNS``."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    @property
    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, each as a dictionary."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def verdict(
        self, t: int, k: int, n: int, *, pattern: str | None = None, hardware: str | None = None
    ) -> Verdict:
        """Return the answer for one shape that was asked for.

        ``pattern`` and ``hardware`` may be left out where there is only one.

        Raises:
            InputError: a value that was not asked for, or one left out of several.
        """
        wanted: dict[str, Any] = {"t": t, "k": k, "n": n}
        for name, value in (("pattern", pattern), ("hardware", hardware)):
            known = list(dict.fromkeys(self.columns[name]))
            if value is None and len(known) > 1:
                raise InputError(f"verdict: {name} must be one of {one_of(known)}; got none")
            wanted[name] = known[0] if value is None else str(value)
        for name, value in wanted.items():
            known = list(dict.fromkeys(self.columns[name]))
            if value not in known:
                raise InputError(f"verdict: {name} must be one of {one_of(known)}; got {value!r}")
        for row in self.rows:
            if all(row[name] == value for name, value in wanted.items()):
                ends = row["speedup_low"], row["speedup_high"]
                return Verdict(row["verdict"], row["speedup"], *ends, row)
        raise InputError(f"verdict: no shape k × n of {k} × {n} was asked for")

    @cached_property
    def crossings(self) -> tuple[Crossing, ...]:
        """For every device, pattern and k × n: the t at which the speed-up crosses 1."""
        found, step = [], len(self.question.t)
        for at in range(0, len(self.columns["t"]), step):
            part = {name: values[at : at + step] for name, values in self.columns.items()}
            about = (part["hardware"][0], part["pattern"][0], part["k"][0], part["n"][0])
            curves = [self._crossed(part[name]) for name in
                      ("speedup", "speedup_low", "speedup_high")]  # fmt: skip
            found.append(Crossing(*about, curves[0] or Crossed("same"), *curves[1:]))
        return tuple(found)

    def _crossed(self, curve: list[float]) -> Crossed | None:
        return None if any(map(math.isnan, curve)) else crossed(self.question.t, curve)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before the numbers: dense fallbacks, missing intervals."""
        notes = []
        for hardware, pattern in dict.fromkeys(
            zip(self.columns["hardware"], self.columns["pattern"], strict=True)
        ):
            rows = [x for x in self.rows if (x["hardware"], x["pattern"]) == (hardware, pattern)]
            dense = sum(row["why"] == "same kernel" for row in rows)
            if dense and pattern != str(DENSE):
                where = "" if dense == len(rows) else f" in {dense} of {len(rows)} rows"
                notes.append(f"{pattern} has no kernel on {hardware}{where}: it runs dense")
        for noun in self.question.hardware:
            rows = [row for row in self.rows if row["hardware"] == noun.name]
            if any(math.isnan(row["speedup_low"]) for row in rows):
                notes.append(f"{noun.name} states no intervals: verdicts by the 5 % rule alone")
            outside = sum(bool(row["extrapolated"]) for row in rows)
            if outside:
                notes.append(f"{noun.name}: {outside} of {len(rows)} rows lie outside what it was "
                             "calibrated with")  # fmt: skip
        return (*notes, *self._made)

    @property
    def _made(self) -> list[str]:
        asked = self.question
        words = {
            "w": "W is packed to 2:4 before every call, whatever t",
            "x": "X is packed to 2:4 before every call; the product is Yᵀ = Wᵀ·Xᵀ",
        }
        found = [words[asked.dynamic]] if asked.dynamic else []
        return found + ["the library's plan is made anew for every call"] * asked.uncached_setup

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything that decided the answer, JSON-ready."""
        asked = self.question
        return {
            "hardware": [x.model_dump(mode="json", exclude={"sources"}) for x in asked.hardware],
            "patterns": [str(pattern) for pattern in asked.patterns],
            "t": list(asked.t),
            "shapes": [list(shape) for shape in asked.shapes],
            "dtype": asked.dtype,
            "dynamic": asked.dynamic,
            "uncached_setup": asked.uncached_setup,
            "seed": asked.seed,
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """Version, configuration hash, seed, and the source of every number of the devices."""
        return {
            "accsim": __version__,
            "config_sha256": config_hash(self.configuration),
            "seed": self.question.seed,
            "hardware_sources": {
                noun.name: {
                    path: source.model_dump(mode="json", exclude_none=True)
                    for path, source in noun.sources.items()
                }
                for noun in self.question.hardware
            },
        }

    @property
    def data(self) -> dict[str, Any]:
        """Rows, crossings and notes, JSON-ready: what a device does not state is null."""
        return {
            "rows": [{name: _known(value) for name, value in row.items()} for row in self.rows],
            "crossings": [asdict(crossing) for crossing in self.crossings],
            "notes": list(self.notes),
        }

    def plot(self) -> matplotlib.figure.Figure:
        """Return the figure: a map of the speed-up for each device and pattern."""
        from accsim.report.breakeven import figure

        return figure(self)

    def save(self, folder: str | Path, *, plots: bool = True) -> list[Path]:
        """Write the answer to a folder; return the files.

        ``breakeven.csv``, ``crossings.csv``, ``breakeven.json`` (all of it, with configuration and
        provenance), ``breakeven.png`` and ``.svg``.

        Raises:
            InputError: the folder cannot be made or written.
        """
        with folder_to_write(folder) as path:
            files = list(self._write(path))
            if plots:
                from accsim.report.breakeven import save_figure

                files += save_figure(self, path)
        return files

    def _write(self, folder: Path) -> Iterator[Path]:
        yield _write_csv(folder / "breakeven.csv", COLUMNS, (x.values() for x in self.rows))
        yield _write_csv(folder / "crossings.csv", CROSSINGS, map(_flat, self.crossings))
        path = folder / "breakeven.json"
        whole = {"columns": COLUMNS, **self.data, "provenance": self.provenance,
                 "configuration": self.configuration}  # fmt: skip
        path.write_text(json_text(whole), encoding="utf-8")
        yield path


def _write_csv(path: Path, head: Any, rows: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(head)
        writer.writerows([_known(value) for value in row] for row in rows)
    return path


def _flat(crossing: Crossing) -> list[Any]:
    """Return one line of crossings.csv: several t in a cell stand with spaces between."""
    curves = (crossing.speedup, crossing.low, crossing.high)
    pairs = [(x.kind, " ".join(f"{t:g}" for t in x.t)) if x else (None, None) for x in curves]
    about = [crossing.hardware, crossing.pattern, crossing.k, crossing.n]
    return about + [value for pair in pairs for value in pair]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
