"""A result in the terminal: one line a layer (or ×N equal layers), then the totals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from accsim.report.text import (
    Group,
    each_layer,
    equal_layers,
    headline,
    human_bytes,
    patterns,
    percent,
    plain,
    shorten,
    si,
)

if TYPE_CHECKING:
    from rich.console import Console

    from accsim.result import Result

COLLAPSE_ABOVE = 24  # layers; shorter networks fit a screen as they are
NAME_MIN, GAP = 22, 2
HEADS = {
    "fill_drain": "fill", "imbalance": "imbal", "metadata": "meta", "padding": "pad",
    "dram": "DRAM wait",
}  # fmt: skip
WORDS = {"fill_drain": "fill and drain", "dram": "DRAM", "sram": "SRAM", "mac": "MACs"}
UNKNOWN = "not known: the trace does not hold what was pruned"
# For a stream that cannot say them; widths stay.
PLAINER = str.maketrans({"×": "x", "…": "~", "·": "-", "µ": "u"})


class _Column(NamedTuple):
    """One column: cells as text, the total below, and when it is left out of a narrow terminal."""

    title: str
    cells: list[str]
    total: str = ""
    rank: int = 0  # the highest goes first; 0 stays
    left: bool = False


def print_result(result: Result, console: Console, *, all_layers: bool = False) -> None:
    """Print the table of layers and the totals, no line wider than the console.

    Equal layers of a network of more than 24 share a line ×N, with their cycles, bytes and energy
    added up, unless ``all_layers``. Narrow consoles get fewer columns, and are told which.
    """
    columns = result.columns
    merge = not all_layers and len(columns["layer"]) > COLLAPSE_ABOVE
    groups = equal_layers(columns) if merge else each_layer(columns)
    merged = len(groups) < len(columns["layer"])
    kept, dropped = _fitting(_columns(result, groups, merged), console.width)
    _line(console, headline(result), "bold")
    _line(console, _conditions(result), "dim")
    console.print()
    _print_table(kept, console)
    for note in _notes(merged, dropped, console):
        _wrapped(console, "", note.split(" "), " ", "dim")
    console.print()
    for title, words in _totals(result, groups):
        _wrapped(console, title, words, "   ")


def _conditions(result: Result) -> str:
    dtypes = sorted({layer.dtype for layer in result.workload.layers})
    count = len(result.workload.layers)
    layers = f"{count} layers" if count > 1 else "1 layer"
    level = f"level {result.level}"
    if _timing(result) != "physical":
        level += f" ({_timing(result)})"
    words = [layers, ", ".join(dtypes), f"pattern {patterns(result)}", level, f"seed {result.seed}"]
    return " · ".join(words)


def _timing(result: Result) -> str:
    """Return the convention of a device that has several."""
    return getattr(result.hardware, "timing", "physical")


def _columns(result: Result, groups: list[Group], merged: bool) -> list[_Column]:
    table = result.columns
    firsts = [group.rows[0] for group in groups]

    def summed(*names: str) -> list[Any]:
        return [sum(group.sum(table[name]) for name in names) for group in groups]

    def amounts(title: str, rank: int, show: Callable[[Any], str], *names: str) -> _Column:
        values = summed(*names)
        return _Column(title, [show(value) for value in values], show(sum(values)), rank)

    cycles = summed("cycles")
    columns = [_Column("layer", [group.name for group in groups], "total", left=True)]
    if merged:
        times = [f"×{len(group.rows)}" if len(group.rows) > 1 else "" for group in groups]
        columns.append(_Column("", times))
    columns += [
        _Column("t×k×n", [_shape(table, i) for i in firsts], rank=6),
        *_modes(result, firsts),
        amounts("cycles", 0, "{:,}".format, "cycles"),
        _Column("share", [percent(value, result.cycles) for value in cycles], rank=4),
    ]
    columns += _stalls(result, summed, cycles)
    room = [group.sum(result.room_macs) for group in groups]
    used = [percent(m, r) for m, r in zip(summed("effective_macs"), room, strict=True)]
    return [
        *columns,
        _Column("util", used, percent(result.utilisation, 1), rank=1),
        *(
            amounts(level.upper(), rank, human_bytes, f"{level}_read_bytes", f"{level}_write_bytes")
            for level, rank in (("dram", 7), ("sram", 8))
            if _has(result, level)
        ),
        amounts("energy", 3, lambda joules: si(joules, "J", 3), "energy_j"),
    ]


def _stalls(result: Result, summed: Callable[[str], list[Any]], cycles: list[int]) -> list[_Column]:
    """Return a column of percentages for each stall that occurs in any layer."""
    columns = []
    for cause, total in result.causes.items():
        if cause != "work" and total:
            lost = summed(f"{cause}_cycles")
            cells = [percent(part, whole) for part, whole in zip(lost, cycles, strict=True)]
            columns.append(
                _Column(HEADS.get(cause, cause), cells, percent(total, result.cycles), rank=2)
            )
    return columns


def _shape(table: dict[str, list[Any]], i: int) -> str:
    times = f" ×{table['repeats'][i]}" if table["repeats"][i] != 1 else ""
    return f"{table['t'][i]}×{table['k'][i]}×{table['n'][i]}{times}"


def _modes(result: Result, rows: list[int]) -> list[_Column]:
    """Return the column of patterns and modes, or none where the heading has said it all."""
    pairs = [(result.columns["pattern"][i], result.columns["mode"][i]) for i in rows]
    if _timing(result) == "scalesim_v3":
        pairs = [(pattern, pattern) for pattern, _ in pairs]
    if len(set(pairs)) == 1 and pairs[0] == (patterns(result),) * 2:
        return []
    cells = [plain(f"{p} as {mode}" if p != mode else p) for p, mode in pairs]
    return [_Column("pattern", cells, rank=5, left=True)]


def _fitting(columns: list[_Column], room: int) -> tuple[list[_Column], list[str]]:
    """Return the columns that fit, layer names cut last, and the titles of the others."""
    dropped = []
    name = _width(columns[0])
    while True:
        rest = sum(_width(column) + GAP for column in columns[1:])
        worst = max(column.rank for column in columns)
        if min(name, NAME_MIN) + rest <= room or worst == 0:
            break
        dropped += [column.title for column in columns if column.rank == worst]
        columns = [column for column in columns if column.rank != worst]
    fitted = max(min(name, room - rest), 1)
    names = [shorten(cell, fitted) for cell in columns[0].cells]
    return [columns[0]._replace(cells=names), *columns[1:]], dropped


def _width(column: _Column) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, (column.title, column.total, *column.cells)))


def _print_table(columns: list[_Column], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    # No box: a log file, a screen reader and a paste into a mail get the same clean lines.
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    say = _voice(console)
    for column in columns:
        justify: Any = "left" if column.left else "right"
        width = min(_width(column), console.width)
        table.add_column(
            Text(say(column.title)), justify=justify, no_wrap=True, width=width, overflow="crop"
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(say(cell)) for cell in row))
    if len(columns[0].cells) > 1:
        table.add_row(*(Text(column.total, style="bold") for column in columns))
    console.print(table, highlight=False)


def _notes(merged: bool, dropped: list[str], console: Console) -> list[str]:
    notes = []
    if merged:
        notes.append("×N: N equal layers; their cycles, bytes and energy are added up.")
    if dropped:
        notes.append(f"Not shown at {console.width} columns: {', '.join(dropped)}.")
    return notes


def _totals(result: Result, groups: list[Group]) -> list[tuple[str, list[str]]]:
    totals, hardware = result.totals, result.hardware
    peak_tops = 2 * result.peak_macs_per_cycle * hardware.clock_ghz / 1e3
    speed = f"{result.effective_tops:.4g} of {peak_tops:.4g} TOPS"
    seconds = f"{si(result.latency_s, 's')} at {hardware.clock_ghz:g} GHz"
    kept = percent(totals["effective_macs"], totals["macs"])
    done = f"{si(totals['effective_macs'])} effective"
    lines = [
        ("latency", [f"{result.cycles:,} cycles", seconds, *_how_sure(result)]),
        ("cycles by cause", _ranked(result.causes)),
        ("utilisation", [percent(result.utilisation, 1), speed, "(2 operations a MAC)"]),
        ("MACs", [done, f"{si(totals['macs'])} dense ({kept})"]),
        *((name.upper(), _moved(totals, name)) for name in _memories(result)),
        ("energy", [si(result.energy_j, "J"), *_ranked(result.energy_parts_j)]),
        ("energy table", _priced_by(result)),
    ]
    if totals["metadata_bits"]:
        size = human_bytes(totals["metadata_bits"] / 8)
        lines.insert(4, ("metadata", [f"{size} of positions of non-zeros"]))
    if len(groups) > 1:
        lines.append(("most cycles", _costliest(result, groups)))
    return lines


def _how_sure(result: Result) -> list[str]:
    """Return the latency's interval, and how many layers lie outside what was calibrated."""
    ends, count = result.latency_range_s, len(result.extrapolated)
    if ends is None:
        return []
    words = f"{si(ends[0], 's')} … {si(ends[1], 's')} (90 %)"
    whole = len(result.workload.layers)
    return [words, f"{count} of {whole} layers extrapolated"] if count else [words]


def _has(result: Result, level: str) -> bool:
    """Return whether a device has a memory: it waits for it, or counts its accesses."""
    counted = any(action.startswith(f"{level}_") for action in result.evaluation.counts)
    return level in result.channels or counted


def _memories(result: Result) -> list[str]:
    """Return the memories whose bytes are counted, DRAM and buffers between the others."""
    between = [name for name in result.channels if name != "dram"]
    return [name for name in ("dram", *between, "sram") if _has(result, name)]


def _priced_by(result: Result) -> list[str]:
    words = [plain(result.family.energy_words(result.hardware))]
    return words if result.energy_range_pj else [*words, "range not known"]


def _moved(totals: dict[str, Any], level: str) -> list[str]:
    read, written = totals[f"{level}_read_bytes"], totals[f"{level}_write_bytes"]
    return [f"{human_bytes(read)} read", f"{human_bytes(written)} written"]


def _ranked(parts: dict[str, Any]) -> list[str]:
    whole = sum(parts.values())
    ranked = sorted((name for name in parts if parts[name]), key=lambda name: -parts[name])
    return [f"{WORDS.get(name, name)} {percent(parts[name], whole)}" for name in ranked]


def _costliest(result: Result, groups: list[Group]) -> list[str]:
    cycles = result.columns["cycles"]
    ranked = sorted(groups, key=lambda group: -group.sum(cycles))[:5]
    return [f"{g.labelled(40)} {percent(g.sum(cycles), result.cycles)}" for g in ranked]


def _wrapped(console: Console, title: str, words: Sequence[str], gap: str, style: str = "") -> None:
    """Print words after a title; break lines between words only, under the first word."""
    indent = 17 if title and console.width >= 60 else 0
    room = max(console.width - indent, 1)
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(gap) + len(word) <= room:
            lines[-1] += gap + word
        else:
            lines.append(word)
    if title and not indent:
        _line(console, title, "bold")
    for i, line in enumerate(lines):
        _line(console, line, style, lead=(title if i == 0 else "").ljust(indent) if indent else "")


def _line(console: Console, text: str, style: str, lead: str = "") -> None:
    """Print one literal line, cut at the console's width."""
    from rich.text import Text

    say = _voice(console)
    line = Text(say(lead), style="bold") + Text(say(text), style=style)
    if line.cell_len > console.width:
        line.truncate(console.width - 1, overflow="crop")
        line.append(say("…"))
    console.print(line, no_wrap=True, overflow="crop", highlight=False)


def _voice(console: Console) -> Callable[[str], str]:
    """Return what makes a text sayable in the encoding of the console's stream."""
    encoding = console.encoding
    if encoding.startswith("utf"):
        return str
    return lambda text: text.translate(PLAINER).encode(encoding, "replace").decode(encoding)


def quality_lines(result: Result) -> Iterator[str]:
    """Yield what the masks leave of the weights, layer by layer, to stand beside their cost."""
    magnitude, energy = result.quality.values()
    layers = result.workload.layers
    pruned = [i for i, layer in enumerate(layers) if str(layer.pattern) != "dense"]
    if not pruned:
        yield "quality          nothing is pruned"
        return
    wide = max(len(layers[i].name) for i in pruned)
    for i in pruned:
        known = magnitude[i] == magnitude[i]
        yield f"{layers[i].name:<{wide}}  {layers[i].pattern!s:<18} " + (
            f"keeps {magnitude[i]:.1%} of |w|, {energy[i]:.1%} of w²" if known else UNKNOWN
        )
    total = result.retained
    if total["retained_magnitude"] != total["retained_magnitude"]:
        yield f"quality          {UNKNOWN}"
        return
    real = "the trace's weights" if hasattr(result.masks, "trace") else "synthetic, with scales"
    yield (
        f"quality          {total['retained_magnitude']:.1%} of |w| and "
        f"{total['retained_energy']:.1%} of w² of all pruned layers (weights: {real})"
    )
