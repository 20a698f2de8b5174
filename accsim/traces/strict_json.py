"""JSON from strangers: what Python's reader lets through and a trace must not hold is refused."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from accsim.base.errors import InputError

MAX_DEPTH = 16
MAX_DIGITS = 20
# Control characters would break an error over lines, lone surrogates cannot be printed at all.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def parse(raw: bytes | str, what: str, file: str, *, one_line: bool = True) -> Any:
    """Return the value of a JSON text; ``what`` and ``file`` are named in errors.

    Raises:
        InputError: not UTF-8, not JSON, a repeated key, NaN or infinity, an integer of over
            ``MAX_DIGITS`` digits, over ``MAX_DEPTH`` levels, or (with ``one_line``) a string that
            holds control characters.
    """

    def refuse(rule: str) -> NoReturn:
        raise InputError(f"{what} {rule}", file=file)

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            twice = Counter(key for key, _ in found).most_common(1)[0][0]
            refuse(f"must name each key once; {ascii(twice)[:80]} stands twice")
        return made

    def whole(digits: str) -> int:
        return int(digits) if len(digits) <= MAX_DIGITS else refuse(f"holds {digits[:20]}…")

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(f"must hold finite numbers; got {digits}")

    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=whole,
            parse_float=real,
            parse_constant=lambda word: refuse(f"must hold finite numbers; got {word}"),
        )
    except UnicodeDecodeError as error:
        refuse(f"must be UTF-8 text; got byte 0x{raw[error.start]:02x} at {error.start}")
    except RecursionError:
        refuse(f"must nest at most {MAX_DEPTH} levels")
    except ValueError as error:
        refuse(f"must be JSON: {str(error)[:120]}")
    rule = _broken(value, one_line)
    return refuse(rule) if rule else value


def _broken(value: Any, one_line: bool) -> str | None:
    """Return the rule of depth or of strings that ``value`` breaks."""
    level = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += item.keys()
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
            elif isinstance(item, str) and one_line and _UNPRINTABLE.search(item):
                return f"must hold strings without control characters; got {ascii(item)[:80]}"
        if not deeper:
            return None
        level = deeper
    return f"must nest at most {MAX_DEPTH} levels"


def dump(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, ASCII.

    Raises:
        InputError: a value JSON does not have (NaN, an object).
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"a trace's header must be plain JSON: {error}") from None
