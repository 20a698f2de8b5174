"""Quantities with units in files and on the command line: ``"64 KiB"``, ``"1.41 GHz"``.

A field says its unit by the end of its name (``clock_ghz``, ``bytes``, ``latency_ns``); a string
value is converted to that unit, and a unit of another kind is refused.
"""

from __future__ import annotations

import re

from accsim.base.errors import InputError, near, one_of

_BYTES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PJ = {"fJ": 1e-3, "pJ": 1, "nJ": 1e3}

# Field-name ending → (the field's unit, accepted units and their size in it), longest first.
UNITS: dict[str, tuple[str, dict[str, float]]] = {
    "gb_per_s": ("GB/s", {"MB/s": 1e-3, "GB/s": 1, "TB/s": 1e3, "GiB/s": 2**30 / 1e9}),
    "static_mw_per_mb": ("mW/MB", {"mW/MB": 1, "uW/KB": 1}),
    "pj_per_bit": ("pJ/bit", {"fJ/bit": 1e-3, "pJ/bit": 1}),
    "pj_per_byte": ("pJ/B", {"fJ/B": 1e-3, "pJ/B": 1}),
    "pj_per_clock": ("pJ", _PJ),
    "um2_per_bit": ("um2/bit", {"um2/bit": 1}),
    "um2": ("um2", {"um2": 1, "mm2": 1e6}),
    "mm2": ("mm2", {"um2": 1e-6, "mm2": 1}),
    "ghz": ("GHz", {"MHz": 1e-3, "GHz": 1}),
    "bytes": ("B", _BYTES),
    "bits": ("bit", {"bit": 1, "bits": 1}),
    "ns": ("ns", {"ps": 1e-3, "ns": 1, "us": 1e3}),
    "us": ("us", {"ns": 1e-3, "us": 1, "ms": 1e3}),
    "pj": ("pJ", _PJ),
    "uw": ("uW", {"nW": 1e-3, "uW": 1, "mW": 1e3}),
    "mw": ("mW", {"uW": 1e-3, "mW": 1, "W": 1e3}),
    "w": ("W", {"mW": 1e-3, "W": 1}),
    "nm": ("nm", {"nm": 1}),
}


def unit_of(field: str) -> str:
    """Return the unit the innermost telling part of a field's path states, or an empty string.

    A short unit by itself tells only as the last part: above it, ``nm`` is the pattern n:m.

    >>> unit_of("memory.dram.bandwidth_gb_per_s"), unit_of("array.rows")
    ('GB/s', '')
    >>> unit_of("dram_pj_per_bit.lpddr4"), unit_of("kernels.nm.bf16.issue_share")
    ('pJ/bit', '')
    """
    for above, part in enumerate(reversed(field.split("."))):
        for ending, (unit, _) in UNITS.items():
            alone = part == ending and (not above or "_" in ending)
            if alone or part.endswith("_" + ending):
                return unit
    return ""


def parse_quantity(text: str, unit: str) -> float | int:
    """Return the number ``text`` states, converted to ``unit``.

    Raises:
        InputError: not a number, or a unit that does not convert to ``unit``.

    >>> parse_quantity("64 KiB", "B"), parse_quantity("1410 MHz", "GHz")
    (65536, 1.41)
    """
    match = re.fullmatch(
        r"\s*([+-]?[0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?\d+)?)\s*([A-Za-z/µ]*)\s*", text
    )
    if not match:
        raise InputError(f"must be a number{f' in {unit}' if unit else ''}; got '{text}'")
    number = float(match[1].replace("_", ""))
    given = match[2].replace("µ", "u")
    if given:
        accepted = next((table for name, table in UNITS.values() if name == unit), {})
        if given not in accepted:
            rule = f"must be in {one_of(accepted)}" if accepted else "takes a number without unit"
            raise InputError(f"{rule}; got '{text}'{near(given, accepted)}")
        number *= accepted[given]
    whole = round(number)
    return (
        whole if abs(number - whole) < 1e-9 * max(1.0, abs(number)) and _is_whole(unit) else number
    )


def _is_whole(unit: str) -> bool:
    return unit in ("", "B", "bit")
