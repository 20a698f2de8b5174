"""A slow twin of a GEMM on tensor cores (docs/tensorcore.md, "A GEMM"), written without its code.

Plain Python: one GEMM at a time, tile by tile and split by split; CTAs are handed to SMs one by
one, the clock under a power cap is searched. It shares no line with ``accsim``. What the doc left
open was settled by what the code returned, not by its text: the list of shapes, kB of shared
memory, the square rectangle and its hits, launch within the time that power and burst see.
"""

import itertools
from dataclasses import dataclass, field
from functools import cache
from math import ceil

TILES = [
    (256, 128), (128, 256), (192, 128), (128, 192), (128, 128), (256, 64), (64, 256),
    (128, 64), (64, 128), (64, 64), (128, 32), (64, 32), (32, 64),
]  # fmt: skip
SPLITS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16]
CAUSES = [
    "work", "padding", "imbalance", "fill_drain", "shared", "l2", "dram", "throttle", "launch",
]  # fmt: skip
KB = 1024
RESERVED = 1024  # bytes of shared memory of every CTA, beside its stages
ONE_BY_ONE = 3000  # CTAs; more are handed out a round at a time


@dataclass(frozen=True)
class Ops:
    """Bytes of an element of packed W, its index, X and Y; rate in MACs; share of MACs kept."""

    w: float
    i: float
    x: float
    y: float
    rate: float
    kept: float
    pj: float
    chain: float = 0.0  # cycles of dependent instructions, by k


@dataclass
class Run:
    """One candidate: what it does and what it takes, in µs at the boost clock."""

    tile: tuple[int, int]
    splits: int
    resident: int
    ctas: int
    chain: list[float] = field(default_factory=list)  # work … shared, µs
    chip: float = 0.0
    l2: float = 0.0
    dram: float = 0.0
    reduce: float = 0.0
    l2_bytes: float = 0.0
    dram_bytes: float = 0.0
    written: float = 0.0  # of these, Y
    shared_bytes: float = 0.0
    free: float = 0.0  # body and reduction
    total: float = 0.0
    clock: float = 0.0
    causes: dict[str, float] = field(default_factory=dict)


# --- tiles ---------------------------------------------------------------------------------------


def fetched(gpu, ops, bn, bt):
    """Bytes of one k of a tile that its SM holds."""
    return bn * (ops.w + ops.i) + bt * ops.x / (2 if gpu.tensor.fetch == "paired" else 1)


def residents(gpu, ops, bn, bt):
    """CTAs of a tile that fit on an SM; 0: not even three stages fit."""
    stage = fetched(gpu, ops, bn, bt) * 64 / max(0.5, ops.x)
    shared = gpu.sm.shared_kb * KB
    if 3 * stage + RESERVED > shared:
        return 0
    if 4 * stage + RESERVED > shared:
        return 1
    by_shared = 1
    while (by_shared + 1) * (4 * stage + RESERVED) <= shared and by_shared < 64:
        by_shared += 1
    by_registers = int(gpu.sm.register_kb * 1024 // (4 * bn * bt + 12_800 * bn * bt / 4096))
    return min(by_shared, max(1, by_registers), gpu.sm.most_ctas)


def fragments(fetch, ops, bn, bt):
    """Bytes read from shared memory for one k of a tile."""
    w, x = bn * (ops.w + ops.i), bt * ops.x
    if fetch == "tensor_memory":
        return w + x
    if fetch == "paired":
        return w + x / 2
    if fetch == "shared":
        return w + x * max(1, bn / 64)
    warps = 8 if bn * bt > 128 * 128 else 4
    if bt >= 4 * bn:
        rows = 1
    elif bn >= 4 * bt or (bn > bt and warps == 8):
        rows = 4
    else:
        rows = 2
    return w * (warps // rows) + x * rows


# --- rounds --------------------------------------------------------------------------------------


@cache
def handed(ctas, sms, resident):
    """Hand CTAs out; return how many rounds are full, and what SM 0, the fullest, gets last."""
    full, left = 0, ctas
    while left > max(ONE_BY_ONE, sms * resident):
        full, left = full + 1, left - sms * resident
    on, at, free = [0] * sms, 0, sms * resident
    while left:
        if not free:  # the round is over, all SMs are free again
            on, at, free, full = [0] * sms, 0, sms * resident, full + 1
        on[at] += 1
        at, free, left = (at + 1) % sms, free - 1, left - 1
    return full, max(on)


def played(full, last, resident, tile, least, edge):
    """Cycles of the rounds."""
    time = 0.0
    if full:
        time += full * (max(resident * tile, least) + edge)
    return time + max(last * tile, least) + edge


# --- DRAM ----------------------------------------------------------------------------------------


def hits(working_set, resident):
    return 1.0 if working_set <= resident else (resident / working_set) ** 2.5


def read_again(gpu, kernel, ops, bn, bt, t, k, n, resident, w_bytes, x_bytes):
    """Bytes of W and of X that are read again, with the best order of tiles."""
    keep = gpu.l2.resident_bytes
    across, down = ceil(n / bn), ceil(t / bt)
    at_once = min(across * down, gpu.sms * resident)

    h = min(across, at_once)
    v = at_once / h
    ways = [w_bytes * (down / v - 1) * (1 - hits(w_bytes + v * bt * k * ops.x, keep))]
    if kernel.raster == "free":
        v = min(down, at_once)
        h = at_once / v
        part = h * bn * k * (ops.w + ops.i)
        ways.append(x_bytes * (across / h - 1) * (1 - hits(x_bytes + part, keep)))

        h = (at_once * bt / bn) ** 0.5  # square in elements of Y
        h = min(across, max(1, h))
        v = min(down, at_once / h)
        h = min(across, at_once / v)
        both = w_bytes * (down / v - 1) + x_bytes * (across / h - 1)
        ways.append(both * (1 - hits(w_bytes + x_bytes, keep)))
    return min(ways)


# --- one candidate -------------------------------------------------------------------------------


def norm(p, times):
    longest = max(times)
    if longest == 0:
        return 0.0
    return longest * sum((time / longest) ** p for time in times) ** (1 / p)


def candidate(gpu, kernel, ops, t, k, n, count, x_unique, between, bn, bt, s, resident, useful):
    us = 1 / (gpu.clock_ghz * 1000)  # of a cycle
    across, down = ceil(n / bn), ceil(t / bt)
    ctas, long, pieces = across * down * count * s, 64 * ceil(k / (64 * max(s, 1))), 1
    if s == 0:  # stream-k
        all_k = across * down * count * long
        ctas = min(max(all_k // 256, 1), gpu.sms * resident)
        pieces = ceil(64 * ceil(all_k / ctas / 64) / long) + 1
        long = 64 * ceil(all_k / ctas / 64)
    run = Run((bn, bt), s, resident, ctas)

    rate = ops.rate * kernel.issue_share
    fetch = fetched(gpu, ops, bn, bt)
    mma = bn * bt * long / rate
    port_bytes = long * (fetch + fragments(gpu.tensor.fetch, ops, bn, bt))
    tile = norm(4, [mma, port_bytes / gpu.sm.shared_bytes_per_clock])
    least = long * max(ops.x / 128 * kernel.step_ns * gpu.clock_ghz, ops.chain)
    edge = kernel.tile_cycles * pieces
    full, last = handed(ctas, gpu.sms, resident)
    fullest = full * resident + last
    run.chain = [
        us * cycles
        for cycles in (
            useful * count / (rate * gpu.sms),
            mma * ctas / gpu.sms,
            mma * fullest,
            played(full, last, resident, mma, least, edge),
            played(full, last, resident, tile, least, edge),
        )
    ]
    run.chip = run.chain[-1]

    y_bytes = t * n * count * ops.y
    run.shared_bytes = ctas * port_bytes
    run.l2_bytes = ctas * fetch * long + y_bytes
    if s == 0:
        run.l2_bytes += ctas * bn * bt * 2 * 4
    if s > 1:
        run.l2_bytes += t * n * count * s * 2 * 4
        run.reduce = gpu.launch.kernel_us
    run.l2 = us * max(run.l2_bytes / gpu.l2.bytes_per_clock, fullest * fetch * long / 64)

    w_bytes = k * n * (ops.w + ops.i)
    once = (w_bytes + x_unique) * count + y_bytes
    keep = gpu.l2.resident_bytes
    run.written = y_bytes * (1 - hits(once, keep))
    run.dram_bytes = (once - w_bytes * count) * (1 - hits(once, keep))
    run.dram_bytes += w_bytes * count * (1 - hits(max(once, between), keep))
    run.dram_bytes += count * read_again(
        gpu, kernel, ops, bn, bt, t, k, n, resident, w_bytes, x_unique
    )
    run.dram = run.dram_bytes / (gpu.dram.gb_per_s * kernel.dram_share * 1000)
    run.free = norm(kernel.overlap, [run.chip, run.l2, run.dram]) + run.reduce
    return run


def candidates(gpu, kernel, ops, t, k, n, count=1, x_unique=None, between=0.0, useful=None):
    """All candidates in the order of the doc: tiles, then splits."""
    x_unique = t * k * ops.x if x_unique is None else x_unique
    useful = useful or t * k * n
    found = []
    for bn, bt in kernel.tiles or TILES:
        if max(bn, bt) > kernel.largest_tile:
            continue
        resident = residents(gpu, ops, bn, bt)
        if not resident:
            continue
        for s in (*SPLITS, 0) if kernel.stream_k else SPLITS:
            if s > 1:
                ctas = ceil(n / bn) * ceil(t / bt) * count * s
                if s > kernel.most_splits or k / s < 256 or ctas > 4 * gpu.sms * resident:
                    continue
            found.append(
                candidate(
                    gpu, kernel, ops, t, k, n, count, x_unique, between, bn, bt, s, resident, useful
                )
            )
    return found


# --- power ---------------------------------------------------------------------------------------


def slowed(run, p, slow):
    """µs of the body at a clock ``slow`` times below boost."""
    return norm(p, [run.chip * slow, run.l2 * slow, run.dram])


def watts(gpu, kernel, ops, run, macs, ghz):
    board = gpu.board
    law, table = board.voltage, board.energy
    fall = (1 - law.point) / (board.boost_ghz - law.point_ghz)
    v = max(law.floor, 1 - fall * (board.boost_ghz - ghz))
    x = ghz / board.boost_ghz * v * v
    chip = (
        macs * ops.kept * ops.pj
        + run.shared_bytes * table.shared_pj_per_byte
        + run.l2_bytes * table.l2_pj_per_byte
    )
    us = slowed(run, kernel.overlap, board.boost_ghz / ghz) + run.reduce + kernel.launch_us
    pj = v * v * chip + run.dram_bytes * table.dram_pj_per_byte
    over_idle = board.active_idle_w - board.idle_fixed_w + board.issue_w
    return board.idle_fixed_w + over_idle * x + pj * 1e-6 / us


def finish(gpu, kernel, ops, run, macs):
    """Power, total and causes of a candidate."""
    board, p = gpu.board, kernel.overlap
    low, high = board.min_ghz, board.boost_ghz
    if watts(gpu, kernel, ops, run, macs, high) <= board.cap_w:
        slow = 1.0
    else:
        for _ in range(60):
            middle = (low + high) / 2
            if watts(gpu, kernel, ops, run, macs, middle) <= board.cap_w:
                low = middle
            else:
                high = middle
        slow = board.boost_ghz / low
    fixed = run.reduce + kernel.launch_us
    free, capped = run.free + kernel.launch_us, slowed(run, p, slow) + fixed
    acted = capped / (capped + kernel.burst_us)  # share of the time that the cap acts
    throttle = (capped - free) * acted
    run.clock = gpu.clock_ghz / (1 + (slow - 1) * acted)  # mean
    chain = [0.0, *run.chain]
    chain += [norm(p, [run.chip, run.l2]), norm(p, [run.chip, run.l2, run.dram])]
    steps = [after - before for before, after in itertools.pairwise(chain)]
    steps += [throttle, run.reduce + kernel.launch_us]
    run.causes = dict(zip(CAUSES, steps, strict=True))
    run.total = free + throttle
    return run


def twin(gpu, kernel, ops, t, k, n, count=1, x_unique=None, between=0.0, like=None):
    """The fastest candidate before the cap, with its power.

    Of candidates that tie, the one of tile and splits ``like``, else the one of least L2 bytes.
    """
    useful, elements = t * k * n, t * k
    unique = elements * ops.x if x_unique is None else x_unique
    t = kernel.pad_t * ceil(t / kernel.pad_t)
    k = kernel.pad_k * ceil(k / kernel.pad_k)
    n = kernel.pad_n * ceil(n / kernel.pad_n)
    unique *= t * k / elements
    runs = candidates(gpu, kernel, ops, t, k, n, count, unique, between, useful)
    least = min(run.free for run in runs)
    tied = [run for run in runs if run.free <= least * (1 + 1e-9)]
    best = min(tied, key=lambda run: run.l2_bytes)
    for run in tied:
        if (*run.tile, run.splits) == like:
            best = run
    return finish(gpu, kernel, ops, best, useful * count)
