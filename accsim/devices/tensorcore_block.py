"""B × B blocks (BSR) on tensor cores in closed form, as arrays. docs/tensorcore.md.

No kernel for blocks of 16 and more was measured: this is composed of what is known. A CTA owns a
block row (B outputs, or pieces of them) and some tokens; its k is what its row kept, block by
block, with the dense kernels' issue share, shared-memory port and prologue. Rows of X come at the
rate and after the wait measured on Spatha, whose CTAs also wait for each step's own rows.
Smaller blocks run as Blocked-ELL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.tensorcore_costs import Costs, join
from accsim.devices.tensorcore_gemm import PORT_NORM
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_ragged import (
    Body,
    Panels,
    dram_bytes,
    gather_bytes_per_clock,
    ladder,
    panel_counts,
    powered,
    ragged_cycles,
)
from accsim.devices.tensorcore_spmm import piece_of, spmm_costs
from accsim.devices.tensorcore_spmm import supports as spmm_supports
from accsim.devices.tensorcore_tiles import (
    STAGE_BYTES,
    Operands,
    fragment_bytes,
    resident_ctas,
)
from accsim.sparsity.block import Block
from accsim.sparsity.masks import Masks
from accsim.spec.gpu import Gpu, Kernel
from accsim.spec.gpu_sparse import BlockKernel
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]

MMA_N = 16  # outputs of one mma
MMA_K_BYTES = 32  # of k of one mma


def supports(layer: Layer, gpu: Gpu) -> bool:
    """Say whether the GPU has a kernel for a layer's blocks, on tensor cores or as Blocked-ELL."""
    if not isinstance(layer.pattern, Block) or layer.dtype not in gpu.tensor.fma_per_clock:
        return False
    large = gpu.block is not None and layer.pattern.size >= gpu.block.least_block
    return large or spmm_supports(layer, gpu)


def block_costs(
    layers: Sequence[Layer], masks: Masks, gpu: Gpu, between_bytes: float = 0.0
) -> Costs:
    """Return what one call of each layer costs; all must be ``supports``-ed.

    ``between_bytes`` pass through L2 between two uses of a layer's W.

    Raises:
        InputError: blocks no kernel of the GPU runs.
    """
    parts, where = [], []
    keys = [(layer.dtype, block_of(layer) if is_large(layer, gpu) else 0) for layer in layers]
    for key in dict.fromkeys(keys):
        size, at = key[1], [i for i, other in enumerate(keys) if other == key]
        mine = [layers[i] for i in at]
        if size:
            parts.append(_of_size(mine, masks, gpu, size, between_bytes))
        else:
            parts.append(spmm_costs(mine, masks, gpu, between_bytes))
        where += at
    return join(parts).take(np.argsort(where))


def block_of(layer: Layer) -> int:
    """Return the side of a layer's blocks; InputError if it has none."""
    if not isinstance(layer.pattern, Block):
        raise InputError(f"layer '{layer.name}' has pattern '{layer.pattern}', not bsr:B")
    return layer.pattern.size


def is_large(layer: Layer, gpu: Gpu) -> bool:
    """Whether a layer's blocks fill tensor cores by themselves; smaller ones run as Blocked-ELL."""
    return gpu.block is not None and block_of(layer) >= gpu.block.least_block


def _of_size(
    layers: Sequence[Layer], masks: Masks, gpu: Gpu, size: int, between_bytes: float
) -> Costs:
    assert gpu.block is not None
    dtype = layers[0].dtype
    panels = panels_of(layers, masks, size, gpu.block, between_bytes)
    kernel, operands = gpu.kernel("dense", dtype), operands_of(dtype, "dense", gpu)
    return costs(panels, size, gpu, gpu.block, kernel, operands, [f"bsr:{size}"] * len(layers))


def panels_of(
    layers: Sequence[Layer], masks: Masks, size: int, kernel: BlockKernel,
    between_bytes: float = 0.0,
) -> Panels:  # fmt: skip
    """Return what the real masks say of block rows: a step is one block's k, ``vectors`` are rows.

    Block rows of more outputs than a CTA takes are cut into equal parts.
    """
    rows = []
    for layer in layers:
        gemm, mask = layer.gemm, masks.mask(layer)
        outputs = piece_of(size, kernel.largest_tile_n)
        counts = panel_counts(mask, outputs)
        steps = -(-counts // size)
        rows.append((gemm.t, gemm.k, gemm.n, layer.runs // layer.repeats, outputs, len(counts),
                     counts.sum(), steps.sum(), steps.max(initial=0), np.count_nonzero(mask),
                     mask.any(axis=1).mean(), layer.input_elements, between_bytes))  # fmt: skip
    return Panels(*np.array(rows, dtype=np.float64).reshape(-1, 13).T)


@dataclass(frozen=True, eq=False)
class Step:
    """One block of a CTA: cycles of an SM, and of the CTA alone; CTAs an SM holds.

    ``mma``: multiplying; ``port``: with shared memory; ``rows``: with values and gathered rows;
    ``busy``: with positions.
    """

    tile_n: Floats
    tile_t: Floats
    mma: Floats
    port: Floats
    rows: Floats
    busy: Floats
    alone: Floats
    resident: Floats
    fragment_bytes: Floats
    fetch_bytes: Floats

    @property
    def concurrency(self) -> Floats:
        """CTAs that fill an SM, or all it holds if these do not."""
        found: Floats = np.minimum(self.alone / self.busy, self.resident)
        return found


def step_of(
    size: int, panels: Panels, gpu: Gpu, block: BlockKernel, kernel: Kernel, operands: Operands
) -> Step:
    """Return what one block takes of a CTA, by call."""
    tile_n = np.ceil(panels.vector / MMA_N) * MMA_N
    tile_t = np.minimum(float(block.tile_t), np.maximum(np.ceil(panels.t / MMA_N) * MMA_N, MMA_N))
    whole = max(MMA_K_BYTES / operands.x_bytes, 1.0)
    k = np.ceil(size / whole) * whole
    mma = tile_n * tile_t * k / (operands.rate * kernel.issue_share)
    fetch = size * (tile_n * operands.w_bytes + tile_t * operands.x_bytes)
    fragments = k * fragment_bytes(gpu.tensor.fetch, tile_n, tile_t, operands)
    port = (fetch + fragments) / gpu.sm.shared_bytes_per_clock
    ported = (mma**PORT_NORM + port**PORT_NORM) ** (1 / PORT_NORM)
    rate = gather_bytes_per_clock(gpu, block.gather_share)
    rows = np.maximum(ported, fetch / rate)
    busy = np.maximum(ported, (fetch + block.index_bytes) / rate)
    stage = (tile_n * operands.w_bytes + tile_t * operands.x_bytes) * STAGE_BYTES
    resident = np.maximum(resident_ctas(gpu, tile_n, tile_t, stage / max(operands.x_bytes, 0.5)), 1)
    return Step(tile_n, tile_t, mma, ported, rows, busy, busy + block.latency_cycles, resident,
                fragments, fetch + block.index_bytes)  # fmt: skip


def costs(
    panels: Panels, size: int, gpu: Gpu, block: BlockKernel, kernel: Kernel, operands: Operands,
    mode: Sequence[str],
) -> Costs:  # fmt: skip
    """Return what each call costs: block rows of ``size`` × ``size`` blocks, panels in blocks."""
    step = step_of(size, panels, gpu, block, kernel, operands)
    ctas = panels.panels * np.ceil(panels.t / step.tile_t) * panels.count
    counts = _counts(panels, step, ctas, gpu, operands, block)
    l2 = (counts["l2_read_bytes"] + counts["l2_write_bytes"]) / gpu.l2.bytes_per_clock
    dram = counts["dram_read_bytes"] + counts["dram_write_bytes"]
    dram = dram / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    chip = _chip(panels, size, step, ctas, gpu, kernel, operands)
    body = Body(chip, l2 / (gpu.clock_ghz * 1e3), dram, np.zeros_like(dram), kernel.launch_us,
                kernel.overlap)  # fmt: skip
    extra = {"tile_n": step.tile_n, "tile_t": step.tile_t, "ctas": ctas,
             "resident_ctas": step.resident}  # fmt: skip
    return powered(body, counts, operands.mac_pj, gpu, kernel.burst_us, mode, extra)


def _chip(
    panels: Panels, size: int, step: Step, ctas: Floats, gpu: Gpu, kernel: Kernel,
    operands: Operands,
) -> list[tuple[str, Floats]]:  # fmt: skip
    """Return the on-chip time by cause, µs at boost: the fullest SM's, and the ragged tail."""
    fullest = np.ceil(ctas / gpu.sms)
    mean = panels.steps / panels.panels
    full, idle, tail = ragged_cycles(panels.longest, mean, fullest, step.alone, step.concurrency)
    macs = panels.kept * panels.t * panels.count
    even = ctas / gpu.sms * mean
    edge = np.ceil(fullest / step.resident) * kernel.tile_cycles
    rungs = [
        ("work", macs / (operands.rate * kernel.issue_share) / gpu.sms),
        ("padding", even * step.mma),
        ("shared", even * step.port),
        ("gather", even * step.rows),
        ("metadata", even * step.busy),
        ("imbalance", fullest * mean * step.busy),
        ("fill_drain", full + idle + edge),
        ("imbalance", full + idle + edge + tail),
    ]
    return [(name, own / (gpu.clock_ghz * 1e3)) for name, own in ladder(rungs)]


def _counts(
    panels: Panels, step: Step, ctas: Floats, gpu: Gpu, operands: Operands, block: BlockKernel
) -> dict[str, Floats]:
    count = panels.count
    blocks = ctas * panels.steps / panels.panels  # that CTAs walk
    macs = panels.kept * panels.t * count
    y_bytes = panels.t * panels.n * count * operands.y_bytes
    packed = panels.vectors * panels.vector * operands.w_bytes + panels.steps * block.index_bytes
    x_bytes = panels.x_unique * operands.x_bytes * panels.touched * count
    read, written = dram_bytes(packed * count, x_bytes, y_bytes, panels.between_bytes, gpu)
    none = np.zeros_like(macs)
    return {
        "mma_macs": macs,
        "sparse_mma_macs": none,
        "fma_macs": none,
        "shared_read_bytes": blocks * step.fragment_bytes,
        "shared_write_bytes": blocks * step.fetch_bytes,
        "l2_read_bytes": blocks * step.fetch_bytes,
        "l2_write_bytes": y_bytes,
        "dram_read_bytes": read,
        "dram_write_bytes": written,
    }
