"""The CTAs of a tile-wise GEMM spelled out for the engine (docs/engine.md).

The CTAs an SM can hold are units of one pool and take CTAs in launch order. A CTA lasts as long as
its SM's residents make it: ``residents`` share an SM in full waves, fewer in the last one (the last
CTAs in launch order are taken for that wave's). A second pool of one unit launches: a tile waits
for its launch, a launch for the tile that had its stream before, a call for the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.tensorcore_tilewise import kernel_of, layer_ctas, layer_operands
from accsim.devices.tensorcore_tilewise_ctas import Ctas
from accsim.devices.tensorcore_tilewise_tiles import TileGemm, tile_gemm
from accsim.sparsity.masks import Masks
from accsim.spec.gpu import Gpu
from accsim.spec.schedule import Machine, Pool, Schedule, tile_dtype
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_TILES = 2_000_000
CAUSES = ("work", "padding", "fill_drain", "gather")


def tilewise_schedule(layer: Layer, masks: Masks, gpu: Gpu) -> Schedule:
    """Return the CTAs of all calls of a layer under its tile-wise mask, at the boost clock.

    Calls do not overlap, so all of them are spelled out, as one run. Of tew, the tiles only. Bytes
    are not played, since the waits for them are in a step's cycles: where the closed form is bound
    by L2, DRAM or the power cap, the play is faster.

    Raises:
        InputError: what ``tilewise_costs`` refuses, transpositions as kernels of their own, or more
            CTAs than the engine is given.
    """
    if kernel_of(gpu).transposed != "none":
        raise InputError(
            f"layer '{layer.name}': X and Y are transposed by kernels of their own "
            "(tilewise.transposed); level must be closed"
        )
    ctas, work = layer_ctas(layer, gpu), tile_gemm(layer, masks)
    k, rows = work.grid(ctas)
    count = k.size * rows * layer.repeats
    if count > MOST_TILES:
        raise InputError(
            f"layer '{layer.name}' has {count} CTAs: level events plays at most {MOST_TILES}; "
            "use level closed"
        )
    rate = layer_operands(layer, gpu, dense=False).rate
    return ctas_schedule(work, ctas, rate, gpu, layer.repeats)


def ctas_schedule(work: TileGemm, ctas: Ctas, rate: float, gpu: Gpu, calls: int = 1) -> Schedule:
    """Return the schedule of tiles given by their extents; ``rate`` as in ``onchip_cycles``."""
    grid = _grid(work, ctas)
    tiles = np.zeros(len(grid.k), dtype=tile_dtype(len(gpu.channels)))
    tiles["t"], tiles["k"], tiles["n"] = grid.t, grid.k, grid.n
    tiles["t0"], tiles["n0"] = grid.t0, grid.n0
    tiles["compute_cycles"] = _cycles(grid.k, ctas)
    _divide(tiles, ctas, rate)
    pools: tuple[Pool, ...] = (Pool("sm", ctas.slots),)
    edges = np.zeros((0, 2), dtype=np.int64)
    if (ctas.launch or calls > 1) and len(tiles):
        pools = (*pools, Pool("launcher"))
        tiles, edges = _launched(tiles, grid.tile, ctas, calls)
    fixed = round(ctas.fixed)
    machine = Machine(gpu.channels, pools, "sequential", "list", launch_cycles=fixed)
    return Schedule(tiles, machine, dependencies=edges)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Every CTA in launch order: its extents and place, and the tile it is of."""

    t: Ints
    k: Ints
    n: Ints
    t0: Ints
    n0: Ints
    tile: Ints


def _grid(work: TileGemm, ctas: Ctas) -> _Grid:
    across, rows = work.across(ctas), -(-work.t // ctas.tile_t)
    tile = np.repeat(np.arange(len(across)), across)
    at = np.arange(len(tile)) - np.repeat(np.cumsum(across) - across, across)
    n = np.minimum(ctas.tile_n, work.columns[tile] - at * ctas.tile_n)
    n0 = (np.cumsum(work.columns) - work.columns)[tile] + at * ctas.tile_n
    t0 = np.arange(rows) * ctas.tile_t
    of_run = np.repeat(np.arange(work.count) * len(across), rows * len(tile))

    def columns(values: Ints) -> Ints:
        return np.tile(np.repeat(values, rows), work.count)

    def along_t(values: Ints) -> Ints:
        return np.tile(values, len(tile) * work.count)

    return _Grid(along_t(np.minimum(ctas.tile_t, work.t - t0)), columns(work.k[tile]), columns(n),
                 along_t(t0), columns(n0), columns(tile) + of_run)  # fmt: skip


def _cycles(k: Ints, ctas: Ctas) -> Ints:
    """Return the cycles of every CTA, those of the last wave sharing their SM with fewer."""
    cycles = ctas.cycles(k, ctas.residents)
    _, rest, deep = ctas.last_wave(len(k))
    if rest:
        cycles[-rest:] = ctas.cycles(k[-rest:], deep)
    return cycles


def _divide(tiles: npt.NDArray[np.void], ctas: Ctas, rate: float) -> None:
    """Divide cycles by cause: multiplying in full, waiting and gathering share what is left."""
    whole, k = tiles["compute_cycles"].astype(np.float64), tiles["k"]
    useful = ctas.residents * tiles["t"] * k * tiles["n"] / rate
    multiplied = np.minimum(ctas.residents * ctas.steps(k) * ctas.mma, whole)
    straight = ctas.without_gather().sm_cycles(k) - ctas.steps(k) * ctas.mma
    waited = ctas.sm_cycles(k) - ctas.steps(k) * ctas.mma
    share = np.divide(straight, waited, out=np.ones_like(waited), where=waited > 0)
    filled = multiplied + (whole - multiplied) * share
    ends = np.rint(np.stack([np.minimum(useful, multiplied), multiplied, filled, whole]))
    spent = np.diff(ends.astype(np.int64), axis=0, prepend=0)
    for cause, cycles in zip(CAUSES, spent, strict=True):
        tiles[f"{cause}_cycles"] = cycles


def _launched(
    tiles: npt.NDArray[np.void], tile: Ints, ctas: Ctas, calls: int
) -> tuple[npt.NDArray[np.void], Ints]:
    """Return CTAs with a launch before those of each tile, and who waits for whom.

    The first launch of a call is part of its fixed time, and waits for all of the call before; the
    others follow it, one at a time. Without time between launches a call is one launch.
    """
    each = int(tile[-1]) + 1 if ctas.launch else 1  # launches of a call
    group = np.tile(tile if each > 1 else tile * 0, calls)
    group += np.repeat(np.arange(calls) * each, len(tile))
    first = np.flatnonzero(np.diff(group, prepend=-1))  # CTA each launch brings first
    launch = np.zeros(len(first), dtype=tiles.dtype)
    launch["pool"] = 1
    later = np.arange(len(first)) % each > 0
    launch["compute_cycles"][later] = launch["fill_drain_cycles"][later] = round(ctas.launch)
    at = np.arange(len(group)) + group + 1  # where CTAs stand, launches among them
    launched = first + np.arange(len(first))
    whole = np.zeros(len(group) + len(first), dtype=tiles.dtype)
    whole[at], whole[launched] = np.tile(tiles, calls), launch
    edges = [np.stack([at, launched[group]], axis=1)]
    if each > 1:
        frees = group % each + ctas.streams < each
        edges.append(np.stack([launched[group[frees] + ctas.streams], at[frees]], axis=1))
    more = group // each < calls - 1
    edges.append(np.stack([launched[(group[more] // each + 1) * each], at[more]], axis=1))
    return whole, np.concatenate(edges)
