"""A systolic array clocked register by register: `flow` (ws, is) and `resident` (os).

A register kind is an array (2, depth, (R + 1)·C): two phases, now and next; one plane per lane or
slot, flat, so that one loop serves the whole array. PE (i, j) is at (i + 1)·C + j, the first C
places are the north edge. South is C places on and east one place on; what falls off the end of a
row that way lands in column 0, where the feeder sets the control word anew. A cycle reads the
phase `now` and writes the other one, so the order of PEs cannot matter.

One source, two compilations: int32 arrays (products and sums wrap at 32 bits; a b-bit accumulator,
b < 32, is the low b bits of the result) and float32 arrays (each product and each sum rounded
once; no fused multiply-add, no reordering).

The adder tree adds neighbours level by level and an odd one waits for the next level: of S
products the left subtree holds the largest power of two below S. S = 3 is (p0 + p1) + p2.

The clock stops when all outputs of the folds have left; no closed form of that is in here. Counts
such as `switching_until` only skip passes that would find nothing to do.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Cells = npt.NDArray[Any]
Words = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]

# Columns of the fold table.
START = 0  # cycle in which step 0 is in PE (0, 0)
ROWS, COLS, STEPS = 1, 2, 3  # used rows, used columns, stream steps
PRELOAD = 4  # cycle in which the first held value is on the wire above PE (0, 0)
STEP_BASE = 5  # step s of the fold is entry STEP_BASE + s of the step tables
WEST_BASE = 6  # added to step_west: entry of west
NORTH_BASE = 7  # entry of north that enters first
OUT_BASE = 8  # the s-th value to leave a column of the fold is entry OUT_BASE + s of step_out
OUT_ROW, OUT_COL = 9, 10  # added to step_out: row of outputs; column of outputs of column 0

# Columns of the fault table.
FAULT_CYCLE, FAULT_ROW, FAULT_COL, FAULT_REGISTER, FAULT_SLOT, FAULT_MASK = 0, 1, 2, 3, 4, 5

REG_STREAM = 0  # value travelling east: lane (ws, os) or slot (is)
REG_STATIONARY = 1  # value from the north in use: held (ws: slot, is: lane), passing (os: slot)
REG_SHADOW = 2  # value waiting in the shadow chain (double-buffered ws, is)
REG_PSUM = 3  # partial sum leaving the PE (ws, is), accumulator (os)
REG_OUT = 4  # output register (os)
REG_INDEX = 5  # lane index in use, wherever the weights are
REG_SHADOW_INDEX = 6  # lane index waiting in the shadow chain (double-buffered ws)

# Control word, travelling east: a step, not a bubble; step 0 of a fold: switch to the shadow
# operand (flow), clear the sum (resident); last step of a fold: capture the sum (resident); take
# the held value of the PE above (flow).
_VALID, _FIRST, _LAST, _LOAD = 1, 2, 4, 8
# State of an output register: captured; captured and released, so on its way south. 0 is empty.
_WAITING, _MOVING = 1, 2
_SPAN = 2048  # PEs worked on together, so that their products stay in the nearest cache


@njit(cache=True, nogil=True)
def _copy(source: Cells, target: Cells) -> None:
    for q in range(target.size):
        target[q] = source[q]


@njit(cache=True, nogil=True)
def _move(now: int, distance: int, cells: Cells) -> None:
    for d in range(cells.shape[1]):
        _copy(cells[now, d], cells[1 - now, d, distance:])


@njit(cache=True, nogil=True)
def _take(
    word: Words, bit: int, now: int, source: Cells, phase: int, distance: int, cells: Cells
) -> None:
    """Where the bit is set the next phase of cells is the source `distance` places before."""
    chosen = word[distance:]
    for d in range(cells.shape[1]):
        news, olds = source[now, d], cells[phase, d, distance:]
        target = cells[1 - phase, d, distance:]
        for q in range(target.size):
            # Both are read whatever the bit: a select is vectorised, a branch is not.
            new, old = news[q], olds[q]
            target[q] = new if chosen[q] & bit else old


@njit(cache=True, nogil=True)
def _choose(names: Indices, first: int, lanes: Cells, lo: int, chosen: Cells) -> None:
    """Overwrite what is chosen where its name is one of three lanes; past the end they repeat."""
    i, last, hi = first, lanes.shape[0] - 1, lo + chosen.size
    j, k = min(first + 1, last), min(first + 2, last)
    one, two, three = lanes[i, lo:hi], lanes[j, lo:hi], lanes[k, lo:hi]
    for q in range(chosen.size):
        name, value, a, b, c = names[q], chosen[q], one[q], two[q], three[q]
        value = a if name == i else value
        value = b if name == j else value
        chosen[q] = c if name == k else value


@njit(cache=True, nogil=True)
def _sum(word: Words, clear: int, product: Cells, before: Cells, after: Cells) -> None:
    zero = product.dtype.type(0)
    for q in range(after.size):
        # A PE without a step passes its sum on: rows below the fold hold stale operands.
        control, old, term = word[q], before[q], product[q]
        old = zero if control & clear else old
        new = old + term
        after[q] = new if control & _VALID else old


@njit(cache=True, nogil=True)
def _multiply(lo: int, lanes: Cells, weights: Cells, index: Indices, product: Cells) -> None:
    """product[0, q] = adder tree of the PE at place lo + q; a wrong index selects lane 0."""
    slots, size = product.shape[0], min(product.shape[1], lanes.shape[1] - lo)
    for s in range(slots):
        factor, result = weights[s, lo : lo + size], product[s, :size]
        if lanes.shape[0] == 1:
            only = lanes[0, lo : lo + size]
            for q in range(size):
                result[q] = only[q] * factor[q]
        else:
            _copy(lanes[0, lo : lo + size], result)
            for first in range(1, lanes.shape[0], 3):  # sweeps of selects: far faster than a gather
                _choose(index[s, lo : lo + size], first, lanes, lo, result)
            for q in range(size):
                result[q] *= factor[q]
    reach = 1
    while reach < slots:
        left = 0
        while left + reach < slots:
            total, term = product[left], product[left + reach]
            for q in range(size):
                total[q] += term[q]
            left += 2 * reach
        reach *= 2


@njit(cache=True, nogil=True)
def _compute(now: int, distance: int, word: Words, lanes: Cells, weights: Cells, index: Indices,
             product: Cells, psum: Cells) -> None:  # fmt: skip
    """All PEs: products, tree and sum. distance C: to the PE below; 0: to the own accumulator."""
    clear = 0 if distance else _FIRST
    for lo in range(distance, word.size, _SPAN):
        hi = min(lo + _SPAN, word.size)
        _multiply(lo, lanes, weights, index, product)
        before = psum[now, 0, lo - distance : hi - distance]
        _sum(word[lo:hi], clear, product[0], before, psum[1 - now, 0, lo:hi])


@njit(cache=True, nogil=True)
def _drain(now: int, cols: int, word: Words, psum: Cells, state: Words, out: Cells) -> None:
    """Output registers: capture a finished sum, else take the moving value above, else hold."""
    above, own, after = out[now, 0], out[now, 0, cols:], out[1 - now, 0, cols:]
    before, mine, later = state[now, 0], state[now, 0, cols:], state[1 - now, 0, cols:]
    for q in range(after.size):
        captured, moved, kept = psum[q], above[q], own[q]
        value = moved if before[q] == _MOVING else kept
        after[q] = captured if word[q] & _LAST else value
    for q in range(later.size):
        follows = _MOVING if before[q] == _MOVING else mine[q] & _WAITING
        later[q] = _WAITING if word[q] & _LAST else follows


@njit(cache=True, nogil=True)
def _release(rows: int, release: Words, state: Words) -> None:
    """Set the captured values of released columns moving."""
    for j in range(release.size):
        for i in range(rows if release[j] else 0):
            q = (i + 1) * release.size + j
            state[q] = _MOVING if state[q] == _WAITING else state[q]


@njit(cache=True, nogil=True)
def _step(moment: int, folds: Ints, begin: int, length: int, at_fold: Ints, i: int) -> int:
    """Step that edge line i is at, negative before step 0, in the fold named by at_fold[i]."""
    f = at_fold[i]
    f += moment >= folds[f, begin] + folds[f, length]
    at_fold[i] = f
    return int(moment - folds[f, begin])


@njit(cache=True, nogil=True)
def _put(values: Cells, entry: int, lane: int, cells: Cells, now: int, place: int) -> None:
    for d in range(cells.shape[1]):
        cells[now, d, place] = values[entry, lane, d]


@njit(cache=True, nogil=True)
def _feed_west(cycle: int, folds: Ints, at_fold: Ints, step_west: Ints, west: Cells,
               west_index: Indices, cols: int, now: int, control: Words, stream: Cells,
               stream_index: Indices) -> tuple[int, int]:  # fmt: skip
    """Put on column 0 what enters in this cycle; return how many rows begin and end a fold."""
    firsts, lasts = 0, 0
    for i in range(at_fold.size):
        place = (i + 1) * cols
        step = _step(cycle - i, folds, START, STEPS, at_fold, i)
        f = at_fold[i]
        control[now, 0, place] = 0
        if step >= 0 and i < folds[f, ROWS]:
            first, last = step == 0, step == folds[f, STEPS] - 1
            control[now, 0, place] = _VALID + _FIRST * first + _LAST * last
            firsts += first
            lasts += last
            entry = folds[f, WEST_BASE] + step_west[folds[f, STEP_BASE] + step]
            _put(west, entry, i, stream, now, place)
            _put(west_index, entry, i, stream_index, now, place)
    return firsts, lasts


@njit(cache=True, nogil=True)
def _feed_north(cycle: int, folds: Ints, begin: int, length: int, at_fold: Ints, north: Cells,
                north_index: Indices, now: int, row: int, cells: Cells,
                index: Indices) -> None:  # fmt: skip
    """Put on a row (0: the north wires) what enters in this cycle."""
    cols = at_fold.size
    for j in range(cols):
        step = _step(cycle - j, folds, begin, length, at_fold, j)
        if step >= 0:
            entry = folds[at_fold[j], NORTH_BASE] + step
            _put(north, entry, j, cells, now, row * cols + j)
            _put(north_index, entry, j, index, now, row * cols + j)


@njit(cache=True, nogil=True)
def _inject(cycle: int, due: int, faults: Ints, cols: int, phases: tuple[int, ...],
            values: tuple[Cells, ...], indices: tuple[Indices, ...]) -> int:  # fmt: skip
    """Flip the registers whose fault is due in this cycle; return the next fault."""
    while due < faults.shape[0] and faults[due, FAULT_CYCLE] <= cycle:
        register, mask = faults[due, FAULT_REGISTER], faults[due, FAULT_MASK]
        place = (faults[due, FAULT_ROW] + 1) * cols + faults[due, FAULT_COL]
        bits = values[min(register, REG_INDEX - 1)].view(np.int32)
        if register >= REG_INDEX:
            bits = indices[register - REG_INDEX]
        bits[phases[register], faults[due, FAULT_SLOT], place] ^= np.int32(mask)
        due += 1
    return due


@njit(cache=True, nogil=True)
def _collect(folds: Ints, length: int, at_fold: Ints, at_step: Ints, step_out: Ints, word: Words,
             bit: int, south: Cells, outputs: Cells) -> tuple[int, int]:  # fmt: skip
    """Add what leaves the array to its accumulators; return how many leave: used ones, all."""
    used, every = 0, 0
    for j in range(at_fold.size):
        if word[j] & bit:
            f = at_fold[j]
            if j < folds[f, COLS]:
                row = folds[f, OUT_ROW] + step_out[folds[f, OUT_BASE] + at_step[j]]
                outputs[row, folds[f, OUT_COL] + j] += south[j]
                used += 1
            every += 1
            at_step[j] += 1
            if at_step[j] == folds[f, length]:
                at_step[j] = 0
                at_fold[j] += 1
    return used, every


@njit(cache=True, nogil=True)
def flow(folds: Ints, step_west: Ints, step_out: Ints, west: Cells, west_index: Indices,
         north: Cells, north_index: Indices, lanes_held: bool, double_buffered: bool, faults: Ints,
         outputs: Cells) -> int:  # fmt: skip
    """Clock an array whose partial sums flow south past a held operand (ws, is); return the cycles.

    Args:
        folds: (folds + 1, 11), columns START ... OUT_COL above, in time order; the last line is
            a fold of no rows, columns and steps that never starts.
        step_west, step_out: (entries,), the entry of west for a step and the row of outputs for a
            value that leaves, less WEST_BASE and OUT_ROW of the fold.
        west, west_index: (entries, R, depth), an entry per stream step; index of lanes: depth 0.
        north, north_index: (entries, C, depth), one entry per PE row of a fold, last row first.
        lanes_held: False: lanes stream, weights are held (ws); True: the reverse (is).
        double_buffered: a fold is loaded into shadow registers while the one before runs.
        faults: (faults, 6), columns FAULT_CYCLE ... above, sorted by cycle: at the start of that
            cycle the register is XOR-ed with the low 32 bits of FAULT_MASK. A bottom psum
            register is read by the south edge right after that, one cycle after it was written.
        outputs: (rows, columns), int32 or float32 like the values; sums are added in fold order.
    """
    rows, cols, dtype = west.shape[1], north.shape[1], outputs.dtype
    south = rows * cols
    size = south + cols
    control, tag = np.zeros((2, 1, size), np.uint8), np.zeros((2, 1, size), np.uint8)
    stream = np.zeros((2, west.shape[2], size), dtype)
    stream_index = np.zeros((2, west_index.shape[2], size), np.int32)
    shadow = np.zeros((2, north.shape[2], size), dtype)
    shadow_index = np.zeros((2, north_index.shape[2], size), np.int32)
    # Single-buffered there is one held register: the chain shifts right through it.
    active = shadow.copy() if double_buffered else shadow
    active_index = shadow_index.copy() if double_buffered else shadow_index
    lanes, weights = (active, stream) if lanes_held else (stream, active)
    index = stream_index if lanes_held else active_index
    psum = np.zeros((2, 1, size), dtype)
    product = np.zeros((weights.shape[1], min(size, _SPAN)), dtype)
    west_fold, south_fold = np.zeros(rows, np.int64), np.zeros(cols, np.int64)
    north_fold, south_step = np.zeros(cols, np.int64), np.zeros(cols, np.int64)
    remaining = (folds[:, STEPS] * folds[:, COLS]).sum()
    cycle, due, switching_until, loading_until = 0, 0, 0, 0
    now, held, chain = 0, 0, 0  # phases of what moves every cycle, of active and of shadow
    while True:
        word = control[now, 0]
        firsts, _ = _feed_west(cycle, folds, west_fold, step_west, west, west_index, cols, now,
                               control, stream, stream_index)  # fmt: skip
        if firsts:
            switching_until = cycle + cols
        shift = _step(cycle, folds, PRELOAD, ROWS, north_fold, 0)
        if shift >= 0:
            # The load front goes down one row a cycle, right behind the switch of the fold before:
            # no value still waiting for its switch is overwritten.
            for i in range(shift + 1):
                word[(i + 1) * cols] |= _LOAD
            loading_until = cycle + cols
        if cycle < loading_until:
            _feed_north(cycle, folds, PRELOAD, ROWS, north_fold, north, north_index, chain, 0,
                        shadow, shadow_index)  # fmt: skip
        if not double_buffered:
            held = chain
        if due < faults.shape[0]:
            phases = (now, held, chain, now, now, now if lanes_held else held, chain)
            values = (stream, active, shadow, psum, psum)
            due = _inject(cycle, due, faults, cols, phases, values, (index, shadow_index))
        used, _ = _collect(folds, STEPS, south_fold, south_step, step_out, tag[now, 0, south:],
                           _VALID, psum[now, 0, south:], outputs)  # fmt: skip
        remaining -= used
        if remaining == 0:
            return cycle
        if double_buffered and cycle < switching_until:
            _take(word, _FIRST, chain, shadow, held, 0, active)
            _take(word, _FIRST, chain, shadow_index, held, 0, active_index)
            held = 1 - held
        one, two = (held, now) if lanes_held else (now, held)
        _compute(now, cols, word, lanes[one], weights[two], index[two], product, psum)
        _copy(control[now, 0, cols : 2 * cols], tag[now, 0, :cols])
        _move(now, cols, tag)
        _move(now, 1, control)
        _move(now, 1, stream)
        _move(now, 1, stream_index)
        if cycle < loading_until:
            _take(word, _LOAD, chain, shadow, chain, cols, shadow)
            _take(word, _LOAD, chain, shadow_index, chain, cols, shadow_index)
            chain = 1 - chain
        now = 1 - now
        cycle += 1


@njit(cache=True, nogil=True)
def resident(folds: Ints, step_west: Ints, step_out: Ints, west: Cells, west_index: Indices,
             north: Cells, north_index: Indices, faults: Ints, outputs: Cells) -> int:  # fmt: skip
    """Clock an array whose sums stay in the PEs (os); return the cycles.

    Lanes stream east, weights with their indices stream south. A finished sum is captured in the
    output register; a column drains once its last used row has captured. Arguments as for `flow`,
    but north has one entry per stream step and step_out one per row of the array.
    """
    rows, cols, dtype = west.shape[1], north.shape[1], outputs.dtype
    south = rows * cols
    size = south + cols
    control, state = np.zeros((2, 1, size), np.uint8), np.zeros((2, 1, size), np.uint8)
    lanes = np.zeros((2, west.shape[2], size), dtype)
    no_index = np.zeros((2, west_index.shape[2], size), np.int32)
    weights = np.zeros((2, north.shape[2], size), dtype)
    index = np.zeros((2, north_index.shape[2], size), np.int32)
    psum, out = np.zeros((2, 1, size), dtype), np.zeros((2, 1, size), dtype)
    release = np.zeros((2, 1, cols), np.uint8)
    product = np.zeros((north.shape[2], min(size, _SPAN)), dtype)
    west_fold, south_fold = np.zeros(rows, np.int64), np.zeros(cols, np.int64)
    north_fold, south_row = np.zeros(cols, np.int64), np.zeros(cols, np.int64)
    remaining = (folds[:, ROWS] * folds[:, COLS]).sum()
    cycle, due, now, at_out, released = 0, 0, 0, 0, 0  # at_out: phase of the output registers
    on_their_way = 0  # values captured, or about to be, that are not yet out
    while remaining > 0:
        word = control[now, 0]
        _, lasts = _feed_west(cycle, folds, west_fold, step_west, west, west_index, cols, now,
                              control, lanes, no_index)  # fmt: skip
        _feed_north(
            cycle, folds, START, STEPS, north_fold, north, north_index, now, 1, weights, index
        )
        if due < faults.shape[0]:
            phases = (now, now, now, now, at_out, now, now)
            values = (lanes, weights, weights, psum, out)
            due = _inject(cycle, due, faults, cols, phases, values, (index, index))
        _compute(now, 0, word, lanes[now], weights[now], index[now], product, psum)
        on_their_way += lasts * cols
        if on_their_way > 0:
            last_captured = folds[released, START] + folds[released, STEPS] + folds[released, ROWS]
            release[at_out, 0, 0] = cycle == last_captured - 1
            released += release[at_out, 0, 0]
            _release(rows, release[at_out, 0], state[at_out, 0])
            leaving, edge = state[at_out, 0, south:], out[at_out, 0, south:]
            used, every = _collect(folds, ROWS, south_fold, south_row, step_out, leaving, _MOVING,
                                   edge, outputs)  # fmt: skip
            remaining -= used
            on_their_way -= every
            _drain(at_out, cols, word[cols:], psum[1 - now, 0, cols:], state, out)
            _move(at_out, 1, release)
            at_out = 1 - at_out
        _move(now, 1, control)
        _move(now, 1, lanes)
        _move(now, cols, weights)
        _move(now, cols, index)
        now = 1 - now
        cycle += 1
    return cycle
