"""The FPGA's array and pipeline a second time, in plain loops, written from docs/fpga.md."""

from math import ceil


def mode(level, array):
    """Return (group, steps, kept of, every) of a level."""
    if level == "dense":
        steps = array.lanes // array.multipliers
        return steps * array.multipliers, steps, 1, 1
    n, m = map(int, level.split(":"))
    blocks = array.lanes // m
    return blocks * m, ceil(blocks * n / array.multipliers), n, m


def stored(k, n, m):
    return sum(min(n, k - start, m) for start in range(0, k, m))


def pieces(extent, size):
    return [min(size, extent - start) for start in range(0, extent, size)]


def ws(t, k, n, level, array):
    """Return (total, streaming) cycles of a tile: fold by fold, pass by pass."""
    group, steps, *_ = mode(level, array)
    folds = len(pieces(n, array.cols)) * len(pieces(k, group * array.rows))
    clock = array.rows * steps  # the first weights
    for fold in range(folds):
        loaded = clock + array.rows * steps  # the next ones, while this fold computes
        for _ in range(steps):
            started = clock
            clock += max(t, array.adder_latency)
        clock = max(clock, loaded) if fold < folds - 1 else clock
    last_row = started + t - 1
    down = array.rows * array.adder_latency + array.adder_latency  # the y buffer's adder too
    return last_row + (array.cols - 1) + down, folds * steps * t


def os(t, k, n, level, array):
    """Return (total, streaming) cycles of a tile: block by block of what PEs hold at once."""
    group, steps, *_ = mode(level, array)
    held = array.adder_latency if array.interleave else 1
    cycles = streaming = 0
    for _ in pieces(n, array.cols):
        for rows in pieces(t, array.rows * held):
            sums = ceil(rows / array.rows)
            for _ in pieces(k, group):
                cycles += steps * array.adder_latency
                streaming += steps * sums
            cycles += (sums - 1) + (array.rows - 1) + (array.cols - 1) + array.rows * sums
    return cycles, streaming


def tiles(op, level, plan, device):
    """Return (compute, load, store) of every tile of one GEMM, in order.

    ``op``: t, k, n, count, x_unique; ``plan``: flow, t, k, n, keep_x.
    """
    t, k, n, count, x_unique = op
    flow, tile_t, tile_k, tile_n, keep_x = plan
    _, _, kept, every = mode(level, device.array)
    bits = {"fp16": 16, "bf16": 16, "fp32": 32, "int8": 8, "int16": 16}[device.format]
    index = (every - 1).bit_length()

    def x_bytes(a, b):
        return ceil(-(-a * b * x_unique // (t * k)) * bits / 8)

    def w_bytes(a, b):
        return ceil(stored(a, kept, every) * b * (bits + index) / 8)

    def stays(nbytes, buffer, alone):
        capacity = int(buffer.kib * 1024)
        return nbytes <= (capacity if alone and count == 1 else capacity // 2)

    all_x = stays(x_bytes(t, k), device.buffers.x, True)
    all_w = stays(w_bytes(k, n), device.buffers.w, True)
    x_panel = keep_x and stays(x_bytes(tile_t, k), device.buffers.x, tile_t == t)
    w_panel = not keep_x and stays(w_bytes(k, tile_n), device.buffers.w, tile_n == n)
    order = [
        (a, b) if keep_x else (b, a)
        for a in range(ceil((t if keep_x else n) / (tile_t if keep_x else tile_n)))
        for b in range(ceil((n if keep_x else t) / (tile_n if keep_x else tile_t)))
    ]
    ts, ks, ns = pieces(t, tile_t), pieces(k, tile_k), pieces(n, tile_n)
    found, x_seen, w_seen, here = [], set(), set(), (None, None)
    for i, h in order:
        for j in range(len(ks)):
            load = 0
            x_again, w_again = all_x or x_panel, all_w or w_panel
            if here[0] != (i, j) and not (x_again and (i, j) in x_seen):
                load += x_bytes(ts[i], ks[j])
            if here[1] != (j, h) and not (w_again and (j, h) in w_seen):
                load += w_bytes(ks[j], ns[h])
            x_seen.add((i, j))
            w_seen.add((j, h))
            here = ((i, j), (j, h))
            compute, _ = {"ws": ws, "os": os}[flow](ts[i], ks[j], ns[h], level, device.array)
            store = ceil(ts[i] * ns[h] * bits / 8) if j == len(ks) - 1 else 0
            found.append((compute, load, store))
    return found


def cycles(op, level, plan, device):
    """Return the cycles of all runs, slot by slot, launch included."""
    (channel,) = device.channels

    def moving(nbytes):
        return ceil(nbytes / channel.bytes_per_cycle) + channel.latency_cycles if nbytes else 0

    line = [(0, 0, 0), *(tiles(op, level, plan, device) * op[3]), (0, 0, 0)]
    total = device.launch_cycles + moving(line[1][1]) + moving(line[-2][2])
    for before, now, after in zip(line, line[1:], line[2:], strict=False):
        total += max(now[0], moving(before[2] + after[1]))
    return total
