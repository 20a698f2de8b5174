"""Which tiles of a GEMM fit the buffers, and which of them finish first.

A tile is a t × k × n piece whose operands lie in the buffers; tiles follow each other through the
pipeline of :mod:`accsim.kernels.pipeline`. Candidates are the splits of each extent in 1, 2, 4, …
parts (whole folds) in two loop orders, k always innermost so that sums never leave the chip:
``tn`` keeps an X tile while the columns pass, ``nt`` keeps a W tile while the rows pass. The
candidates do not depend on the buffers; a larger buffer only admits more of them, and the one with
the least cycles is taken. So neither more SRAM nor more bandwidth can ever cost a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.systolic_folds import DATAFLOWS, uniform_folds
from accsim.devices.systolic_ops import Ops, fold_extents, units
from accsim.devices.systolic_slots import LoopNest, SlotSums
from accsim.spec.hardware import Systolic

Ints = npt.NDArray[np.int64]
DIMS = ("t", "k", "n")
CHUNK = 24  # candidates evaluated exactly at first, in order of their lower bound; then doubled


@dataclass(frozen=True)
class Tilings:
    """Candidates, one entry each: the operation, tile extents, and whether X tiles are kept."""

    op: npt.NDArray[np.intp]
    t: Ints
    k: Ints
    n: Ints
    keep_x: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.op)

    def take(self, which: npt.NDArray[np.intp]) -> Tilings:
        """Return the chosen candidates."""
        return Tilings(*(getattr(self, f.name)[which] for f in fields(self)))


def candidates(ops: Ops, device: Systolic) -> Tilings:
    """Return every tiling of every operation that fits the buffers.

    Raises:
        InputError: not even the smallest tile of an operation fits.
    """
    sizes, fresh = {}, {}
    for dim, unit in units(ops, device).items():
        sizes[dim], fresh[dim] = _splits(getattr(ops, dim), unit)
    grid = np.ix_(*(range(s) for s in (len(ops), *(sizes[d].shape[1] for d in DIMS))))
    at, (i, j, h) = grid[0], grid[1:]
    new = fresh["t"][at, i] & fresh["k"][at, j] & fresh["n"][at, h]
    op, i, j, h = np.nonzero(new)
    t, k, n = sizes["t"][op, i], sizes["k"][op, j], sizes["n"][op, h]
    fits = _fits(ops.take(op), t, k, n, device)
    op, t, k, n = op[fits], t[fits], k[fits], n[fits]
    _refuse_misfits(ops, op, device)
    both = np.concatenate([np.arange(len(op))] * 2)
    keep_x = np.repeat([True, False], len(op))
    return Tilings(op[both], t[both], k[both], n[both], keep_x)


def _splits(extent: Ints, unit: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return tile extents (ops, splits) for 1, 2, 4, … parts, and which are new sizes."""
    count = -(-extent // unit)
    parts = 1 << np.arange(int(count.max() - 1).bit_length() + 1, dtype=np.int64)
    size = np.minimum(-(-count[:, None] // parts) * unit[:, None], extent[:, None])
    fresh = np.ones(size.shape, dtype=np.bool_)
    fresh[:, 1:] = size[:, 1:] != size[:, :-1]
    return size, fresh


def _fits(ops: Ops, t: Ints, k: Ints, n: Ints, device: Systolic) -> npt.NDArray[np.bool_]:
    """Say which tiles fit: an operand that is ever replaced has half its buffer."""
    sram = device.memory.sram
    only_t, only_k, only_n = t == ops.t, k == ops.k, n == ops.n
    once = ops.runs == 1
    fits = np.ones(len(t), dtype=np.bool_)
    for nbytes, capacity, single in (
        (ops.x_bytes(t, k), sram.x.bytes, only_t & only_k & once),
        (ops.weight_bytes(k, n), sram.w.bytes, only_k & only_n & once),
        (ops.sum_bytes(t, n), sram.y.bytes, only_t & only_n & once),
    ):
        room = np.where(single | (not sram.double_buffered), capacity, capacity // 2)
        fits &= nbytes <= room
    return fits


def _refuse_misfits(ops: Ops, fitting: npt.NDArray[np.intp], device: Systolic) -> None:
    missing = np.setdiff1d(np.arange(len(ops)), fitting)
    if len(missing) == 0:
        return
    one = ops.take(missing[:1])
    least = {d: np.minimum(u, getattr(one, d)) for d, u in units(one, device).items()}
    t, k, n = least["t"], least["k"], least["n"]
    need = {"x": one.x_bytes(t, k), "w": one.weight_bytes(k, n), "y": one.sum_bytes(t, n)}
    sram = device.memory.sram
    halves = 2 if sram.double_buffered else 1
    name = max(need, key=lambda key: int(need[key][0]) * halves / getattr(sram, key).bytes)
    raise InputError(
        f"memory.sram.{name}.bytes of '{device.name}' must hold {halves} tiles of at least "
        f"{int(need[name][0])} bytes for a {one.t[0]}x{one.k[0]}x{one.n[0]} GEMM; "
        f"got {getattr(sram, name).bytes}"
    )


def best(ops: Ops, device: Systolic) -> tuple[Tilings, SlotSums]:
    """Return for each operation the tiling with the least cycles (then bytes), and its costs.

    Candidates are taken in order of a lower bound on their cycles; the search ends where no bound
    is below the best found, so the result is the minimum over all of them.
    """
    found = candidates(ops, device)
    bound = _lower_bound(ops, found, device)
    order = np.lexsort((bound, found.op))
    starts = np.searchsorted(found.op[order], np.arange(len(ops)))
    ends = np.append(starts[1:], len(order))
    bound, found = bound[order], found.take(order)

    chosen = starts.copy()
    kept = [np.full(len(ops), np.iinfo(np.int64).max) for _ in SlotSums._fields]
    at, open_, chunk = starts.copy(), np.arange(len(ops)), CHUNK
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
        open_ = open_[bound[at[open_]] < kept[0][open_]]
    return found.take(chosen), SlotSums(*kept)


def _ranges(starts: Ints, ends: Ints) -> npt.NDArray[np.intp]:
    """Return the concatenation of the ranges starts[i] … ends[i] − 1."""
    lengths = ends - starts
    offsets = np.repeat(starts - np.append(0, np.cumsum(lengths)[:-1]), lengths)
    return offsets + np.arange(int(lengths.sum()))


def _lower_bound(ops: Ops, tiles: Tilings, device: Systolic) -> npt.NDArray[np.float64]:
    """Return cycles no tiling can beat: first load + computing, or all traffic."""
    one = ops.take(tiles.op)
    counts = {d: -(-getattr(one, d) // getattr(tiles, d)) for d in DIMS}
    x, w = reloads(counts, tiles.keep_x)
    bandwidth = device.dram_bytes_per_cycle
    moved = (
        one.x_bytes(one.t, one.k) * x
        + one.weight_bytes(one.k, one.n) * w
        + one.y_bytes(one.t, one.n)
    ) / bandwidth  # fmt: skip
    first = one.x_bytes(tiles.t, tiles.k) + one.weight_bytes(tiles.k, tiles.n)
    bound: npt.NDArray[np.float64] = np.maximum(
        one.runs * _least_compute(one, tiles, counts, device) + first / bandwidth,
        one.runs * moved,
    )
    return bound


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


def reloads(counts: dict[str, Ints], keep_x: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return how often all of X and all of W come from DRAM in one run."""
    outer, inner = (np.where(keep_x, counts[a], counts[b]) for a, b in (("t", "n"), ("n", "t")))
    whole_k = counts["k"] == 1
    kept = np.where(whole_k, 1, inner)
    streamed = np.where(whole_k & (inner == 1), 1, outer)
    return np.where(keep_x, kept, streamed), np.where(keep_x, streamed, kept)


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
    wide = one.widen(2)
    x = wide.x_bytes(pair["t"][:, :, None], pair["k"][:, None, :])
    w = wide.weight_bytes(pair["k"][:, None, :], pair["n"][:, :, None], metadata=metadata)
    y = wide.y_bytes(pair["t"][:, :, None], pair["n"][:, None, :])
    extents = (
        pair["t"][:, :, None, None],
        pair["k"][:, None, None, :],
        pair["n"][:, None, :, None],
    )
    compute, work = tile_cycles(one.widen(3), *extents, device)
    keep = tiles.keep_x
    keep3, keep4 = keep[:, None, None], keep[:, None, None, None]
    nest = LoopNest(
        outer=np.where(keep, count["t"], count["n"]),
        inner=np.where(keep, count["n"], count["t"]),
        depth=count["k"],
        a_bytes=np.where(keep3, x, w),
        b_bytes=np.where(keep3, w, x),
        y_bytes=np.where(keep3, y, y.transpose(0, 2, 1)),
        compute=np.where(keep4, compute, compute.transpose(0, 2, 1, 3)),
        work=np.where(keep4, work, work.transpose(0, 2, 1, 3)),
        runs=one.runs,
    )
    return nest.sums(
        device.dram_bytes_per_cycle, device.dram_latency_cycles,
        double_buffered=device.memory.sram.double_buffered,
    )  # fmt: skip


def _full_and_last(extent: Ints, tile: Ints, count: Ints) -> Ints:
    """Return (candidates, 2): the extent of a full tile and of the last one."""
    return np.stack([tile, extent - tile * (count - 1)], axis=1)
