"""The tiles of one tiling spelled out in loop order: slow, obvious, and what the engines run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_counts import count_tiles
from accsim.devices.systolic_ops import Ops, deal
from accsim.devices.systolic_tiling import DIMS, Tilings, tile_cycles
from accsim.kernels.pipeline import pipeline_waits
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Machine, Schedule, SwapName, Tiles, tile_dtype

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# (tiles with extents and starts) → fills in their cycles; bytes of stored weights, of positions
TileCosts = Callable[[Tiles], tuple[Ints, Ints]]


def spell_out(ops: Ops, tiling: Tilings, device: Systolic, kept: int = 0) -> Schedule:
    """Return the schedule of one operation (``ops`` and ``tiling`` of length 1), uniform passes.

    ``kept`` are the MACs with a kept weight in one run.
    """

    def costs(tiles: Tiles) -> tuple[Ints, Ints]:
        same = ops.pieces(tiles["t"], tiles["k"], tiles["n"])
        spent = tile_cycles(same, same.t, same.k, same.n, device)
        tiles["compute_cycles"], tiles["work_cycles"] = spent.total, spent.useful
        tiles["padding_cycles"] = spent.work - spent.useful
        tiles["fill_drain_cycles"] = spent.total - spent.work
        plain = same.weight_bytes(same.k, same.n, metadata=False)
        return plain, same.weight_bytes(same.k, same.n) - plain

    tiles, w_bytes = lay_out(ops, tiling, device, costs)
    actions = count_tiles(ops, tiles, w_bytes, kept, device)
    return Schedule(tiles, machine_of(device), int(ops.runs[0]), actions=actions)


def lay_out(ops: Ops, tiling: Tilings, device: Systolic, costs: TileCosts) -> tuple[Tiles, Ints]:
    """Lay the tiles out in loop order, fill in their costs, and say what each load brings.

    Returns:
        The tiles, and the bytes of W that come into its buffer with each.
    """
    tiles, index = _grid(ops, tiling, len(device.channels))
    values, positions = costs(tiles)
    done = index["k"] == index["k"].max()
    stored = np.where(done, ops.y_bytes(tiles["t"], tiles["n"]), 0)
    w = np.zeros_like(stored)
    for c in range(len(device.channels)):
        seen = tiling.seen_from(c)
        x_loads, w_loads = _loads(ops, seen, index)
        x = np.where(x_loads, _x_bytes(ops, seen, tiles, index), 0)
        w = (values + positions) * w_loads
        tiles["metadata_bytes"][:, c] = positions * w_loads
        tiles["load_bytes"][:, c] = x + w
        tiles["store_bytes"][:, c] = stored
    return tiles, w


def machine_of(device: Systolic) -> Machine:
    """Return the machine tiles of a systolic device run on: all its arrays as one unit."""
    swap: SwapName = "lockstep" if device.memory.sram.double_buffered else "sequential"
    return Machine(device.channels, swap=swap, launch_cycles=device.launch_cycles)


def waits(schedule: Schedule, *, metadata: bool = True) -> list[int]:
    """Return the cycles the array waits for each channel, all runs, with or without metadata."""
    machine, tiles = schedule.machine, schedule.tiles
    load = tiles["load_bytes"] if metadata else tiles["load_bytes"] - tiles["metadata_bytes"]
    return pipeline_waits(
        tiles["compute_cycles"], load, tiles["store_bytes"],
        bytes_per_cycle=[c.bytes_per_cycle for c in machine.channels],
        latency_cycles=[c.latency_cycles for c in machine.channels],
        double_buffered=machine.swap == "lockstep", runs=schedule.runs,
    )  # fmt: skip


def _loads(ops: Ops, tiling: Tilings, index: dict[str, Ints]) -> tuple[Bools, Bools]:
    """Say for which tiles X and W come from DRAM: where they are new, and did not stay."""
    outer, inner = ("t", "n") if tiling.keep_x[0] else ("n", "t")
    stays = {"t": bool(tiling.x_stays[0]), "n": bool(tiling.w_stays[0])}
    a = _changes(index, (outer, "k"))
    if stays[outer] or tiling.panel_stays[0]:
        a &= index[inner] == 0
    b = _changes(index, (inner, "k"))
    if stays[inner]:
        b &= index[outer] == 0
    return (a, b) if tiling.keep_x[0] else (b, a)


def _x_bytes(
    ops: Ops, tiling: Tilings, tiles: npt.NDArray[np.void], index: dict[str, Ints]
) -> Ints:
    """Return the bytes of X a tile needs that are not there yet."""
    if not (tiling.x_stays[0] and ops.mapped()[0]):
        return ops.x_bytes(tiles["t"], tiles["k"])
    many = {d: int(index[d].max()) + 1 for d in ("t", "k")}
    which = {d: _first_middle_last(index[d], many[d]) for d in ("t", "k")}
    shares = ops.x_shares(tiling.t, np.array([many["t"]]))[0]
    extent, tile = int(ops.t[0]), int(tiling.t[0])
    sizes = np.array([tile, tile, extent - tile * (many["t"] - 1)])
    first, last = (ops.x_bytes(sizes, k) for k in (tiling.k, ops.k - tiling.k * (many["k"] - 1)))
    return deal(shares, first, last, np.array(many["k"]))[which["t"], which["k"]]


def _first_middle_last(index: Ints, count: int) -> Ints:
    """Return 0 for the first of ``count`` positions, 2 for the last of several, 1 between."""
    return np.where(index == 0, 0, np.where(index == count - 1, 2, 1))


def _grid(ops: Ops, tiling: Tilings, levels: int) -> tuple[npt.NDArray[np.void], dict[str, Ints]]:
    """Return the tiles in loop order and their index along each extent."""
    extent = {d: int(getattr(ops, d)[0]) for d in DIMS}
    tile = {d: int(getattr(tiling, d)[0]) for d in DIMS}
    count = {d: -(-extent[d] // tile[d]) for d in DIMS}
    loops = ("t", "n", "k") if tiling.keep_x[0] else ("n", "t", "k")
    grid = np.indices([count[d] for d in loops]).reshape(3, -1)
    index = dict(zip(loops, grid, strict=True))
    tiles = np.zeros(grid.shape[1], dtype=tile_dtype(levels))
    for d in DIMS:
        tiles[d + "0"] = index[d] * tile[d]
        tiles[d] = np.minimum(tile[d], extent[d] - tiles[d + "0"])
    return tiles, index


def _changes(index: dict[str, Ints], dims: tuple[str, str]) -> npt.NDArray[np.bool_]:
    """Say for which tiles the operand spanned by ``dims`` is another than the tile before's."""
    changed = np.ones(len(index["t"]), dtype=np.bool_)
    changed[1:] = np.any([np.diff(index[d]) != 0 for d in dims], axis=0)
    return changed
