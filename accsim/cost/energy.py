"""Energy of an evaluation: action counts × the table, plus static power × time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.spec.hardware import Energy, SramPoint, Systolic
from accsim.spec.schedule import Evaluation

Floats = npt.NDArray[np.floating[Any]]

PARTS = ("mac", "select", "register", "sram", "dram", "static")


def energy_pj(found: Evaluation, dtypes: Sequence[str], device: Systolic) -> dict[str, Floats]:
    """Return the energy of each layer in pJ, by part; the total is the sum of the parts.

    Raises:
        InputError: the device's energy table has no entry for a layer's number format or for
            its DRAM protocol.
    """
    table, counts, sram = device.energy, found.counts, device.memory.sram
    moved = np.zeros(len(found.cycles))
    for name in ("x", "w", "y"):
        read, write = sram_pj_per_byte(table, getattr(sram, name).bytes)
        moved = moved + getattr(counts, f"sram_{name}_read_bytes") * read
        moved = moved + getattr(counts, f"sram_{name}_write_bytes") * write
    dram_bytes = counts.dram_read_bytes + counts.dram_write_bytes
    return {
        "mac": counts.macs * mac_pj(table, dtypes),
        "select": counts.select_bits * table.select_pj_per_bit,
        "register": counts.register_bits * table.register_pj_per_bit,
        "sram": moved,
        "dram": dram_bytes * 8 * dram_pj_per_bit(table, device.memory.dram.protocol),
        "static": static_mw(device) * found.cycles / device.clock_ghz,  # mW · ns = pJ
    }


def mac_pj(table: Energy, dtypes: Sequence[str]) -> Floats:
    """Return the energy of one multiply-accumulate in each format."""
    values = {}
    for dtype in set(dtypes):
        entry = table.mac.get(dtype)  # type: ignore[call-overload]
        if entry is None:
            raise InputError(
                f"energy table '{table.table}' has no mac.{dtype}; it has {one_of(table.mac)}"
            )
        values[dtype] = entry.mult_pj + entry.add_pj
    return np.array([values[dtype] for dtype in dtypes])


def dram_pj_per_bit(table: Energy, protocol: str) -> float:
    """Return the energy of one bit from or to DRAM."""
    if protocol not in table.dram_pj_per_bit:
        known = table.dram_pj_per_bit
        raise InputError(
            f"energy table '{table.table}' has no dram_pj_per_bit.{protocol}"
            f"{near(protocol, known) or '; it has ' + one_of(known)}"
        )
    return table.dram_pj_per_bit[protocol]


def sram_pj_per_byte(table: Energy, capacity_bytes: int) -> tuple[float, float]:
    """Return (read, write) energy of a byte in an SRAM of a capacity, pJ.

    Between the table's sizes the energy follows a power law (straight on log–log axes); beyond
    its ends it follows the last segment, so that a larger memory never costs less.
    """
    points = sorted(table.sram, key=lambda point: point.bytes)
    above = next((i for i, p in enumerate(points) if p.bytes >= capacity_bytes), len(points) - 1)
    if len(points) == 1 or points[above].bytes == capacity_bytes:
        return _per_byte(points[above])
    low, high = points[max(above, 1) - 1], points[max(above, 1)]
    share = math.log(capacity_bytes / low.bytes) / math.log(high.bytes / low.bytes)
    read, write = (
        _along(a, b, share) for a, b in zip(_per_byte(low), _per_byte(high), strict=True)
    )
    return read, write


def _along(a: float, b: float, share: float) -> float:
    """Return the power law through a and b; a straight line where one of them is zero."""
    if min(a, b) <= 0:
        return max(a + share * (b - a), 0.0)
    return math.exp(math.log(a) + share * math.log(b / a))


def _per_byte(point: SramPoint) -> tuple[float, float]:
    return point.read_pj * 8 / point.access_bits, point.write_pj * 8 / point.access_bits


def static_mw(device: Systolic) -> float:
    """Return the power burnt whether or not anything moves: PEs, buffers, DRAM standby."""
    table, sram = device.energy, device.memory.sram
    capacity = sram.x.bytes + sram.w.bytes + sram.y.bytes
    return (
        device.peak_macs_per_cycle * table.pe_static_uw * 1e-3
        + capacity / 2**20 * table.sram_static_mw_per_mb
        + table.dram_static_mw
    )
