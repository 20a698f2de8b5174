"""Which tiles of a GEMM fit the buffers, and what each tiling costs exactly.

A tile is a t × k × n piece whose operands lie in the buffers; tiles follow each other through the
pipeline of :mod:`accsim.kernels.pipeline`. Candidates are the splits of each extent in 1, 2, 4, …
parts (whole folds) in two loop orders, k always innermost so that sums never leave the chip:
``keep_x`` keeps an X tile while the columns pass, else a W tile stays while the rows pass. Operands
that fit their buffer whole are loaded once, tile by tile, and stay. The candidates do not depend on
the buffers; a larger buffer only admits more of them and lets more stay, and the one with the least
cycles is taken (systolic_search). So neither more SRAM nor more bandwidth can ever cost a cycle.

Memories between the buffers and DRAM keep operands too (systolic_levels): a candidate says which.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.systolic_folds import DATAFLOWS, uniform_folds
from accsim.devices.systolic_ops import Ops, deal, fold_extents, units
from accsim.devices.systolic_slots import Flow, LoopNest, SlotSums
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Channel

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
DIMS = ("t", "k", "n")


@dataclass(frozen=True)
class Tilings:
    """Candidates, one entry each.

    ``op`` the operation; ``t k n`` the tile; ``keep_x`` whether t is the outer loop; ``x_stays``
    and ``w_stays`` whether all of the operand stays on chip once loaded; ``panel_stays`` whether
    the outer loop's operand, over all of k, stays while the inner loop passes. ``x_levels``,
    ``w_levels`` and ``panel_levels`` say the same of the levels beyond, one bit each, the farthest
    the lowest.
    """

    op: npt.NDArray[np.intp]
    t: Ints
    k: Ints
    n: Ints
    keep_x: Bools
    x_stays: Bools
    w_stays: Bools
    panel_stays: Bools
    pixels: Ints  # input positions under the tile's t
    x_levels: Ints
    w_levels: Ints
    panel_levels: Ints

    def __len__(self) -> int:
        return len(self.op)

    def take(self, which: npt.NDArray[np.intp]) -> Tilings:
        """Return the chosen candidates."""
        return Tilings(*(getattr(self, f.name)[which] for f in fields(self)))

    def seen_from(self, channel: int) -> Tilings:
        """Return the candidates with all that stays nearer to the array than a channel's source."""
        return replace(
            self,
            x_stays=self.x_stays | (self.x_levels >> channel > 0),
            w_stays=self.w_stays | (self.w_levels >> channel > 0),
            panel_stays=self.panel_stays | (self.panel_levels >> channel > 0),
        )


def candidates(ops: Ops, device: Systolic) -> Tilings:
    """Return every tiling of every operation that fits the buffers (for some there may be none).

    What stays beyond the buffers is still open: nothing.
    """
    sizes, fresh = {}, {}
    for dim, unit in units(ops, device).items():
        sizes[dim], fresh[dim] = _splits(getattr(ops, dim), unit)
    grid = np.ix_(*(range(s) for s in (len(ops), *(sizes[d].shape[1] for d in DIMS))))
    at, (i, j, h) = grid[0], grid[1:]
    new = fresh["t"][at, i] & fresh["k"][at, j] & fresh["n"][at, h]
    op, i, j, h = np.nonzero(new)
    t, k, n = sizes["t"][op, i], sizes["k"][op, j], sizes["n"][op, h]
    one = ops.take(op)
    packed = ops.weight_bytes(ops.k, ops.n)
    x_stays, w_stays = stays(ops, packed, device)
    pixels = ops.widen(1).pixels(sizes["t"])[op, i]
    x_bytes = one.x_bytes_over(pixels, t, k)
    fits = _fits(one, (t, k, n), x_bytes, (x_stays[op], w_stays[op]), device)
    one, (op, t, k, n, pixels) = one.take(fits), (part[fits] for part in (op, t, k, n, pixels))
    again = np.flatnonzero((t < one.t) & (n < one.n))  # else both loop orders are the same
    pick = np.concatenate([np.arange(len(op)), again])
    keep_x = np.arange(len(pick)) < len(op)
    one, (op, t, k, n, pixels) = one.take(pick), (part[pick] for part in (op, t, k, n, pixels))
    sram, once = device.memory.sram, one.runs == 1
    x_panel = _room(one.x_bytes_over(pixels, t, one.k), sram.x.bytes, once & (t == one.t), device)
    w_panel = _room(one.weight_bytes(one.k, n), sram.w.bytes, once & (n == one.n), device)
    panel = np.where(keep_x, x_panel, w_panel)
    none = np.zeros(len(op), dtype=np.int64)
    return Tilings(op, t, k, n, keep_x, x_stays[op], w_stays[op], panel, pixels, none, none, none)


def stays(ops: Ops, packed_bytes: Ints, device: Systolic) -> tuple[Bools, Bools]:
    """Return whether all of X, and all of W of ``packed_bytes``, fit their buffers.

    Several runs have operands of their own: the next one's arrive while this one's are in use.
    """
    sram, once = device.memory.sram, ops.runs == 1
    x = _room(ops.x_bytes(ops.t, ops.k), sram.x.bytes, once, device)
    return x, _room(packed_bytes, sram.w.bytes, once, device)


def _room(nbytes: Ints, capacity_bytes: int, single: Bools, device: Systolic) -> Bools:
    """Say what fits a buffer: half of it for what is ever replaced while in use."""
    whole = single | (not device.memory.sram.double_buffered)
    fits: Bools = nbytes <= np.where(whole, capacity_bytes, capacity_bytes // 2)
    return fits


def _splits(extent: Ints, unit: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return tile extents (ops, splits) for 1, 2, 4, … parts, and which are new sizes."""
    count = -(-extent // unit)
    parts = 1 << np.arange(int(count.max() - 1).bit_length() + 1, dtype=np.int64)
    size = np.minimum(-(-count[:, None] // parts) * unit[:, None], extent[:, None])
    fresh = np.ones(size.shape, dtype=np.bool_)
    fresh[:, 1:] = size[:, 1:] != size[:, :-1]
    return size, fresh


def _fits(
    ops: Ops,
    tile: tuple[Ints, Ints, Ints],
    x_bytes: Ints,
    whole: tuple[Bools, Bools],
    device: Systolic,
) -> npt.NDArray[np.intp]:
    """Return which tiles fit; ``whole`` says whether all of X and all of W stay anyway."""
    t, k, n = tile
    sram, once = device.memory.sram, ops.runs == 1
    only_t, only_k, only_n = t == ops.t, k == ops.k, n == ops.n
    x = _room(x_bytes, sram.x.bytes, only_t & only_k & once, device) | whole[0]
    w = _room(ops.weight_bytes(k, n), sram.w.bytes, only_k & only_n & once, device) | whole[1]
    y = _room(ops.sum_bytes(t, n), sram.y.bytes, only_t & only_n & once, device)
    return np.flatnonzero(x & w & y)


def misfit(ops: Ops, device: Systolic) -> InputError:
    """Return the error that names the buffer which cannot hold an operation's smallest tile."""
    one = ops.take(np.zeros(1, dtype=np.intp))
    least = {d: np.minimum(u, getattr(one, d)) for d, u in units(one, device).items()}
    t, k, n = least["t"], least["k"], least["n"]
    need = {"x": one.x_bytes(t, k), "w": one.weight_bytes(k, n), "y": one.sum_bytes(t, n)}
    sram = device.memory.sram
    halves = 2 if sram.double_buffered else 1
    name = max(need, key=lambda key: int(need[key][0]) * halves / getattr(sram, key).bytes)
    return InputError(
        f"memory.sram.{name}.bytes of '{device.name}' must hold {halves} tiles of at least "
        f"{int(need[name][0])} bytes for a {one.t[0]}x{one.k[0]}x{one.n[0]} GEMM; "
        f"got {getattr(sram, name).bytes}"
    )


def whole_tilings(ops: Ops) -> Tilings:
    """Return each operation as a single tile, whether or not it fits."""
    no = np.zeros(len(ops), dtype=np.bool_)
    return Tilings(
        op=np.arange(len(ops)),
        t=ops.t.copy(),
        k=ops.k.copy(),
        n=ops.n.copy(),
        keep_x=no,
        x_stays=no.copy(),
        w_stays=no.copy(),
        panel_stays=no.copy(),
        pixels=ops.pixels(ops.t),
        x_levels=np.zeros(len(ops), dtype=np.int64),
        w_levels=np.zeros(len(ops), dtype=np.int64),
        panel_levels=np.zeros(len(ops), dtype=np.int64),
    )


def reloads(counts: dict[str, Ints], tiles: Tilings) -> tuple[Ints, Ints]:
    """Return how often all of X and all of W come from DRAM in one run."""
    outer, inner = loops(counts, tiles.keep_x)
    a_stays, b_stays = _staying(counts, tiles)
    a, b = np.where(a_stays, 1, inner), np.where(b_stays, 1, outer)
    return np.where(tiles.keep_x, a, b), np.where(tiles.keep_x, b, a)


def loops(counts: dict[str, Ints], keep_x: Bools) -> tuple[Ints, Ints]:
    """Return the numbers of tiles along the outer and the inner loop."""
    return (
        np.where(keep_x, counts["t"], counts["n"]),
        np.where(keep_x, counts["n"], counts["t"]),
    )


def _staying(counts: dict[str, Ints], tiles: Tilings) -> tuple[Bools, Bools]:
    """Return whether the outer and the inner loop's operands are never loaded again."""
    _, inner = loops(counts, tiles.keep_x)
    uncut = counts["k"] == 1
    a_whole = np.where(tiles.keep_x, tiles.x_stays, tiles.w_stays)
    b_whole = np.where(tiles.keep_x, tiles.w_stays, tiles.x_stays)
    return uncut | a_whole | tiles.panel_stays, b_whole | (uncut & (inner == 1))


class TileCycles(NamedTuple):
    """Cycles of computing a tile: ``total`` = ``work`` + fill; ``useful`` of work if none idled."""

    total: Ints
    work: Ints
    useful: Ints


def tile_cycles(ops: Ops, t: Ints, k: Ints, n: Ints, device: Systolic) -> TileCycles:
    """Return the cycles of computing one t × k × n tile on the array(s).

    ``useful`` is the steps of the PEs that take part over all PEs, rounded up: what is left of the
    work is padding, PEs beside ragged folds.
    """
    array, flow = device.array, DATAFLOWS[device.dataflow]
    rows, cols, steps = fold_extents(ops, device.dataflow, t, k, n)
    if array.count > 1:  # columns are dealt out in whole folds; the first array has the most
        folds = -(-cols // array.cols)
        share = -(-folds // array.count) * array.cols
        cols = np.minimum(cols, share)
    passes = ops.passes if flow.stream == "t" else 1  # else they are in the steps
    spent = uniform_folds(
        rows, cols, steps, passes, rows=array.rows, cols=array.cols,
        stationary=flow.stationary, double_buffering=array.double_buffering,
    )  # fmt: skip
    taking_part = t * n * ops.blocks(k) * ops.passes
    useful = -(-taking_part // (array.rows * array.cols * array.count))
    return TileCycles(spent.total, spent.work, useful)


def evaluate(ops: Ops, tiles: Tilings, device: Systolic, *, metadata: bool = True) -> SlotSums:
    """Return the exact costs of tilings, one entry a candidate, all runs together."""
    one = ops.take(tiles.op)
    count = {d: -(-getattr(one, d) // getattr(tiles, d)) for d in DIMS}
    pair = {d: _full_and_last(getattr(one, d), getattr(tiles, d), count[d]) for d in DIMS}
    three = {d: pair[d][:, [0, 0, 1]] for d in DIMS}
    wide = one.widen(2)
    x = wide.x_bytes(three["t"][:, :, None], three["k"][:, None, :])
    w = wide.weight_bytes(three["k"][:, None, :], three["n"][:, :, None], metadata=metadata)
    y = wide.y_bytes(pair["t"][:, :, None], pair["n"][:, None, :])
    extents = (
        pair["t"][:, :, None, None],
        pair["k"][:, None, None, :],
        pair["n"][:, None, :, None],
    )
    spent = tile_cycles(one.widen(3), *extents, device)
    keep = tiles.keep_x
    outer, inner = loops(count, keep)
    by_loop = [np.where(keep[:, None, None, None], v, v.transpose(0, 2, 1, 3)) for v in spent]
    nest = LoopNest(
        outer=outer,
        inner=inner,
        depth=count["k"],
        y_bytes=np.where(keep[:, None, None], y, y.transpose(0, 2, 1)),
        compute=by_loop[0],
        work=by_loop[1],
        useful=by_loop[2],
        flows=tuple(
            _flow(one, count, tiles.seen_from(c), (x, w), channel)
            for c, channel in enumerate(device.channels)
        ),
        runs=one.runs,
    )
    return nest.sums(double_buffered=device.memory.sram.double_buffered)


def _flow(
    one: Ops, count: dict[str, Ints], tiles: Tilings, pieces: tuple[Ints, Ints], channel: Channel
) -> Flow:
    """Return what passes over a channel, given X (m, 3 t, 3 k) and W (m, 3 n, 3 k) of a tile."""
    x, w = pieces
    mapped = tiles.x_stays & one.mapped()
    if mapped.any():
        x = x.copy()
        shares = one.x_shares(tiles.t, count["t"])
        x[mapped] = deal(shares, x[:, :, 0], x[:, :, 2], count["k"][:, None])[mapped]
    keep = tiles.keep_x[:, None, None]
    stays = _staying(count, tiles)
    return Flow(channel, np.where(keep, x, w), np.where(keep, w, x), *stays)


def _full_and_last(extent: Ints, tile: Ints, count: Ints) -> Ints:
    """Return (candidates, 2): the extent of a full tile and of the last one."""
    return np.stack([tile, extent - tile * (count - 1)], axis=1)
