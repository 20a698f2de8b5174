"""Sparse × dense kernels that follow the real mask, in closed form, as arrays. docs/tensorcore.md.

One rule for all (:class:`~accsim.spec.gpu_sparse.SpmmKernel`): Sputnik (single weights, CUDA
cores), vectorSparse and CLASP (vectors of outputs, tensor cores), Blocked-ELL, Magicube (int8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.tensorcore_costs import Costs, join
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_ragged import (
    Body,
    Panels,
    dram_bytes,
    ladder,
    panel_counts,
    powered,
    ragged_cycles,
)
from accsim.devices.tensorcore_tiles import Operands
from accsim.sparsity.block import Block
from accsim.sparsity.column_vector import ColumnVector
from accsim.sparsity.masks import Masks
from accsim.sparsity.unstructured import Unstructured
from accsim.spec.dtype import DTYPES
from accsim.spec.gpu import Gpu
from accsim.spec.gpu_sparse import SpmmKernel
from accsim.spec.pattern import Pattern
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FAMILIES = {
    Unstructured: ("sputnik",),
    ColumnVector: ("vector", "magicube"),
    Block: ("blocked_ell",),
}
Y_BYTES = 2.0  # outputs of the 16-bit and 8-bit kernels


def vector_of(pattern: Pattern) -> int:
    """Return how many outputs share positions; InputError for a pattern no kernel follows."""
    if isinstance(pattern, ColumnVector):
        return pattern.length
    if isinstance(pattern, Block):
        return pattern.size
    if isinstance(pattern, Unstructured):
        return 1
    raise InputError(f"no sparse × dense kernel follows pattern '{pattern}'")


def kernel_name(layer: Layer, gpu: Gpu) -> str | None:
    """Return the key in ``gpu.spmm`` of the kernel that runs a layer; None if there is none.

    Of those of the pattern's families and the layer's format, the one for the longest vectors.
    """
    families = FAMILIES.get(type(layer.pattern), ())
    if not families:
        return None
    vector = vector_of(layer.pattern)
    known = [
        (kernel.least_vector, name)
        for name, kernel in gpu.spmm.items()
        if kernel.family in families
        and layer.dtype in kernel.dtypes
        and kernel.least_vector <= vector
    ]
    return max(known)[1] if known else None


def supports(layer: Layer, gpu: Gpu) -> bool:
    """Say whether the GPU has a sparse × dense kernel for a layer's pattern and format."""
    return kernel_name(layer, gpu) is not None


def piece_of(vector: int, most: int) -> int:
    """Return the outputs of a panel: a vector's, or its longest equal parts up to ``most``.

    >>> piece_of(32, 8), piece_of(12, 8)
    (8, 6)
    """
    return next(part for part in range(min(vector, most), 0, -1) if vector % part == 0)


def spmm_costs(
    layers: Sequence[Layer], masks: Masks, gpu: Gpu, between_bytes: float = 0.0
) -> Costs:
    """Return what one call of each layer costs; ``between_bytes`` pass L2 between uses of W.

    Raises:
        InputError: a pattern or format no kernel of the GPU runs.
    """
    keys = [(_named(layer, gpu), layer.dtype) for layer in layers]
    parts, where = [], []
    for name, dtype in dict.fromkeys(keys):
        at = [i for i, key in enumerate(keys) if key == (name, dtype)]
        kernel = gpu.spmm[name]
        panels = panels_of([layers[i] for i in at], masks, kernel, between_bytes)
        parts.append(costs(panels, gpu, kernel, operands(dtype, gpu, kernel), [name] * len(at)))
        where += at
    return join(parts).take(np.argsort(where))


def _named(layer: Layer, gpu: Gpu) -> str:
    name = kernel_name(layer, gpu)
    if name is None:
        raise InputError(
            f"device '{gpu.name}' has no sparse kernel for layer '{layer.name}', "
            f"pattern '{layer.pattern}' in {layer.dtype}"
        )
    return name


def operands(dtype: str, gpu: Gpu, kernel: SpmmKernel) -> Operands:
    """Return bytes, rate and energy of a format in a kernel: on tensor cores or CUDA cores."""
    if not kernel.cuda_cores:
        return operands_of(dtype, "dense", gpu)
    width = DTYPES[dtype].bits / 8
    pj = gpu.board.energy.fp32_fma_pj
    return Operands(width, 0.0, width, max(width, Y_BYTES), gpu.sm.fp32_fma_per_clock, 1.0, pj)


def panels_of(
    layers: Sequence[Layer], masks: Masks, kernel: SpmmKernel, between_bytes: float = 0.0
) -> Panels:
    """Return what the real masks say of the panels of each layer's call."""
    rows = []
    for layer in layers:
        gemm, mask = layer.gemm, masks.mask(layer)
        vector = piece_of(vector_of(layer.pattern), kernel.most_vector)
        counts = panel_counts(mask, vector)
        steps = -(-counts // kernel.step_k)
        rows.append((gemm.t, gemm.k, gemm.n, layer.runs // layer.repeats, vector, len(counts),
                     counts.sum(), steps.sum(), steps.max(initial=0), np.count_nonzero(mask),
                     mask.any(axis=1).mean(), layer.input_elements, between_bytes))  # fmt: skip
    return Panels(*np.array(rows, dtype=np.float64).reshape(-1, 13).T)


def costs(
    panels: Panels, gpu: Gpu, kernel: SpmmKernel, operands: Operands, mode: Sequence[str]
) -> Costs:
    """Return what each call costs."""
    chip = _chip(panels, gpu, kernel, operands)
    counts = _counts(panels, gpu, kernel, operands)
    l2 = (counts["l2_read_bytes"] + counts["l2_write_bytes"]) / gpu.l2.bytes_per_clock
    dram = counts["dram_read_bytes"] + counts["dram_write_bytes"]
    dram = dram / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    body = Body(chip, l2 / (gpu.clock_ghz * 1e3), dram, np.zeros_like(dram), kernel.launch_us)
    extra = {"tile_n": panels.vector, "tile_t": np.full(len(panels), float(kernel.tile_t)),
             "ctas": ctas(panels, kernel)}  # fmt: skip
    return powered(body, counts, operands.mac_pj, gpu, kernel.burst_us, mode, extra)


def ctas(panels: Panels, kernel: SpmmKernel) -> Floats:
    """Return the CTAs of each call: panels × columns of tokens × GEMMs."""
    found: Floats = panels.panels * np.ceil(panels.t / kernel.tile_t) * panels.count
    return found


def _chip(
    panels: Panels, gpu: Gpu, kernel: SpmmKernel, operands: Operands
) -> list[tuple[str, Floats]]:
    """Return the on-chip time by cause, µs at boost.

    At full rate: multiplications as fast as the cores could, then positions and gathered rows in
    proportion to their bytes, then steps that hold padding.
    """
    step = kernel.step_cycles * (1 + kernel.row_share * panels.vector)
    c = ctas(panels, kernel) / gpu.sms
    mean = panels.longest if kernel.equal_panels else panels.steps / panels.panels
    concurrency = np.full_like(c, kernel.concurrency)
    full, idle, tail = ragged_cycles(panels.longest, mean, c, step, concurrency)
    filled = panels.vectors / kernel.step_k / panels.panels
    real = full * filled / np.maximum(mean, 1e-300)
    macs = panels.kept * panels.t * panels.count
    useful = np.minimum(macs / (operands.rate * gpu.sms), real)
    vector_bytes = kernel.tile_t * operands.x_bytes + panels.vector * operands.w_bytes
    rows = vector_bytes / (vector_bytes + kernel.index_bytes)
    edge = (kernel.panel_cycles + kernel.row_cycles * panels.vector) * c
    rungs = [
        ("work", useful),
        ("gather", useful + (real - useful) * rows),
        ("metadata", real),
        ("padding", full),
        ("fill_drain", full + idle + edge),
        ("imbalance", full + idle + edge + tail),
    ]
    return [(name, own / (gpu.clock_ghz * 1e3)) for name, own in ladder(rungs)]


def _counts(panels: Panels, gpu: Gpu, kernel: SpmmKernel, operands: Operands) -> dict[str, Floats]:
    """Return the actions: vectors are multiplied whole; each gathers a row of X for its tokens."""
    count = panels.count
    macs = panels.vectors * panels.vector * panels.t * count
    packed = panels.vectors * (panels.vector * operands.w_bytes + kernel.index_bytes)
    fetched = packed * np.ceil(panels.t / kernel.tile_t)
    fetched = (fetched + panels.vectors * panels.t * operands.x_bytes) * count
    y_bytes = panels.t * panels.n * count * operands.y_bytes
    x_bytes = panels.x_unique * operands.x_bytes * panels.touched * count
    read, written = dram_bytes(packed * count, x_bytes, y_bytes, panels.between_bytes, gpu)
    none = np.zeros_like(macs)
    return {
        "mma_macs": none if kernel.cuda_cores else macs,
        "sparse_mma_macs": none,
        "fma_macs": macs if kernel.cuda_cores else none,
        "shared_read_bytes": fetched,
        "shared_write_bytes": fetched,
        "l2_read_bytes": fetched,
        "l2_write_bytes": y_bytes,
        "dram_read_bytes": read,
        "dram_write_bytes": written,
    }
