"""What the array and its buffers do for a tiled GEMM: actions counted in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_adaptive import Adaptive
from accsim.devices.systolic_ops import Ops
from accsim.devices.systolic_slots import SlotSums
from accsim.devices.systolic_tiling import DIMS, Tilings, reloads
from accsim.spec.counts import Counts
from accsim.spec.hardware import Systolic

Ints = npt.NDArray[np.int64]


def count(
    ops: Ops, tiles: Tilings, costs: SlotSums, effective_macs: Ints, device: Systolic
) -> Counts:
    """Return the actions of operations with uniform passes, one tiling each.

    X enters the array once a column fold (ws, os) or is loaded once a tile (is); W is loaded once a
    t tile (ws) or streams once a row or column fold of t (os, is); partial sums are written once
    a k fold (and pass) and read back for the next one, then read once more to leave.
    """
    array = device.array
    number = {d: -(-getattr(ops, d) // getattr(tiles, d)) for d in DIMS}
    k_folds, n_folds = -(-ops.blocks(ops.k) // array.rows), -(-ops.n // array.cols)
    w_bytes = ops.weight_bytes(ops.k, ops.n)
    if device.dataflow == "ws":
        x_times, w_times, y_times = ops.passes * n_folds, number["t"], ops.passes * k_folds
    elif device.dataflow == "is":
        x_times, w_times, y_times = number["n"], -(-ops.t // array.cols), ops.passes * k_folds
    else:
        x_times, w_times, y_times = ops.passes * n_folds, -(-ops.t // array.rows), number["k"]
    _, w_reloads = reloads(number, tiles)
    w_loaded = np.minimum(ops.runs * w_bytes * w_reloads, costs.load_bytes)
    sums = ops.sum_bytes(ops.t, ops.n)
    pe_steps = ops.t * ops.n * ops.blocks(ops.k) * ops.passes
    macs = effective_macs if array.zero_gating else ops.runs * pe_steps * array.multipliers
    return Counts(
        macs=macs,
        select_bits=np.where(ops.index_bits > 0, macs * ops.operand_bits, 0),
        register_bits=ops.runs * register_bits(ops, tiles, pe_steps, device),
        sram_x_read_bytes=ops.runs * x_times * (ops.t * ops.k * ops.operand_bits // 8),
        sram_w_read_bytes=ops.runs * w_times * w_bytes,
        sram_y_read_bytes=ops.runs * y_times * sums,
        sram_x_write_bytes=costs.load_bytes - w_loaded,
        sram_w_write_bytes=w_loaded,
        sram_y_write_bytes=ops.runs * y_times * sums,
        dram_read_bytes=costs.load_bytes,
        dram_write_bytes=costs.store_bytes,
    )


def count_adaptive(found: Adaptive, ops: Ops, effective_macs: Ints, device: Systolic) -> Counts:
    """Return the actions of one layer whose passes follow its mask: its pieces added up."""
    array = device.array
    runs, tiles, pieces = found.schedule.runs, found.schedule.tiles, found.pieces
    bits = int(ops.operand_bits[0])
    slots = np.array([piece.slots for piece in pieces])
    steps = np.array([sum(piece.pe_steps for piece in pieces)])
    w_read = -(-slots * (bits + int(ops.index_bits[0])) // 8)
    if device.dataflow == "os":  # W streams once a row fold of t
        w_read = w_read * -(-tiles["t"] // array.rows)
    elif device.dataflow == "is":
        w_read = w_read * -(-tiles["t"] // array.cols)
    sums = int(ops.sum_bits[0]) // 8 * np.array([piece.sums for piece in pieces])
    x_read = np.array([piece.x_values for piece in pieces]) * bits // 8
    w_loaded = np.minimum(
        -(-slots * (bits + int(ops.index_bits[0])) // 8) * (tiles["metadata_bytes"] > 0),
        tiles["load_bytes"],
    )
    macs = effective_macs if array.zero_gating else runs * steps * array.multipliers

    def total(values: Ints) -> Ints:
        return runs * np.array([int(values.sum())])

    return Counts(
        macs=macs,
        select_bits=macs * bits,
        register_bits=runs * register_bits(ops, found.tiling, steps, device),
        sram_x_read_bytes=total(x_read),
        sram_w_read_bytes=total(w_read),
        sram_y_read_bytes=total(sums),
        sram_x_write_bytes=total(tiles["load_bytes"] - w_loaded),
        sram_w_write_bytes=total(w_loaded),
        sram_y_write_bytes=total(sums),
        dram_read_bytes=total(tiles["load_bytes"]),
        dram_write_bytes=total(tiles["store_bytes"]),
    )


def register_bits(ops: Ops, tiles: Tilings, pe_steps: Ints, device: Systolic) -> Ints:
    """Return the bits clocked into PE registers in one run.

    Each step of a used PE clocks what streams through it and its partial sum. ws, is: sums pass the
    idle rows below too; a stationary tile of r rows shifts in behind its front, r(r + 1)/2 row
    clocks, and r more where it is then copied from the second register. os: sums shift out through
    all rows.
    """
    array = device.array
    weight: Ints = array.multipliers * (ops.operand_bits + ops.index_bits)
    lanes: Ints = ops.lanes * ops.operand_bits
    streams: Ints = {"ws": lanes, "is": weight, "os": lanes + weight}[device.dataflow]
    moving: Ints = pe_steps * (streams + ops.sum_bits)
    if device.dataflow == "os":
        drains = -(-ops.k // tiles.k)
        return moving + drains * ops.t * ops.n * array.rows * ops.sum_bits
    rows = ops.blocks(ops.k)
    whole, last = rows // array.rows, rows % array.rows
    copies = 2 if array.double_buffering else 0
    shifts: Ints = (
        whole * (array.rows * (array.rows + 1 + copies)) + last * (last + 1 + copies)
    ) // 2
    idle = np.where(last > 0, array.rows - last, 0)
    streamed = ops.t * ops.n * np.maximum(ops.passes, 1)
    moving = moving + streamed * idle * ops.sum_bits
    if device.dataflow == "ws":
        times: Ints = -(-ops.t // tiles.t) * np.maximum(ops.passes, 1)
        return moving + times * shifts * ops.n * weight
    times = -(-ops.n // tiles.n)
    return moving + times * shifts * ops.t * lanes
