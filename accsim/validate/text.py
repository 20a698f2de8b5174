"""The ledger in words: the terminal's table and failures, the README's block, ledger.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from accsim.validate.groups import GROUPS
from accsim.validate.ledger import Ledger, summary
from accsim.validate.row import Row

HEADS = ("group", "rows", "pass", "range", "fail", "fitted", "out", "worst prediction")
LEGEND = (
    "pass, range, fail count predictions: ours within the reference, only our own range reaching "
    "it, neither. fitted: the source chose a number of ours, says nothing. out: out of scope."
)


def ledger_lines(ledger: Ledger, width: int = 100, *, verbose: bool = False) -> Iterator[str]:
    """Yield what a terminal shows: counts by group, failures (or all rows), what drifted."""
    for line in _counts(ledger):
        yield line[:width]
    yield from textwrap.wrap(LEGEND, width)
    shown = ledger.rows if verbose else ledger.failures
    if shown:
        yield ""
        new = sum(row.id in {drift.id for drift in ledger.drifts} for row in shown)
        yield f"{len(shown)} rows:" if verbose else f"{len(shown)} predictions fail, {new} new:"
        yield from _listed(shown, width, verbose)
    off = [row for row in ledger.rows if row.status == "fitted" and row.verdict == "fail"]
    if off and not verbose:
        worst = max(off, key=lambda row: abs(row.error or 0))
        yield ""
        yield from textwrap.wrap(
            f"{len(off)} fitted rows lie outside too, by {error_text(worst)} at most ({worst.id}); "
            "-v shows them.",
            width,
        )
    if ledger.drifts:
        yield ""
        yield f"{len(ledger.drifts)} rows are not what is recorded"


def _counts(ledger: Ledger) -> Iterator[str]:
    table = [HEADS, *_cells(ledger)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADS))]
    for row in table:
        cells = [cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells, row[-1]]).rstrip()


def _cells(ledger: Ledger) -> Iterator[tuple[str, ...]]:
    for name, rows in [*ledger.groups.items(), ("total", ledger.rows)]:
        found = summary(rows)
        worst = f"{error_text(found.worst)} {found.worst.id}" if found.worst else "-"
        counts = (*found[:5], found.out_of_scope)
        yield (name, *map(str, counts), "" if name == "total" else worst)


def _listed(rows: Iterable[Row], width: int, verdicts: bool) -> Iterator[str]:
    before = ""
    for row in rows:
        said = f"{row.status} {row.verdict}: " if verdicts and row.ours is not None else ""
        text = f"{row.id}: {said}ours {value_text(row)}, reference {reference_text(row)}"
        text += f", {error_text(row)}" if row.error else ""
        yield from textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="      ")
        # A reason that stands for several rows in a row is said once.
        if row.remark and row.remark != before:
            yield from textwrap.wrap(
                row.remark, width, initial_indent="      ", subsequent_indent="      "
            )
        before = row.remark


def number(value: float | None) -> str:
    """Return a number of the ledger: whole ones with all digits, others with four.

    >>> number(112283), number(0.05859), number(None)
    ('112,283', '0.05859', '-')
    """
    if value is None:
        return "-"
    whole = float(value).is_integer() and abs(value) < 10**12
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def value_text(row: Row) -> str:
    """Return ours with its range and unit."""
    ends = {row.ours_low, row.ours, row.ours_high} - {None, row.ours}
    low = row.ours if row.ours_low is None else row.ours_low
    high = row.ours if row.ours_high is None else row.ours_high
    between = f" ({number(low)} … {number(high)})" if ends else ""
    return f"{number(row.ours)}{between} {row.unit}"


def reference_text(row: Row) -> str:
    """Return the reference: a value, an interval, or one end."""
    if row.low is None and row.high is None:
        return "none"
    if row.low is None:
        return f"at most {number(row.high)}"
    if row.high is None:
        return f"at least {number(row.low)}"
    ends = (row.low,) if row.low == row.high else (row.low, row.high)
    return " … ".join(number(end) for end in ends)


def error_text(row: Row) -> str:
    """Return the error in percent, as a factor where it is large."""
    if row.error is None:
        return "-"
    if row.error >= 2:
        return f"x{row.error + 1:.3g}"
    return f"{100 * row.error:+.3g} %"


# --- markdown


def summary_md(ledger: Ledger) -> str:
    """Return the block for the README: counts by group."""
    lines = [
        "| held against | rows | pass | range | fail | fitted | out of scope | worst prediction |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, *cells in _cells(ledger):
        title = f"{name}: {GROUPS[name].title}" if name in GROUPS else "**all**"
        lines.append(f"| {title} | {' | '.join(_plain(cell) for cell in cells)} |")
    return "\n".join([*lines, "", LEGEND, ""])


def ledger_md(ledger: Ledger) -> str:
    """Return the whole ledger as a page."""
    parts = ["# Ledger", "", summary_md(ledger)]
    for name, rows in ledger.groups.items():
        parts += [f"## {name}: {GROUPS[name].title if name in GROUPS else ''}", ""]
        parts += [*_table_md(rows), ""]
    return "\n".join(parts)


def _table_md(rows: Sequence[Row]) -> Iterator[str]:
    yield "| id | quantity | ours | reference | error | status | verdict | source | remark |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        cells = (
            row.id, row.quantity, value_text(row), reference_text(row), error_text(row),
            row.status, row.verdict, row.source, row.remark,
        )  # fmt: skip
        yield f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
