"""One row of the ledger: a quantity that others state, what we say, and how the two compare."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accsim.base.errors import InputError

Status = Literal["predicted", "fitted", "out_of_scope"]
Verdict = Literal["pass", "range", "fail", "out_of_scope"]
STATUSES = ("predicted", "fitted", "out_of_scope")
# From best to worst: a row that is not checked any more is worse than one that fails.
VERDICTS = ("pass", "range", "fail", "out_of_scope")

ROUNDED = 0.02  # figures are quoted to two digits or more

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published or measured quantity beside ours.

    ``low`` … ``high`` is the reference: equal ends for a single value, None for an open end.
    ``tolerance`` widens it, relative to each end. ``ours_low`` … ``ours_high`` is what our own
    tables claim to know the value to; it has to reach the reference itself, to rounding.

    *fitted*: the reference, or another figure of its source, chose a number of ours, so agreement
    says nothing. *out_of_scope*: we model no such thing; ``ours`` is then for information only.

    Raises:
        InputError: no source, no number where one is due, or ends in the wrong order.

    >>> row = Row(id="g/a", quantity="q", unit="J", source="s", low=2, high=4, ours=5)
    >>> row.group, row.verdict, row.error
    ('g', 'fail', 0.25)
    """

    id: str
    quantity: str
    unit: str
    source: str
    low: float | None = None
    high: float | None = None
    ours: float | None = None
    ours_low: float | None = None
    ours_high: float | None = None
    tolerance: float = 0.0
    status: Status = "predicted"
    remark: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "quantity", "unit", "source"):
            if not getattr(self, name).strip():
                raise InputError(f"ledger row '{self.id}': {name} must not be empty")
        if self.status not in STATUSES:
            raise InputError(f"ledger row '{self.id}': no status '{self.status}'")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.status == "out_of_scope":
            if not self.remark:
                raise InputError(f"ledger row '{self.id}': out of scope needs a remark: why")
            return
        if self.ours is None or not math.isfinite(self.ours):
            raise InputError(f"ledger row '{self.id}': ours must be a number; got {self.ours}")
        if self.low is None and self.high is None:
            raise InputError(f"ledger row '{self.id}': the reference needs low or high")
        ends = [x for x in (self.low, self.high) if x is not None]
        ours = [x for x in (self.ours_low, self.ours, self.ours_high) if x is not None]
        if ends != sorted(ends) or ours != sorted(ours):
            raise InputError(f"ledger row '{self.id}': needs low <= high; got {ends}, {ours}")

    @property
    def group(self) -> str:
        """The part of the id before the first stroke."""
        return self.id.partition("/")[0]

    @property
    def verdict(self) -> Verdict:
        """How ours stands: in the reference, reaching it with our own range only, or outside."""
        if self.status == "out_of_scope" or self.ours is None:
            return "out_of_scope"
        if self._reaches(self.ours, self.ours, self.tolerance):
            return "pass"
        low = self.ours if self.ours_low is None else self.ours_low
        high = self.ours if self.ours_high is None else self.ours_high
        return "range" if self._reaches(low, high, min(self.tolerance, ROUNDED)) else "fail"

    def _reaches(self, low: float, high: float, widened: float) -> bool:
        """Say whether low … high touches the widened reference."""
        least = -math.inf if self.low is None else self.low - widened * abs(self.low)
        most = math.inf if self.high is None else self.high + widened * abs(self.high)
        return low <= most and least <= high

    @property
    def error(self) -> float | None:
        """Ours over the nearest end of the reference, less 1; 0 within it; None out of scope."""
        if self.status == "out_of_scope" or self.ours is None:
            return None
        if self.low is not None and self.ours < self.low:
            return self.ours / self.low - 1 if self.low else -math.inf
        if self.high is not None and self.ours > self.high:
            return self.ours / self.high - 1 if self.high else math.inf
        return 0.0

    def record(self) -> dict[str, Any]:
        """Return the row as plain values, in the order in which files have them."""
        return {
            "id": self.id, "group": self.group, "quantity": self.quantity, "unit": self.unit,
            "status": self.status, "verdict": self.verdict, "ours": self.ours,
            "ours_low": self.ours_low, "ours_high": self.ours_high, "low": self.low,
            "high": self.high, "error": self.error, "tolerance": self.tolerance,
            "source": self.source, "remark": self.remark,
        }  # fmt: skip


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of ``accsim/validate/data`` by column; # lines are comments."""
    with (DATA / name).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(line for line in handle if not line.startswith("#")))


def slug(text: str) -> str:
    """Return a part of an id: words joined by underscores.

    >>> slug("SRAM 1 KiB read")
    'SRAM_1_KiB_read'
    """
    kept = "".join(c if c.isalnum() or c in ".:-" else " " for c in text)
    return "_".join(kept.split())
