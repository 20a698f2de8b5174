"""Speed of the event player, in tiles/s. Run with: pytest tests/bench --benchmark-enable"""

import numpy as np
import pytest

from accsim.engine import events
from accsim.spec.schedule import Channel, Machine, Pool, Schedule, tile_dtype

TILES = 20_000


def ragged_tiles(units, swap, order):
    """Return tiles about as long to move as to compute, over one channel all units share."""
    rng = np.random.default_rng(units)
    tiles = np.zeros(TILES, dtype=tile_dtype(1))
    tiles["compute_cycles"] = tiles["work_cycles"] = rng.integers(50, 150, TILES)
    tiles["load_bytes"] = rng.integers(100, 1500, (TILES, 1))
    tiles["store_bytes"] = rng.integers(100, 500, (TILES, 1))
    channels = (Channel("dram", 10.0 * units, latency_cycles=10),)
    return Schedule(tiles, Machine(channels, (Pool("array", units),), swap, order))


@pytest.mark.parametrize("order", ["in_order", "list"])
@pytest.mark.parametrize("units", [1, 4, 132])
@pytest.mark.parametrize("swap", ["lockstep", "elastic"])
def test_events(benchmark, swap, units, order):
    """Target: 50 000 tiles/s."""
    schedule = ragged_tiles(units, swap, order)
    played = benchmark.pedantic(events.play, [schedule], rounds=3)
    assert played.channel_busy_cycles[0] <= played.total_cycles
    if benchmark.enabled:
        benchmark.extra_info["tiles_per_s"] = round(TILES / benchmark.stats.stats.min)
