"""Areas and overheads of checkers against published ones (reports/area)."""

from __future__ import annotations

from collections.abc import Iterator

from accsim.cost.area import Range, array_parts, overhead_percent, parts_mm2
from accsim.files.area import load_area
from accsim.files.hardware import load_hardware
from accsim.spec.area import AreaTable
from accsim.validate.row import Row, Status, read, slug

STATUS: dict[str, Status] = {
    "independent": "predicted", "fitted": "fitted", "out of scope": "out_of_scope",
}  # fmt: skip
UNITS = {"overhead_percent": "%", "array_mm2": "mm²", "sram_mm2": "mm²"}
ROUNDED = 0.02  # single figures are quoted to two or three digits


def rows() -> Iterator[Row]:
    """Yield every published figure with ours from the area table of its node."""
    for figure in read("area.csv"):
        found = ours(figure)
        low, high = float(figure["published_low"]), float(figure["published_high"])
        known = {} if found is None else found._asdict()
        yield Row(
            id=f"area/{slug(figure['figure'])}",
            quantity=f"{figure['quantity']}: {figure['figure']}",
            unit=UNITS.get(figure["quantity"], "µm²"), source=figure["source"], low=low,
            high=high, tolerance=ROUNDED if low == high else 0.0,
            ours=known.get("value"), ours_low=known.get("low"), ours_high=known.get("high"),
            status=STATUS[figure["relation"]], remark=figure["note"],
        )  # fmt: skip


def ours(figure: dict[str, str]) -> Range | None:
    """Return our figure for one published one, None where we model no such thing."""
    if figure["relation"] == "out of scope":
        return None
    table = load_area(figure["table"])
    if figure["quantity"] in ("overhead_percent", "array_mm2"):
        given = dict(pair.split("=") for pair in figure["overrides"].split())
        device = load_hardware(figure["hardware"], given)
        if figure["quantity"] == "overhead_percent":
            return overhead_percent(figure["checker"], device, table, figure["dtype"]).array_percent
        return parts_mm2(array_parts(device.array, figure["dtype"], device.dataflow), table)
    return Range(*(_cell(figure, at) for at in (table.corner("low"), table, table.corner("high"))))


def _cell(figure: dict[str, str], table: AreaTable) -> float:
    if figure["quantity"] == "sram_mm2":
        return table.sram_mm2(int(figure["bytes"]))
    if figure["bits"]:
        return table.adder_um2(int(figure["bits"]))
    return table.register_um2_per_bit
