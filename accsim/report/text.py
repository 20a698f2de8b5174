"""Wording of tables and figures: numbers with units, and names that stand for many layers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accsim.result import Result

_PREFIXES = "afpnµm kMGTPE"
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# A number that is a whole part of a name: the 3 of `layers.3.w1`, not the 1.
_PART = re.compile(r"(?<![^./_:\-\[\]])\d+(?![^./_:\-\[\]])")
_DIGITS = re.compile(r"\d+")


def si(value: float, unit: str = "", digits: int = 4) -> str:
    """Return ``value`` with an SI prefix and ``digits`` significant digits.

    >>> si(0.00156318, "s"), si(2.616e12, "OPS"), si(0.0009999999, "J"), si(0, "J")
    ('1.563 ms', '2.616 TOPS', '1 mJ', '0 J')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    zero = _PREFIXES.index(" ")
    rounded = float(f"{value:.{digits}g}")
    power = math.floor(math.log10(abs(rounded)) / 3 + 1e-12)
    power = min(max(power, -zero), len(_PREFIXES) - 1 - zero)
    number = f"{rounded / 10.0 ** (3 * power):.{digits}g}"
    return f"{number} {_PREFIXES[power + zero].strip()}{unit}".rstrip()


def human_bytes(count: float) -> str:
    """Return a number of bytes in binary units, three significant digits.

    >>> human_bytes(0), human_bytes(999), human_bytes(27_101_984), human_bytes(1023 * 1024)
    ('0 B', '999 B', '25.8 MiB', '0.999 MiB')
    """
    power = 0
    while power < len(_BYTES) - 1 and float(f"{count:.3g}") >= 1000:
        count /= 1024
        power += 1
    return f"{count:.3g} {_BYTES[power]}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent, a dash for none.

    >>> percent(1, 8), percent(0, 8), percent(1, 10_000), percent(3, 3), percent(9_999, 10_000)
    ('12.5%', '-', '<0.1%', '100%', '>99.9%')
    """
    if not part or not whole:
        return "-"
    share = 100 * part / whole
    if share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return "100%" if share == 100 else f"{share:.1f}%"


def plain(text: str) -> str:
    r"""Return ``text`` without characters that could move a cursor or colour a terminal.

    >>> plain("conv1\x1b[31m\n")
    'conv1?[31m?'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def shorten(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` characters; the end, which tells layers apart, stays.

    >>> shorten("encoder.layer.0.attention.self.query", 20)
    'encode…on.self.query'
    """
    if len(text) <= width:
        return text
    if width < 3:
        return text[:width]
    head = (width - 1) // 3
    tail = text[len(text) - (width - 1 - head) :]
    return f"{text[:head].rstrip('.…')}…{tail.lstrip('.…')}"


@dataclass(frozen=True)
class Group:
    """Layers shown as one line or bar: their row numbers in the result and a name for them all."""

    name: str
    rows: tuple[int, ...]

    def sum(self, column: Sequence[float]) -> Any:
        """Return the sum of a column over the group's layers."""
        return sum(column[i] for i in self.rows)

    def labelled(self, width: int) -> str:
        """Return the name in about ``width`` characters, with ×N behind if it stands for N layers.

        >>> Group("h.0…11.attn", tuple(range(12))).labelled(20)
        'h.0…11.attn ×12'
        """
        times = f" ×{len(self.rows)}" if len(self.rows) > 1 else ""
        return shorten(self.name, width - len(times)) + times


def merged_name(names: Sequence[str]) -> str:
    """Return one name for layers: the numbers that differ as ranges, else ``first … last``.

    >>> merged_name(["h.0.attn.q", "h.1.attn.q", "h.2.attn.q", "h.7.attn.q"])
    'h.0…2,7.attn.q'
    >>> merged_name(["conv1", "fc6", "fc7"])
    'conv1 … fc7'
    """
    for number in (_PART, _DIGITS):
        words = [number.split(name) for name in names]
        digits = [number.findall(name) for name in names]
        if any(word != words[0] for word in words):
            continue
        slots = [sorted(set(slot), key=int) for slot in zip(*digits, strict=True)]
        if math.prod(map(len, slots)) == len(names):
            merged = [_ranges(slot) for slot in slots] + [""]
            return "".join(w + m for w, m in zip(words[0], merged, strict=True))
    return f"{names[0]} … {names[-1]}"


def _ranges(numbers: Sequence[str]) -> str:
    """``0 1 2 5 6`` → ``0…2,5,6``."""
    runs: list[list[str]] = []
    for number in numbers:
        if runs and int(number) == int(runs[-1][-1]) + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}…{run[-1]}" if len(run) > 2 else ",".join(run) for run in runs)


def each_layer(columns: Mapping[str, Sequence[Any]]) -> list[Group]:
    """Return one group a layer."""
    return [Group(plain(name), (i,)) for i, name in enumerate(columns["layer"])]


def equal_layers(columns: Mapping[str, Sequence[Any]]) -> list[Group]:
    """Return groups of layers that differ in nothing but a number in their name.

    Every column is equal within a group, cycles and energy included, so nothing is averaged away.
    """
    others = [values for name, values in columns.items() if name != "layer"]
    rows = list(zip(*others, strict=True))
    return _grouped(columns, lambda i: (_PART.sub("#", columns["layer"][i]), rows[i]))


def few_bars(columns: Mapping[str, Sequence[Any]], most: int) -> tuple[list[Group], str]:
    """Return at most ``most`` groups of layers, and a sentence that says how they were made."""
    layers: Sequence[str] = columns["layer"]
    if len(layers) <= most:
        return each_layer(columns), ""
    lead = f"{len(layers)} layers; "
    equal = equal_layers(columns)
    if len(equal) <= most:
        return equal, lead + "a bar ×N stands for N equal layers together"
    for number in (_PART, _DIGITS):
        kinds = [number.sub("#", name) for name in layers]
        alike = _grouped(columns, kinds.__getitem__)
        if len(alike) <= most:
            return alike, lead + "a bar ×N adds up N layers whose names differ only in numbers"
    size = -(-len(layers) // most)
    return _grouped(columns, lambda i: i // size), lead + f"a bar adds up {size} consecutive layers"


def _grouped(columns: Mapping[str, Sequence[Any]], key: Callable[[int], Hashable]) -> list[Group]:
    members: dict[Hashable, list[int]] = {}
    for i in range(len(columns["layer"])):
        members.setdefault(key(i), []).append(i)
    names = [plain(name) for name in columns["layer"]]
    return [Group(merged_name([names[i] for i in rows]), tuple(rows)) for rows in members.values()]


def patterns(result: Result) -> str:
    """Return the patterns of the layers with weights, commonest first, as a few words."""
    found: dict[str, int] = {}
    for layer in result.workload.layers:
        if layer.has_weights:
            found[str(layer.pattern)] = found.get(str(layer.pattern), 0) + 1
    ranked = sorted(found, key=lambda p: -found[p])
    if len(ranked) > 3:
        return f"{ranked[0]} and {len(ranked) - 1} other patterns"
    return ", ".join(ranked) or "dense"


def headline(result: Result) -> str:
    """Return what ran on what: the names of workload and device."""
    return plain(f"{result.workload.name} on {result.hardware.name}")
