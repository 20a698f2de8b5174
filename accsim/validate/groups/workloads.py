"""Multiply-accumulates and parameters of the catalogue's networks against published totals."""

from __future__ import annotations

from collections.abc import Iterator

from accsim.files import catalogue
from accsim.files.workload import load_workload
from accsim.validate.row import Row

UNITS = {"macs": "MACs", "params": "weights"}


def rows() -> Iterator[Row]:
    """Yield every published total of every network; value, tolerance, source are in its file."""
    for name in catalogue.names("workloads"):
        workload = load_workload(name)
        for quantity, published in workload.published.items():
            yield Row(
                id=f"workloads/{name}/{quantity}", quantity=f"{quantity} of {name}",
                unit=UNITS.get(quantity, quantity), source=published.source,
                low=published.value, high=published.value, tolerance=published.tolerance,
                ours=getattr(workload, quantity),
            )  # fmt: skip
