"""Folds of the physical timing against published RTL: cycles to the last multiplication."""

from __future__ import annotations

from collections.abc import Iterator

from accsim.devices.systolic_folds import uniform_folds
from accsim.validate.row import Row

SOURCE = (
    "RTL of output-stationary arrays, 3n - 2 in eleven sizes, ISPASS'20 (facts/systolic_abft.md)"
)
SIZES = (4, 8, 10, 16, 20, 32, 40, 50, 64, 80, 90)


def rows() -> Iterator[Row]:
    """Yield n×n×n products on n×n arrays."""
    for size in SIZES:
        found = uniform_folds(
            size, size, size, 1, rows=size, cols=size, stationary=False, double_buffering=False
        )
        yield Row(
            id=f"rtl/os/{size}", quantity=f"{size}x{size}x{size} on {size}x{size} os",
            unit="cycles", source=SOURCE, low=3 * size - 2, high=3 * size - 2,
            ours=int(found.total) - size, remark="ours less the drain of n rows, which comes after",
        )  # fmt: skip
