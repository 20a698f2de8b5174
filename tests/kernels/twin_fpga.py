"""The FPGA's array once more, slow and obvious, written from docs/fpga.md and not from the kernel.

A PE is an object with wires in and out; values carry the names of their row, group and step, and
a PE that meets operands of two different steps is an error. Also the product in hardware order
with numpy, the closed forms, and n-of-m selection by sorting.
"""

from collections import deque

import numpy as np
from kernels.twin_systolic import tree


def ceil(a, b):
    return -(-a // b)


def law(array, level):
    """k of a group, values kept of it, steps of a PE."""
    if level == "dense":
        group = kept = array.lanes - array.lanes % array.multipliers
    else:
        n, m = map(int, level.split(":"))
        together = array.lanes // m
        group, kept = together * m, together * n
    return group, kept, ceil(kept, array.multipliers)


def slots(w, mask, array, level):
    """{(group, step, column): [k of each product]}, M of the kept at a time, in k order."""
    group, _, steps = law(array, level)
    m, found = array.multipliers, {}
    for column in range(w.shape[1]):
        for g in range(ceil(len(w), group)):
            rows = range(g * group, min((g + 1) * group, len(w)))
            kept = [k for k in rows if mask[k, column]] if level != "dense" else list(rows)
            for step in range(steps):
                found[g, step, column] = kept[step * m : (step + 1) * m]
    return found


def product(x, w, mask, array, level, flow):
    """X·W in numpy, every addition in hardware order; x and w in the type of the sums."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _product(x, np.where(mask, w, w.dtype.type(0)), mask, array, level, flow)


def _product(x, w, mask, array, level, flow):
    group, _, steps = law(array, level)
    groups, m, zero = ceil(len(w), group), array.multipliers, x.dtype.type(0)
    chosen = slots(w, mask, array, level)
    terms = np.zeros((groups, steps, m, x.shape[0], w.shape[1]), x.dtype)
    for (g, step, column), ks in chosen.items():
        for slot, k in enumerate(ks):
            terms[g, step, slot, :, column] = x[:, k] * w[k, column]
    y = np.zeros((x.shape[0], w.shape[1]), x.dtype)
    if flow == "os":
        for g in range(groups):
            for step in range(steps):
                y = y + tree(list(terms[g, step]))
        return y
    for g0 in range(0, groups, array.rows):
        for step in range(steps):
            down = np.full_like(y, zero)
            for g in range(g0, min(g0 + array.rows, groups)):
                down = down + tree(list(terms[g, step]))
            y = y + down
    return y


def os_cycles(t, k, n, array, level):
    """Cycles of all tiles, one after the other."""
    group, _, s = law(array, level)
    rows, cols, latency = array.rows, array.cols, array.adder_latency
    most, total = rows * (latency if array.interleave else 1), 0
    for t0 in range(0, t, most):
        i = ceil(min(most, t - t0), rows)
        one = ceil(k, group) * s * latency + (i - 1) + (rows - 1) + (cols - 1) + rows * i
        total += ceil(n, cols) * one
    return total


def ws_cycles(t, k, n, array, level):
    """Cycles of one tile of t rows."""
    group, _, s = law(array, level)
    rows, cols, latency = array.rows, array.cols, array.adder_latency
    folds = ceil(ceil(k, group), rows) * ceil(n, cols)
    last = (s - 1) * max(t, latency) + t + (rows + 1) * latency + (cols - 1) - 1
    return rows * s + (folds - 1) * s * max(t, latency, rows) + last


CLOSED = {"os": os_cycles, "ws": ws_cycles}


class Adder:
    """A pipeline: what is pushed in one cycle can be popped `latency` cycles later."""

    def __init__(self, latency):
        self.stages = deque([None] * latency)

    def tick(self, entry):
        """Push what enters in this cycle; return what is in the last register after it."""
        self.stages.appendleft(entry)
        self.stages.pop()
        return self.stages[-1]


def os_tile(x, values, array, zero):
    """Clock one tile: x[row] = {group: operands}, values[column] = [(name, weights), …] of steps.

    Returns {(row, column): sum} and the cycles.
    """
    rows, cols, latency = array.rows, array.cols, array.adder_latency
    turns = ceil(len(x), rows)
    steps = len(values[0])
    east = {}  # (r, c): what PE (r, c) gave its neighbours in the cycle before
    adders = {(r, c): Adder(latency) for r in range(rows) for c in range(cols)}
    sums = {(r, c): {} for r, c in adders}
    order = [(turn, r) for turn in range(turns) for r in reversed(range(rows))]
    leaving = [None] * cols  # results of a column that are still inside, once all are complete
    cycle = 0
    while any(column is None or column for column in leaving):
        for column in leaving:
            if column:
                column.pop(0)
        nexts = {}
        for r, c in adders:
            beat = cycle - r - c
            step, turn = divmod(beat, latency)
            live = 0 <= beat < steps * latency and turn < turns
            if c:
                lanes = east.get((r, c - 1, "lanes"))
            else:
                row = turn * rows + r
                lanes = (values[0][step][0], x[row] if row < len(x) else None) if live else None
            weights = east.get((r - 1, c, "weights")) if r else values[c][step] if live else None
            assert (lanes is None) == (weights is None) == (not live)
            entry = None
            if live:
                assert lanes[0] == weights[0], "operands of two steps met"
                terms = [zero] * array.multipliers
                if lanes[1] is not None:
                    some = [lanes[1][k] * value for k, value in weights[1]]
                    terms[: len(some)] = some
                before = sums[r, c][turn] if step else zero
                entry = (turn, step, before + tree(terms))
            nexts[r, c, "lanes"], nexts[r, c, "weights"] = lanes, weights
            done = adders[r, c].tick(entry)
            if done:
                sums[r, c][done[0]] = done[2]
                if r == rows - 1 and done[:2] == (turns - 1, steps - 1):
                    leaving[c] = list(order)
        east = nexts
        cycle += 1
    return {(t * rows + r, c): sums[r, c][t] for r, c in adders for t in range(turns)}, cycle


def run_os(x, w, mask, array, level):
    group, _, steps = law(array, level)
    chosen, zero = slots(w, mask, array, level), x.dtype.type(0)
    y, cycles = np.zeros((len(x), w.shape[1]), x.dtype), 0
    most = array.rows * (array.adder_latency if array.interleave else 1)
    w = np.where(mask, w, zero)
    names = [(g, step) for g in range(ceil(len(w), group)) for step in range(steps)]
    for t0 in range(0, len(x), most):
        for n0 in range(0, w.shape[1], array.cols):
            values = [
                [(name, [(k, w[k, n]) for k in chosen.get((*name, n), [])]) for name in names]
                for n in range(n0, n0 + array.cols)
            ]
            sums, spent = os_tile(x[t0 : t0 + most], values, array, zero)
            cycles += spent
            for (row, c), value in sums.items():
                if t0 + row < len(x) and n0 + c < w.shape[1]:
                    y[t0 + row, n0 + c] = value
    return y, cycles


def run_ws(x, w, mask, array, level):
    """One tile of all rows of x: every PE looks up what its cycle is about, then does it."""
    group, _, steps = law(array, level)
    chosen, zero = slots(w, mask, array, level), x.dtype.type(0)
    w = np.where(mask, w, zero)
    rows, cols, latency = array.rows, array.cols, array.adder_latency
    deep = ceil(ceil(len(w), group), rows)
    wide = ceil(w.shape[1], cols)
    folds = [(d, b) for b in range(wide) for d in range(deep)]
    pace, y = max(len(x), latency), np.zeros((len(x), wide * cols), x.dtype)
    adders = {(r, c): Adder(latency) for r in range(rows + 1) for c in range(cols)}
    out = {}  # what an adder's last register held at the end of the cycle before
    east, wire = {}, {}
    banks = {(r, c): ({}, {}) for r in range(rows) for c in range(cols)}
    sent, began = [0] * rows, []
    plan, orders = {}, {}  # cycle: what enters at the north-west corner
    left, cycle = len(folds) * steps * len(x) * cols, 0
    while left:
        f = len(began)
        loaded = rows * steps
        if f < len(folds) and cycle >= (began[-1] + max(loaded, steps * pace) if f else loaded):
            began.append(cycle)
            for step in range(steps):
                for t in range(len(x)):
                    plan[cycle + step * pace + t] = (f, step, t)
        row = cycle // steps % rows
        fold, step = divmod(sent[row], steps)
        # arrival not before the PEs of the row have begun the fold before
        early = fold and (len(began) < fold or cycle + row < began[fold - 1] + row * latency)
        if fold < len(folds) and not early:
            orders[cycle] = (fold, row, step)
            sent[row] += 1
        news_east, news_wire, news_out = {}, {}, {}
        for (r, c), adder in adders.items():
            above = out.get((r - 1, c))
            if r == rows:
                entry = None
                if above:
                    fold, step, t = above[0]
                    column = folds[fold][1] * cols + c
                    entry = (above[0], y[t, column] + above[1])
                done = adder.tick(entry)
                if done:
                    fold, step, t = done[0]
                    y[t, folds[fold][1] * cols + c] = done[1]
                    left -= 1
                continue
            name = east.get((r, c - 1)) if c else plan.get(cycle - r * latency)
            assert r == 0 or (above and above[0]) == name, "sum and operands of two steps met"
            entry = None
            if name:
                fold, step, t = name
                owner, ks = banks[r, c][fold % 2][step]
                assert owner == fold, "weights not there"
                terms = [x[t, k] * value for k, value in ks]
                terms += [zero] * (array.multipliers - len(terms))
                entry = (name, (above[1] if above else zero) + tree(terms))
            news_out[r, c] = adder.tick(entry)
            news_east[r, c] = name
            order = wire.get((r - 1, c)) if r else orders.get(cycle - c)
            news_wire[r, c] = order
            if order and order[1] == r:
                fold, _, step = order
                d, b = folds[fold]
                n = b * cols + c
                ks = chosen.get((d * rows + r, step, n), [])
                banks[r, c][fold % 2][step] = (fold, [(k, w[k, n]) for k in ks])
        east, wire, out = news_east, news_wire, news_out
        cycle += 1
    return y[:, : w.shape[1]], cycle


RUN = {"os": run_os, "ws": run_ws}


def select(w, n, m, engines):
    """{(group, column): [k of the survivors]} by sorting, and the cycles."""
    kept = {}
    for column in range(w.shape[1]):
        for g, k0 in enumerate(range(0, len(w), m)):
            ks = range(k0, min(k0 + m, len(w)))
            kept[g, column] = sorted(sorted(ks, key=lambda k: (-abs(float(w[k, column])), k))[:n])
    return kept, m * ceil(len(kept), engines) + 1
