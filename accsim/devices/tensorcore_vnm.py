"""V:N:M on sparse tensor cores (Spatha) in closed form, as arrays. docs/tensorcore.md.

Castro et al., "VENOM", SC 2023: V outputs keep the same 4 of every M rows, 2:4 inside. A CTA
gathers these rows of X step by step and multiplies them by mma.sp. The format is regular: panels
are equal, empty slots are multiplied. More than 2 of 4 run on plain mma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore_costs import Costs, join
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_ragged import (
    Body,
    dram_bytes,
    gather_bytes_per_clock,
    ladder,
    powered,
)
from accsim.devices.tensorcore_tiles import Operands, fragment_bytes
from accsim.sparsity.masks import Masks
from accsim.sparsity.vnm import SHARED, VNM
from accsim.spec.gpu import Gpu
from accsim.spec.gpu_sparse import VnmKernel
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]

MMA_N = 16  # outputs of one mma.sp: fewer are padded
HALF = 2  # of the shared four: what mma.sp multiplies


@dataclass(frozen=True, eq=False)
class VnmGemms:
    """V:N:M products, one entry a call: extents, GEMMs of the call, the pattern.

    ``touched`` is the share of the rows of X that any output uses; ``x_unique`` elements of X;
    ``between_bytes`` pass through L2 between two uses of W (a network's other layers).
    """

    t: Floats
    k: Floats
    n: Floats
    count: Floats
    v: Floats
    kept_of_four: Floats
    m: Floats
    touched: Floats
    x_unique: Floats
    between_bytes: Floats

    def __len__(self) -> int:
        return len(self.t)

    @property
    def gathered(self) -> Floats:
        """Rows of X that an output block gathers: 4 of every M."""
        found: Floats = SHARED * np.ceil(self.k / self.m)
        return found


def touched_share(m: Floats, blocks: Floats) -> Floats:
    """Return the share of rows that some of ``blocks`` output blocks use, if they choose freely.

    >>> touched_share(np.array([8.0]), np.array([2.0]))
    array([0.75])
    """
    found: Floats = 1 - (1 - np.minimum(1.0, SHARED / m)) ** blocks
    return found


def supports(layer: Layer, gpu: Gpu) -> bool:
    """Say whether the GPU has a V:N:M kernel for a layer: mma.sp in its number format."""
    return (
        isinstance(layer.pattern, VNM)
        and gpu.vnm is not None
        and layer.dtype in gpu.tensor.sparse_gain
        and "nm" in gpu.kernels
    )


def vnm_costs(layers: Sequence[Layer], masks: Masks, gpu: Gpu, between_bytes: float = 0.0) -> Costs:
    """Return what one call of each layer costs; all must be ``supports``-ed.

    ``between_bytes`` pass through L2 between two uses of a layer's W.
    """
    parts, where = [], []
    for dtype, plain in dict.fromkeys((x.dtype, _plain(x)) for x in layers):
        at = [i for i, x in enumerate(layers) if (x.dtype, _plain(x)) == (dtype, plain)]
        gemms = gemms_of([layers[i] for i in at], masks, between_bytes)
        operands = operands_of(dtype, "dense" if plain else "nm", gpu)
        assert gpu.vnm is not None
        parts.append(costs(gemms, gpu, gpu.vnm, operands, [str(layers[i].pattern) for i in at]))
        where += at
    return join(parts).take(np.argsort(where))


def _pattern(layer: Layer) -> VNM:
    if not isinstance(layer.pattern, VNM):
        raise TypeError(f"layer '{layer.name}' has pattern {layer.pattern}, not V:N:M")
    return layer.pattern


def _plain(layer: Layer) -> bool:
    """Whether more than half of the shared four is kept: mma.sp cannot hold it."""
    return _pattern(layer).n > HALF


def gemms_of(layers: Sequence[Layer], masks: Masks, between_bytes: float = 0.0) -> VnmGemms:
    """Return layers as V:N:M products of one call each; which rows of X are used is the mask's."""
    rows = []
    for layer in layers:
        gemm, pattern = layer.gemm, _pattern(layer)
        touched = 1.0 if pattern.m == SHARED else float(masks.mask(layer).any(axis=1).mean())
        rows.append((gemm.t, gemm.k, gemm.n, layer.runs // layer.repeats, pattern.v, pattern.n,
                     pattern.m, touched, layer.input_elements, between_bytes))  # fmt: skip
    return VnmGemms(*np.array(rows, dtype=np.float64).reshape(-1, 10).T)


@dataclass(frozen=True, eq=False)
class Grid:
    """CTAs of calls: tile, steps, and how they land on SMs; cycles of a step.

    ``fullest`` CTAs of the fullest SM run in ``full`` rounds of ``resident`` and one of ``rest``.
    """

    tile_n: Floats
    steps: Floats
    ctas: Floats
    fullest: Floats
    resident: Floats
    full: Floats
    rest: Floats
    mma: Floats  # cycles of an SM for one step of a CTA, multiplying
    rows: Floats  # the same with fetching rows of X and values of W
    step: Floats  # the same with positions
    index_fills: float


def grid(gemms: VnmGemms, gpu: Gpu, kernel: VnmKernel, operands: Operands) -> Grid:
    """Return how the CTAs of each call land on the SMs."""
    outputs = np.minimum(gemms.v, kernel.largest_tile_n)
    blocks = np.floor(gemms.n / gemms.v) * np.ceil(gemms.v / outputs)
    blocks = blocks + np.ceil(np.mod(gemms.n, gemms.v) / outputs)
    ctas = blocks * np.ceil(gemms.t / kernel.tile_t) * gemms.count
    tile_n = np.ceil(outputs / MMA_N) * MMA_N
    fullest = np.ceil(ctas / gpu.sms)
    sums = gpu.sm.register_kb * 1024 / 4 * kernel.accumulator_share
    resident = np.minimum(np.maximum(1.0, np.floor(sums / (tile_n * kernel.tile_t))), fullest)
    full = np.floor(fullest / resident)
    mma = tile_n * kernel.tile_t * kernel.tile_k / (operands.rate * kernel.mma_share)
    rate = gather_bytes_per_clock(gpu, kernel.gather_share)
    values = kernel.tile_k * (kernel.tile_t * operands.x_bytes + tile_n * operands.w_bytes)
    positions = kernel.tile_k * (tile_n * operands.index_bytes + kernel.index_bytes)
    rows = np.maximum(mma, values / rate)
    step = np.maximum(mma, (values + positions) / rate)
    steps = np.ceil(gemms.gathered / kernel.tile_k)
    return Grid(tile_n, steps, ctas, fullest, resident, full, fullest - resident * full,
                mma, rows, step, kernel.index_fills)  # fmt: skip


def costs(
    gemms: VnmGemms, gpu: Gpu, kernel: VnmKernel, operands: Operands, mode: Sequence[str]
) -> Costs:
    """Return what each call costs."""
    found = grid(gemms, gpu, kernel, operands)
    chip = _chip(gemms, found, gpu, kernel, operands)
    counts = _counts(gemms, found, gpu, kernel, operands)
    y_bytes = gemms.t * gemms.n * gemms.count * operands.y_bytes
    moved = counts["dram_read_bytes"] + counts["dram_write_bytes"]
    dram = moved / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    # Co-resident CTAs hide the stores of all but the last round; a CTA alone on its SM hides none.
    late = np.where(found.resident > 1, found.resident, found.fullest) * gpu.sms / found.ctas
    written = np.minimum(late, 1.0) * y_bytes
    tail = written / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    l2 = (counts["l2_read_bytes"] + counts["l2_write_bytes"]) / gpu.l2.bytes_per_clock
    l2 = l2 / (gpu.clock_ghz * 1e3)
    body = Body(chip, l2, dram, tail, kernel.launch_us)
    last = np.where(found.rest > 0, round_cycles(found, kernel, found.rest), 0.0)
    whole = round_cycles(found, kernel, found.resident)
    extra = {
        "tile_n": found.tile_n,
        "tile_t": np.full(len(gemms), float(kernel.tile_t)),
        "ctas": found.ctas,
        "resident_ctas": found.resident,
        "last_round": np.where(found.rest > 0, last, whole) / (found.full * whole + last),
    }
    return powered(body, counts, operands.mac_pj, gpu, kernel.burst_us, mode, extra)


def round_cycles(found: Grid, kernel: VnmKernel, residents: Floats) -> Floats:
    """Return the cycles of a round of so many CTAs an SM: its steps, its fills."""
    steps = found.steps * np.maximum(residents * found.step, kernel.latency_cycles + found.step)
    return steps + (kernel.fills + found.index_fills) * kernel.latency_cycles


def _chip(
    gemms: VnmGemms, found: Grid, gpu: Gpu, kernel: VnmKernel, operands: Operands
) -> list[tuple[str, Floats]]:
    """Return the on-chip time by cause, µs at boost."""
    per_us = gpu.clock_ghz * 1e3
    rounds = found.full + (found.rest > 0)
    macs = gemms.t * gemms.n * gemms.count * gemms.k / gemms.m * gemms.kept_of_four
    useful = macs / (operands.rate * operands.kept * kernel.mma_share) / gpu.sms
    chains = found.full * np.maximum(found.resident * found.step,
                                     kernel.latency_cycles + found.step)  # fmt: skip
    last = np.maximum(found.rest * found.step, kernel.latency_cycles + found.step)
    chains = found.steps * (chains + (found.rest > 0) * last)
    filled = chains + kernel.fills * kernel.latency_cycles * rounds
    rungs = [
        ("work", useful),
        ("padding", found.ctas / gpu.sms * found.steps * found.mma),
        ("imbalance", found.fullest * found.steps * found.mma),
        ("gather", found.fullest * found.steps * found.rows),
        ("metadata", found.fullest * found.steps * found.step),
        ("fill_drain", filled),
        ("metadata", filled + kernel.index_fills * kernel.latency_cycles * rounds),
    ]
    return [(name, own / per_us) for name, own in ladder(rungs)]


def _counts(
    gemms: VnmGemms, found: Grid, gpu: Gpu, kernel: VnmKernel, operands: Operands
) -> dict[str, Floats]:
    gathered, count = gemms.gathered, gemms.count
    macs = gemms.t * gemms.n * count * gathered * operands.kept
    by_k = found.tile_n * operands.packed_bytes + kernel.tile_t * operands.x_bytes
    fetched = found.ctas * gathered * (by_k + kernel.index_bytes)
    tile_t = np.full(len(gemms), float(kernel.tile_t))
    fragments = fragment_bytes(gpu.tensor.fetch, found.tile_n, tile_t, operands)
    y_bytes = gemms.t * gemms.n * count * operands.y_bytes
    w_bytes = gemms.n * gathered * operands.packed_bytes
    w_bytes = w_bytes + np.ceil(gemms.n / gemms.v) * gathered * kernel.index_bytes
    x_bytes = gemms.x_unique * operands.x_bytes * gemms.touched * count
    read, written = dram_bytes(w_bytes * count, x_bytes, y_bytes, gemms.between_bytes, gpu)
    return {
        "mma_macs": macs,
        "sparse_mma_macs": macs * (operands.kept < 1),
        "fma_macs": np.zeros_like(macs),
        "shared_read_bytes": found.ctas * gathered * fragments,
        "shared_write_bytes": fetched,
        "l2_read_bytes": fetched,
        "l2_write_bytes": y_bytes,
        "dram_read_bytes": read,
        "dram_write_bytes": written,
    }
