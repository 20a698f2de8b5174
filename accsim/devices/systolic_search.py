"""Which of the tilings that fit finishes first: the minimum over all, found by a lower bound."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_folds import DATAFLOWS
from accsim.devices.systolic_levels import beyond_buffers
from accsim.devices.systolic_ops import Ops, fold_extents
from accsim.devices.systolic_slots import SlotSums
from accsim.devices.systolic_tiling import (
    DIMS,
    Tilings,
    candidates,
    evaluate,
    reloads,
    tile_cycles,
    whole_tilings,
)
from accsim.spec.hardware import Systolic
from accsim.spec.schedule import Channel

Ints = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).max
CHUNK = 12  # candidates evaluated exactly at first, in order of their lower bound; then doubled


def best(ops: Ops, device: Systolic) -> tuple[Tilings, SlotSums]:
    """Return for each operation the tiling with the least cycles (then bytes), and its costs.

    An operation that no tiling fits has cycles of ``NEVER``.

    Candidates are taken in order of a lower bound on their cycles; the search ends where every
    bound is above the best found, so the result is the minimum over all of them.
    """
    found = beyond_buffers(ops, candidates(ops, device), ops.weight_bytes(ops.k, ops.n), device)
    bound = lower_bound(ops, found, device)
    order = np.lexsort((bound, found.op))
    starts = np.searchsorted(found.op[order], np.arange(len(ops)))
    ends = np.append(starts[1:], len(order))
    bound, found = bound[order], found.take(order)

    chosen = starts.copy()
    kept = SlotSums(np.full((columns(device), len(ops)), NEVER))
    at, open_, chunk = starts.copy(), np.flatnonzero(ends > starts), CHUNK
    while len(open_):
        batch = _ranges(at[open_], np.minimum(at[open_] + chunk, ends[open_]))
        costs = evaluate(ops, found.take(batch), device)
        rank = np.lexsort((costs.moved_bytes, costs.cycles, found.op[batch]))
        leaders = rank[np.unique(found.op[batch][rank], return_index=True)[1]]
        # open_ is ascending, so the leaders stand in its order
        better = costs.cycles[leaders] < kept.cycles[open_]
        same = costs.cycles[leaders] == kept.cycles[open_]
        better |= same & (costs.moved_bytes[leaders] < kept.moved_bytes[open_])
        winners, who = leaders[better], open_[better]
        chosen[who] = batch[winners]
        kept.table[:, who] = costs.table[:, winners]
        at[open_] += chunk
        chunk *= 2
        open_ = open_[at[open_] < ends[open_]]
        open_ = open_[bound[at[open_]] <= kept.cycles[open_]]  # a tie may move fewer bytes
    fitting = np.flatnonzero(ends > starts)
    tilings = whole_tilings(ops)
    for f in fields(Tilings):
        getattr(tilings, f.name)[fitting] = getattr(found, f.name)[chosen[fitting]]
    return tilings, kept


def columns(device: Systolic) -> int:
    """Return how many quantities a device's SlotSums have."""
    return 5 + 2 * len(device.channels)


def _ranges(starts: Ints, ends: Ints) -> npt.NDArray[np.intp]:
    """Return the concatenation of the ranges starts[i] … ends[i] − 1."""
    lengths = ends - starts
    offsets = np.repeat(starts - np.append(0, np.cumsum(lengths)[:-1]), lengths)
    return offsets + np.arange(int(lengths.sum()))


def lower_bound(ops: Ops, tiles: Tilings, device: Systolic) -> npt.NDArray[np.float64]:
    """Return cycles no tiling can beat, from what its full tiles and its last tile cost.

    Computing: the first load, every tile (the last one is the smallest), the last store. Traffic:
    all of it, and the last tile computes when all loads are done.
    """
    one = ops.take(tiles.op)
    counts = {d: -(-getattr(one, d) // getattr(tiles, d)) for d in DIMS}
    channels = device.channels
    bandwidth = channels[0].bytes_per_cycle
    last = {d: getattr(one, d) - getattr(tiles, d) * (counts[d] - 1) for d in DIMS}
    full_cycles = tile_cycles(one, tiles.t, tiles.k, tiles.n, device).total
    last_cycles = tile_cycles(one, last["t"], last["k"], last["n"], device).total
    pieces, full = 1, 1
    for d in DIMS:
        pieces = pieces * counts[d]
        full = full * (counts[d] - (last[d] != getattr(tiles, d)))
    computing = full * full_cycles + (pieces - full) * last_cycles
    computing = np.maximum(computing, _least_compute(one, tiles, counts, device))
    x_first = one.x_bytes_over(tiles.pixels, tiles.t, tiles.k)
    first = x_first + one.weight_bytes(tiles.k, tiles.n)
    edges = (first + one.y_bytes(last["t"], last["n"])) / bandwidth
    behind = one.y_bytes(tiles.t, tiles.n)
    bound: npt.NDArray[np.float64] = one.runs * computing + edges
    for index, channel in enumerate(channels):
        seen = tiles.seen_from(index)
        moving = _moving(ops, one, counts, seen, channel)
        last_compute = np.maximum(last_cycles - behind / channel.bytes_per_cycle, 0)
        bound = np.maximum(bound, one.runs * moving + last_compute)
    return bound


def _moving(
    ops: Ops, one: Ops, counts: dict[str, Ints], tiles: Tilings, channel: Channel
) -> npt.NDArray[np.float64]:
    """Return the cycles a channel moves in one run, at least."""
    x, w = reloads(counts, tiles)
    nbytes = ops.x_bytes(ops.t, ops.k)[tiles.op] * x
    nbytes = nbytes + ops.weight_bytes(ops.k, ops.n)[tiles.op] * w + one.y_bytes(one.t, one.n)
    waits = _transfers(one, counts, tiles) * channel.latency_cycles
    moving: npt.NDArray[np.float64] = nbytes / channel.bytes_per_cycle + waits
    return moving


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
