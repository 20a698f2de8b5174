"""Which tiles of a GEMM fit the buffers, and which of them finish first.

A tile is a t × k × n piece whose operands lie in the buffers; tiles follow each other through the
pipeline of :mod:`accsim.kernels.pipeline`. Candidates are the splits of each extent in 1, 2, 4, …
parts (whole folds) in two loop orders, k always innermost so that sums never leave the chip:
``keep_x`` keeps an X tile while the columns pass, else a W tile stays while the rows pass. Operands
that fit their buffer whole are loaded once, tile by tile, and stay. The candidates do not depend on
the buffers; a larger buffer only admits more of them and lets more stay, and the one with the least
cycles is taken. So neither more SRAM nor more bandwidth can ever cost a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.systolic_folds import DATAFLOWS, uniform_folds
from accsim.devices.systolic_ops import Ops, deal, fold_extents, units
from accsim.devices.systolic_slots import LoopNest, SlotSums
from accsim.spec.hardware import Systolic

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
DIMS = ("t", "k", "n")
NEVER = np.iinfo(np.int64).max
CHUNK = 12  # candidates evaluated exactly at first, in order of their lower bound; then doubled


@dataclass(frozen=True)
class Tilings:
    """Candidates, one entry each.

    ``op`` the operation; ``t k n`` the tile; ``keep_x`` whether t is the outer loop; ``x_stays``
    and ``w_stays`` whether all of the operand stays on chip once loaded; ``panel_stays`` whether
    the outer loop's operand, over all of k, stays while the inner loop passes.
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

    def __len__(self) -> int:
        return len(self.op)

    def take(self, which: npt.NDArray[np.intp]) -> Tilings:
        """Return the chosen candidates."""
        return Tilings(*(getattr(self, f.name)[which] for f in fields(self)))


def candidates(ops: Ops, device: Systolic) -> Tilings:
    """Return every tiling of every operation that fits the buffers (for some there may be none)."""
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
    return Tilings(op, t, k, n, keep_x, x_stays[op], w_stays[op], panel, pixels)


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


def best(ops: Ops, device: Systolic) -> tuple[Tilings, SlotSums]:
    """Return for each operation the tiling with the least cycles (then bytes), and its costs.

    An operation that no tiling fits has cycles of ``NEVER``.

    Candidates are taken in order of a lower bound on their cycles; the search ends where every
    bound is above the best found, so the result is the minimum over all of them.
    """
    found = candidates(ops, device)
    bound = _lower_bound(ops, found, device)
    order = np.lexsort((bound, found.op))
    starts = np.searchsorted(found.op[order], np.arange(len(ops)))
    ends = np.append(starts[1:], len(order))
    bound, found = bound[order], found.take(order)

    chosen = starts.copy()
    kept = [np.full(len(ops), NEVER) for _ in SlotSums._fields]
    at, open_, chunk = starts.copy(), np.flatnonzero(ends > starts), CHUNK
    while len(open_):
        batch = _ranges(at[open_], np.minimum(at[open_] + chunk, ends[open_]))
        costs = evaluate(ops, found.take(batch), device)
        nbytes = costs.load_bytes + costs.store_bytes
        rank = np.lexsort((nbytes, costs.cycles, found.op[batch]))
        leaders = rank[np.unique(found.op[batch][rank], return_index=True)[1]]
        # open_ is ascending, so the leaders stand in its order
        better = costs.cycles[leaders] < kept[0][open_]
        same = costs.cycles[leaders] == kept[0][open_]
        traffic = kept[3][open_] + kept[4][open_]
        better |= same & (nbytes[leaders] < traffic)
        winners, who = leaders[better], open_[better]
        chosen[who] = batch[winners]
        for held, new in zip(kept, costs, strict=True):
            held[who] = new[winners]
        at[open_] += chunk
        chunk *= 2
        open_ = open_[at[open_] < ends[open_]]
        open_ = open_[bound[at[open_]] <= kept[0][open_]]  # a tie may move fewer bytes
    fitting = np.flatnonzero(ends > starts)
    tilings = _whole(ops)
    for f in fields(Tilings):
        getattr(tilings, f.name)[fitting] = getattr(found, f.name)[chosen[fitting]]
    return tilings, SlotSums(*kept)


def _whole(ops: Ops) -> Tilings:
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
    )


def _ranges(starts: Ints, ends: Ints) -> npt.NDArray[np.intp]:
    """Return the concatenation of the ranges starts[i] … ends[i] − 1."""
    lengths = ends - starts
    offsets = np.repeat(starts - np.append(0, np.cumsum(lengths)[:-1]), lengths)
    return offsets + np.arange(int(lengths.sum()))


def _lower_bound(ops: Ops, tiles: Tilings, device: Systolic) -> npt.NDArray[np.float64]:
    """Return cycles no tiling can beat, from what its full tiles and its last tile cost.

    Computing: the first load, every tile (the last one is the smallest), the last store. Traffic:
    all of it, and the last tile computes when all loads are done.
    """
    one = ops.take(tiles.op)
    counts = {d: -(-getattr(one, d) // getattr(tiles, d)) for d in DIMS}
    x, w = reloads(counts, tiles)
    bandwidth = device.dram_bytes_per_cycle
    moved = (
        ops.x_bytes(ops.t, ops.k)[tiles.op] * x
        + ops.weight_bytes(ops.k, ops.n)[tiles.op] * w
        + one.y_bytes(one.t, one.n)
    ) / bandwidth  # fmt: skip
    last = {d: getattr(one, d) - getattr(tiles, d) * (counts[d] - 1) for d in DIMS}
    full_cycles, _ = tile_cycles(one, tiles.t, tiles.k, tiles.n, device)
    last_cycles, _ = tile_cycles(one, last["t"], last["k"], last["n"], device)
    pieces, full = 1, 1
    for d in DIMS:
        pieces = pieces * counts[d]
        full = full * (counts[d] - (last[d] != getattr(tiles, d)))
    computing = full * full_cycles + (pieces - full) * last_cycles
    computing = np.maximum(computing, _least_compute(one, tiles, counts, device))
    x_first = one.x_bytes_over(tiles.pixels, tiles.t, tiles.k)
    first = x_first + one.weight_bytes(tiles.k, tiles.n)
    edges = (first + one.y_bytes(last["t"], last["n"])) / bandwidth
    behind = one.y_bytes(tiles.t, tiles.n) / bandwidth
    bound: npt.NDArray[np.float64] = np.maximum(
        one.runs * computing + edges,
        one.runs * (moved + _transfers(one, counts, tiles) * device.dram_latency_cycles)
        + np.maximum(last_cycles - behind, 0),
    )
    return bound


def _transfers(one: Ops, counts: dict[str, Ints], tiles: Tilings) -> Ints:
    """Return how often the memory channel starts a transfer, at least, in one run.

    Every tile that loads something of an operand, or ends an output, does so in a slot of its own.
    (Inputs of a convolution that stay may have nothing new to load.)
    """
    x, w = reloads(counts, tiles)
    x = np.where(tiles.x_stays & one.mapped(), 0, x * counts["t"] * counts["k"])
    transfers: Ints = np.maximum(
        np.maximum(x, w * counts["k"] * counts["n"]), counts["t"] * counts["n"]
    )
    return transfers


def _least_compute(one: Ops, tiles: Tilings, counts: dict[str, Ints], device: Systolic) -> Ints:
    """Return array cycles no tiling can beat, from the fold recurrence.

    With r the rows of the raggedest fold, every fold takes max(s, r) but the tile's last, which
    takes s; filling and draining a tile takes at least r + R − 1 more.
    """
    array, flow = device.array, DATAFLOWS[device.dataflow]
    rows, cols, steps = fold_extents(one, device.dataflow, one.t, one.k, one.n)
    folds = -(-rows // array.rows) * -(-cols // array.cols)
    if flow.stream == "t":
        folds = folds * one.passes  # the other dataflows have theirs in the steps
    ragged = (rows - 1) % array.rows + 1
    along = flow.stream
    _, _, full = fold_extents(one, device.dataflow, tiles.t, tiles.k, tiles.n)
    last = steps - full * (counts[along] - 1)
    streaming = (counts[along] - 1) * np.maximum(full, ragged) + np.maximum(last, ragged)
    pieces = counts["t"] * counts["k"] * counts["n"]
    edges = pieces * (np.minimum(last, ragged) + array.rows - 1)
    least: Ints = folds * streaming // array.count + edges
    return least


def reloads(counts: dict[str, Ints], tiles: Tilings) -> tuple[Ints, Ints]:
    """Return how often all of X and all of W come from DRAM in one run."""
    outer, inner = _loops(counts, tiles.keep_x)
    a_stays, b_stays = _staying(counts, tiles)
    a, b = np.where(a_stays, 1, inner), np.where(b_stays, 1, outer)
    return np.where(tiles.keep_x, a, b), np.where(tiles.keep_x, b, a)


def _loops(counts: dict[str, Ints], keep_x: Bools) -> tuple[Ints, Ints]:
    return (
        np.where(keep_x, counts["t"], counts["n"]),
        np.where(keep_x, counts["n"], counts["t"]),
    )


def _staying(counts: dict[str, Ints], tiles: Tilings) -> tuple[Bools, Bools]:
    """Return whether the outer and the inner loop's operands are never loaded again."""
    _, inner = _loops(counts, tiles.keep_x)
    uncut = counts["k"] == 1
    a_whole = np.where(tiles.keep_x, tiles.x_stays, tiles.w_stays)
    b_whole = np.where(tiles.keep_x, tiles.w_stays, tiles.x_stays)
    return uncut | a_whole | tiles.panel_stays, b_whole | (uncut & (inner == 1))


def tile_cycles(ops: Ops, t: Ints, k: Ints, n: Ints, device: Systolic) -> tuple[Ints, Ints]:
    """Return (total, work) cycles of computing one t × k × n tile on the array(s)."""
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
    return spent.total, spent.work


def evaluate(ops: Ops, tiles: Tilings, device: Systolic, *, metadata: bool = True) -> SlotSums:
    """Return the exact costs of tilings, one entry a candidate, all runs together."""
    one = ops.take(tiles.op)
    count = {d: -(-getattr(one, d) // getattr(tiles, d)) for d in DIMS}
    pair = {d: _full_and_last(getattr(one, d), getattr(tiles, d), count[d]) for d in DIMS}
    three = {d: pair[d][:, [0, 0, 1]] for d in DIMS}
    wide = one.widen(2)
    x = wide.x_bytes(three["t"][:, :, None], three["k"][:, None, :])
    mapped = tiles.x_stays & one.mapped()
    if mapped.any():
        shares = one.x_shares(tiles.t, count["t"])
        x[mapped] = deal(shares, x[:, :, 0], x[:, :, 2], count["k"][:, None])[mapped]
    w = wide.weight_bytes(three["k"][:, None, :], three["n"][:, :, None], metadata=metadata)
    y = wide.y_bytes(pair["t"][:, :, None], pair["n"][:, None, :])
    extents = (
        pair["t"][:, :, None, None],
        pair["k"][:, None, None, :],
        pair["n"][:, None, :, None],
    )
    compute, work = tile_cycles(one.widen(3), *extents, device)
    keep = tiles.keep_x
    keep3, keep4 = keep[:, None, None], keep[:, None, None, None]
    outer, inner = _loops(count, keep)
    a_stays, b_stays = _staying(count, tiles)
    nest = LoopNest(
        outer=outer,
        inner=inner,
        depth=count["k"],
        a_bytes=np.where(keep3, x, w),
        b_bytes=np.where(keep3, w, x),
        y_bytes=np.where(keep3, y, y.transpose(0, 2, 1)),
        compute=np.where(keep4, compute, compute.transpose(0, 2, 1, 3)),
        work=np.where(keep4, work, work.transpose(0, 2, 1, 3)),
        a_stays=a_stays,
        b_stays=b_stays,
        runs=one.runs,
    )
    return nest.sums(
        device.dram_bytes_per_cycle, device.dram_latency_cycles,
        double_buffered=device.memory.sram.double_buffered,
    )  # fmt: skip


def _full_and_last(extent: Ints, tile: Ints, count: Ints) -> Ints:
    """Return (candidates, 2): the extent of a full tile and of the last one."""
    return np.stack([tile, extent - tile * (count - 1)], axis=1)
