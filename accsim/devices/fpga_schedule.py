"""The tiles of one tiling spelled out in loop order: slow, obvious, and what the engines run."""

from __future__ import annotations

import numpy as np

from accsim.devices.fpga_array import FLOWS
from accsim.devices.fpga_ops import Ops
from accsim.devices.fpga_slots import Tilings
from accsim.spec.fpga import Fpga
from accsim.spec.schedule import Machine, Schedule, tile_dtype


def spell_out(ops: Ops, tiling: Tilings, device: Fpga) -> Schedule:
    """Return the schedule of one operation in its tiling (both of length 1)."""
    extent = {name: int(getattr(ops, name)[0]) for name in "tkn"}
    size = {name: int(getattr(tiling, name)[0]) for name in "tkn"}
    loops = ("t", "n", "k") if tiling.keep_x[0] else ("n", "t", "k")
    grid = np.indices([-(-extent[d] // size[d]) for d in loops]).reshape(3, -1)
    index = dict(zip(loops, grid, strict=True))
    tiles = np.zeros(grid.shape[1], dtype=tile_dtype(1))
    for d in loops:
        tiles[d + "0"] = index[d] * size[d]
        tiles[d] = np.minimum(size[d], extent[d] - tiles[d + "0"])
    t, k, n = (tiles[d].astype(np.int64) for d in "tkn")
    flow = list(FLOWS)[int(tiling.flow[0])]
    spent = FLOWS[flow](ops, t, k, n, device.array)
    tiles["compute_cycles"], tiles["work_cycles"] = spent.total, spent.useful
    tiles["padding_cycles"] = spent.streaming - spent.useful
    tiles["fill_drain_cycles"] = spent.total - spent.streaming
    a_new = (grid[1] == 0) | ~tiling.a_stays
    b_new = (grid[0] == 0) | ~tiling.b_stays
    x_new, w_new = (a_new, b_new) if tiling.keep_x[0] else (b_new, a_new)
    w, bare = ops.w_bytes(k, n), ops.w_bytes(k, n, metadata=False)
    tiles["load_bytes"][:, 0] = ops.x_bytes(t, k) * x_new + w * w_new
    tiles["metadata_bytes"][:, 0] = (w - bare) * w_new
    tiles["store_bytes"][:, 0] = ops.y_bytes(t, n) * (index["k"] == index["k"].max())
    machine = Machine(device.channels, swap="lockstep", launch_cycles=device.launch_cycles)
    return Schedule(tiles, machine, int(ops.count[0]))
