"""The one grammar of schemes: ``head:value,value,key=value,flag``. Errors are one line.

>>> words = Words("sltrain:64@0.97,index=16", "sltrain:rank@sparsity")
>>> words.head, words.next_pair("rank@sparsity"), words.option("index")
('sltrain', ('64', '0.97'), '16')
"""

from __future__ import annotations

import math
import re

from accsim.base.errors import InputError, near
from accsim.spec.base import MAX_EXTENT


class Words:
    """The parts of one scheme's text, taken one by one; what is left at the end is refused."""

    def __init__(self, text: str, grammar: str) -> None:
        self.text, self.grammar = text, grammar
        match = re.fullmatch(r"([a-z]+)(?::(.+))?", text)
        self.head = match[1] if match else text
        parts = [part.strip() for part in (match[2] or "").split(",")] if match else []
        pairs = [part.partition("=") for part in parts if "=" in part]
        self._options = {key: value for key, _, value in pairs}
        self._values = [part for part in parts if part and "=" not in part]
        if len(self._options) < len(pairs):
            raise self.wrong("names an option twice")

    def wrong(self, rule: str) -> InputError:
        """Return the error that names this text and the rule it breaks."""
        return InputError(f"'{self.text}' {rule}; write {self.grammar}")

    def next(self, what: str) -> str:
        """Return the next value without a key."""
        if not self._values:
            raise self.wrong(f"lacks its {what}")
        return self._values.pop(0)

    def next_pair(self, what: str) -> tuple[str, str]:
        """Return the two sides of the next ``a@b``."""
        first, at, second = self.next(what).partition("@")
        if not at:
            raise self.wrong(f"lacks its {what}")
        return first, second

    def rest(self) -> list[str]:
        """Return all values left."""
        values, self._values = self._values, []
        return values

    def flag(self, name: str) -> bool:
        """Say whether the bare word ``name`` stands in the text."""
        found = name in self._values
        if found:
            self._values.remove(name)
        return found

    def option(self, name: str) -> str | None:
        """Return the value of ``name=…``, None if it is absent."""
        return self._options.pop(name, None)

    def whole(self, name: str, default: int, low: int = 0) -> int:
        """Return the option ``name`` as a whole number, at least ``low``."""
        value = self.option(name)
        return default if value is None else self.as_whole(value, name, low)

    def number(self, name: str, default: float, low: float = 0.0, high: float = math.inf) -> float:
        """Return the option ``name`` as a number from ``low`` to ``high``."""
        value = self.option(name)
        return default if value is None else self.as_number(value, name, low, high)

    def as_whole(self, value: str, what: str, low: int = 1) -> int:
        """Return ``value`` as a whole number from ``low`` to the largest extent."""
        if not re.fullmatch(r"\d{1,9}", value) or not low <= int(value) <= MAX_EXTENT:
            raise self.wrong(f"needs a whole {what} of at least {low}, got '{value}'")
        return int(value)

    def as_number(self, value: str, what: str, low: float, high: float) -> float:
        """Return ``value`` as a finite number from ``low`` to ``high``, both allowed."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and low <= number <= high):
            limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise self.wrong(f"needs a {what} {limits}, got '{value}'")
        return number

    def as_sparsity(self, value: str, what: str = "sparsity") -> float:
        """Return ``value`` as a share 0 <= s < 1."""
        number = self.as_number(value, what, 0.0, 1.0)
        if number == 1.0:
            raise self.wrong(f"needs a {what} below 1, got '{value}'")
        return number

    def end(self, *options: str) -> None:
        """Refuse what nobody took; ``options`` are the known names, for the near word."""
        if self._options:
            name = next(iter(self._options))
            raise self.wrong(f"has no option '{name}'{near(name, options)}")
        if self._values:
            raise self.wrong(f"has no '{self._values[0]}'{near(self._values[0], options)}")


def short(value: float) -> str:
    """Return the shortest decimal that reads back as the same number.

    >>> short(0.95), short(0.1 + 0.2)
    ('0.95', '0.30000000000000004')
    """
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
