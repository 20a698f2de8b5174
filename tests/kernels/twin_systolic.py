"""The systolic array once more, slow and obvious: what every register holds, PE by PE.

Written from the description of the hardware, not from the kernel: values carry the name of the
fold and step they belong to, and a PE that meets operands of two different steps is an error.
Also the product in hardware order and the closed form of the schedule.
"""

from dataclasses import dataclass, field

import numpy as np


def tree(values):
    """Adder tree: neighbours level by level, an odd one waits.

    The sum starts from no zero, so one value is itself.
    """
    while len(values) > 1:
        odd = values[len(values) // 2 * 2 :]
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + odd
    return values[0]


def pe(lanes, weights):
    """Products of the slots [(lane, value), ...] and their tree."""
    return tree([value * lanes[lane] for lane, value in weights])


def blocks_of(k, lanes):
    return -(-k // lanes)


def kept(w, mask, block, n, lanes):
    """The kept weights of a block of a column as (lane, value), in k order."""
    rows = range(block * lanes, min((block + 1) * lanes, len(w)))
    return [(row - block * lanes, w[row, n]) for row in rows if mask[row, n]]


def passes_of(w, mask, block, n, slots, lanes):
    return -(-len(kept(w, mask, block, n, lanes)) // slots)


def group(w, mask, block, n, slots, lanes, each):
    """What the slots hold in pass `each`, filled up with (0, 0)."""
    zero = w.dtype.type(0)
    some = kept(w, mask, block, n, lanes)[each * slots : (each + 1) * slots]
    return some + [(0, zero)] * (slots - len(some))


def lanes_of(x, t, block, lanes):
    zero = x.dtype.type(0)
    rows = range(block * lanes, (block + 1) * lanes)
    return [x[t, k] if k < x.shape[1] else zero for k in rows]


def reference_product(x, w, mask, *, rows, slots, lanes, dataflow):
    """x times the kept weights, every addition in hardware order, in the type of x (t×n)."""
    outputs = np.zeros((x.shape[0], w.shape[1]), x.dtype)
    blocks = blocks_of(x.shape[1], lanes)
    padded = np.zeros((x.shape[0], blocks * lanes), x.dtype)
    padded[:, : x.shape[1]] = x

    def product(block, n, each):
        columns = [padded[:, block * lanes + lane] for lane in range(lanes)]
        return pe(columns, group(w, mask, block, n, slots, lanes, each))

    for n in range(w.shape[1]):
        passes = [passes_of(w, mask, b, n, slots, lanes) for b in range(blocks)]
        if dataflow == "os":
            for b in range(blocks):
                for each in range(passes[b]):
                    outputs[:, n] += product(b, n, each)
            continue
        for b0 in range(0, blocks, rows):
            fold = range(b0, min(b0 + rows, blocks))
            for each in range(max(passes[b] for b in fold)):
                psum = np.zeros(x.shape[0], x.dtype)
                for b in fold:
                    psum = psum + product(b, n, each)
                outputs[:, n] += psum
    return outputs


@dataclass
class Fold:
    rows: int
    cols: int
    steps: int
    west: list  # west[step][i]
    north: list  # held[i][j] of ws and is, passing[step][j] of os
    places: list  # places[step or i][j]: (t, n) of the output
    start: int = 0
    preload: int = 0


@dataclass
class Grid:
    """The registers of one cycle: {(i, j): ...}; what is absent holds nothing of interest."""

    east: dict = field(default_factory=dict)
    south: dict = field(default_factory=dict)
    psum: dict = field(default_factory=dict)
    out: dict = field(default_factory=dict)


def spans(extent, size):
    return [range(a, min(a + size, extent)) for a in range(0, extent, size)]


def folds_of(x, w, mask, *, rows, cols, slots, lanes, dataflow):
    """Cut the GEMM into folds, in time order."""
    t_all, n_all, b_all = x.shape[0], w.shape[1], blocks_of(x.shape[1], lanes)

    def most(blocks, columns):
        return max(passes_of(w, mask, b, n, slots, lanes) for b in blocks for n in columns)

    def weights(b, n, each):
        return group(w, mask, b, n, slots, lanes, each)

    folds = []
    if dataflow == "ws":
        for ns in spans(n_all, cols):
            for bs in spans(b_all, rows):
                for each in range(most(bs, ns)):
                    west = [[lanes_of(x, t, b, lanes) for b in bs] for t in range(t_all)]
                    north = [[weights(b, n, each) for n in ns] for b in bs]
                    places = [[(t, n) for n in ns] for t in range(t_all)]
                    folds.append(Fold(len(bs), len(ns), t_all, west, north, places))
    if dataflow == "is":
        for ts in spans(t_all, cols):
            for bs in spans(b_all, rows):
                steps = [(n, each) for n in range(n_all) for each in range(most(bs, [n]))]
                west = [[weights(b, n, each) for b in bs] for n, each in steps]
                north = [[lanes_of(x, t, b, lanes) for t in ts] for b in bs]
                places = [[(t, n) for t in ts] for n, _ in steps]
                if steps:
                    folds.append(Fold(len(bs), len(ts), len(steps), west, north, places))
    if dataflow == "os":
        for ts in spans(t_all, rows):
            for ns in spans(n_all, cols):
                steps = [(b, each) for b in range(b_all) for each in range(most([b], ns))]
                steps = steps or [(0, 0)]
                west = [[lanes_of(x, t, b, lanes) for t in ts] for b, _ in steps]
                north = [[weights(b, n, each) for n in ns] for b, each in steps]
                places = [[(t, n) for n in ns] for t in ts]
                folds.append(Fold(len(ts), len(ns), len(steps), west, north, places))
    return folds


def schedule(folds, *, rows, dataflow, double_buffered):
    """Set start and preload of every fold; return the cycles of the whole run."""
    end = 0
    for f, fold in enumerate(folds):
        before = folds[f - 1]
        if dataflow == "os":
            drained = fold.steps + fold.rows + fold.cols - 2 + rows
            if f:
                wait = max(0, before.rows - fold.steps)
                fold.start = before.start + before.steps + wait if double_buffered else end
        else:
            drained = fold.steps + rows + fold.cols - 2
            if double_buffered and f:
                fold.preload = before.start
                fold.start = before.start + max(before.steps, fold.rows)
            else:
                fold.preload = end
                fold.start = end + fold.rows
        end = max(end, fold.start + drained)
    return end


def enter(folds, cycle, line, used):
    """(fold, step) that enters at edge line i or j in this cycle, or None."""
    for f, fold in enumerate(folds):
        if fold.start <= cycle - line < fold.start + fold.steps and line < used(fold):
            return f, cycle - line - fold.start
    return None


def clock_flow(folds, *, rows, cols, double_buffered, outputs):
    """ws and is: sums flow south. Add to outputs (t×n); return the cycles."""
    now, shadow, active, cycle = Grid(), {}, {}, 0
    left = sum(fold.steps * fold.cols for fold in folds)
    if not double_buffered:
        shadow = active
    while True:
        for i in range(rows):
            token = enter(folds, cycle, i, lambda fold: fold.rows)
            if token:
                now.east[i, 0] = token
        for j in range(cols):
            if (rows - 1, j) in now.psum:
                f, step, value = now.psum[rows - 1, j]
                if j < folds[f].cols:
                    outputs[folds[f].places[step][j]] += value
                    left -= 1
        if left == 0:
            return cycle
        later = Grid()
        for i in range(rows):
            for j in range(cols):
                token = now.east.get((i, j))
                incoming = now.psum.get((i - 1, j)) if i else token and (*token, 0)
                if token:
                    f, step = token
                    if double_buffered and step == 0:
                        active[i, j] = shadow.get((i, j))
                    assert incoming[:2] == token
                    later.east[i, j + 1] = token
                    if j < folds[f].cols:
                        assert active[i, j] == (f, i, j), "stale stationary operand"
                        value = multiply(folds[f].west[step][i], folds[f].north[i][j])
                        incoming = (f, step, incoming[2] + value)
                if incoming:
                    later.psum[i, j] = incoming
        chain = dict(shadow)
        for f, fold in enumerate(folds):
            for j in range(fold.cols):
                shift = cycle - j - fold.preload
                if 0 <= shift < fold.rows:
                    for i in range(1, shift + 1):
                        chain[i, j] = shadow[i - 1, j]
                    chain[0, j] = (f, fold.rows - 1 - shift, j)
        shadow.clear()
        shadow.update(chain)
        now, cycle = later, cycle + 1


def multiply(one, other):
    """Lanes are plain values and weights are pairs: tell which is which."""
    return pe(other, one) if isinstance(one[0], tuple) else pe(one, other)


def clock_resident(folds, *, rows, cols, outputs):
    """os: sums stay. Write outputs (t×n); return the cycles."""
    now, released, cycle = Grid(), set(), 0
    left = sum(fold.rows * fold.cols for fold in folds)
    while left:
        later, releases = Grid(psum=dict(now.psum)), set()
        for j in range(cols):
            token = enter(folds, cycle, j, lambda fold: fold.cols)
            if token:
                now.south[0, j] = token
        for i in range(rows):
            token = enter(folds, cycle, i, lambda fold: fold.rows)
            if token:
                now.east[i, 0] = token
        for (i, j), (place, value, moving) in now.out.items():
            if not (moving or j in released):
                assert (i, j) not in later.out, "two values in one output register"
                later.out[i, j] = (place, value, False)
            elif i + 1 < rows:
                assert (i + 1, j) not in later.out, "two values in one output register"
                later.out[i + 1, j] = (place, value, True)
            else:
                outputs[place] = value
                left -= 1
        for (i, j), (f, step) in now.east.items():
            if j + 1 < folds[f].cols:
                later.east[i, j + 1] = (f, step)
            if i + 1 < rows:
                later.south[i + 1, j] = (f, step)
            assert now.south[i, j] == (f, step), "operands of two steps meet"
            before = later.psum[i, j] if step else outputs.dtype.type(0)
            later.psum[i, j] = before + pe(folds[f].west[step][i], folds[f].north[step][j])
            if step == folds[f].steps - 1:
                assert (i, j) not in later.out, "captured over a waiting value"
                later.out[i, j] = (folds[f].places[i][j], later.psum[i, j], False)
                if i == folds[f].rows - 1:
                    releases.add(j)
        now, released, cycle = later, releases, cycle + 1
    return cycle


def run_twin(x, w, mask, *, rows, cols, slots, lanes, dataflow, double_buffered):
    """Outputs (t×n, type of x) and cycles, both from the clock."""
    cut = {"rows": rows, "cols": cols, "slots": slots, "lanes": lanes, "dataflow": dataflow}
    folds = folds_of(x, w, mask, **cut)
    schedule(folds, rows=rows, dataflow=dataflow, double_buffered=double_buffered)
    outputs = np.zeros((x.shape[0], w.shape[1]), x.dtype)
    if dataflow == "os":
        return outputs, clock_resident(folds, rows=rows, cols=cols, outputs=outputs)
    size = {"rows": rows, "cols": cols, "double_buffered": double_buffered}
    return outputs, clock_flow(folds, outputs=outputs, **size)
