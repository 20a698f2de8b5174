"""CTAs of kernels that follow a mask, spelled out for the engine (docs/engine.md), panel by panel.

An SM is as many units as CTAs fill it; the device's queue deals CTAs in order to the unit that is
free first. Gathering and positions are cycles of a CTA, as in the closed forms; only DRAM is a
channel with bytes. Without them:

- equal CTAs: the makespan is the closed form's on-chip time where they fill whole rounds of units;
- CTAs that all fit at once: it is the closed form's, whatever their lengths;
- else it differs from the closed form by less than the longest CTA.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices import tensorcore_block as blocks
from accsim.devices import tensorcore_spmm as spmm
from accsim.devices import tensorcore_vnm as vnm
from accsim.devices.tensorcore_costs import Costs
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_ragged import panel_counts
from accsim.sparsity.masks import Masks
from accsim.spec.gpu import Gpu
from accsim.spec.schedule import Machine, Pool, Schedule, tile_dtype
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_CTAS = 2_000_000
# Waiting for the shared-memory port is busy time of a unit.
WITHIN = {"work": ("work",), "padding": ("padding",), "fill_drain": ("fill_drain", "shared"),
          "metadata": ("metadata",), "gather": ("gather",)}  # fmt: skip


def vnm_schedule(layer: Layer, masks: Masks, gpu: Gpu) -> Schedule:
    """Return the CTAs of a V:N:M layer: equal, in rounds of an SM's residents, the last short.

    Raises:
        InputError: more CTAs than the engine is given.
    """
    calls = vnm.vnm_costs([layer], masks, gpu)
    kernel = gpu.vnm
    assert kernel is not None
    operands = operands_of(layer.dtype, "nm" if int(calls.counts["sparse_mma_macs"][0]) else
                           "dense", gpu)  # fmt: skip
    grid = vnm.grid(vnm.gemms_of([layer], masks), gpu, kernel, operands)
    ctas, residents = int(grid.ctas[0]), int(grid.resident[0])
    _check(layer, ctas)
    early = min(ctas, int(grid.full[0]) * residents * gpu.sms)
    cycles = np.full(ctas, vnm.round_cycles(grid, kernel, grid.resident)[0])
    cycles[early:] = vnm.round_cycles(grid, kernel, grid.rest)[0]
    return _schedule(layer, calls, cycles, gpu, residents, kernel.dram_share)


def spmm_schedule(layer: Layer, masks: Masks, gpu: Gpu) -> Schedule:
    """Return the CTAs of a layer that a sparse × dense kernel runs, one a panel and token column.

    Raises:
        InputError: no such kernel, or more CTAs than the engine is given.
    """
    calls = spmm.spmm_costs([layer], masks, gpu)
    kernel = gpu.spmm[calls.mode[0]]
    vector = spmm.piece_of(spmm.vector_of(layer.pattern), kernel.most_vector)
    steps = -(-panel_counts(masks.mask(layer), vector) // kernel.step_k)
    if kernel.equal_panels:
        steps = np.full_like(steps, steps.max(initial=0))
    c = float(calls.extra["ctas"][0]) / gpu.sms
    _check(layer, int(calls.extra["ctas"][0]))
    edge = (kernel.panel_cycles + kernel.row_cycles * vector) * c
    times = _repeated(steps, int(calls.extra["ctas"][0])) * kernel.step(vector)
    return _shared(layer, calls, times, c, kernel.concurrency, edge, gpu, kernel.dram_share)


def block_schedule(layer: Layer, masks: Masks, gpu: Gpu) -> Schedule:
    """Return the CTAs of a block-sparse layer, one a block row and token column.

    Raises:
        InputError: no such kernel, or more CTAs than the engine is given.
    """
    if not blocks.is_large(layer, gpu):
        return spmm_schedule(layer, masks, gpu)
    assert gpu.block is not None
    calls = blocks.block_costs([layer], masks, gpu)
    size = blocks.block_of(layer)
    panels = blocks.panels_of([layer], masks, size, gpu.block)
    kernel, operands = gpu.kernel("dense", layer.dtype), operands_of(layer.dtype, "dense", gpu)
    step = blocks.step_of(size, panels, gpu, gpu.block, kernel, operands)
    counts = -(-panel_counts(masks.mask(layer), int(panels.vector[0])) // size)
    ctas = int(calls.extra["ctas"][0])
    _check(layer, ctas)
    fullest = -(-ctas // gpu.sms)
    edge = np.ceil(fullest / step.resident[0]) * kernel.tile_cycles
    times = _repeated(counts, ctas) * step.alone[0]
    return _shared(layer, calls, times, fullest, float(step.concurrency[0]), float(edge), gpu,
                   kernel.dram_share)  # fmt: skip


def _check(layer: Layer, ctas: int) -> None:
    if ctas * layer.repeats > MOST_CTAS:
        raise InputError(
            f"layer '{layer.name}' has {ctas * layer.repeats} CTAs: level events plays at most "
            f"{MOST_CTAS}; use level closed"
        )


def _repeated(steps: Ints, ctas: int) -> Floats:
    """Return steps of all CTAs: every panel, for each column of tokens of each GEMM."""
    return np.tile(steps.astype(np.float64), ctas // len(steps))


def _shared(
    layer: Layer, calls: Costs, alone: Floats, c: float, concurrency: float, edge: float, gpu: Gpu,
    dram_share: float,
) -> Schedule:  # fmt: skip
    """Return CTAs that share their SM's rate: ``alone`` are their cycles with an SM to themselves.

    An SM is ⌈concurrency⌉ units; where more CTAs than ``concurrency`` land on it, each takes
    longer, so that together they keep its rate. ``edge`` is what c CTAs take to start and end.
    """
    units = int(np.ceil(concurrency))
    if c <= concurrency:
        return _schedule(layer, calls, alone + edge, gpu, units, dram_share)
    cycles = alone * units / concurrency + edge * units / c
    return _schedule(layer, calls, cycles, gpu, units, dram_share)


def _schedule(
    layer: Layer, calls: Costs, cycles: Floats, gpu: Gpu, units: int, dram_share: float
) -> Schedule:
    """Return the schedule of CTAs of so many cycles at boost, on so many units an SM."""
    slow = gpu.clock_ghz / float(calls.clock_ghz[0])
    tiles = np.zeros(len(cycles), dtype=tile_dtype(len(gpu.channels)))
    whole = np.rint(cycles * slow).astype(np.int64)
    tiles["compute_cycles"] = whole
    _divide(tiles, whole, calls, slow)
    for field, count in (("load_bytes", "dram_read_bytes"), ("store_bytes", "dram_write_bytes")):
        moved = float(calls.counts[count][0])
        ends = np.rint(np.linspace(0, moved, len(cycles) + 1)).astype(np.int64)
        tiles[field][:, 0] = np.diff(ends)
    dram, *others = gpu.channels
    rate = dram.bytes_per_cycle * dram_share
    sustained = replace(dram, bytes_per_cycle=rate, latency_cycles=0)  # CTAs' fills hold it
    launch = round(float(calls.time("launch")[0]) * gpu.clock_ghz * 1e3)
    machine = Machine(
        (sustained, *others), (Pool("sm", gpu.sms * units),), "elastic", "list", launch
    )
    return Schedule(tiles, machine, layer.repeats)


def _divide(tiles: npt.NDArray[np.void], whole: Ints, calls: Costs, slow: float) -> None:
    """Divide each CTA's cycles among causes in the closed form's proportions, throttle last."""
    spent = np.array([calls.time(*names)[0] for names in WITHIN.values()])
    total = spent.sum()
    shares = np.append(spent / total if total else np.eye(len(spent))[0], 0.0) / slow
    shares[-1] = 1 - 1 / slow
    ends = np.rint(whole[:, None] * np.cumsum(shares)).astype(np.int64)
    ends[:, -1] = whole
    parts = np.diff(ends, axis=1, prepend=np.zeros((len(whole), 1), dtype=np.int64))
    for cause, own in zip((*WITHIN, "throttle"), parts.T, strict=True):
        tiles[f"{cause}_cycles"] = own


SCHEDULES = {
    "vnm": vnm_schedule,
    "column_vector": spmm_schedule,
    "unstructured": spmm_schedule,
    "block": block_schedule,
}
