"""The tiles of one tiling spelled out in loop order: slow, obvious, and what the engines run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_ops import Ops, deal
from accsim.devices.systolic_tiling import DIMS, Tilings, tile_cycles
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import TILE, Schedule

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# (tiles with extents and starts filled in) → fills in their cycles and stored weight bytes
TileCosts = Callable[[npt.NDArray[np.void]], npt.NDArray[np.int64]]


def spell_out(ops: Ops, tiling: Tilings, device: Systolic) -> Schedule:
    """Return the schedule of one operation (``ops`` and ``tiling`` of length 1), uniform passes."""

    def costs(tiles: npt.NDArray[np.void]) -> Ints:
        same = ops.take(np.zeros(len(tiles), dtype=np.intp))
        extents = (tiles["t"], tiles["k"], tiles["n"])
        tiles["compute_cycles"], tiles["work_cycles"] = tile_cycles(same, *extents, device)
        plain = same.weight_bytes(tiles["k"], tiles["n"], metadata=False)
        tiles["metadata_bytes"] = same.weight_bytes(tiles["k"], tiles["n"]) - plain
        return plain

    return with_costs(ops, tiling, device, costs)


def with_costs(ops: Ops, tiling: Tilings, device: Systolic, costs: TileCosts) -> Schedule:
    """Lay the tiles out in loop order, fill in their costs, and say what each load brings."""
    tiles, index = _grid(ops, tiling)
    values = costs(tiles)
    x_loads, w_loads = _loads(ops, tiling, index)
    x = np.where(x_loads, _x_bytes(ops, tiling, tiles, index), 0)
    w = np.where(w_loads, values + tiles["metadata_bytes"], 0)
    tiles["metadata_bytes"] *= w_loads
    tiles["load_bytes"] = x + w
    done = index["k"] == index["k"].max()
    tiles["store_bytes"] = np.where(done, ops.y_bytes(tiles["t"], tiles["n"]), 0)
    return Schedule(
        tiles=tiles,
        runs=int(ops.runs[0]),
        bytes_per_cycle=device.dram_bytes_per_cycle,
        latency_cycles=device.dram_latency_cycles,
        double_buffered=device.memory.sram.double_buffered,
        launch_cycles=device.launch_cycles,
    )


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


def _grid(ops: Ops, tiling: Tilings) -> tuple[npt.NDArray[np.void], dict[str, Ints]]:
    """Return the tiles in loop order and their index along each extent."""
    extent = {d: int(getattr(ops, d)[0]) for d in DIMS}
    tile = {d: int(getattr(tiling, d)[0]) for d in DIMS}
    count = {d: -(-extent[d] // tile[d]) for d in DIMS}
    loops = ("t", "n", "k") if tiling.keep_x[0] else ("n", "t", "k")
    grid = np.indices([count[d] for d in loops]).reshape(3, -1)
    index = dict(zip(loops, grid, strict=True))
    tiles = np.zeros(grid.shape[1], dtype=TILE)
    for d in DIMS:
        tiles[d + "0"] = index[d] * tile[d]
        tiles[d] = np.minimum(tile[d], extent[d] - tiles[d + "0"])
    return tiles, index


def _changes(index: dict[str, Ints], dims: tuple[str, str]) -> npt.NDArray[np.bool_]:
    """Say for which tiles the operand spanned by ``dims`` is another than the tile before's."""
    changed = np.ones(len(index["t"]), dtype=np.bool_)
    changed[1:] = np.any([np.diff(index[d]) != 0 for d in dims], axis=0)
    return changed
