"""Slow twins of the GPU kernels that follow a mask: one CTA, one weight, one SM at a time.

Plain Python; only the nouns are shared. Times are µs at the boost clock, DRAM and power left out:
tests run them where neither counts.
"""

from math import ceil


def weights_of(mask):
    k, n = mask.shape
    return [[bool(mask[i][j]) for j in range(n)] for i in range(k)]


def rows_used(mask, first, last):
    """Rows of X that outputs first … last − 1 use."""
    return [i for i, row in enumerate(weights_of(mask)) if any(row[first:last])]


def dealt(ctas, sms):
    """CTAs by SM, dealt like cards."""
    hands = [0] * sms
    for i in range(ctas):
        hands[i % sms] += 1
    return hands


def gather_rate(gpu, share):
    return min(share * gpu.l2.bytes_per_clock / gpu.sms, 64)


def vnm_us(t, k, n, count, v, m, gpu, kernel, elem=2, value=1.0, index=0.125):
    """V:2:M. The fullest SM runs its CTAs in rounds of as many as its registers hold."""
    outputs = min(v, kernel.largest_tile_n)
    ctas = 0
    for _ in range(count):
        for first in range(0, n, v):
            for _ in range(0, min(v, n - first) if first + v > n else v, outputs):
                ctas += ceil(t / kernel.tile_t)
    tile_n = 16 * ceil(outputs / 16)
    registers = gpu.sm.register_kb * 1024 / 4 * kernel.accumulator_share
    hold = max(1, int(registers // (tile_n * kernel.tile_t)))
    rate = gpu.tensor.fma_per_clock["fp16"] * gpu.tensor.sparse_gain["fp16"] * kernel.mma_share
    gathered = 4 * len(range(0, k, m))
    steps = len(range(0, gathered, kernel.tile_k))
    moved = kernel.tile_k * (kernel.tile_t * elem + tile_n * (value + index) + kernel.index_bytes)
    busy = max(tile_n * kernel.tile_t * kernel.tile_k / rate,
               moved / gather_rate(gpu, kernel.gather_share))  # fmt: skip
    slowest = 0.0
    for hand in dealt(ctas, gpu.sms):
        cycles = 0.0
        residents = min(hold, max(dealt(ctas, gpu.sms)))
        while hand > 0:
            together = min(residents, hand)
            cycles += steps * max(together * busy, kernel.latency_cycles + busy)
            cycles += (kernel.fills + kernel.index_fills) * kernel.latency_cycles
            hand -= together
        slowest = max(slowest, cycles)
    return kernel.launch_us + slowest / (gpu.clock_ghz * 1e3)


def spmm_us(mask, t, count, vector, gpu, kernel):
    """The one rule of sparse × dense kernels, from a mask."""
    n = mask.shape[1]
    panels = []
    for first in range(0, n, vector):
        used = len(rows_used(mask, first, first + vector))
        panels.append(len(range(0, used, kernel.step_k)))
    if kernel.family == "blocked_ell":
        panels = [max(panels)] * len(panels)
    c = len(panels) * len(range(0, t, kernel.tile_t)) * count / gpu.sms
    mean = sum(panels) / len(panels)
    step = kernel.step_cycles + kernel.step_cycles * kernel.row_share * vector
    cycles = (kernel.panel_cycles + kernel.row_cycles * vector) * c
    cycles += step * (max(panels) - mean)
    cycles += step * mean * max(1, c / kernel.concurrency)
    return kernel.launch_us + cycles / (gpu.clock_ghz * 1e3)


def block_us(mask, size, t, count, gpu, block, kernel, resident, fragments):
    """Block rows: ``resident`` CTAs an SM holds, ``fragments`` bytes a CTA reads in one k."""
    n = mask.shape[1]
    rows = []
    for first in range(0, n, size):
        used = len(rows_used(mask, first, first + size))
        rows.append(len(range(0, used, size)))
    tile_n, tile_t = 16 * ceil(size / 16), min(block.tile_t, 16 * ceil(t / 16))
    k = 16 * ceil(size / 16)
    mma = tile_n * tile_t * k / (gpu.tensor.fma_per_clock["fp16"] * kernel.issue_share)
    fetch = size * 2 * (tile_n + tile_t)
    port = (fetch + k * fragments) / gpu.sm.shared_bytes_per_clock
    busy = max((mma**4 + port**4) ** 0.25,
               (fetch + block.index_bytes) / gather_rate(gpu, block.gather_share))  # fmt: skip
    alone = busy + block.latency_cycles
    together = min(alone / busy, resident)
    c = max(dealt(len(rows) * len(range(0, t, tile_t)) * count, gpu.sms))
    mean = sum(rows) / len(rows)
    cycles = alone * mean * max(1, c / together) + alone * (max(rows) - mean)
    cycles += ceil(c / resident) * kernel.tile_cycles
    return kernel.launch_us + cycles / (gpu.clock_ghz * 1e3)
