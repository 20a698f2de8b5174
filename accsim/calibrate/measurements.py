"""Measured latencies of matrix products: the script's CSV file, or a table of dense beside 2:4."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.files.yaml import read_text

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.str_]

DTYPES = ("bf16", "fp16", "tf32", "fp32", "int8", "fp8", "fp4", "int4")
PATTERNS = ("dense", "2:4")
KEYS = ("device", "dtype", "t", "k", "n")
LONG = ("device", "dtype", "pattern", "t", "k", "n", "latency_us")
WIDE = {"dense_us": "dense", "sparse24_us": "2:4"}
# Figures that a row may leave out; weight is the point's weight in a fit, 1 when not said.
OPTIONAL = ("p5_us", "p95_us", "repeats", "sm_clock_mhz", "power_w", "host_us", "weight")

MAX_BYTES = 16 * 2**20
MAX_EXTENT = 2**24
MAX_MACS = 2**56
MAX_US = 1e9

_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
# From the 5th to the 95th percentile of a normal distribution, in standard deviations.
_P5_TO_P95 = 3.2897


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Latencies of Y (t, n) = X (t, k) W (k, n), one entry of every array a measured product.

    ``latency_us`` is the median of one call. Figures that a file does not tell are NaN (``weight``:
    1, ``flags``: empty). A product measured twice stands twice. ``about`` is the file's header
    (``# key: value``; a key's different values joined by "; "), ``notices`` what a reader should
    tell its user.
    """

    device: Words
    dtype: Words
    pattern: Words
    t: Ints
    k: Ints
    n: Ints
    latency_us: Floats
    p5_us: Floats
    p95_us: Floats
    repeats: Floats
    sm_clock_mhz: Floats
    power_w: Floats
    host_us: Floats
    weight: Floats
    flags: Words
    about: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.latency_us)

    def take(self, mask: npt.NDArray[Any]) -> Measurements:
        """Return the entries of a mask (bool) or of indices, header and notices as they are."""
        arrays = {name: getattr(self, name)[mask] for name in _ARRAYS}
        return Measurements(**arrays, about=self.about, notices=self.notices)

    @property
    def spread(self) -> Floats:
        """Relative standard deviation of a latency, as its percentiles tell; NaN without them."""
        return np.asarray(np.log(self.p95_us / self.p5_us) / _P5_TO_P95, dtype=np.float64)

    @property
    def groups(self) -> Ints:
        """(n, k) of every entry, shape (entries, 2): what cross-validation keeps together."""
        return np.stack([self.n, self.k], axis=1)


_ARRAYS = tuple(f.name for f in fields(Measurements) if f.name not in ("about", "notices"))


class _Line(NamedTuple):
    """One row of the file with its place."""

    cells: dict[str, str]
    file: str
    line: int

    def error(self, column: str, rule: str) -> InputError:
        got = self.cells.get(column, "")
        shown = ascii(got)[1:-1] if len(got) <= 60 else ascii(got[:60])[1:-1] + "…"
        return InputError(f"{column} {rule}; got '{shown}'", file=self.file, line=self.line)

    def word(self, column: str, known: tuple[str, ...]) -> str:
        text = self.cells[column]
        if text not in known:
            slip = near(text, known) if len(text) < 30 else ""
            raise self.error(column, f"must be one of {one_of(known)}{slip}")
        return text

    def name(self, column: str) -> str:
        text = self.cells[column]
        if not (0 < len(text) <= 200 and text.isprintable()):
            raise self.error(column, "must be a name of 1 to 200 characters")
        return text

    def extent(self, column: str) -> int:
        text = self.cells[column]
        if not (_WHOLE.fullmatch(text) and 1 <= int(text) <= MAX_EXTENT):
            raise self.error(column, f"must be a whole number from 1 to {MAX_EXTENT}")
        return int(text)

    def figure(self, column: str, unit: str = "") -> float:
        text = self.cells[column]
        if not (_NUMBER.fullmatch(text) and 0 < float(text) <= MAX_US):
            raise self.error(column, f"must be above 0 and at most {MAX_US:g}{unit}")
        return float(text)

    def optional(self, column: str) -> float:
        if self.cells.get(column, "") == "":
            return 1.0 if column == "weight" else float("nan")
        return self.figure(column)


def read(path: str | Path) -> Measurements:
    """Return the measurements of a CSV file.

    Columns: device, dtype, pattern (dense or 2:4), t, k, n, latency_us; and, where they are told,
    p5_us, p95_us, repeats, sm_clock_mhz, power_w, host_us, weight, flags. Or the wide form, with
    dense_us and sparse24_us (one of them may be blank) for pattern and latency_us. Columns stand
    in any order; others are left out, and ``notices`` says so. Lines that begin with # are
    comments.

    Raises:
        InputError: with file, line, column, rule and value, for anything that breaks a rule.
    """
    about: dict[str, list[str]] = {}
    lines = _lines(read_text(path, MAX_BYTES), str(path), about)
    first, header = next(lines, (0, []))
    if not header:
        raise InputError("must hold measurements; it has no line of column names", file=path)
    wide, notices = _columns(header, str(path), first)
    rows: list[dict[str, Any]] = []
    for number, cells in lines:
        if len(cells) != len(header):
            raise InputError(
                f"must have {len(header)} cells as the header; got {len(cells)}",
                file=path, line=number,
            )  # fmt: skip
        line = _Line(dict(zip(header, cells, strict=True)), str(path), number)
        rows += _wide(line) if wide else [_long(line)]
    if not rows:
        raise InputError("must hold measurements; it has column names only", file=path)
    arrays = {name: np.array([row[name] for row in rows]) for name in _ARRAYS}
    told = {key: "; ".join(dict.fromkeys(values)) for key, values in about.items()}
    return Measurements(**arrays, about=told, notices=notices)


def _lines(text: str, file: str, about: dict[str, list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Give every row's line number and cells; fill ``about`` with the comments on the way."""
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        if words.startswith("#"):
            key, colon, value = words.lstrip("# ").partition(": ")
            if colon:
                about.setdefault(key.strip(), []).append(value.strip())
        elif words:
            try:
                cells = next(csv.reader([words], strict=True))
            except csv.Error as error:
                raise InputError(f"is no CSV: {error}", file=file, line=number) from None
            yield number, [cell.strip() for cell in cells]


def _columns(header: list[str], file: str, line: int) -> tuple[bool, tuple[str, ...]]:
    """Return whether the form is wide, and notices; refuse a header that lacks a column."""
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"column '{name}' stands twice", file=file, line=line)
    wide = any(name in header for name in WIDE)
    needed = (*KEYS, *WIDE) if wide else LONG
    if wide and (both := [name for name in ("pattern", "latency_us") if name in header]):
        raise InputError(
            f"column '{both[0]}' must not stand beside {one_of(WIDE)}", file=file, line=line
        )
    for name in needed:
        if name not in header:
            raise InputError(
                f"column '{name}' is missing{_slip(name, header)}; must have {one_of(needed)}",
                file=file, line=line,
            )  # fmt: skip
    known = {*needed, "flags", "weight"} if wide else {*needed, *OPTIONAL, "flags"}
    extra = [name for name in header if name not in known]
    if not extra:
        return wide, ()
    names = ", ".join(ascii(name) for name in extra)
    return wide, (f"{file}: left out the columns {names}",)


def _slip(name: str, header: list[str]) -> str:
    """Say which unknown column looks like a slip of a missing one."""
    others = [x for x in header if x not in (*LONG, *WIDE, *OPTIONAL) and len(x) < 30]
    found = difflib.get_close_matches(name, others, n=1, cutoff=0.6)
    return f" (is {found[0]!a} it?)" if found else ""


def _product(line: _Line) -> dict[str, Any]:
    """Return what a row says of the product: device, dtype, sizes, weight and flags."""
    row: dict[str, Any] = {"device": line.name("device"), "dtype": line.word("dtype", DTYPES)}
    row |= {name: line.extent(name) for name in ("t", "k", "n")}
    if row["t"] * row["k"] * row["n"] > MAX_MACS:
        raise line.error("t", f"times k times n must be at most {MAX_MACS}")
    if len(line.cells.get("flags", "")) > 200:
        raise line.error("flags", "must have at most 200 characters")
    return row | {"weight": line.optional("weight"), "flags": line.cells.get("flags", "")}


def _checked(row: dict[str, Any], line: _Line) -> dict[str, Any]:
    if row["pattern"] == "2:4" and row["k"] % 4:
        raise line.error("k", "must be a multiple of 4 under 2:4")
    return row


def _long(line: _Line) -> dict[str, Any]:
    row = _product(line) | {"pattern": line.word("pattern", PATTERNS)}
    row |= {"latency_us": line.figure("latency_us", " us")}
    row |= {name: line.optional(name) for name in OPTIONAL}
    if row["p5_us"] > row["latency_us"] or row["p95_us"] < row["latency_us"]:
        raise line.error("latency_us", "must lie between p5_us and p95_us")
    return _checked(row, line)


def _wide(line: _Line) -> list[dict[str, Any]]:
    """Return one row for each of the two latencies that stands there."""
    unknown = dict.fromkeys(OPTIONAL, float("nan"))
    rows = [
        _checked(
            unknown | _product(line) | {"pattern": pattern, "latency_us": line.figure(name, " us")},
            line,
        )
        for name, pattern in WIDE.items()
        if line.cells[name]
    ]
    if not rows:
        raise line.error("dense_us", "or sparse24_us must be told")
    return rows
