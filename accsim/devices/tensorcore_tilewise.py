"""Tile-wise sparse GEMMs on a GPU (TW, TVW, TEW) in closed form. Equations: docs/tensorcore.md.

*Accelerating Sparse DNNs Based on Tiled GEMM* (arXiv 2402.10876), *Tile-wise sparsity* (SC'20):
every tile of W is a GEMM of its own over the k it keeps, on a stream of its own; offsets gather
rows of X and scatter columns of Y. Waits for memory are in the cycles of a step; L2 and DRAM bound
a call only where moving its bytes takes longer than all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.tensorcore_costs import Costs, join
from accsim.devices.tensorcore_gemm import hits
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_power import Action, throttled
from accsim.devices.tensorcore_ragged import dram_bytes
from accsim.devices.tensorcore_tiles import Operands, fragment_bytes
from accsim.devices.tensorcore_tilewise_ctas import Ctas, ctas_of
from accsim.devices.tensorcore_tilewise_tiles import Residues, TileGemm, dense_gemm, tile_gemm
from accsim.devices.tensorcore_tilewise_transpose import transpose_costs
from accsim.sparsity.masks import Masks
from accsim.sparsity.tile_element_wise import TileElementWise
from accsim.sparsity.tile_wise import TileVectorWise
from accsim.spec.gpu import FamilyName, Gpu, Kernel
from accsim.spec.gpu_tilewise import TileWiseKernel
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KernelFamily = Callable[[Sequence[Layer], Masks, Gpu, float], Costs]

OFFSET_BYTES = 4  # int32: mask_k, where rows of X are; mask_n, where columns of Y go (the artefact)
TIMES = ("work", "padding", "fill_drain", "gather", "imbalance", "l2", "dram", "throttle", "launch")
MODES = {"tw": "tile-wise", "tvw": "tile-vector-wise", "tew": "tile-element-wise"}
DENSE_MODE = "tile-wise kernel, dense"


# --- what one call costs


def supports(layer: Layer, gpu: Gpu) -> bool:
    """Say whether the GPU has a tile-wise kernel for a layer: with mma.sp for tvw."""
    if gpu.tilewise is None or layer.dtype not in gpu.tensor.fma_per_clock:
        return False
    return layer.pattern.family != "tvw" or layer.dtype in gpu.tensor.sparse_gain


def tilewise_costs(
    layers: Sequence[Layer], masks: Masks, gpu: Gpu, between_bytes: float = 0.0,
    *, residue_costs: KernelFamily | None = None,
) -> Costs:  # fmt: skip
    """Return what one call of each layer costs under its tile-wise mask, one entry a layer.

    Args:
        layers: of pattern tw, tvw or tew.
        masks: their masks.
        gpu: the chip, with a section ``tilewise``.
        between_bytes: what passes through L2 between two uses of W (a network's other layers).
        residue_costs: what the elements beside tiles cost (tew): layers of pattern unstructured, in
            CSC, with masks of these elements alone. Their kernel runs after the tiles'.

    Raises:
        InputError: no such kernels on the GPU, another pattern, tvw without sparse tensor cores, or
            tew without ``residue_costs``.
    """
    works = [tile_gemm(layer, masks, between_bytes) for layer in layers]
    found = join([_costs(work, layer, gpu, dense=False)
                  for work, layer in zip(works, layers, strict=True)])  # fmt: skip
    at = [i for i, layer in enumerate(layers) if isinstance(layer.pattern, TileElementWise)]
    if not at:
        return found
    if residue_costs is None:
        raise InputError(f"layer '{layers[at[0]].name}': no kernel for the residue of tew on a GPU")
    beside = Residues([layers[i] for i in at], masks)
    more = residue_costs(beside.layers, beside, gpu, between_bytes)
    return _added(found, more, at, gpu, "residue_us")


def tilewise_dense_costs(layers: Sequence[Layer], gpu: Gpu) -> Costs:
    """Return what one call of each layer costs dense, in the kernel tile-wise ones are built from.

    CUTLASS 1.3, fp16 accumulators, on V100: the baseline of the published speed-ups, not cuBLAS.
    """
    return join([_costs(dense_gemm(layer), layer, gpu, dense=True) for layer in layers])


def gemm_costs(work: TileGemm, dtype: str, gpu: Gpu, *, dense: bool = False) -> Costs:
    """Return what one call of tiles given by their extents costs, one entry; no 2:4 inside."""
    operands = sustained(dtype, "dense", gpu)
    mode = DENSE_MODE if dense else MODES["tw"]
    return _call(work, _ctas(operands, gpu, dense=dense), operands, gpu, dtype, mode)


def _costs(work: TileGemm, layer: Layer, gpu: Gpu, *, dense: bool) -> Costs:
    operands = layer_operands(layer, gpu, dense=dense)
    mode = DENSE_MODE if dense else MODES[layer.pattern.family]
    return _call(work, _ctas(operands, gpu, dense=dense), operands, gpu, layer.dtype, mode)


def layer_ctas(layer: Layer, gpu: Gpu) -> Ctas:
    """Return the CTAs that run a layer under its tile-wise pattern."""
    return _ctas(layer_operands(layer, gpu, dense=False), gpu, dense=False)


def _ctas(operands: Operands, gpu: Gpu, *, dense: bool) -> Ctas:
    sparse = operands.kept < 1
    return ctas_of(kernel_of(gpu), gpu, operands.rate, dense=dense, sparse=sparse)


def kernel_of(gpu: Gpu) -> TileWiseKernel:
    """Return the tile-wise kernels of a GPU; InputError if none are described."""
    if gpu.tilewise is None:
        raise InputError(f"device '{gpu.name}' has no tile-wise kernels (section tilewise)")
    return gpu.tilewise


def layer_operands(layer: Layer, gpu: Gpu, *, dense: bool) -> Operands:
    """Return bytes, rates and energies of a layer's operands; refuse what the GPU cannot do."""
    if layer.dtype not in gpu.tensor.fma_per_clock:
        raise InputError(
            f"layer '{layer.name}': tile-wise kernels need tensor cores for {layer.dtype}; "
            f"device '{gpu.name}' has none"
        )
    if dense or not isinstance(layer.pattern, TileVectorWise):
        return sustained(layer.dtype, "dense", gpu)
    if layer.dtype not in gpu.tensor.sparse_gain or "nm" not in gpu.kernels:
        raise InputError(
            f"layer '{layer.name}': {layer.pattern} needs sparse tensor cores for {layer.dtype}; "
            f"device '{gpu.name}' has none"
        )
    return sustained(layer.dtype, "nm", gpu)


def sustained(dtype: str, name: FamilyName, gpu: Gpu) -> Operands:
    """Return the operands of a format; those of fused kernels at what a library's kernels sustain.

    The kernels fitted on V100 have their losses in ``stall_cycles``, at the nominal rate.
    """
    operands = operands_of(dtype, name, gpu)
    if not kernel_of(gpu).fused:
        return operands
    return replace(operands, rate=operands.rate * gpu.kernel(name, dtype).issue_share)


def _added(found: Costs, more: Costs, at: Sequence[int], gpu: Gpu, column: str) -> Costs:
    """Return the costs with ``more`` run after entries ``at``; the clock is the mean over time.

    ``column`` of ``extra`` says how long ``more`` takes.
    """
    where = np.array(at)

    def add(old: Floats | None, new: Floats | None) -> Floats:
        total = np.zeros(len(found)) if old is None else old.copy()
        total[where] += 0.0 if new is None else new
        return total

    times = {name: add(found.times_us.get(name), more.times_us.get(name))
             for name in dict.fromkeys([*found.times_us, *more.times_us])}  # fmt: skip
    counts = {name: add(found.counts.get(name), more.counts.get(name))
              for name in dict.fromkeys([*found.counts, *more.counts])}  # fmt: skip
    tiles, rest = found.total_us[where], more.total_us
    slow = gpu.clock_ghz / found.clock_ghz
    slow[where] = (slow[where] * tiles + gpu.clock_ghz / more.clock_ghz * rest) / (tiles + rest)
    extra = {**found.extra, column: add(None, rest)}
    return Costs(times, counts, gpu.clock_ghz / slow, found.mode, extra)


# --- time


def _call(work: TileGemm, ctas: Ctas, operands: Operands, gpu: Gpu, dtype: str, mode: str) -> Costs:
    """Return the costs of one call, transpositions included where these are kernels apart."""
    own = _gemm_call(work, ctas, operands, gpu, dtype, mode)
    if mode == DENSE_MODE or kernel_of(gpu).transposed == "none":
        return own
    more = transpose_costs(work, operands, gpu, gpu.kernel("dense", dtype))
    return _added(own, more, [0], gpu, "transpose_us")


def _gemm_call(
    work: TileGemm, ctas: Ctas, operands: Operands, gpu: Gpu, dtype: str, mode: str
) -> Costs:
    """Return the costs of one GEMM over tiles, its clock held down by the board's cap."""
    moved = _bytes(work, ctas, operands, gpu, offsets=mode != DENSE_MODE)
    own = _body(work, ctas, operands, gpu, gpu.kernel("dense", dtype), moved)
    executed = float(work.stored) * work.t * work.count
    action = Action(*(np.array([x]) for x in (
        executed * operands.mac_pj, _of(moved, "shared"), _of(moved, "l2"), _of(moved, "dram"),
    )))  # fmt: skip
    burst_us = gpu.kernel("dense", dtype).burst_us
    slow, time = throttled(gpu.board, action, own.time_us, own.time_us(np.ones(1)), burst_us)
    marks = [0.0, *own.ends, own.l2, own.dram, float(time[0]) - own.fixed]
    spent = [*np.diff(np.maximum.accumulate(marks)), own.fixed]
    counts = {"mma_macs": executed, "sparse_mma_macs": executed * (operands.kept < 1), **moved}
    bound = float(max(own.l2, own.dram) > own.ends[-1])
    extra = {**_extra(work, ctas, mode), "memory_bound": bound}
    return Costs(
        {name: np.array([us]) for name, us in zip(TIMES, spent, strict=True)},
        {name: np.array([float(value)]) for name, value in counts.items()},
        gpu.clock_ghz / slow,
        (mode,),
        {name: np.array([value]) for name, value in extra.items()},
    )


@dataclass(frozen=True)
class _Body:
    """Times of one call at boost, µs: where on-chip causes end, memories, what is fixed.

    ``edges`` of the on-chip time wait for memory, whatever the clock of the SMs.
    """

    ends: tuple[float, ...]
    l2: float
    dram: float
    fixed: float
    edges: float

    def time_us(self, slow: Floats) -> Floats:
        """Return the time at slow-downs of the clock."""
        chip = (self.ends[-1] - self.edges) * slow + self.edges
        longest: Floats = np.maximum(np.maximum(chip, self.l2 * slow), self.dram)
        total: Floats = longest + self.fixed
        return total


def _body(work: TileGemm, ctas: Ctas, operands: Operands, gpu: Gpu, kernel: Kernel,
          moved: Mapping[str, float]) -> _Body:  # fmt: skip
    per_us = gpu.clock_ghz * 1e3
    ends = tuple(cycles / per_us for cycles in onchip_cycles(work, ctas, operands.rate))
    l2 = _of(moved, "l2") / gpu.l2.bytes_per_clock / per_us
    dram = _of(moved, "dram") / (gpu.dram.gb_per_s * kernel.dram_share) * 1e-3
    late = max(0.0, launched_cycles(work, ctas) / per_us - max(ends[-1], l2, dram))
    return _Body(ends, l2, dram, ctas.fixed / per_us + late, _edge_share(work, ctas) * ends[-1])


def _of(moved: Mapping[str, float], level: str) -> float:
    return moved[f"{level}_read_bytes"] + moved[f"{level}_write_bytes"]


def _extra(work: TileGemm, ctas: Ctas, mode: str) -> dict[str, float]:
    columns, rows = work.grid(ctas)
    offsets = 0 if mode == DENSE_MODE else _offset_entries(work) * OFFSET_BYTES
    return {
        "tile_n": float(ctas.tile_n), "tile_t": float(ctas.tile_t), "splits": 1.0,
        "ctas": float(columns.size * rows), "resident_ctas": float(ctas.residents),
        "weight_tiles": float(work.k.size * work.count), "offset_bytes": float(offsets),
    }  # fmt: skip


def onchip_cycles(work: TileGemm, ctas: Ctas, rate: float) -> tuple[float, ...]:
    """Return where causes end, all SMs at once: work, padding, fill and drain, gather, imbalance.

    Work and padding are the tensor cores' cycles, by ``rate``; fill and drain what full SMs wait
    beside them without offsets, gather what they wait with them, imbalance the rest up to the end.
    """
    k, rows = work.grid(ctas)
    useful = work.macs / rate / ctas.sms
    multiplied = rows * float(ctas.steps(k).sum()) * ctas.mma / ctas.sms
    straight = rows * float(ctas.without_gather().sm_cycles(k).sum()) / ctas.sms
    busy = rows * float(ctas.sm_cycles(k).sum()) / ctas.sms
    return useful, multiplied, straight, busy, max(ctas.makespan(k, rows), busy)


def launched_cycles(work: TileGemm, ctas: Ctas) -> float:
    """Return when the last CTA ends if tiles are launched one after the other."""
    k, rows = work.grid(ctas)
    tile = np.repeat(np.arange(work.k.size * work.count), np.tile(work.across(ctas), work.count))
    return ctas.makespan(k, rows, tile * round(ctas.launch))


def _edge_share(work: TileGemm, ctas: Ctas) -> float:
    """Return the share of the SMs' time that follows memory's clock rather than the SMs'."""
    k, _ = work.grid(ctas)
    busy = float(ctas.sm_cycles(k).sum())
    return (ctas.edge + ctas.scatter) * k.size / busy if busy else 0.0


# --- bytes


def _offset_entries(work: TileGemm) -> int:
    return work.count * int(work.k.sum() + work.columns.sum())


def _bytes(
    work: TileGemm, ctas: Ctas, operands: Operands, gpu: Gpu, *, offsets: bool
) -> dict[str, float]:
    """Return the bytes of a call at every level that serves them.

    Every CTA fetches its tile of W, its rows of X and, if there are ``offsets``, all of the tile's.
    """
    across, rows, count = work.across(ctas), -(-work.t // ctas.tile_t), work.count
    weights = float(work.k @ work.columns)
    fetched = count * (rows * weights * operands.packed_bytes
                       + work.t * float(work.k @ across) * operands.x_bytes)  # fmt: skip
    index = OFFSET_BYTES * offsets
    told = count * rows * float(work.k @ across + work.columns.sum()) * index
    y = float(count) * work.t * float(work.columns.sum()) * operands.y_bytes
    first_of_w = weights * operands.packed_bytes * count + _offset_entries(work) * index
    read, written = _dram_bytes(work, ctas, operands, gpu, first_of_w, y)
    sides = np.array([float(ctas.tile_n)]), np.array([float(ctas.tile_t)])
    fragments = float(fragment_bytes(gpu.tensor.fetch, *sides, operands)[0])
    return {
        "shared_read_bytes": fragments * count * rows * float(work.k @ across),
        "shared_write_bytes": fetched,
        "l2_read_bytes": fetched + told,
        "l2_write_bytes": y,
        "dram_read_bytes": read,
        "dram_write_bytes": written,
    }


def _dram_bytes(
    work: TileGemm, ctas: Ctas, operands: Operands, gpu: Gpu, w_bytes: float, y_bytes: float
) -> tuple[float, float]:
    """Return the bytes DRAM reads and writes: what L2 has not kept since, and X again.

    Tiles that run at once read rows of X together; each later group of tiles reads X again, unless
    L2 holds it. One launch of all tiles (``fused``) may go along the tiles instead, and read W
    again for each group of tokens; the less is taken.
    """
    x_bytes = work.x_elements * operands.x_bytes
    w, x, y, between = (np.array([value]) for value in (
        w_bytes, x_bytes * work.count, y_bytes, work.between_bytes,
    ))  # fmt: skip
    first, written = dram_bytes(w, x, y, between, gpu)
    together = max(1.0, ctas.slots / -(-work.t // ctas.tile_t))
    read = work.t * float(work.k @ work.across(ctas)) * operands.x_bytes / together
    again = max(0.0, read - x_bytes) * work.count
    missed = 1 - hits(np.array([x_bytes + w_bytes]), gpu.l2.resident_bytes)
    more = again * float(missed[0])
    if kernel_of(gpu).fused:
        more = min(more, _along_tiles(work, ctas, gpu, w_bytes, x_bytes))
    return float(first[0]) + more, float(written[0])


def _along_tiles(work: TileGemm, ctas: Ctas, gpu: Gpu, w_bytes: float, x_bytes: float) -> float:
    """Return the bytes of W read again where CTAs go along tiles before tokens."""
    rows, columns = -(-work.t // ctas.tile_t), float(work.across(ctas).sum())
    groups = max(1.0, rows / max(1.0, ctas.slots / max(columns, 1.0)))
    panel = x_bytes / groups
    missed = 1 - hits(np.array([w_bytes + panel]), gpu.l2.resident_bytes)
    return (groups - 1) * w_bytes * float(missed[0])
