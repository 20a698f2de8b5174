"""The ledger: rows of all groups, what is recorded of them, and where the two differ.

``expected.csv`` keeps the verdict, status and value of every row. A run is red where a row differs
from it: a value that moved, a verdict that changed, a row that is new or gone. A failure that is
recorded as one stays a failure on display, but turns nothing red until it moves.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accsim.base.errors import InputError, near, one_of
from accsim.validate.groups import GROUPS
from accsim.validate.row import VERDICTS, Row

EXPECTED = Path(__file__).parent / "expected.csv"
COLUMNS = ("id", "status", "verdict", "ours")
# Far below any digit a reference has, far above what another platform's arithmetic does.
SAME = 1e-6


class Recorded(NamedTuple):
    """What is recorded of one row."""

    status: str
    verdict: str
    ours: float | None


class Drift(NamedTuple):
    """A row that is not what is recorded, and how so."""

    id: str
    what: str


@dataclass(frozen=True)
class Ledger:
    """The rows of some groups, and their drift from what is recorded.

    Raises:
        InputError: two rows of one id.
    """

    rows: tuple[Row, ...]
    drifts: tuple[Drift, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for row in self.rows:
            if row.id in seen:
                raise InputError(f"ledger: two rows are called '{row.id}'")
            seen.add(row.id)

    @property
    def groups(self) -> dict[str, list[Row]]:
        """Rows by group, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found

    @property
    def failures(self) -> list[Row]:
        """Predictions that fail, known or not."""
        return [row for row in self.rows if row.status == "predicted" and row.verdict == "fail"]


class Summary(NamedTuple):
    """Counts of a set of rows; ``worst`` is the prediction with the largest |error|."""

    rows: int
    passed: int
    in_range: int
    failed: int
    fitted: int
    fitted_off: int
    out_of_scope: int
    worst: Row | None


def summary(rows: Sequence[Row]) -> Summary:
    """Return the counts of some rows; fitted ones are counted apart, whatever their verdict."""
    predicted = [row for row in rows if row.status == "predicted"]
    fitted = [row for row in rows if row.status == "fitted"]
    off = [row for row in predicted if row.error]
    verdicts = [row.verdict for row in predicted]
    return Summary(
        rows=len(rows),
        passed=verdicts.count("pass"),
        in_range=verdicts.count("range"),
        failed=verdicts.count("fail"),
        fitted=len(fitted),
        fitted_off=sum(row.verdict == "fail" for row in fitted),
        out_of_scope=len(rows) - len(predicted) - len(fitted),
        worst=max(off, key=lambda row: abs(row.error or 0), default=None),
    )


def validate(
    names: Iterable[str] = (),
    *,
    expected: Path = EXPECTED,
    progress: Callable[[str], None] | None = None,
) -> Ledger:
    """Return the ledger of some groups, all of them if none is named, compared with the record.

    Raises:
        InputError: no such group, or a record that cannot be read.
    """
    chosen = chosen_groups(names)
    rows: list[Row] = []
    for name in chosen:
        if progress is not None:
            progress(name)
        rows += GROUPS[name].rows()
    recorded = read_expected(expected)
    others = set(GROUPS) - set(chosen)
    kept = {key: value for key, value in recorded.items() if key.partition("/")[0] not in others}
    return Ledger(tuple(rows), tuple(drifts(rows, kept)))


def chosen_groups(names: Iterable[str]) -> list[str]:
    """Return the named groups in the ledger's order, all if none is named."""
    wanted = list(names)
    for name in wanted:
        if name not in GROUPS:
            raise InputError(
                f"group must be one of {one_of(GROUPS)}; got '{name}'{near(name, GROUPS)}"
            )
    return [name for name in GROUPS if not wanted or name in wanted]


# --- the record


def drifts(rows: Iterable[Row], recorded: dict[str, Recorded]) -> Iterable[Drift]:
    """Yield what differs from the record: changed, new and missing rows."""
    left = dict(recorded)
    for row in rows:
        known = left.pop(row.id, None)
        what = "is not recorded" if known is None else _difference(row, known)
        if what:
            yield Drift(row.id, what)
    for name in left:
        yield Drift(name, "is recorded, but no group has it")


def _difference(row: Row, known: Recorded) -> str:
    if row.status != known.status:
        return f"was {known.status}, is {row.status}"
    moved = f"ours was {_digits(known.ours)}, is {_digits(row.ours)} {row.unit}"
    if row.verdict != known.verdict:
        worse = VERDICTS.index(row.verdict) > VERDICTS.index(known.verdict)
        how = "worse" if worse else "better"
        return f"{how}: was {known.verdict}, is {row.verdict}; {moved}"
    return "" if _same(row.ours, known.ours) else moved


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=SAME, abs_tol=1e-12)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def read_expected(path: Path = EXPECTED) -> dict[str, Recorded]:
    """Return what is recorded, by id.

    Raises:
        InputError: the file cannot be read, or a line of it makes no sense.
    """
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            lines = list(csv.DictReader(handle))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", file=path) from None
    found = {}
    for number, line in enumerate(lines, start=2):
        try:
            ours = float(line["ours"]) if line["ours"] else None
            found[line["id"]] = Recorded(line["status"], line["verdict"], ours)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"needs {one_of(COLUMNS)}", file=path, line=number) from None
        if found[line["id"]].verdict not in VERDICTS:
            raise InputError(f"no verdict '{line['verdict']}'", file=path, line=number)
    return found


def record(ledger: Ledger, names: Iterable[str] = (), path: Path = EXPECTED) -> None:
    """Make the ledger the record: the groups it has are replaced, the others are kept.

    Raises:
        InputError: the file cannot be written.
    """
    chosen = chosen_groups(names)
    old = read_expected(path) if path.is_file() else {}
    kept = {
        key: value
        for key, value in old.items()
        if key.partition("/")[0] in GROUPS and key.partition("/")[0] not in chosen
    }
    new = kept | {row.id: Recorded(row.status, row.verdict, row.ours) for row in ledger.rows}
    # Group by group in the ledger's order, so that a diff shows what moved.
    order = {name: i for i, name in enumerate(GROUPS)}
    lines = sorted(new.items(), key=lambda item: order[item[0].partition("/")[0]])
    try:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows((key, *value[:2], _digits(value.ours)) for key, value in lines)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", file=path) from None


def as_data(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger as plain values: rows, counts by group, drift."""
    counts = {}
    for name, rows in ledger.groups.items():
        found = summary(rows)
        counts[name] = found._asdict() | {"worst": found.worst.id if found.worst else None}
    return {
        "rows": [row.record() for row in ledger.rows],
        "groups": counts,
        "drift": [drift._asdict() for drift in ledger.drifts],
    }


def save(ledger: Ledger, folder: Path) -> list[Path]:
    """Write ledger.csv and ledger.md to a folder; return the files.

    Raises:
        InputError: the folder cannot be made or written.
    """
    from accsim.validate.text import ledger_md

    table, page = folder / "ledger.csv", folder / "ledger.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(ledger.rows[0].record()), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row.record() for row in ledger.rows)
        page.write_text(ledger_md(ledger), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", file=folder) from None
    return [table, page]
