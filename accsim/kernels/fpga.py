"""An FPGA's array of PEs clocked register by register: `stay` (os), `flow` (ws), `select`.

A register that moves is an array of two phases, now and next; a cycle reads the phase `now` and
writes the other, so the order of PEs cannot matter. The adder of a PE is a pipeline of `latency`
stages: a sum that enters it in cycle u can be used in cycle u + latency.

One source, two compilations: int32 arrays (products and sums wrap) and float32 arrays (each
product and each sum rounded once). Products of fp16 or bf16 operands are exact in float32 (bf16:
as long as they are normal numbers).

Control words carry the name of the step they belong to, weights and sums as well: a PE that meets
two names, or switches to weights that have not all arrived, ends the run with a negative number
of cycles. The clock stops when the last result is out; no closed form of that is in here.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Cells = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]

MISMATCH = -1  # operands of two steps met in a PE
NOT_LOADED = -2  # a PE switched to weights that had not all arrived

# Fields of a control word. STEP: -1 in a bubble; os: step of k; ws: fold · passes + pass.
_STEP, _ITEM = 0, 1  # ITEM: which of the outputs in turn (os), row of X (ws)
# Fields of a load command: fold (-1: none), PE row, pass the weights are for.
_FOLD, _ROW, _PASS = 0, 1, 2


@njit(cache=True, nogil=True)
def _dot(lanes: Cells, values: Cells, index: Indices, product: Cells) -> None:
    """product[0] = adder tree of the selected products; a slot of index -1 gives 0."""
    for m in range(values.size):
        product[m] = 0
        if index[m] >= 0:
            product[m] = lanes[index[m]] * values[m]
    reach = 1
    while reach < values.size:
        left = 0
        while left + reach < values.size:
            product[left] += product[left + reach]
            left += 2 * reach
        reach *= 2


@njit(cache=True, nogil=True)
def _shift(line: Ints, now: int) -> None:
    """Move the words of a delay line on by one; the first place is free for the next."""
    line[1 - now, 1:] = line[now, :-1]


@njit(cache=True, nogil=True)
def _add(now: int, before: Any, term: Any, name: int, sums: Cells, names: Ints) -> None:
    """Move a pipelined adder on by one stage, a new sum and its name in front."""
    sums[1 - now, 1:] = sums[now, :-1]
    names[1 - now, 1:] = names[now, :-1]
    sums[1 - now, 0] = before + term
    names[1 - now, 0] = name


@njit(cache=True, nogil=True)
def _turn(cycle: int, latency: int, steps: int, turns: int, word: Ints) -> None:
    """Step the os controller: a step takes `latency` cycles, one for each output in turn."""
    step, item = cycle // latency, cycle % latency
    word[_STEP] = step if step < steps and item < turns else -1
    word[_ITEM] = item


@njit(cache=True, nogil=True)
def _drain(now: int, done: Ints, taken: Ints, acc: Cells, out: Cells, y: Cells) -> int:
    """Shift results one row south in columns that drain; return how many left the array."""
    rows, left = acc.shape[0], 0
    for c in range(taken.size):
        if done[c] and taken[c] < y.shape[0] * rows:
            item, place = taken[c] // rows, taken[c] % rows
            # The last row's result leaves from its accumulator while the others' move down.
            source = acc[:, c, item] if place == 0 else out[now, :, c]
            y[item, rows - 1 - place, c] = source[rows - 1]
            for r in range(rows - 1):
                out[1 - now, r + 1, c] = source[r]
            taken[c] += 1
            left += 1
    return left


@njit(cache=True, nogil=True)
def stay(x: Cells, values: Cells, index: Indices, latency: int, y: Cells) -> int:
    """Clock a tile whose sums stay in the PEs; return the cycles until all results are out.

    Args:
        x: (groups, outputs, R, lanes), operands of PE row r for its outputs in turn.
        values, index: (steps, C, multipliers), a whole number of steps a group; the operand a
            value belongs to, -1 where the slot is empty.
        latency: of the adder, at least the outputs in turn.
        y: (outputs, R, C), written.
    """
    (groups, turns, rows, _), (steps, cols, _) = x.shape, values.shape
    each, zero = steps // groups, y.dtype.type(0)
    south = np.full((2, rows, 2), -1, np.int64)  # words on their way to each row of PEs
    north = np.full((2, cols, 2), -1, np.int64)  # and to each column of weights
    words = np.full((2, rows, cols, 2), -1, np.int64)
    lanes = np.zeros((2, rows, cols, x.shape[3]), y.dtype)
    weights = np.zeros((2, rows, cols, values.shape[2]), y.dtype)
    places = np.zeros((2, rows, cols, values.shape[2]), np.int32)
    names = np.full((2, rows, cols), -1, np.int64)  # step the weights belong to
    sums = np.zeros((2, rows, cols, latency), y.dtype)
    marks = np.full((2, rows, cols, latency), -1, np.int64)  # 2 · output + (last step); -1: bubble
    acc, out = np.zeros((rows, cols, turns), y.dtype), np.zeros((2, rows, cols), y.dtype)
    product = np.zeros(values.shape[2], y.dtype)
    done, taken = np.zeros(cols, np.int64), np.zeros(cols, np.int64)
    remaining, cycle, now = y.size, 0, 0
    while remaining > 0:
        remaining -= _drain(now, done, taken, acc, out, y)
        _turn(cycle, latency, steps, turns, south[now, 0])
        north[now, 0] = south[now, 0]
        for r in range(rows):
            for c in range(cols):
                # Words and operands come from the west, weights from the north.
                at = (1 - now, r, c)
                words[at] = words[now, r, c - 1] if c else south[now, r]
                step, item = words[at][_STEP], words[at][_ITEM]
                if c:
                    lanes[at] = lanes[now, r, c - 1]
                elif step >= 0:
                    lanes[at] = x[step // each, item, r]
                names[at] = names[now, r - 1, c] if r else north[now, c, _STEP]
                if r:
                    weights[at], places[at] = weights[now, r - 1, c], places[now, r - 1, c]
                elif names[at] >= 0:
                    weights[at], places[at] = values[names[at], c], index[names[at], c]
                if names[at] != step:
                    return MISMATCH
                if step >= 0:
                    _dot(lanes[at], weights[at], places[at], product)
                before = acc[r, c, item] if step > 0 else zero
                mark = 2 * item + (step == steps - 1) if step >= 0 else -1
                _add(now, before, product[0], mark, sums[:, r, c], marks[:, r, c])
                # The last stage of the adder is the accumulator.
                mark = marks[1 - now, r, c, latency - 1]
                if mark >= 0:
                    acc[r, c, mark // 2] = sums[1 - now, r, c, latency - 1]
                if r == rows - 1 and mark == 2 * turns - 1:
                    done[c] = 1
        _shift(south, now)
        _shift(north, now)
        now = 1 - now
        cycle += 1
    return cycle


@njit(cache=True, nogil=True)
def _load(cycle: int, latency: int, started: Ints, sent: Ints, passes: int, command: Ints) -> None:
    """Choose the weights that enter column 0: rows take turns, `passes` cycles each.

    A row waits as long as its PEs have not yet switched to the weights sent before.
    """
    row = cycle // passes % sent.size
    fold = sent[row] // passes
    command[:] = -1
    if fold == started.size - 1:
        return
    # Weights take a cycle a row on their way down, switching takes `latency`.
    free = fold == 0 or (
        started[fold - 1] >= 0 and cycle + row >= started[fold - 1] + row * latency
    )
    if free:
        command[_FOLD], command[_ROW], command[_PASS] = fold, row, sent[row] % passes
        sent[row] += 1


@njit(cache=True, nogil=True)
def _pass(cycle: int, started: Ints, at: Ints, items: int, pace: int, passes: int,
          loading: int, word: Ints) -> None:  # fmt: skip
    """Step the ws controller: at = (fold, cycle of its pass, pass) of what comes next."""
    fold, beat, one = at
    word[:] = -1
    ready = cycle >= (started[fold - 1] + loading if fold else loading)
    if fold == started.size - 1 or not (ready or beat or one):
        return
    if beat == 0 and one == 0:
        started[fold] = cycle
    if beat < items:
        word[_STEP], word[_ITEM] = fold * passes + one, beat
    at[1] = (beat + 1) % pace
    at[2] = (one + (beat + 1 == pace)) % passes
    at[0] += int(at[1] == 0 and at[2] == 0)


@njit(cache=True, nogil=True)
def _collect(now: int, south: Cells, names: Ints, passes: int, block: Ints, sums: Cells, at: Ints,
             y: Cells) -> int:  # fmt: skip
    """Add what leaves each column to the y buffer, in a pipelined adder; return sums written."""
    written, depth = 0, sums.shape[2]
    for c in range(names.size):
        name = names[c]
        step, item = name // y.shape[1], name % y.shape[1]
        before = y[block[step // passes], item, c] if name >= 0 else south[c]
        _add(now, before, south[c], name, sums[:, c], at[:, c])
        name = at[1 - now, c, depth - 1]
        if name >= 0:
            step, item = name // y.shape[1], name % y.shape[1]
            y[block[step // passes], item, c] = sums[1 - now, c, depth - 1]
            written += 1
    return written


@njit(cache=True, nogil=True)
def flow(x: Cells, values: Cells, index: Indices, source: Ints, block: Ints, latency: int,
         y: Cells, started: Ints) -> int:  # fmt: skip
    """Clock a tile whose weights stay while rows of X pass; return the cycles until y is written.

    Args:
        x: (k folds, rows of X, R, lanes).
        values, index: (folds, R, passes, C, multipliers); the operand a value belongs to, -1
            where the slot is empty.
        source, block: (folds,), the k fold that a fold reads and the block of y it adds to.
        latency: of an adder.
        y: (blocks, rows of X, C), zeros; written.
        started: (folds + 1,) of -1; gets the cycle in which PE (0, 0) begins each fold.
    """
    folds, rows, passes, cols, slots = values.shape
    items, zero = x.shape[1], y.dtype.type(0)
    reach = (rows - 1) * latency + 1
    south = np.full((2, reach, 2), -1, np.int64)  # words on their way to each row of PEs
    commands = np.full((2, cols, 3), -1, np.int64)  # and loads to each column
    words = np.full((2, rows, cols, 2), -1, np.int64)
    lanes = np.zeros((2, rows, cols, x.shape[3]), y.dtype)
    # Weights on their way down, with the command that goes with them.
    loads = np.full((2, rows, cols, 3), -1, np.int64)
    # Two banks a PE, folds take turns; only a PE's own weights are in it, so one phase will do.
    held = np.zeros((rows, cols, 2, passes, slots), y.dtype)
    places = np.zeros((rows, cols, 2, passes, slots), np.int32)
    owner = np.full((rows, cols, 2, passes), -1, np.int64)  # fold that each pass of it belongs to
    sums = np.zeros((2, rows, cols, latency), y.dtype)
    names = np.full((2, rows, cols, latency), -1, np.int64)
    y_sums = np.zeros((2, cols, latency), y.dtype)
    y_names = np.full((2, cols, latency), -1, np.int64)
    product = np.zeros(slots, y.dtype)
    at_fold, sent = np.zeros(3, np.int64), np.zeros(rows, np.int64)
    remaining, cycle, now = folds * passes * items * cols, 0, 0
    while remaining > 0:
        _pass(cycle, started, at_fold, items, max(items, latency), passes, rows * passes,
              south[now, 0])  # fmt: skip
        _load(cycle, latency, started, sent, passes, commands[now, 0])
        remaining -= _collect(now, sums[now, rows - 1, :, latency - 1],
                              names[now, rows - 1, :, latency - 1], passes, block, y_sums,
                              y_names, y)  # fmt: skip
        for r in range(rows):
            for c in range(cols):
                at = (1 - now, r, c)
                words[at] = words[now, r, c - 1] if c else south[now, r * latency]
                step, item = words[at][_STEP], words[at][_ITEM]
                fold, one = step // passes, step % passes
                if c:
                    lanes[at] = lanes[now, r, c - 1]
                elif step >= 0:
                    lanes[at] = x[source[fold], item, r]
                name = step * items + item if step >= 0 else -1
                before = zero
                if r:
                    before = sums[now, r - 1, c, latency - 1]
                    if names[now, r - 1, c, latency - 1] != name:
                        return MISMATCH
                if step >= 0:
                    if owner[r, c, fold % 2, one] != fold:
                        return NOT_LOADED
                    _dot(lanes[at], held[r, c, fold % 2, one], places[r, c, fold % 2, one], product)
                _add(now, before, product[0], name, sums[:, r, c], names[:, r, c])
                loads[at] = loads[now, r - 1, c] if r else commands[now, c]
                if loads[at][_ROW] == r:
                    fold, one = loads[at][_FOLD], loads[at][_PASS]
                    held[r, c, fold % 2, one] = values[fold, r, one, c]
                    places[r, c, fold % 2, one] = index[fold, r, one, c]
                    owner[r, c, fold % 2, one] = fold
        _shift(south, now)
        _shift(commands, now)
        now = 1 - now
        cycle += 1
    return cycle


@njit(cache=True, nogil=True)
def _survivors(values: Cells, index: Indices, now: int, value: Any, place: int) -> None:
    """Let a value (place -1: absent) join the survivors; the smallest of them all drops out."""
    n, out = values.shape[1], values.shape[1]
    least = abs(value)
    for q in range(n - 1, -1, -1):  # of equals the last drops out; an empty place before all
        if place >= 0 and (index[now, q] < 0 or abs(values[now, q]) < least):
            out, least = q, (abs(values[now, q]) if index[now, q] >= 0 else -1)
    for q in range(n):
        moves = q >= out and place >= 0
        behind = q + 1 < n
        values[1 - now, q] = values[now, q]
        index[1 - now, q] = index[now, q]
        if moves:
            values[1 - now, q] = values[now, q + 1] if behind else value
            index[1 - now, q] = index[now, q + 1] if behind else place


@njit(cache=True, nogil=True)
def select(weights: Cells, lengths: Ints, engines: int, chosen: Cells, index: Indices) -> int:
    """Clock engines that keep the n largest |w| of each group; return the cycles.

    Group q goes to engine q mod engines, one weight a cycle, each group m cycles.

    Args:
        weights: (groups, m) floats, not NaN.
        lengths: (groups,), weights present in each group.
        engines: side by side, at least 1.
        chosen, index: (groups, n), written: survivors in their order and where in the group they
            were; -1 in front where fewer than n are present.
    """
    (groups, m), n = weights.shape, chosen.shape[1]
    values = np.zeros((2, engines, n), weights.dtype)
    places = np.full((2, engines, n), -1, np.int32)
    remaining, cycle, now = groups, 0, 0
    while remaining > 0:
        turn, place = cycle // m, cycle % m
        for e in range(engines):
            if place == 0:
                # What is complete leaves while the first weight of the next group comes in.
                before = (turn - 1) * engines + e
                if turn > 0 and before < groups:
                    chosen[before], index[before] = values[now, e], places[now, e]
                    remaining -= 1
                places[now, e] = -1
            group = turn * engines + e
            value, at = values[now, e, 0], -1
            if group < groups and place < lengths[group]:
                value, at = weights[group, place], place
            _survivors(values[:, e], places[:, e], now, value, at)
        now = 1 - now
        cycle += 1
    return cycle
