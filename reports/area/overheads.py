"""Set our areas beside published ones: published.csv → overheads.csv, failures included.

    python reports/area/overheads.py

``verdict``: *inside* (our value lies in the published interval, or a single published figure in our
low … high, to 2 %), *range touches* (only our range reaches the published interval), *outside*,
*fitted* (the figure set our number or its range: says nothing), *out of scope*.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from accsim.cost.area import Range
from accsim.validate.groups.area import ours

HERE = Path(__file__).parent


def verdict(row: pd.Series, found: Range | None) -> str:
    """Return how our figure stands to the published one."""
    if found is None or row.relation == "fitted":
        return str(row.relation)
    low, high = row.published_low, row.published_high
    if low == high:
        low, high = low / 1.02, high * 1.02  # figures are quoted to two or three digits
    touches = found.low <= high and low <= found.high
    if low <= found.value <= high or (row.published_low == row.published_high and touches):
        return "inside"
    return "range touches" if touches else "outside"


def compared() -> pd.DataFrame:
    """Return the published figures with ours beside them."""
    rows = pd.read_csv(HERE / "published.csv", keep_default_na=False)
    found = [ours(row.astype(str).to_dict()) for _, row in rows.iterrows()]
    for i, name in enumerate(("ours_low", "ours", "ours_high")):
        rows[name] = [None if area is None else float(f"{area[i]:.4g}") for area in found]
    rows["verdict"] = [verdict(row, f) for (_, row), f in zip(rows.iterrows(), found, strict=True)]
    kept = ["figure", "source", "quantity", "table", "dtype", "checker"]
    kept += ["published_low", "published_high", "ours_low", "ours", "ours_high"]
    return rows[[*kept, "relation", "verdict", "note"]]


if __name__ == "__main__":
    compared().to_csv(HERE / "overheads.csv", index=False, lineterminator="\n")
    print(compared()[["figure", "published_high", "ours", "verdict"]].to_string(), file=sys.stdout)
