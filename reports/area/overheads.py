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

import accsim
from accsim.cost.area import Range, array_parts, overhead_percent, parts_mm2
from accsim.files.area import load_area
from accsim.spec.area import AreaTable

HERE = Path(__file__).parent


def ours(row: pd.Series) -> Range | None:
    """Return our figure for one published one, None where we model no such thing."""
    if row.relation == "out of scope":
        return None
    table = load_area(row.table)
    if row.quantity in ("overhead_percent", "array_mm2"):
        given = dict(pair.split("=") for pair in str(row.overrides or "").split())
        device = accsim.load_hardware(row.hardware, given)
        if row.quantity == "overhead_percent":
            return overhead_percent(row.checker, device, table, row["dtype"]).array_percent
        return parts_mm2(array_parts(device.array, row["dtype"], device.dataflow), table)
    return Range(*(_cell(row, at) for at in (table.corner("low"), table, table.corner("high"))))


def _cell(row: pd.Series, table: AreaTable) -> float:
    if row.quantity == "sram_mm2":
        return table.sram_mm2(int(row.bytes))
    return table.adder_um2(int(row.bits)) if row.bits else table.register_um2_per_bit


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
    found = [ours(row) for _, row in rows.iterrows()]
    for i, name in enumerate(("ours_low", "ours", "ours_high")):
        rows[name] = [None if area is None else float(f"{area[i]:.4g}") for area in found]
    rows["verdict"] = [verdict(row, f) for (_, row), f in zip(rows.iterrows(), found, strict=True)]
    kept = ["figure", "source", "quantity", "table", "dtype", "checker"]
    kept += ["published_low", "published_high", "ours_low", "ours", "ours_high"]
    return rows[[*kept, "relation", "verdict", "note"]]


if __name__ == "__main__":
    compared().to_csv(HERE / "overheads.csv", index=False, lineterminator="\n")
    print(compared()[["figure", "published_high", "ours", "verdict"]].to_string(), file=sys.stdout)
