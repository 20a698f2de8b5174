"""The ``@s`` of a pattern string: read, refused, printed, and turned into a count."""

from __future__ import annotations

import math
import re

from accsim.base.errors import InputError


def read_share(words: str, grammar: str, text: str) -> float:
    """Return the number ``words`` writes; InputError names the grammar and the whole ``text``.

    >>> read_share("0.75", "cv:V@s", "cv:8@0.75")
    0.75
    """
    try:
        return float(words if re.fullmatch(r"[0-9.eE+-]+", words) else "")
    except ValueError:
        raise InputError(f"{grammar} needs a number 0 <= s < 1; got '{text}'") from None


def check_share(sparsity: float, grammar: str) -> None:
    """Refuse a sparsity outside [0, 1)."""
    if not (math.isfinite(sparsity) and 0 <= sparsity < 1):
        raise InputError(f"{grammar} needs 0 <= s < 1; got '{sparsity}'")


def share_text(sparsity: float) -> str:
    """Return the shortest text that reads back as the same number.

    >>> share_text(0.75), share_text(0.0), share_text(0.1 + 0.2)
    ('0.75', '0', '0.30000000000000004')
    """
    short = f"{sparsity:g}"
    return short if float(short) == sparsity else repr(sparsity)


def keep_of(count: int, sparsity: float) -> int:
    """Return round((1 − sparsity)·count), a half to the even neighbour.

    >>> keep_of(64, 0.75), keep_of(10, 0.9)
    (16, 1)
    """
    return round((1 - sparsity) * count)
