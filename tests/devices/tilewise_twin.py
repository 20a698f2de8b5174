"""Slow twins of tile-wise kernels, written without their code: loops over CTAs, plain Python.

``call`` counts one call CTA by CTA; ``shared_makespan`` lets CTAs that share an SM slow each other
as they come and go (the closed form and the schedule take whole waves).
"""

from heapq import heapify, heapreplace
from math import ceil, factorial


def throughput(mma, wait, residents):
    """Steps a cycle of customers with one server and a delay, by normalisation constants."""

    def constant(n):
        return sum(mma ** (n - j) * wait**j / factorial(j) for j in range(n + 1))

    return constant(residents - 1) / constant(residents)


def ctas(tiles, t, tile_n, tile_t):
    """Yield (k, columns, tokens) of every CTA in launch order."""
    for k, columns in tiles:
        for n0 in range(0, columns, tile_n):
            for t0 in range(0, t, tile_t):
                yield k, min(tile_n, columns - n0), min(tile_t, t - t0)


def call(tiles, t, gpu, kernel, *, rate, covered, x_bytes, w_bytes, y_bytes, plain=False):
    """Return cycles by cause (all SMs at once) and bytes of one call, CTA by CTA."""
    us = gpu.clock_ghz * 1e3
    edge = (kernel.dense_edge_us if plain else kernel.edge_us) * us
    gather = 0 if plain else kernel.gather_cycles
    mma = kernel.tile_n * kernel.tile_t * covered / rate
    full = throughput(mma, kernel.stall_cycles + gather, kernel.residents)
    straight = throughput(mma, kernel.stall_cycles, kernel.residents)
    found = dict.fromkeys(("work", "padding", "fill_drain", "gather", "fetched", "told", "y"), 0.0)
    for k, n, tokens in ctas(tiles, t, kernel.tile_n, kernel.tile_t):
        steps = ceil(k / covered)
        found["work"] += k * n * tokens / rate
        found["padding"] += steps * mma - k * n * tokens / rate
        plain_cycles = kernel.dense_edge_us * us + steps / straight
        found["fill_drain"] += plain_cycles - steps * mma
        found["gather"] += edge + steps / full - plain_cycles
        found["fetched"] += k * (n * w_bytes + tokens * x_bytes)
        found["told"] += 0 if plain else 4 * (k + n)
        found["y"] += n * tokens * y_bytes
    for cause in ("work", "padding", "fill_drain", "gather"):
        found[cause] /= gpu.sms
    return found


def list_makespan(cycles, units):
    """Return the end of jobs handed in order to the unit that is free first."""
    free = [0] * units
    heapify(free)
    for each in cycles:
        heapreplace(free, free[0] + each)
    return max(free)


def shared_makespan(ks, rows, gpu, kernel, mma, covered):
    """Return cycles until all CTAs end, residents of an SM sharing it; launches one by one.

    A CTA goes to the SM with the fewest residents, and works at the rate these leave it.
    """
    us = gpu.clock_ghz * 1e3
    wait = kernel.stall_cycles + kernel.gather_cycles
    rates = [throughput(mma, wait, n) for n in range(1, kernel.residents + 1)]
    share = [0, *(rate / rates[-1] / n for n, rate in enumerate(rates, start=1))]
    works = [kernel.edge_us * us + ceil(k / covered) / rates[-1] for k in ks]
    waiting = [(i * kernel.launch_us * us, work) for i, work in enumerate(works)
               for _ in range(rows)]  # fmt: skip
    sms, now = [[] for _ in range(gpu.sms)], 0.0
    while waiting or any(sms):
        while waiting and waiting[0][0] <= now + 1e-6:
            least = min(sms, key=len)
            if len(least) == kernel.residents:
                break
            least.append(waiting.pop(0)[1])
        ends = [min(sm) / share[len(sm)] for sm in sms if sm]
        if waiting and waiting[0][0] > now + 1e-6:
            ends.append(waiting[0][0] - now)
        step = min(ends)
        now += step
        for i, sm in enumerate(sms):
            left = [work - step * share[len(sm)] for work in sm]
            sms[i] = [work for work in left if work > 1e-6]
    return now


def transposed_by_loop(operands, gpu, dtype):
    """Return µs and bytes each way at each level of one transposing kernel an operand."""
    time, moved = 0.0, {"shared": 0.0, "l2": 0.0, "dram": 0.0}
    for size in operands:
        held = 1.0
        if 2 * size > gpu.l2.mb * 1e6 * gpu.l2.knee:
            held = (gpu.l2.mb * 1e6 * gpu.l2.knee / (2 * size)) ** 2.5
        share = gpu.kernel("dense", dtype).dram_share
        dram = 2 * size * (1 - held) / (gpu.dram.gb_per_s * share * 1e3)
        l2 = 2 * size / (gpu.l2.bytes_per_clock * gpu.clock_ghz * 1e3)
        time += gpu.launch.kernel_us + max(dram, l2)
        moved["shared"] += size
        moved["l2"] += size
        moved["dram"] += size * (1 - held)
    return time, moved
