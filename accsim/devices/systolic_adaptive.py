"""Layers whose passes follow the real mask: fold by fold, from the non-zeros that are there.

A block is the ``lanes`` consecutive k rows one PE covers in one column. A PE holds as many
non-zeros of it as it has multipliers; a fuller block takes several passes, and all PEs of a fold
(ws), all columns of a step (os) or all rows of a step (is) wait for the fullest. A fold or step
with no non-zeros at all is skipped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_counts import count_pieces
from accsim.devices.systolic_folds import DATAFLOWS, fold_sequence
from accsim.devices.systolic_levels import beyond_buffers
from accsim.devices.systolic_ops import Ops
from accsim.devices.systolic_tiles import lay_out, machine_of, waits
from accsim.devices.systolic_tiling import DIMS, Tilings, candidates, reloads, stays
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Schedule, Tiles

Ints = npt.NDArray[np.int64]
MAX_TILES = 20_000  # tilings of more pieces are not spelled out under a mask


class PieceCost(NamedTuple):
    """One t × k × n piece: cycles on the array, slots it stores, and what the array does.

    ``work_cycles`` are spent streaming, if non-zeros were spread evenly; ``useful_cycles`` of them
    would do if no PE were idle.
    """

    compute_cycles: int
    work_cycles: int
    useful_cycles: int
    imbalance_cycles: int
    slots: int
    pe_steps: int  # PEs times steps they take part in
    held_macs: int  # of these with a non-zero
    x_values: int  # activations that enter the array
    sums: int  # partial sums written to the output buffer (and read back)


class MaskedFolds:
    """Passes of every fold of one layer, from its mask (k, n)."""

    def __init__(self, mask: npt.NDArray[np.bool_], device: Systolic) -> None:
        self._device, self._array = device, device.array
        self._flow = DATAFLOWS[device.dataflow]
        self._shape = mask.shape
        # rows and columns of blocks that go in step: a fold's along the array, one along the stream
        self._height = device.array.rows if self._flow.rows == "k" else 1
        self._width = device.array.cols if self._flow.cols == "n" else 1
        held = block_counts(mask, device.array.lanes)
        at = np.arange(0, held.shape[0], self._height), np.arange(0, held.shape[1], self._width)
        fullest = np.maximum.reduceat(np.maximum.reduceat(held, at[0], axis=0), at[1], axis=1)
        wide = held.astype(np.int64)
        self._passes = -(-fullest.astype(np.int64) // device.array.multipliers)
        self._held = np.add.reduceat(np.add.reduceat(wide, at[0], axis=0), at[1], axis=1)
        self._known: dict[tuple[int, ...], PieceCost] = {}

    @cached_property
    def whole(self) -> PieceCost:
        """The layer as one piece of a single row of X: its slots do not depend on the tiling."""
        k, n = self._shape
        return self.piece(1, 0, k, 0, n)

    @cached_property
    def total_passes(self) -> int:
        """Passes of the whole layer, summed over folds (ws) or steps (os, is)."""
        return int(self._passes.sum())

    def busy_pieces(self, k: int, n: int) -> int:
        """Return how many k × n pieces of W keep the array busy at all (os: every one does)."""
        if self._flow.stream == "k":
            pieces: int = -(-self._shape[0] // k) * -(-self._shape[1] // n)
            return pieces
        blocks = -(-k // self._array.lanes)
        rows = np.arange(0, self._held.shape[0], -(-blocks // self._height))
        cols = np.arange(0, self._held.shape[1], -(-n // self._width))
        sums = np.add.reduceat(np.add.reduceat(self._held, rows, axis=0), cols, axis=1)
        return int(np.count_nonzero(sums))

    def piece(self, t: int, k0: int, k: int, n0: int, n: int) -> PieceCost:
        """Return what a piece of t rows, k from k0 and n from n0 costs; equal pieces once."""
        key = (t, k0, k, n0, n)
        if key not in self._known:
            self._known[key] = self._measure(*key)
        return self._known[key]

    def _measure(self, t: int, k0: int, k: int, n0: int, n: int) -> PieceCost:
        lanes = self._array.lanes
        first, blocks = k0 // lanes, -(-(k0 + k) // lanes) - k0 // lanes  # pieces start at folds
        at = (
            slice(first // self._height, -(-(first + blocks) // self._height)),
            slice(n0 // self._width, -(-(n0 + n) // self._width)),
        )
        passes, held = self._passes[at], self._held[at]
        rows, cols = _parts(blocks, self._height), _parts(n, self._width)
        shape = {"ws": self._weights, "os": self._outputs, "is": self._inputs}
        return shape[self._device.dataflow](t, passes, held, rows, cols)

    def _fold_cycles(self, r: Ints, c: Ints, s: Ints) -> tuple[int, int]:
        array = self._array
        return fold_sequence(
            r, c, s, rows=array.rows, stationary=self._flow.stationary,
            double_buffering=array.double_buffering,
        )  # fmt: skip

    def _useful(self, t: int, held: Ints) -> int:
        """Return the cycles the piece's non-zeros would keep all multipliers busy."""
        array = self._array
        return -(-t * int(held.sum()) // (array.rows * array.cols * array.multipliers))

    def _weights(self, t: int, passes: Ints, held: Ints, rows: Ints, cols: Ints) -> PieceCost:
        """ws: passes are extra folds, columns outermost."""
        slots = self._array.multipliers
        capacity = rows[:, None] * cols[None, :] * slots
        ideal = np.where(passes > 0, np.maximum(-(-held // capacity), 1), 0)
        repeat = passes.T.ravel()
        r = np.repeat(np.tile(rows, len(cols)), repeat)
        c = np.repeat(np.repeat(cols, len(rows)), repeat)
        total, work = self._fold_cycles(r, c, np.full(len(r), t))
        lost = t * int((passes - ideal).sum())
        stored = int((passes * capacity).sum())
        useful = self._useful(t, held)
        return PieceCost(
            total, work - lost, useful, lost, stored, t * stored // slots, t * int(held.sum()),
            int((passes * rows[:, None]).sum()) * t * self._array.lanes,
            int((passes * cols[None, :]).sum()) * t,
        )  # fmt: skip

    def _outputs(self, t: int, passes: Ints, held: Ints, rows: Ints, cols: Ints) -> PieceCost:
        """os: passes are extra steps; every row group of t streams them all."""
        slots = self._array.multipliers
        steps = np.maximum(passes.sum(axis=0), 1)
        ideal = np.maximum(-(-held.sum(axis=0) // (cols * slots)), 1)
        heights = _parts(t, self._array.rows)
        total, work = self._fold_cycles(
            np.repeat(heights, len(cols)), np.tile(cols, len(heights)), np.tile(steps, len(heights))
        )
        lost = int((steps - ideal).sum()) * len(heights)
        stored = int((passes * cols[None, :]).sum()) * slots
        useful = self._useful(t, held)
        return PieceCost(
            total, work - lost, useful, lost, stored, t * stored // slots, t * int(held.sum()),
            int(passes.sum()) * t * self._array.lanes, int(cols.sum()) * t,
        )  # fmt: skip

    def _inputs(self, t: int, passes: Ints, held: Ints, rows: Ints, cols: Ints) -> PieceCost:
        """is: passes are extra steps; every column group of t streams them all."""
        slots = self._array.multipliers
        steps = passes.sum(axis=1)
        ideal = np.where(steps > 0, np.maximum(-(-held.sum(axis=1) // (rows * slots)), 1), 0)
        widths = _parts(t, self._array.cols)
        runs = steps > 0
        r, s = rows[runs], steps[runs]
        total, work = self._fold_cycles(
            np.tile(r, len(widths)), np.repeat(widths, len(r)), np.tile(s, len(widths))
        )
        lost = int((steps - ideal).sum()) * len(widths)
        stored = int((passes * rows[:, None]).sum()) * slots
        useful = self._useful(t, held)
        return PieceCost(
            total, work - lost, useful, lost, stored, t * stored // slots, t * int(held.sum()),
            int(r.sum()) * t * self._array.lanes, int(s.sum()) * t,
        )  # fmt: skip


def block_counts(mask: npt.NDArray[np.bool_], lanes: int) -> npt.NDArray[np.uint16]:
    """Return the non-zeros of every block of ``lanes`` rows of a (k, n) mask: (blocks, n)."""
    k, n = mask.shape
    counts = np.zeros((-(-k // lanes), n), dtype=np.uint16)
    for lane in range(lanes):
        rows = mask[lane::lanes]
        counts[: len(rows)] += rows
    return counts


def _parts(extent: int, size: int) -> Ints:
    """Cut ``extent`` in parts of ``size``, the last one ragged."""
    parts = np.full(-(-extent // size), size, dtype=np.int64)
    parts[-1] = extent - size * (len(parts) - 1)
    return parts


class Adaptive(NamedTuple):
    """The best tiling of one layer under its real mask, spelled out."""

    tiling: Tilings
    schedule: Schedule
    spent: dict[str, Ints]  # an array a field of PieceCost, one entry a tile
    w_bytes: Ints

    def counted(self, ops: Ops, device: Systolic) -> Schedule:
        """Return the schedule with the actions of every tile."""
        tiles = self.schedule.tiles
        actions = count_pieces(ops, tiles, self.spent, self.w_bytes, device)
        return replace(self.schedule, actions=actions)

    @property
    def cycles(self) -> int:
        """Cycles of the pipeline, launch not counted."""
        return sum(waits(self.schedule)) + self.schedule.compute_cycles


def best_adaptive(ops: Ops, folds: MaskedFolds, device: Systolic) -> Adaptive | None:
    """Return the tiling with the least cycles (then bytes); None when no tiling fits the buffers.

    ``ops`` has length 1 and stores no slots of its own: packed sizes come from the mask.
    """
    found = _with_packed(ops, candidates(ops, device), folds, device)
    bound = _bound(ops, found, folds, device)
    best: Adaptive | None = None
    least = (float("inf"), 0)
    for at in np.argsort(bound, kind="stable"):
        if bound[at] > least[0]:
            break
        one = found.take(np.array([at]))
        if _tiles(ops, one) > MAX_TILES:
            continue
        tried = _spell_out(ops, one, folds, device)
        if tried is None:
            continue
        tiles = tried.schedule.tiles
        moved = tiles["load_bytes"][:, 0] + tiles["store_bytes"][:, 0]
        cost = (float(tried.cycles), int(moved.sum()))
        if cost < least:
            best, least = tried, cost
    return best


def _with_packed(ops: Ops, found: Tilings, folds: MaskedFolds, device: Systolic) -> Tilings:
    """Return candidates with what of W stays set by its real packed size."""
    bits = int(ops.operand_bits[0]) + int(ops.index_bits[0])
    packed = np.array([-(-folds.whole.slots * bits // 8)])
    _, w_stays = stays(ops, packed, device)
    panel = np.where(found.keep_x, found.panel_stays, w_stays[0])
    found = replace(found, w_stays=np.repeat(w_stays, len(found)), panel_stays=panel)
    return beyond_buffers(ops, found, packed, device, w_panels=False)


def _tiles(ops: Ops, tiling: Tilings) -> int:
    count = 1
    for d in DIMS:
        count *= -(-int(getattr(ops, d)[0]) // int(getattr(tiling, d)[0]))
    return count


def _bound(
    ops: Ops, tiles: Tilings, folds: MaskedFolds, device: Systolic
) -> npt.NDArray[np.float64]:
    """Return cycles no tiling can beat: streaming and drains with the edges, or all traffic."""
    one, array = ops.take(tiles.op), device.array
    number = {d: -(-getattr(one, d) // getattr(tiles, d)) for d in DIMS}
    packed = folds.whole.slots * (int(ops.operand_bits[0]) + int(ops.index_bits[0])) // 8
    edges = one.x_bytes(tiles.t, tiles.k) / device.channels[0].bytes_per_cycle
    t = int(ops.t[0])
    streams = {"ws": t, "os": -(-t // array.rows), "is": -(-t // array.cols)}
    pairs = list(zip(tiles.k.tolist(), tiles.n.tolist(), strict=True))
    busy = {pair: folds.busy_pieces(*pair) for pair in set(pairs)}
    drains = number["t"] * np.array([busy[pair] for pair in pairs]) * array.rows
    streaming = folds.total_passes * streams[device.dataflow]
    bound: npt.NDArray[np.float64] = one.runs * (streaming + drains) + edges
    for c, channel in enumerate(device.channels):
        x, w = reloads(number, tiles.seen_from(c))
        traffic = one.x_bytes(one.t, one.k) * x + packed * w + one.y_bytes(one.t, one.n)
        bound = np.maximum(bound, one.runs * (traffic / channel.bytes_per_cycle))
    return bound


def _spell_out(ops: Ops, tiling: Tilings, folds: MaskedFolds, device: Systolic) -> Adaptive | None:
    bits, index = int(ops.operand_bits[0]), int(ops.index_bits[0])
    spent: dict[str, Ints] = {}

    def costs(tiles: Tiles) -> tuple[Ints, Ints]:
        columns = [tiles[name].tolist() for name in ("t", "k0", "k", "n0", "n")]
        pieces = [folds.piece(*key) for key in zip(*columns, strict=True)]
        table = np.array(pieces, dtype=np.int64).T
        spent.update(zip(PieceCost._fields, table, strict=True))
        total, work, lost = (spent[f"{x}_cycles"] for x in ("compute", "work", "imbalance"))
        tiles["compute_cycles"], tiles["imbalance_cycles"] = total, lost
        tiles["work_cycles"] = spent["useful_cycles"]
        tiles["padding_cycles"] = work - spent["useful_cycles"]
        tiles["fill_drain_cycles"] = total - work - lost
        values = -(-spent["slots"] * bits // 8)
        return values, -(-spent["slots"] * (bits + index) // 8) - values

    tiles, w_bytes = lay_out(ops, tiling, device, costs)
    fullest = -(-int(spent["slots"].max()) * (bits + index) // 8)
    sram = device.memory.sram
    single = int(tiling.k[0] == ops.k[0] and tiling.n[0] == ops.n[0] and ops.runs[0] == 1)
    room = sram.w.bytes if single or not sram.double_buffered else sram.w.bytes // 2
    if fullest > room and not tiling.w_stays[0]:
        return None
    schedule = Schedule(tiles, machine_of(device), int(ops.runs[0]))
    return Adaptive(tiling, schedule, spent, w_bytes)
