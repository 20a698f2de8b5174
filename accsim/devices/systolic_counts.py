"""What the array and its buffers do for a tiled GEMM: actions counted in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_ops import Ops
from accsim.devices.systolic_slots import SlotSums
from accsim.devices.systolic_tiling import DIMS, Tilings, reloads, whole_tilings
from accsim.spec.counts import Counts
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Tiles

Ints = npt.NDArray[np.int64]


class Moved(NamedTuple):
    """Bytes on their way: loads over each channel (channels, m), stores, of the loads W's."""

    load_bytes: Ints
    store_bytes: Ints
    w_bytes: Ints


def count(ops: Ops, tiles: Tilings, costs: SlotSums, kept: Ints, device: Systolic) -> Counts:
    """Return the actions of operations with uniform passes, one tiling each, all runs."""
    number = {d: -(-getattr(ops, d) // getattr(tiles, d)) for d in DIMS}
    _, w_reloads = reloads(number, tiles)
    w = ops.runs * ops.weight_bytes(ops.k, ops.n) * w_reloads
    moved = Moved(costs.load_bytes, costs.store_bytes, np.minimum(w, costs.load_bytes[-1]))
    return _counted(ops, tiles, moved, kept, device)


def count_tiles(ops: Ops, tiles: Tiles, w_bytes: Ints, kept: int, device: Systolic) -> Counts:
    """Return the actions of every tile of one run of one operation with uniform passes.

    They add up to those of :func:`count`, except that a tile's weights are whole bytes.

    Args:
        ops: the operation.
        tiles: its tiles, with what they load and store.
        w_bytes: of these loads, those of W that come into its buffer.
        kept: MACs with a kept weight in one run; dealt to tiles by the slots they step through.
        device: with ``array.zero_gating``.
    """
    each = ops.pieces(tiles["t"], tiles["k"], tiles["n"])
    moved = Moved(tiles["load_bytes"].T, tiles["store_bytes"][:, 0], w_bytes)
    held = np.cumsum(each.t * each.stored(each.k) * each.n)
    shares = np.floor(kept * (held / held[-1])).astype(np.int64)
    shares[-1] = kept
    return _counted(each, whole_tilings(each), moved, np.diff(shares, prepend=0), device)


def _counted(ops: Ops, tiles: Tilings, moved: Moved, kept: Ints, device: Systolic) -> Counts:
    """Count what the array and its buffers do.

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
    sums = ops.sum_bytes(ops.t, ops.n)
    pe_steps = ops.t * ops.n * ops.blocks(ops.k) * ops.passes
    macs = kept if array.zero_gating else ops.runs * pe_steps * array.multipliers
    return Counts({
        "macs": macs,
        "select_bits": np.where(ops.index_bits > 0, macs * ops.operand_bits, 0),
        "register_bits": ops.runs * register_bits(ops, tiles, pe_steps, device),
        "sram_x_read_bytes": ops.runs * x_times * -(-ops.t * ops.k * ops.operand_bits // 8),
        "sram_w_read_bytes": ops.runs * w_times * w_bytes,
        "sram_y_read_bytes": ops.runs * y_times * sums,
        "sram_x_write_bytes": moved.load_bytes[-1] - moved.w_bytes,
        "sram_w_write_bytes": moved.w_bytes,
        "sram_y_write_bytes": ops.runs * y_times * sums,
        **beyond(moved.load_bytes, moved.store_bytes, device),
    })  # fmt: skip


def beyond(load_bytes: Ints, store_bytes: Ints, device: Systolic) -> dict[str, Ints]:
    """Return the accesses of every memory beyond the buffers: (channels, …) loads, and stores.

    A byte on its way passes through each memory: written into it, then read out of it.
    """
    counts = {}
    for c, memory in enumerate(device.memory.onchip):
        counts[f"{memory.name}_read_bytes"] = load_bytes[c + 1] + store_bytes
        counts[f"{memory.name}_write_bytes"] = load_bytes[c] + store_bytes
    return counts | {"dram_read_bytes": load_bytes[0], "dram_write_bytes": store_bytes}


def count_pieces(
    ops: Ops, tiles: Tiles, spent: Mapping[str, Ints], w_bytes: Ints, device: Systolic
) -> Counts:
    """Return the actions of every tile of one run of a layer whose passes follow its mask.

    ``spent`` holds an array for each field of systolic_adaptive.PieceCost; the rest is as in
    :func:`count_tiles`.
    """
    array = device.array
    bits, index = int(ops.operand_bits[0]), int(ops.index_bits[0])
    packed = -(-spent["slots"] * (bits + index) // 8)
    one = np.ones_like(tiles["t"])
    streams: dict[str, Ints] = {
        "ws": one, "os": -(-tiles["t"] // array.rows), "is": -(-tiles["t"] // array.cols)
    }  # fmt: skip
    sums = spent["sums"] * int(ops.sum_bits[0]) // 8
    load = tiles["load_bytes"].T
    macs = spent["held_macs"] if array.zero_gating else spent["pe_steps"] * array.multipliers
    each = ops.pieces(tiles["t"], tiles["k"], tiles["n"])
    return Counts({
        "macs": macs,
        "select_bits": macs * bits,
        "register_bits": register_bits(each, whole_tilings(each), spent["pe_steps"], device),
        "sram_x_read_bytes": -(-spent["x_values"] * bits // 8),
        "sram_w_read_bytes": packed * streams[device.dataflow],
        "sram_y_read_bytes": sums,
        "sram_x_write_bytes": load[-1] - w_bytes,
        "sram_w_write_bytes": w_bytes,
        "sram_y_write_bytes": sums,
        **beyond(load, tiles["store_bytes"][:, 0], device),
    })  # fmt: skip


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
