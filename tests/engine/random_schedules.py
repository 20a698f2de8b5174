"""Random small schedules that use everything the contract of docs/engine.md names."""

import math

import numpy as np

from accsim.spec.schedule import COMPUTE_CAUSES, Channel, Machine, Pool, Schedule, tile_dtype

SWAPS = ("elastic", "lockstep", "sequential")


def pick(rng, options):
    return options[int(rng.integers(len(options)))]


def random_machine(rng, swap):
    channels = tuple(
        Channel(
            f"level{c}", pick(rng, (0.4, 1.0, 2.5, 7.0, 64.0, math.inf)), pick(rng, (0, 0, 1, 5)),
            bool(rng.random() < 0.7),
        )
        for c in range(pick(rng, (0, 1, 1, 1, 2, 3)))
    )  # fmt: skip
    pools = tuple(
        Pool(f"pool{p}", pick(rng, (1, 1, 2, 3, 5)), *(int(b) for b in rng.integers(1, 4, 2)))
        for p in range(pick(rng, (1, 1, 1, 2)))
    )
    return Machine(channels, pools, swap, pick(rng, ("in_order", "list")), pick(rng, (0, 0, 3)))


def random_tiles(rng, machine, count):
    levels = len(machine.channels)
    tiles = np.zeros(count, dtype=tile_dtype(levels))
    tiles["pool"] = rng.integers(0, len(machine.pools), count)
    longest = pick(rng, (3, 12, 40))
    for cause in rng.choice(COMPUTE_CAUSES, 3, replace=False):
        tiles[f"{cause}_cycles"] = rng.integers(0, longest, count) * (rng.random(count) < 0.7)
        tiles["compute_cycles"] += tiles[f"{cause}_cycles"]
    shape = (count, levels)
    for name in ("load_bytes", "store_bytes"):
        tiles[name] = rng.integers(0, pick(rng, (4, 30, 90)), shape) * (rng.random(shape) < 0.75)
    tiles["metadata_bytes"] = tiles["load_bytes"] // pick(rng, (2, 5))
    tiles["gather_bytes"] = tiles["load_bytes"] // 3 * (rng.random() < 0.4)
    return tiles


def random_edges(rng, count):
    if count < 2 or rng.random() < 0.6:
        return np.zeros((0, 2), dtype=np.int64)
    later = rng.integers(1, count, int(rng.integers(1, 2 * count)))
    return np.stack([later, rng.integers(0, later)], axis=1)


def random_schedule(rng, swap):
    machine = random_machine(rng, swap)
    count = pick(rng, (1, 2, 3, 5, 9, 14))
    tiles = random_tiles(rng, machine, count)
    return Schedule(tiles, machine, pick(rng, (1, 1, 1, 2, 3)), random_edges(rng, count))
