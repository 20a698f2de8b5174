"""Tiles a second of the compiled player. Run with: pytest tests/bench --benchmark-enable"""

import numpy as np
import pytest

from accsim.engine import compiled
from accsim.spec.schedule import Channel, Machine, Pool, Schedule, tile_dtype

TILES = 1_000_000


def tiles_on(units, swap, order, *, runs=1, edges=False):
    """Random tiles that keep units and one channel about equally busy."""
    rng = np.random.default_rng(0)
    tiles = np.zeros(TILES // runs, tile_dtype(1))
    tiles["compute_cycles"] = tiles["work_cycles"] = rng.integers(50, 200, len(tiles))
    tiles["load_bytes"] = rng.integers(1000, 4000, (len(tiles), 1))
    tiles["store_bytes"] = rng.integers(0, 2000, (len(tiles), 1))
    later = np.arange(units, len(tiles), 7)
    needs = np.column_stack((later, later - units)) if edges else np.zeros((0, 2), np.int64)
    machine = Machine((Channel("dram", 30.0 * units, 100),), (Pool("sm", units),), swap, order)
    return Schedule(tiles, machine, runs=runs, dependencies=needs)


def measure(benchmark, given):
    compiled.play(given)  # compiles
    played = benchmark(compiled.play, given)
    assert played.total_cycles > 0
    if benchmark.stats:
        benchmark.extra_info["million_tiles_per_s"] = TILES / benchmark.stats.stats.min / 1e6


@pytest.mark.parametrize("runs", [1, 1000])
@pytest.mark.parametrize("swap", ["lockstep", "elastic", "sequential"])
def test_one_unit(benchmark, swap, runs):
    """Target: 8 million tiles a second."""
    measure(benchmark, tiles_on(1, swap, "in_order", runs=runs))


@pytest.mark.parametrize("edges", [False, True], ids=["free", "dependent"])
@pytest.mark.parametrize("units", [4, 132])
@pytest.mark.parametrize("swap", ["lockstep", "elastic"])
def test_units_that_share_a_channel(benchmark, swap, units, edges):
    measure(benchmark, tiles_on(units, swap, "list", edges=edges))
