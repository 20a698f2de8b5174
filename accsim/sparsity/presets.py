"""Published densities by name: activations, experts, attention. Every row carries its source.

The tables are ``data/presets.csv`` and ``data/teal.csv``. Rows whose source has no licence
(Sparseloop's artefact, the DLMC masks) are not shipped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from accsim.base.errors import InputError, near

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
TEAL = "teal:"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published density: from ``low`` to ``high`` (equal where one number is given).

    ``kind`` says how it is known (measured, literature, config, trace); an upper bound has
    ``low`` 0.
    """

    scope: str
    operand: str
    low: float
    high: float
    structure: str
    note: str
    kind: str
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(f"a density must be 0 <= low <= high <= 1; got {self}")

    @property
    def middle(self) -> float:
        """Half-way between low and high."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Preset:
    """The rows of one name. In a TEAL preset the scope is ``block.role``, e.g. ``3.q``."""

    name: str
    rows: tuple[Row, ...]

    def row(self, scope: str) -> Row:
        """Return the row of a scope; InputError with the near word if there is none."""
        for row in self.rows:
            if row.scope == scope:
                return row
        known = [row.scope for row in self.rows]
        raise InputError(f"preset '{self.name}' has no scope '{scope}'{near(scope, known)}")


def presets() -> tuple[str, ...]:
    """Return all names: the table's, and TEAL's as ``teal:MODEL@TARGET``.

    >>> "teal:Llama-3-8B@0.5" in presets(), "moe_Mixtral-8x7B" in presets()
    (True, True)
    """
    return (*_table(), *_teal())


@cache
def preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        InputError: no such name (with the near one).

    >>> preset("teal:Llama-3-8B@0.5").row("0.q").middle
    0.25
    """
    found = _teal() if name.startswith(TEAL) else _table()
    if name not in found:
        raise InputError(f"no preset is called '{name}'{near(name, presets())}")
    return Preset(name, found[name])


@cache
def _table() -> dict[str, tuple[Row, ...]]:
    return _grouped(
        (
            line["preset"],
            Row(
                low=float(line["low"]),
                high=float(line["high"]),
                **{key: line[key] for key in TEXTS},
            ),
        )
        for line in _lines("presets.csv")
    )


TEXTS = ("scope", "operand", "structure", "note", "kind", "source")


@cache
def _teal() -> dict[str, tuple[Row, ...]]:
    return _grouped(
        (f"{TEAL}{line['model']}@{float(line['target']):g}", _teal_row(line, role))
        for line in _lines("teal.csv")
        for role in ROLES
    )


def _teal_row(line: dict[str, str], role: str) -> Row:
    density = round(1 - float(line[role]), 6)
    return Row(
        scope=f"{line['block']}.{role}",
        operand="input act",
        low=density,
        high=density,
        structure="threshold per tensor, rows of W skipped",
        note=f"block sparsity {line['effective']} at model-wide {line['target']}",
        kind="measured calibration (greedy)",
        source=line["source"],
    )


def _lines(name: str) -> list[dict[str, str]]:
    text = (files("accsim.sparsity") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _grouped(pairs: Iterable[tuple[str, Row]]) -> dict[str, tuple[Row, ...]]:
    found: dict[str, list[Row]] = {}
    for name, row in pairs:
        found.setdefault(name, []).append(row)
    return {name: tuple(rows) for name, rows in found.items()}
