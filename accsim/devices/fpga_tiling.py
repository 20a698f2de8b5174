"""Which tiles of a GEMM fit the buffers of an FPGA design, and the fastest of them.

A candidate is a dataflow, a tile t × k × n and a loop order: k innermost, so that sums never leave
the chip, and either t (``keep_x``) or n outermost. Sizes are 1, 2, 4, … parts of each extent, in
units of the array, and for t also 1, 2, 4, … times what a PE interleaves; they do not depend on
the buffers, so that more room only admits more of them. What fits its buffer whole is loaded once;
the outer operand's panel over all of k stays if it fits. The minimum over all candidates is found
by a lower bound (docs/fpga.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.fpga_array import FLOWS
from accsim.devices.fpga_ops import SUM_BYTES, Ops
from accsim.devices.fpga_slots import Sums, Tilings, slot_sums, tile_classes
from accsim.spec.fpga import Fpga, FpgaBuffer

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max
CHUNK = 16  # candidates of an operation evaluated exactly before the bound is asked again


def candidates(ops: Ops, device: Fpga) -> Tilings:
    """Return every tiling of every operation that fits the buffers, in every dataflow."""
    array = device.array
    t_sizes = np.concatenate(
        [_parts(ops.t, array.rows), _doubles(ops.t, array.rows * array.adder_latency)], axis=1
    )
    k_sizes, n_sizes = _parts(ops.k, ops.group * array.rows), _parts(ops.n, array.cols)
    new = (
        _fresh(t_sizes)[:, :, None, None]
        & _fresh(k_sizes)[:, None, :, None]
        & _fresh(n_sizes)[:, None, None, :]
    )
    op, i, j, h = np.nonzero(new)
    t, k, n = t_sizes[op, i], k_sizes[op, j], n_sizes[op, h]
    one = ops.take(op)
    fits = np.flatnonzero(_fits(one, t, k, n, device))
    op, t, k, n = op[fits], t[fits], k[fits], n[fits]
    again = np.flatnonzero((t < ops.t[op]) & (n < ops.n[op]))  # else both loop orders are the same
    pick = np.concatenate([np.arange(len(op)), again])
    keep_x = np.arange(len(pick)) < len(op)
    op, t, k, n = op[pick], t[pick], k[pick], n[pick]
    stays = _stays(ops.take(op), t, k, n, keep_x, device)
    flows = [list(FLOWS).index(flow) for flow in dict.fromkeys(array.flows)]
    columns = (op, t, k, n, keep_x, *stays)
    op, t, k, n, keep_x, a, b = (np.tile(column, len(flows)) for column in columns)
    return Tilings(op, np.repeat(np.array(flows), len(pick)), t, k, n, keep_x, a, b)


def _parts(extent: Ints, unit: Ints | int) -> Ints:
    """Return sizes (ops, splits) of an extent in 1, 2, 4, … parts of whole units."""
    many = -(-extent // unit)
    parts = 1 << np.arange(int(many.max() - 1).bit_length() + 1, dtype=np.int64)
    whole = np.broadcast_to(np.asarray(unit), extent.shape)[:, None]
    sizes: Ints = np.minimum(-(-many[:, None] // parts) * whole, extent[:, None])
    return sizes


def _doubles(extent: Ints, unit: int) -> Ints:
    """Return sizes (ops, sizes) of 1, 2, 4, … units, the extent at most."""
    many = int(-(-extent.max() // unit))
    times = 1 << np.arange((many - 1).bit_length() + 1, dtype=np.int64)
    sizes: Ints = np.minimum(unit * times, extent[:, None])
    return sizes


def _fresh(sizes: Ints) -> Bools:
    """Say which sizes of each row stand in it for the first time."""
    order = np.argsort(sizes, axis=1, kind="stable")
    ordered = np.take_along_axis(sizes, order, axis=1)
    first = np.ones(sizes.shape, dtype=np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    fresh = np.empty_like(first)
    np.put_along_axis(fresh, order, first, axis=1)
    return fresh


def _room(nbytes: Ints, buffer: FpgaBuffer, single: Bools) -> Bools:
    """Say what fits a buffer: half of it for what is ever replaced while in use."""
    capacity = int(buffer.kib * 1024)
    fits: Bools = nbytes <= np.where(single, capacity, capacity // 2)
    return fits


def _whole(ops: Ops, device: Fpga) -> tuple[Bools, Bools]:
    """Say of which operations all of X, and all of W, fit their buffers."""
    once = ops.count == 1  # the operands of the next GEMM arrive while this one's are in use
    x = _room(ops.x_bytes(ops.t, ops.k), device.buffers.x, once)
    return x, _room(ops.w_bytes(ops.k, ops.n), device.buffers.w, once)


def _fits(ops: Ops, t: Ints, k: Ints, n: Ints, device: Fpga) -> Bools:
    once, (all_x, all_w) = ops.count == 1, _whole(ops, device)
    all_t, all_k, all_n = t == ops.t, k == ops.k, n == ops.n
    x = _room(ops.x_bytes(t, k), device.buffers.x, once & all_t & all_k) | all_x
    w = _room(ops.w_bytes(k, n), device.buffers.w, once & all_k & all_n) | all_w
    fits: Bools = x & w & _room(t * n * SUM_BYTES, device.buffers.y, once & all_t & all_n)
    return fits


def _stays(ops: Ops, t: Ints, k: Ints, n: Ints, keep_x: Bools, device: Fpga) -> tuple[Bools, Bools]:
    """Return ``a_stays`` and ``b_stays`` of candidates."""
    once, (all_x, all_w) = ops.count == 1, _whole(ops, device)
    x_panel = _room(ops.x_bytes(t, ops.k), device.buffers.x, once & (t == ops.t)) | all_x
    w_panel = _room(ops.w_bytes(ops.k, n), device.buffers.w, once & (n == ops.n)) | all_w
    uncut = k == ops.k
    one_inner = np.where(keep_x, n == ops.n, t == ops.t)
    a = uncut | np.where(keep_x, x_panel, w_panel)
    return a, np.where(keep_x, all_w, all_x) | (uncut & one_inner)


def best(ops: Ops, device: Fpga) -> tuple[Tilings, Sums]:
    """Return the fastest tiling of each operation in each dataflow (then: fewest bytes), its costs.

    Entries are in order of operations, then of FLOWS; dataflows the array lacks are left out.

    Raises:
        InputError: an operation whose smallest tile does not fit a buffer.
    """
    found = candidates(ops, device)
    flows = len(FLOWS)
    key = found.op * flows + found.flow
    bound = _lower_bound(ops, found, device)
    order = np.lexsort((bound, key))
    found, key, bound = found.take(order), key[order], bound[order]
    keys, starts = np.unique(key, return_index=True)
    if len(keys) < len(ops) * len(set(device.array.flows)):
        missing = np.setdiff1d(np.arange(len(ops)), keys // flows)
        raise _misfit(ops.take(missing[:1]), device)
    place = np.arange(len(key)) - np.repeat(starts, np.diff([*starts, len(key)]))
    owner = np.repeat(np.arange(len(keys)), np.diff([*starts, len(key)]))
    first = np.flatnonzero(place < CHUNK)
    sums = _evaluated(ops, found, first, device)
    best_cycles = np.full(len(keys), NEVER)
    np.minimum.at(best_cycles, owner[first], sums.cycles)
    rest = np.flatnonzero((place >= CHUNK) & (bound <= best_cycles[owner]))
    if len(rest):
        sums = sums.join(_evaluated(ops, found, rest, device))
    tried = np.concatenate([first, rest])
    rank = np.lexsort((sums.load_bytes + sums.store_bytes, sums.cycles, owner[tried]))
    leaders = rank[np.unique(owner[tried][rank], return_index=True)[1]]
    return found.take(tried[leaders]), sums.take(leaders)


def _evaluated(ops: Ops, tiles: Tilings, which: npt.NDArray[np.intp], device: Fpga) -> Sums:
    chosen = tiles.take(which)
    return slot_sums(ops.take(chosen.op), chosen, device)


def _lower_bound(ops: Ops, tiles: Tilings, device: Fpga) -> npt.NDArray[np.float64]:
    """Return cycles no candidate can beat: all its computing, or all its traffic."""
    one, rate = ops.take(tiles.op), device.channels[0].bytes_per_cycle
    many, t, k, n = tile_classes(one, tiles)
    computing = np.zeros(len(tiles), dtype=np.int64)
    for place, cycles in enumerate(FLOWS.values()):
        at = np.flatnonzero(tiles.flow == place)
        spent = cycles(one.take(at).widen(), t[at], k[at], n[at], device.array)
        computing[at] = (many[at] * spent.total).sum(axis=1)
    outer, inner = (-(-one.t // tiles.t), -(-one.n // tiles.n))
    outer, inner = np.where(tiles.keep_x, outer, inner), np.where(tiles.keep_x, inner, outer)
    a, b = np.where(tiles.a_stays, 1, inner), np.where(tiles.b_stays, 1, outer)
    x, w = np.where(tiles.keep_x, a, b), np.where(tiles.keep_x, b, a)
    moved = one.x_bytes(one.t, one.k) * x + one.w_bytes(one.k, one.n) * w
    moved = moved + one.y_bytes(one.t, one.n)
    edges = one.x_bytes(tiles.t, tiles.k) + one.w_bytes(tiles.k, tiles.n)
    bound: npt.NDArray[np.float64] = np.maximum(
        one.count * computing + edges / rate, one.count * moved / rate
    )
    return bound


def _misfit(ops: Ops, device: Fpga) -> InputError:
    """Return the error that names the buffer an operation's smallest tile does not fit."""
    array = device.array
    t, n = np.minimum(ops.t, array.rows), np.minimum(ops.n, array.cols)
    k = np.minimum(ops.k, ops.group * array.rows)
    need = {"x": ops.x_bytes(t, k), "w": ops.w_bytes(k, n), "y": t * n * SUM_BYTES}
    name = max(need, key=lambda key: int(need[key][0]) / getattr(device.buffers, key).kib)
    return InputError(
        f"buffers.{name}.kib of '{device.name}' must hold 2 tiles of at least "
        f"{int(need[name][0])} bytes for a {ops.t[0]}x{ops.k[0]}x{ops.n[0]} GEMM; "
        f"got {getattr(device.buffers, name).kib:g} KiB"
    )
