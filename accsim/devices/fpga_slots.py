"""The lockstep pipeline of a tiling, summed over classes of equal slots.

A slot computes one tile while the tile before is stored and the one after loaded (docs/engine.md).
What it costs depends on these three, and along a loop of N positions they differ only at the
first and the last two. So a loop of N is walked as one of min(N, 4), whose second position stands
for N − 3: at most 64 slots a tiling, in the order of the loops, each with its neighbours beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from accsim.devices.fpga_array import FLOWS
from accsim.devices.fpga_ops import Ops
from accsim.kernels.pipeline import memory_cycles
from accsim.spec.fpga import Fpga

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
POSITIONS = 4  # of a loop that are walked: 0, 1, N − 2, N − 1


@dataclass(frozen=True)
class Tilings:
    """Candidates, one entry each: of operation ``op`` in dataflow ``flow`` (place in FLOWS).

    ``t``, ``k``, ``n``: a tile. ``keep_x``: t is the outer loop, else n. ``a_stays``: the outer
    loop's operand is loaded in the first inner position only; ``b_stays``: the inner loop's in the
    first outer position only.
    """

    op: npt.NDArray[np.intp]
    flow: Ints
    t: Ints
    k: Ints
    n: Ints
    keep_x: Bools
    a_stays: Bools
    b_stays: Bools

    def __len__(self) -> int:
        return len(self.op)

    def take(self, which: npt.NDArray[np.intp]) -> Tilings:
        """Return the chosen candidates."""
        return Tilings(*(getattr(self, f.name)[which] for f in fields(self)))


class Sums:
    """Totals over all tiles and runs, one entry a candidate: rows of one table.

    ``compute_cycles`` of ``cycles`` the array is busy, ``streaming`` of these, ``useful`` of these.
    """

    def __init__(self, table: Ints) -> None:
        self.table = table
        self.cycles, self.compute_cycles, self.streaming, self.useful = table[:4]
        self.load_bytes, self.store_bytes = table[4:]

    def take(self, which: npt.NDArray[np.intp]) -> Sums:
        """Return the chosen entries."""
        return Sums(self.table[:, which])

    def join(self, other: Sums) -> Sums:
        """Return the entries of both."""
        return Sums(np.concatenate([self.table, other.table], axis=1))


def tile_classes(ops: Ops, tiles: Tilings) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the up to eight sizes of a tiling's tiles: (candidates, 8) numbers, t, k and n."""
    many = np.ones((len(tiles), 1), dtype=np.int64)
    sizes: list[Ints] = []
    for place, (extent, tile) in enumerate(((ops.t, tiles.t), (ops.k, tiles.k), (ops.n, tiles.n))):
        count = -(-extent // tile)
        both = np.stack([count - 1, np.ones_like(count)], axis=1)
        size = np.stack([tile, extent - tile * (count - 1)], axis=1)
        at = (np.arange(8) >> place) & 1
        many, sizes = many * both[:, at], [*sizes, size[:, at]]
    return many, sizes[0], sizes[1], sizes[2]


def slot_sums(ops: Ops, tiles: Tilings, device: Fpga, *, metadata: bool = True) -> Sums:
    """Return the exact totals of tilings; ``ops`` has one entry a candidate.

    ``metadata``: whether positions of packed values are loaded.
    """
    counts = np.stack([-(-ops.t // tiles.t), -(-ops.n // tiles.n), -(-ops.k // tiles.k)])
    walked = np.minimum(counts, POSITIONS)
    code = np.zeros(len(ops), dtype=np.int64)
    for digit in (*walked, tiles.keep_x.astype(np.int64), tiles.flow):
        code = code * (POSITIONS + 1) + digit
    table = np.zeros((6, len(ops)), dtype=np.int64)
    for one in np.unique(code):
        at = np.flatnonzero(code == one)
        table[:, at] = _walk(ops.take(at).widen(), tiles, at, counts[:, at], device, metadata)
    return Sums(table)


def _walk(
    ops: Ops,
    tiles: Tilings,
    at: npt.NDArray[np.intp],
    counts: Ints,
    device: Fpga,
    metadata: bool,
) -> Ints:
    """Return the totals of candidates of one loop order, dataflow and number of slots."""
    keep_x = bool(tiles.keep_x[at[0]])
    order = (0, 1) if keep_x else (1, 0)  # t and n among the loops
    loops = counts[[*order, 2]]
    shape = tuple(np.minimum(loops[:, 0], POSITIONS))
    grid = np.indices(shape).reshape(3, -1)
    weight = np.ones((len(at), grid.shape[1]), dtype=np.int64)
    for length, place, whole in zip(loops, grid, shape, strict=True):
        weight *= np.where((place == 1) & (whole == POSITIONS), length[:, None] - 3, 1)
    t, n, k = (
        _extents(extent, getattr(tiles, name)[at], grid[axis] == shape[axis] - 1)
        for name, extent, axis in (
            ("t", ops.t, order[0]), ("n", ops.n, order[1]), ("k", ops.k, 2),
        )
    )  # fmt: skip
    spent = list(FLOWS.values())[int(tiles.flow[at[0]])](ops, t, k, n, device.array)
    a_new = (grid[1] == 0) | ~tiles.a_stays[at][:, None]
    b_new = (grid[0] == 0) | ~tiles.b_stays[at][:, None]
    x_new, w_new = (a_new, b_new) if keep_x else (b_new, a_new)
    load = ops.x_bytes(t, k) * x_new + ops.w_bytes(k, n, metadata=metadata) * w_new
    store = ops.y_bytes(t, n) * (grid[2] == shape[2] - 1)
    runs = ops.count[:, 0]
    each = [spent.total, spent.streaming, spent.useful, load, store]
    sums = [runs * (weight * value).sum(axis=1) for value in each]
    return np.stack([_pipeline(weight, spent.total, load, store, runs, device), *sums])


def _extents(extent: Ints, tile: Ints, last: Bools) -> Ints:
    """Return a tile's size at each slot: what is left at the last position of its loop."""
    rest = (extent[:, 0] - 1) % tile + 1
    sizes: Ints = np.where(last, rest[:, None], tile[:, None])
    return sizes


def _pipeline(
    weight: Ints, compute: Ints, load: Ints, store: Ints, runs: Ints, device: Fpga
) -> Ints:
    """Return the cycles of all slots, the first load and the last store included."""
    channel = device.channels[0]

    def moving(nbytes: Ints) -> Ints:
        return memory_cycles(nbytes, channel.bytes_per_cycle, channel.latency_cycles)

    ahead, behind = np.roll(load, -1, axis=1), np.roll(store, 1, axis=1)
    slot = np.maximum(compute, moving(ahead + behind))
    first = np.maximum(compute[:, 0], moving(ahead[:, 0]))  # nothing is stored yet
    last = np.maximum(compute[:, -1], moving(behind[:, -1]))  # nothing is left to load
    total: Ints = runs * (weight * slot).sum(axis=1) + first - slot[:, 0] + last - slot[:, -1]
    if slot.shape[1] == 1:
        total = np.where(runs == 1, compute[:, 0], total)
    total = total + moving(load[:, 0]) + moving(store[:, -1])
    return total
