"""Errors a user can cause. Each names the thing, the rule and the value, and stops the run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class AccsimError(Exception):
    """Base of every error the command line shows as one line, with exit code 2."""


class InputError(AccsimError):
    """A file, a field or an argument breaks a rule.

    ``str()`` is ``file:line: message``, without the parts that are not known.

    >>> str(InputError("rows must be at least 1; got -4", file="sa32.yaml", line=14))
    'sa32.yaml:14: rows must be at least 1; got -4'
    """

    def __init__(
        self, message: str, *, file: str | Path | None = None, line: int | None = None
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.line = line
        place = "" if self.file is None else self.file + (f":{line}" if line else "") + ": "
        super().__init__(place + message)


def near(word: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'cols'?"`` for a slip of a known word, else an empty string.

    >>> near("colz", ["rows", "cols"])
    ", did you mean 'cols'?"
    """
    by_lower = {w.lower(): w for w in known}
    match = difflib.get_close_matches(str(word).lower(), list(by_lower), n=1, cutoff=0.6)
    return f", did you mean '{by_lower[match[0]]}'?" if match else ""


def one_of(words: Iterable[str]) -> str:
    """Join words for an error text: ``ws, os, is``."""
    return ", ".join(str(w) for w in words)
