"""GEMMs on tensor cores in closed form, as arrays: times by cause, bytes, clock.

Every tile of the catalogue and every split of k is tried, as libraries do; the fastest is taken.
A CTA's mainloop is bound by the tensor cores, by the shared-memory port or by the latency of its
pipeline; the GEMM by that, by L2 or by DRAM; the clock by the board's power cap. Equations:
docs/tensorcore.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_costs import Costs, join
from accsim.devices.tensorcore_power import Action, throttled
from accsim.devices.tensorcore_tiles import STEP, STREAM_K, Operands, Tiles, candidates
from accsim.spec.gpu import Gpu, Kernel

Floats = npt.NDArray[np.float64]

CHUNK = 1024  # GEMMs searched at once: arrays of CHUNK × candidates
PORT_NORM = 4.0  # joins tensor cores and shared-memory port within a tile; fitted, as below
SM_FETCH_BYTES_PER_CLOCK = 64  # an SM's port to L2: a 64-byte beat a clock (assumed, from memory)
# Of resident / working set: the share of a repeated read that still hits L2. Fitted for all GPUs at
# once: of six values the one of least error over gpu_gemm.csv (of three for PORT_NORM).
MISS_POWER = 2.5
LEAST_SPLIT_K = 256
TIED = 1e-9  # relative: of equally fast tiles the one that fetches least
MOST_SPLIT_WAVES = 4  # as LEAST_SPLIT_K assumed: what a library's heuristics would try
STEP_BYTES = 128  # of X, along k: what one pipeline step waits for
SUM_BYTES = 4  # partial sums of split k
TIMES = ("work", "padding", "imbalance", "fill_drain", "shared", "l2", "dram", "throttle", "launch")


@dataclass(frozen=True, eq=False)
class Gemms:
    """GEMMs, one entry each: extents, how many of them one call runs, unique bytes of X of one.

    ``x_unique_bytes`` is below t·k elements for convolutions, whose inputs are used several times.
    ``between_bytes`` pass through L2 between two uses of W (a network's other layers); what the
    call itself moves, where that is more. ``useful_share`` of t·k·n was asked for; the rest is what
    a library pads.
    """

    t: Floats
    k: Floats
    n: Floats
    count: Floats
    x_unique_bytes: Floats
    between_bytes: Floats
    useful_share: Floats

    @property
    def useful_macs(self) -> Floats:
        """MACs asked for, all of a call."""
        return self.t * self.k * self.n * self.count * self.useful_share

    @classmethod
    def of(cls, t: npt.ArrayLike, k: npt.ArrayLike, n: npt.ArrayLike, operands: Operands) -> Gemms:
        """Return plain GEMMs, one a call."""
        t, k, n = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (t, k, n))
        t, k, n = np.broadcast_arrays(t, k, n)
        moved = t * k * operands.x_bytes
        return cls(t, k, n, np.ones_like(t), moved, np.zeros_like(t), np.ones_like(t))

    def __len__(self) -> int:
        return len(self.t)

    def padded(self, kernel: Kernel) -> Gemms:
        """Return the GEMMs a library runs in their place: extents padded, what is useful kept."""
        t, k, n = (
            np.ceil(extent / step) * step
            for extent, step in (
                (self.t, kernel.pad_t), (self.k, kernel.pad_k), (self.n, kernel.pad_n),
            )
        )  # fmt: skip
        moved = self.x_unique_bytes * (t * k) / (self.t * self.k)
        share = self.t * self.k * self.n * self.useful_share / (t * k * n)
        return replace(self, t=t, k=k, n=n, x_unique_bytes=moved, useful_share=share)

    def chunks(self) -> Iterator[Gemms]:
        """Yield the GEMMs CHUNK at a time, as columns."""
        for at in range(0, len(self), CHUNK):
            yield Gemms(*(getattr(self, f.name)[at : at + CHUNK, None] for f in fields(self)))


@dataclass(frozen=True, eq=False)
class _Bodies:
    """Times of every candidate, µs at the boost clock, before launch and power."""

    useful: Floats  # multiplications asked for, at the sustained rate
    padded: Floats  # with the padding of tiles
    waves: Floats  # of the fullest SM
    filled: Floats  # with prologues, epilogues and pipeline latency
    ported: Floats  # with shared memory: on-chip time
    l2: Floats
    dram: Floats
    reduce: Floats
    dram_bytes: Floats
    l2_bytes: Floats
    fetched_bytes: Floats
    written_bytes: Floats  # to DRAM
    shared_bytes: Floats
    last_round: Floats  # share of the on-chip time the last round takes
    ctas: Floats

    def at(self, best: npt.NDArray[np.intp]) -> _Bodies:
        """Return the chosen candidate of each GEMM."""
        shape, row = self.ctas.shape, np.arange(len(best))
        arrays = (getattr(self, f.name) for f in fields(self))
        return _Bodies(*(np.broadcast_to(array, shape)[row, best] for array in arrays))


def costs(gemms: Gemms, gpu: Gpu, kernel: Kernel, operands: Operands, mode: str) -> Costs:
    """Return what each GEMM costs with the fastest tile of a library's kernels."""
    tiles = candidates(gpu, kernel, operands)
    padded = gemms.padded(kernel)
    parts = [_chosen(part, tiles, gpu, kernel, operands, mode) for part in padded.chunks()]
    return join(parts)


def _chosen(
    gemms: Gemms, tiles: Tiles, gpu: Gpu, kernel: Kernel, operands: Operands, mode: str
) -> Costs:
    bodies = _bodies(gemms, tiles, gpu, kernel, operands)
    body = _norm(kernel.overlap, bodies.ported, bodies.l2, bodies.dram) + bodies.reduce
    body = np.where(_allowed(gemms, tiles, gpu, bodies), body, np.inf)
    tied = body <= body.min(axis=1, keepdims=True) * (1 + TIED)
    best = np.argmin(np.where(tied, bodies.l2_bytes, np.inf), axis=1)
    own = bodies.at(best)
    macs = gemms.useful_macs[:, 0] * operands.kept
    return _powered(own, tiles.take(best), gpu, kernel, macs, operands, mode)


def _allowed(gemms: Gemms, tiles: Tiles, gpu: Gpu, bodies: _Bodies) -> npt.NDArray[np.bool_]:
    """Say which candidates a library would try: split k only where it is long and CTAs are few."""
    long = gemms.k / np.maximum(tiles.splits, 1) >= LEAST_SPLIT_K
    few = bodies.ctas <= MOST_SPLIT_WAVES * gpu.sms * tiles.resident
    allowed: npt.NDArray[np.bool_] = (tiles.splits <= 1) | (long & few)
    return allowed


def _norm(p: float, *times: Floats) -> Floats:
    """Return (Σ timesᵖ)^(1/p): their sum for p = 1, the longest for p → ∞."""
    longest = np.maximum.reduce(np.broadcast_arrays(*times))
    scale = np.maximum(longest, 1e-300)
    powers: Floats = np.sum([(x / scale) ** p for x in np.broadcast_arrays(*times)], axis=0)
    powers = powers ** (1 / p) * scale
    return powers


def _bodies(gemms: Gemms, tiles: Tiles, gpu: Gpu, kernel: Kernel, operands: Operands
            ) -> _Bodies:  # fmt: skip
    per_us = gpu.clock_ghz * 1e3
    rows, columns = np.ceil(gemms.n / tiles.n), np.ceil(gemms.t / tiles.t)
    whole = rows * columns * gemms.count
    ctas, k, pieces = _dealt(whole, gemms.k, tiles, gpu)
    fullest = np.ceil(ctas / gpu.sms)
    sustained = operands.rate * kernel.issue_share
    tile_mma = tiles.n * tiles.t * k / sustained / per_us
    useful = gemms.useful_macs / (sustained * gpu.sms) / per_us
    waves = fullest * tile_mma
    tile_port = tiles.shared_bytes_per_k * k / gpu.sm.shared_bytes_per_clock / per_us
    edge = kernel.tile_cycles / per_us * pieces
    least = k * operands.x_bytes / STEP_BYTES * kernel.step_ns * 1e-3
    least = np.maximum(least, k * operands.chain_cycles / per_us)
    filled = _rounds(ctas, tile_mma, least, edge, gpu.sms, tiles.resident)
    joined = _norm(PORT_NORM, tile_mma, tile_port)
    ported = _rounds(ctas, joined, least, edge, gpu.sms, tiles.resident)
    last = _rounds((ctas - 1) % (gpu.sms * tiles.resident) + 1, joined, least, edge, gpu.sms,
                   tiles.resident) / ported  # fmt: skip
    y_bytes = gemms.t * gemms.n * gemms.count * operands.y_bytes
    sums = np.where(tiles.splits > 1, gemms.t * gemms.n * gemms.count * tiles.splits, 0.0)
    sums = np.where(tiles.splits == STREAM_K, ctas * tiles.n * tiles.t, sums) * 2 * SUM_BYTES
    fetched = ctas * tiles.fetch_bytes_per_k * k
    l2_bytes = fetched + y_bytes + sums
    port = fullest * tiles.fetch_bytes_per_k * k / SM_FETCH_BYTES_PER_CLOCK
    l2 = np.maximum(l2_bytes / gpu.l2.bytes_per_clock, port) / per_us
    read = _dram_read_bytes(gemms, tiles, gpu, kernel, operands, rows, columns, y_bytes)
    written = y_bytes * _missed(gemms, gpu, operands, y_bytes)
    dram_bytes = read + written
    dram = dram_bytes / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    reduce = np.where(tiles.splits > 1, gpu.launch.kernel_us, 0.0)
    padded = ctas * tile_mma / gpu.sms
    shared = ctas * tiles.shared_bytes_per_k * k
    return _Bodies(useful, padded, waves, filled, ported, l2, dram, reduce, dram_bytes, l2_bytes,
                   fetched, written, shared, last, ctas)  # fmt: skip


def _dealt(whole: Floats, k: Floats, tiles: Tiles, gpu: Gpu) -> tuple[Floats, Floats, Floats]:
    """Return CTAs, the k of each, and the tiles it has a part of.

    Stream-k deals the k of all tiles evenly to as many CTAs as fit, each with at least 256 of it;
    a CTA ends one tile and begins another.
    """
    splits = np.maximum(tiles.splits, 1)
    split_k = np.ceil(k / splits / STEP) * STEP
    each = np.ceil(k / STEP) * STEP
    most = np.maximum(np.floor(whole * each / LEAST_SPLIT_K), 1)
    fitting = np.minimum(most, gpu.sms * tiles.resident)
    streamed_k = np.ceil(whole * each / fitting / STEP) * STEP
    stream = tiles.splits == STREAM_K
    return (
        np.where(stream, fitting, whole * splits),
        np.where(stream, streamed_k, split_k),
        np.where(stream, np.ceil(streamed_k / each) + 1, 1.0),
    )


def _rounds(
    ctas: Floats, tile: Floats, least: Floats, edge: Floats, sms: int, resident: Floats
) -> Floats:
    """Return the time of all CTAs, ``resident`` at a time on each SM, whose rate they share.

    The last round has what is left: its fullest SM holds fewer CTAs, which are faster for it. None
    is faster than its pipeline's latency, ``least``.
    """
    full, rest = np.divmod(ctas, sms * resident)
    last = np.maximum(np.ceil(rest / sms) * tile, least) + edge
    found: Floats = full * (np.maximum(resident * tile, least) + edge) + np.where(rest, last, 0.0)
    return found


def hits(working_set_bytes: Floats, resident_bytes: float) -> Floats:
    """Return the share of a repeated read that L2 still holds: 1 up to the knee, then falling."""
    share: Floats = np.minimum(1.0, resident_bytes / np.maximum(working_set_bytes, 1.0))
    return share**MISS_POWER


def _missed(gemms: Gemms, gpu: Gpu, operands: Operands, y_bytes: Floats) -> Floats:
    """Return the share of a call's bytes that its last call did not leave in L2."""
    w = gemms.n * gemms.k * operands.packed_bytes
    first = (w + gemms.x_unique_bytes) * gemms.count + y_bytes
    return 1 - hits(first, gpu.l2.resident_bytes)


def _dram_read_bytes(gemms: Gemms, tiles: Tiles, gpu: Gpu, kernel: Kernel, operands: Operands,
                rows: Floats, columns: Floats, y_bytes: Floats) -> Floats:  # fmt: skip
    """Return the bytes read from DRAM: operands not left in L2 by a call before, and re-reads.

    Concurrent CTAs form a rectangle of tiles; what they share is read once. A raster along n covers
    all of W before the next tokens: W is read again for every group of token columns, unless L2
    holds it. A square raster re-reads both; one along t re-reads X. ``free`` kernels take the best.
    """
    packed = operands.packed_bytes
    w, x = gemms.n * gemms.k * packed, gemms.x_unique_bytes
    resident = gpu.l2.resident_bytes
    first = (w + x) * gemms.count + y_bytes
    cold = x * gemms.count * (1 - hits(first, resident))
    cold = cold + w * gemms.count * (1 - hits(np.maximum(first, gemms.between_bytes), resident))
    running = np.minimum(rows * columns, gpu.sms * tiles.resident)
    high = np.minimum(rows, running)
    wide = np.maximum(running / high, 1.0)
    panel = wide * tiles.t * gemms.k * operands.x_bytes
    again = np.maximum(columns / wide, 1.0) - 1
    along_n = again * w * (1 - hits(w + panel, resident))
    if kernel.raster == "along_n":
        return cold + along_n * gemms.count
    square_high = np.minimum(rows, np.maximum(1.0, np.sqrt(running * tiles.t / tiles.n)))
    square_wide = np.minimum(columns, running / square_high)
    square_high = np.minimum(rows, running / square_wide)
    w_again = np.maximum(columns / square_wide, 1.0) - 1
    x_again = np.maximum(rows / square_high, 1.0) - 1
    square = (w_again * w + x_again * x) * (1 - hits(w + x, resident))
    wide = np.minimum(columns, running)
    high = np.maximum(running / wide, 1.0)
    panel = high * tiles.n * gemms.k * packed
    along_t = (np.maximum(rows / high, 1.0) - 1) * x * (1 - hits(x + panel, resident))
    least: Floats = np.minimum(np.minimum(along_n, along_t), square)
    return cold + least * gemms.count


def _powered(own: _Bodies, tile: Tiles, gpu: Gpu, kernel: Kernel, macs: Floats,
             operands: Operands, mode: str) -> Costs:  # fmt: skip
    """Return the costs of the chosen tiles, their clock held down by the cap."""
    fixed = np.full_like(own.reduce, kernel.launch_us) + own.reduce
    action = Action(macs * operands.mac_pj, own.shared_bytes, own.l2_bytes, own.dram_bytes)

    def time_us(slow: Floats) -> Floats:
        return _norm(kernel.overlap, own.ported * slow, own.l2 * slow, own.dram) + fixed

    free = time_us(np.ones_like(fixed))
    slow, time = throttled(gpu.board, action, time_us, free, kernel.burst_us)
    with_l2 = _norm(kernel.overlap, own.ported, own.l2)
    chip = [own.useful, own.padded, own.waves, own.filled, own.ported, with_l2]
    steps = np.stack([np.zeros_like(free), *chip, free - fixed, time - fixed])
    times = [*np.diff(np.maximum.accumulate(steps, axis=0), axis=0), fixed]
    counts = {
        "mma_macs": macs,
        "sparse_mma_macs": macs * (operands.kept < 1),
        "shared_read_bytes": own.shared_bytes - own.fetched_bytes,
        "shared_write_bytes": own.fetched_bytes,
        "l2_read_bytes": own.fetched_bytes,
        "l2_write_bytes": own.l2_bytes - own.fetched_bytes,
        "dram_read_bytes": own.dram_bytes - own.written_bytes,
        "dram_write_bytes": own.written_bytes,
    }
    extra = {
        "tile_n": tile.n,
        "tile_t": tile.t,
        "splits": tile.splits,
        "ctas": own.ctas,
        "last_round": own.last_round,
        "memory_bound": (np.maximum(own.l2, own.dram) > own.ported).astype(np.float64),
        "resident_ctas": tile.resident,
    }
    return Costs(dict(zip(TIMES, times, strict=True)), counts, gpu.clock_ghz / slow,
                 (mode,) * len(macs), extra)  # fmt: skip
