"""Closed form, compiled and event players on the same random schedules; exact where they say so.

The two players were written apart, from docs/engine.md alone.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
from engine.random_schedules import SWAPS, random_schedule

from accsim.engine import compiled, events
from accsim.engine.closed import lower_bound_cycles, total_cycles
from accsim.spec.schedule import Channel, Machine, Played, Pool, Schedule, tile_dtype

CASES = 2000  # a swap


def assert_same(a: Played, b: Played, what: object) -> None:
    for field in fields(Played):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(x, y), (field.name, x, y, what)


@pytest.mark.parametrize("swap", SWAPS)
def test_compiled_and_events_agree_on_every_time(swap):
    """6 000 schedules: every array of Played; and neither beats the lower bound."""
    rng = np.random.default_rng([1, *swap.encode()])
    seen = {"several": 0, "shared": 0, "edges": 0, "list": 0}
    for case in range(CASES):
        schedule = random_schedule(rng, swap)
        machine = schedule.machine
        played = events.play(schedule)
        assert_same(compiled.play(schedule), played, (case, schedule))
        assert played.total_cycles >= lower_bound_cycles(schedule)
        seen["several"] += machine.units > 1
        seen["shared"] += machine.units > 1 and any(c.shared for c in machine.channels)
        seen["edges"] += len(schedule.dependencies) > 0
        seen["list"] += machine.order == "list"
    assert min(seen.values()) > CASES // 5, seen


@pytest.mark.parametrize("swap", ["lockstep", "sequential"])
def test_one_unit_takes_the_cycles_of_the_closed_form(swap):
    """3 000 schedules of one unit without dependencies: all three levels, any channels and runs."""
    rng = np.random.default_rng([2, *swap.encode()])
    for _ in range(1500):
        found = random_schedule(rng, swap)
        tiles = found.tiles.copy()
        tiles["pool"] = 0
        machine = replace(found.machine, pools=(Pool("array"),))
        schedule = Schedule(tiles, machine, found.runs)
        closed = total_cycles(schedule)
        assert compiled.play(schedule).total_cycles == closed
        assert events.play(schedule).total_cycles == closed


@pytest.mark.parametrize("swap", SWAPS)
def test_contention_never_makes_it_faster(swap):
    """The stated ordering: in order, independent tiles of at least a cycle, shared or own."""
    rng = np.random.default_rng([3, *swap.encode()])
    slower = 0
    for _ in range(700):
        found = random_schedule(rng, swap)
        tiles = found.tiles.copy()
        tiles["work_cycles"] += 1
        tiles["compute_cycles"] += 1
        machine = replace(found.machine, order="in_order")
        shared = Schedule(tiles, machine, found.runs)
        own = replace(shared, machine=machine.without_contention())
        with_contention = events.play(shared).total_cycles
        assert with_contention >= events.play(own).total_cycles
        slower += with_contention > events.play(own).total_cycles
    assert slower > 100


@pytest.mark.parametrize("swap", SWAPS)
def test_what_a_device_says_is_conserved(swap):
    """Bytes over every channel and cycles of computing are those of the tiles, whoever plays."""
    rng = np.random.default_rng([4, *swap.encode()])
    for _ in range(400):
        schedule = random_schedule(rng, swap)
        played, machine = compiled.play(schedule), schedule.machine
        busy = (played.compute_end - played.compute_start).reshape(schedule.runs, -1)
        assert (busy == schedule.tiles["compute_cycles"]).all()
        for c, channel in enumerate(machine.channels):
            moved = sum(schedule.tiles[name][:, c].sum() for name in ("load_bytes", "store_bytes"))
            least = schedule.runs * moved / channel.bytes_per_cycle
            assert least - 1e-6 <= played.channel_busy_cycles[c]
            transfers = 2 * len(schedule) * schedule.runs  # each rounded up
            assert played.channel_busy_cycles[c] <= least + transfers


def three_tiles(swap, buffers):
    """The example of ARCHITECTURE: compute 4, 2, 5; loads 8, 4, 6, stores 4 bytes; 2 B a cycle."""
    tiles = np.zeros(3, dtype=tile_dtype(1))
    tiles["compute_cycles"] = tiles["work_cycles"] = (4, 2, 5)
    tiles["load_bytes"][:, 0] = (8, 4, 6)
    tiles["store_bytes"][:, 0] = 4
    pool = Pool("array", 1, buffers, buffers)
    return Schedule(tiles, Machine((Channel("dram", 2.0),), (pool,), swap))


@pytest.mark.parametrize(
    ("swap", "buffers", "start", "store_done"),
    [
        ("sequential", 1, (4, 12, 19), (10, 16, 26)),
        ("elastic", 1, (4, 12, 19), (10, 16, 26)),
        ("lockstep", 2, (4, 8, 13), (13, 15, 20)),
        ("elastic", 2, (4, 8, 13), (10, 15, 20)),
    ],
)
def test_the_three_tiles_of_architecture(swap, buffers, start, store_done):
    schedule = three_tiles(swap, buffers)
    for player in (compiled, events):
        played = player.play(schedule)
        assert played.compute_start.tolist() == list(start)
        assert played.store_done.tolist() == list(store_done)


def test_a_schedule_that_breaks_the_contract_is_refused():
    good = three_tiles("lockstep", 2)
    for name, value, words in (
        ("compute_cycles", 99, "must be the sum of its causes"),
        ("pool", 1, "must be a pool"),
        ("metadata_bytes", 9, "must hold its metadata"),
        ("store_bytes", -1, "must be ≥ 0"),
    ):
        tiles = good.tiles.copy()
        tiles[name][1] = value
        with pytest.raises(Exception, match=f"tile 1: .*{words}") as error:
            replace(good, tiles=tiles)
        assert "\n" not in str(error.value)
    with pytest.raises(Exception, match="depends on earlier ones only"):
        replace(good, dependencies=np.array([[1, 1]]))
