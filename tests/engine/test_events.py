"""The event player: examples worked out by hand from docs/engine.md, and laws.

A row of an example is (compute cycles, load bytes, store bytes); bytes are one number, or one a
channel. Unless said otherwise there is one shared channel, ``dram``, of 1 byte a cycle.
"""

import heapq
import math
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from accsim.base.errors import InputError
from accsim.engine import events
from accsim.kernels.pipeline import pipeline_cycles
from accsim.spec.schedule import Channel, Machine, Played, Pool, Schedule, tile_dtype

DRAM = Channel("dram", 1.0)
ARRAY = Pool("array")
SWAPS = ("elastic", "lockstep", "sequential")
ARRAYS = [field.name for field in fields(Played)][1:-1]


def buffers(count, units=1, outputs=None):
    return Pool("array", units, count, outputs or count)


def schedule_of(rows, *, channels=(DRAM,), pools=(ARRAY,), edges=(), runs=1, of=0, **how):
    tiles = np.zeros(len(rows), dtype=tile_dtype(len(channels)))
    for tile, (cycles, load, store) in zip(tiles, rows, strict=True):
        tile["compute_cycles"] = tile["work_cycles"] = cycles
        tile["load_bytes"], tile["store_bytes"] = load, store
    tiles["pool"] = of
    dependencies = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return Schedule(tiles, Machine(tuple(channels), tuple(pools), **how), runs, dependencies)


def play(rows, **how):
    return events.play(schedule_of(rows, **how))


def of(played, *names):
    return [getattr(played, name).tolist() for name in names]


def loads(played):
    return list(zip(*of(played, "load_request", "load_begin", "load_done"), strict=True))


def computes(played):
    return list(zip(*of(played, "compute_start", "compute_end"), strict=True))


def stores(played):
    return list(zip(*of(played, "store_request", "store_begin", "store_done"), strict=True))


# One unit, three tiles.

THREE = [(4, 2, 3), (1, 3, 1), (5, 1, 2)]


def test_three_tiles_lockstep():
    # slot  0–2   load 0 (2)
    # slot  2–6   compute 0 (4)   load 1 (3): 2–5
    # slot  6–10  compute 1 (1)   store 0 + load 2 (3 + 1): 6–10
    # slot 10–15  compute 2 (5)   store 1 (1): 10–11
    # slot 15–17                  store 2 (2)
    played = play(THREE, swap="lockstep")
    assert loads(played) == [(0, 0, 2), (2, 2, 5), (6, 6, 10)]
    assert computes(played) == [(2, 6), (6, 7), (10, 15)]
    assert stores(played) == [(6, 6, 10), (10, 10, 11), (15, 15, 17)]
    assert played.total_cycles == 17
    assert of(played, "unit", "load_channel", "channel_busy_cycles") == [[0] * 3, [0] * 3, [12]]


@pytest.mark.parametrize(
    "how", [{"swap": "sequential"}, {"swap": "elastic", "pools": [buffers(1)]}]
)
def test_three_tiles_with_one_buffer(how):
    # load 0: 0–2, compute 2–6, store 6–9; load 1: 9–12, compute 12–13, store 13–14;
    # load 2: 14–15, compute 15–20, store 20–22. Elastic requests load 1 at 6 already (and load 2
    # at 13), but the store of the same cycle goes first.
    played = play(THREE, **how)
    early = [0, 6, 13] if how["swap"] == "elastic" else [0, 9, 14]
    assert loads(played) == list(zip(early, [0, 9, 14], [2, 12, 15], strict=True))
    assert computes(played) == [(2, 6), (12, 13), (15, 20)]
    assert stores(played) == [(6, 6, 9), (13, 13, 14), (20, 20, 22)]
    assert played.total_cycles == 22


def test_three_tiles_elastic_with_two_buffers():
    # cycle 0: claims 0 and 1; channel: load 0 0–2, load 1 2–5; computes 0 2–6
    # cycle 6: claims 2; requests store 0 and load 2; channel: store 0 6–9, load 2 9–10
    #          computes 1 6–7
    # cycle 7: requests store 1, behind load 2: 10–11
    # cycle 10: load 2 is there, buffer of store 0 free since 9: computes 2 10–15; store 2 15–17
    played = play(THREE, swap="elastic", pools=[buffers(2)])
    assert loads(played) == [(0, 0, 2), (0, 2, 5), (6, 9, 10)]
    assert computes(played) == [(2, 6), (6, 7), (10, 15)]
    assert stores(played) == [(6, 6, 9), (7, 10, 11), (15, 15, 17)]
    assert played.total_cycles == 17


def test_output_buffer_holds_computing_up():
    # Three input buffers, one output buffer: loads 0–2, 2–5, 5–6; computes 0 2–6; store 0 6–9;
    # computes 1 9–10 (its load was there at 5); store 1 10–11; computes 2 11–16; store 2 16–18.
    played = play(THREE, swap="elastic", pools=[buffers(3, outputs=1)])
    assert computes(played) == [(2, 6), (9, 10), (11, 16)]
    assert played.total_cycles == 18


def test_latency_leaves_the_channel_free():
    # load 0: 0–2, there at 12; load 1: 2–5, there at 15. Computes 0 12–16; at 16 store 0 (16–19,
    # done 29), load 2 (19–20, there 30). Computes 1 16–17; store 1 20–21, done 31. Computes 2
    # 30–35; store 2 35–37, done 47.
    slow = Channel("dram", 1.0, latency_cycles=10)
    played = play(THREE, swap="elastic", channels=[slow])
    assert loads(played) == [(0, 0, 12), (0, 2, 15), (16, 19, 30)]
    assert computes(played) == [(12, 16), (16, 17), (30, 35)]
    assert stores(played) == [(16, 16, 29), (17, 20, 31), (35, 35, 47)]
    assert of(played, "channel_busy_cycles") == [[12]]


def test_runs_follow_each_other_and_launch_comes_first():
    # Slots of two runs of one tile (compute 5, load 2, store 3) after 100 cycles: load 100–102;
    # compute 102–107 with the next load; compute 107–112 with store 107–110; store 112–115.
    played = play([(5, 2, 3)], swap="lockstep", runs=2, launch_cycles=100)
    assert loads(played) == [(100, 100, 102), (102, 102, 104)]
    assert computes(played) == [(102, 107), (107, 112)]
    assert stores(played) == [(107, 107, 110), (112, 112, 115)]


# Units.

FOUR = [(3, 2, 1)] * 4


def test_two_units_share_a_channel_elastic():
    # cycle 0: load 0 0–2 (unit 0), load 1 2–4 (unit 1); computes 0 2–5, 1 4–7
    # cycle 5: store 0 5–6, load 2 6–8.   cycle 7: store 1 8–9, load 3 9–11
    # computes 2 8–11, store 2 11–12; computes 3 11–14, store 3 14–15
    played = play(FOUR, swap="elastic", pools=[buffers(1, units=2)])
    assert of(played, "unit") == [[0, 1, 0, 1]]
    assert loads(played) == [(0, 0, 2), (0, 2, 4), (5, 6, 8), (7, 9, 11)]
    assert computes(played) == [(2, 5), (4, 7), (8, 11), (11, 14)]
    assert stores(played) == [(5, 5, 6), (7, 8, 9), (11, 11, 12), (14, 14, 15)]


def test_two_units_share_a_channel_lockstep():
    # Slots of unit 0 | of unit 1, and when the channel serves them:
    # 0–2  load 0                         | 0–4  load 1 (2–4)
    # 2–6  compute 0 (–5), load 2 (4–6)   | 4–8  compute 1 (–7), load 3 (6–8)
    # 6–9  compute 2, store 0 (8–9)       | 8–11 compute 3, store 1 (9–10)
    # 9–11 store 2 (10–11)                | 11–12 store 3
    played = play(FOUR, swap="lockstep", pools=[buffers(2, units=2)])
    assert loads(played) == [(0, 0, 2), (0, 2, 4), (2, 4, 6), (4, 6, 8)]
    assert computes(played) == [(2, 5), (4, 7), (6, 9), (8, 11)]
    assert stores(played) == [(6, 8, 9), (8, 9, 10), (9, 10, 11), (11, 11, 12)]
    assert played.total_cycles == 12


def test_private_channels_do_not_wait_for_each_other():
    # Each unit as if alone: load 0–2, compute 2–5, load 2–4; compute 5–8 with store 5–6; store 8–9.
    own = Channel("dram", 1.0, shared=False)
    played = play(FOUR, swap="lockstep", channels=[own], pools=[buffers(2, units=2)])
    assert computes(played) == [(2, 5), (2, 5), (5, 8), (5, 8)]
    assert (played.total_cycles, of(played, "channel_busy_cycles")) == (9, [[12]])


def test_list_order_with_ragged_tiles():
    # cycle 0: unit 0 claims 0 and 2, unit 1 claims 1 and 3 (always who holds fewest)
    #          loads, lower unit first: 0 at 0–1, 2 at 1–2, 1 at 2–3, 3 at 3–4
    #          computes 0 1–7 (unit 0), 1 3–4 (unit 1)
    # cycle 4: unit 1 claims 4; store 1 4–5, load 4 5–6; its one output buffer is free at 5:
    #          computes 3 5–7
    # cycle 7: store 0 7–8, store 3 8–9; unit 0 computes 2 8–10, unit 1 computes 4 9–10
    # cycle 10: store 2 10–11
    rows = [(6, 1, 1), (1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 0)]
    played = play(rows, swap="elastic", order="list", pools=[buffers(2, units=2, outputs=1)])
    assert of(played, "unit") == [[0, 1, 0, 1, 1]]
    assert loads(played) == [(0, 0, 1), (0, 2, 3), (0, 1, 2), (0, 3, 4), (4, 5, 6)]
    assert computes(played) == [(1, 7), (3, 4), (8, 10), (5, 7), (9, 10)]
    assert stores(played) == [(7, 7, 8), (4, 4, 5), (10, 10, 11), (7, 8, 9), (10, 10, 10)]
    assert of(played, "store_channel") == [[0, 0, 0, 0, -1]]


def test_list_order_keeps_units_busy():
    rows = [(5, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0)]
    how = {"swap": "sequential", "pools": [buffers(1, units=2)]}
    assert of(play(rows, order="list", **how), "unit") == [[0, 1, 1, 1]]
    assert play(rows, order="list", **how).total_cycles == 5
    assert play(rows, order="in_order", **how).total_cycles == 6


def test_list_order_lockstep_with_a_dependency():
    # Tile 3 needs tile 0. Slots of unit 0 | of unit 1:
    # 0–1 load 0              | 0–2 load 1 (1–2)
    # 1–3 compute 0, load 2   | 2–6 compute 1; 3 is next, but 0 is not done: loads nothing
    # 3–4 compute 2, store 0: | (nothing to move, done at 3; but when this slot started it was not)
    # 4–5 store 2, load 3     | one transfer, so store 2, without bytes, is done at 5
    # 5–6 compute 3           |
    # 6–7 store 3             | 6–6 store 1 (nothing to move)
    rows = [(2, 1, 0), (4, 1, 0), (1, 1, 0), (1, 1, 1)]
    pools = [buffers(2, units=2)]
    played = play(rows, swap="lockstep", order="list", pools=pools, edges=[(3, 0)])
    assert of(played, "unit") == [[0, 1, 0, 0]]
    assert loads(played) == [(0, 0, 1), (0, 1, 2), (1, 2, 3), (4, 4, 5)]
    assert computes(played) == [(1, 3), (2, 6), (3, 4), (5, 6)]
    assert stores(played) == [(3, 3, 3), (6, 6, 6), (4, 4, 5), (6, 6, 7)]
    assert of(played, "store_channel") == [[-1, -1, 0, 0]]


def test_pools_take_their_own_tiles():
    # Units 0 and 1 are arrays, unit 2 the vector unit; the p-th tile counts inside its pool.
    pools = [Pool("array", 2, 1, 1), Pool("vector", 1, 1, 1)]
    played = play([(2, 0, 0)] * 6, swap="elastic", pools=pools, of=[0, 1, 1, 0, 0, 1])
    assert of(played, "unit", "compute_start") == [[0, 2, 2, 1, 0, 2], [0, 0, 2, 0, 2, 4]]


# One cycle.


def test_stores_go_before_loads_of_a_lower_unit():
    # At 4 unit 0 requests the load of 2 and unit 1 the store of 1.
    rows = [(4, 0, 0), (4, 0, 3), (1, 2, 0)]
    played = play(rows, swap="elastic", pools=[buffers(1, units=2)])
    assert stores(played)[1] == (4, 4, 7)
    assert loads(played)[2] == (4, 7, 9)


def test_a_slot_that_stores_goes_before_one_that_loads():
    # Both second slots start at 4: unit 0 loads 2 bytes; unit 1 stores 1 and loads 3 as one.
    rows = [(4, 0, 0), (4, 0, 1), (4, 0, 0), (1, 0, 0), (4, 2, 0), (1, 3, 0)]
    played = play(rows, swap="lockstep", pools=[buffers(2, units=2)])
    assert stores(played)[1] == loads(played)[5] == (4, 4, 8)
    assert loads(played)[4] == (4, 8, 10)


def test_an_earlier_request_goes_before_a_store():
    # Load 1 is requested at 0 and waits until 5 for load 0; the store of tile 2, at 3, comes after.
    pools = [Pool("array", 2, 1, 1), Pool("vector", 1, 1, 1)]
    played = play([(1, 5, 0), (1, 4, 0), (3, 0, 2)], swap="elastic", pools=pools, of=[0, 0, 1])
    assert (loads(played)[1], stores(played)[2]) == ((0, 5, 9), (3, 9, 11))


def test_nothing_takes_no_time():
    # Elastic, sequential: a tile is over before the next claim, so unit 0 claims them all.
    # Lockstep: unit 0 loads 0; unit 1 now holds fewer and loads 1; then unit 0 is the lower of two.
    for swap, unit in (
        ("elastic", [0] * 5),
        ("sequential", [0] * 5),
        ("lockstep", [0, 1, 0, 0, 0]),
    ):
        played = play(
            [(0, 0, 0)] * 5, swap=swap, order="list", pools=[buffers(2, 2)], launch_cycles=7
        )
        assert of(played, "unit") == [unit], swap
        assert all(set(times) == {7} for times in of(played, *ARRAYS[1:-2]))
        assert played.total_cycles == 7


def test_a_chain_of_empty_tiles_is_settled_before_the_next_claim():
    # 1 (vector) needs 0 (array), 2 (array) needs 1: all three in cycle 0, in any swap.
    pools = [Pool("array"), Pool("vector")]
    rows = [(0, 0, 0), (0, 0, 0), (3, 0, 0)]
    for swap in SWAPS:
        played = play(rows, swap=swap, pools=pools, of=[0, 1, 0], edges=[(1, 0), (2, 1)])
        assert of(played, "compute_start") == [[0, 0, 0]], swap


def test_no_tile():
    played = play([], launch_cycles=5)
    assert (played.total_cycles, of(played, *ARRAYS)) == (5, [[]] * len(ARRAYS))
    assert of(played, "channel_busy_cycles") == [[0]]


# Dependencies and channels.


def test_a_dependency_holds_back_this_load_and_those_behind_it():
    # Tile 1 needs 0, which is done at 7; tile 2 is claimed at 0 but loads in order, so also at 7.
    rows = [(4, 2, 1), (1, 1, 0), (1, 1, 0)]
    played = play(rows, swap="elastic", pools=[buffers(3)], edges=[(1, 0)])
    assert loads(played) == [(0, 0, 2), (7, 7, 8), (7, 8, 9)]
    # One after the other: 1 is claimed at 7, so nothing changes; tile 2 follows.
    assert loads(play(rows, swap="sequential", edges=[(1, 0)]))[1:] == [(7, 7, 8), (9, 9, 10)]
    # Lockstep: 2–6 computes 0; 6–7 stores it; 1 can be claimed at 7.
    assert loads(play(rows, swap="lockstep", edges=[(1, 0)])) == [(0, 0, 2), (7, 7, 8), (8, 8, 9)]


def test_edges_repeat_inside_each_run():
    # Run r: tile 1 (vector) needs tile 0 (array): 0–4 and 4–8 on the array, then 1 cycle each.
    pools = [Pool("array"), Pool("vector")]
    how = {"pools": pools, "of": [0, 1], "edges": [(1, 0), (1, 0)], "runs": 2, "swap": "elastic"}
    assert computes(play([(4, 0, 0), (1, 0, 0)], **how)) == [(0, 4), (4, 5), (4, 8), (8, 9)]


def test_a_transfer_waits_for_its_last_channel():
    # dram: ⌈7/2⌉ + 3 = 7; l2: ⌈9/2⌉ = 5 → dram. Then dram ⌈4/2⌉ + 3 = 5 and l2 5: the first, dram.
    # Then l2 alone.
    channels = [Channel("dram", 2.0, 3), Channel("l2", 2.0)]
    rows = [(0, (7, 9), 0), (0, (4, 9), 0), (0, (0, 3), 0)]
    played = play(rows, swap="sequential", channels=channels)
    assert loads(played) == [(0, 0, 7), (7, 7, 12), (12, 12, 14)]
    assert of(played, "load_channel", "channel_busy_cycles") == [[0, 0, 1], [6, 12]]


def test_begin_is_when_the_first_channel_takes_it_up():
    # Load 1 waits for dram until 6, but l2 takes it up at 2.
    channels = [Channel("dram", 1.0), Channel("l2", 1.0)]
    played = play([(0, (6, 2), 0), (0, (1, 2), 0)], swap="elastic", channels=channels)
    assert loads(played) == [(0, 0, 6), (0, 2, 7)]


def test_infinite_bandwidth():
    # With latency every load is there 5 cycles after its request, and no one waits for a turn.
    fast = Channel("dram", math.inf, 5)
    played = play([(0, 9, 0)] * 3, swap="elastic", channels=[fast], pools=[buffers(3)])
    assert loads(played) == [(0, 0, 5)] * 3
    assert of(played, "load_channel", "channel_busy_cycles") == [[0] * 3, [0]]
    # Without, a load is as one without bytes; it does count where another channel takes time.
    instant = Channel("dram", math.inf)
    played = play([(1, 9, 9)] * 2, swap="lockstep", channels=[instant])
    assert of(played, "load_done", "load_channel") == [[0, 0], [-1, -1]]
    played = play([(1, (9, 2), 0)], swap="lockstep", channels=[instant, Channel("l2", 1.0)])
    assert of(played, "load_done", "load_channel") == [[2], [1]]


def test_occupancy_is_rounded_up():
    played = play([(0, 10, 0)], channels=[Channel("dram", 3.0)])
    assert of(played, "load_done", "channel_busy_cycles") == [[4], [4]]


def test_too_many_tiles():
    with pytest.raises(InputError, match=r"plays at most 5000000 tiles a layer; got 6000000"):
        play([(1, 0, 0)] * 2, runs=3_000_000)


# Laws.


def random_schedule(rng, least=0, **fixed):
    """Return a small schedule with every feature, ties made likely by small numbers."""
    levels = int(rng.integers(4))
    pools = tuple(
        Pool(f"p{i}", *(int(n) for n in rng.integers(1, 4, 3))) for i in range(rng.integers(1, 3))
    )
    channels = [
        Channel(
            f"c{i}",
            float(rng.choice([1, 1.5, 4, math.inf])),
            int(rng.integers(3)),
            bool(rng.integers(2)),
        )
        for i in range(levels)
    ]
    count = int(rng.integers(1, 11))
    rows = [
        (rng.integers(least, 6), some_bytes(rng, levels), some_bytes(rng, levels))
        for _ in range(count)
    ]
    edges = [(a, rng.integers(a)) for a in range(1, count) if rng.random() < 0.3]
    how = {
        "channels": channels, "pools": pools, "of": rng.integers(len(pools), size=count),
        "edges": edges * int(rng.integers(2)), "runs": int(rng.integers(1, 4)),
        "swap": str(rng.choice(SWAPS)), "order": str(rng.choice(["in_order", "list"])),
        "launch_cycles": int(rng.integers(3)),
    }  # fmt: skip
    return schedule_of(rows, **(how | fixed))


def some_bytes(rng, levels):
    return rng.integers(0, 7, levels) * rng.integers(0, 2, levels)


def random_schedules(count, seed, **fixed):
    rng = np.random.default_rng(seed)
    return (random_schedule(rng, **fixed) for _ in range(count))


def apart(spans):
    """Whether no two of (start, end) overlap."""
    spans = sorted(span for span in spans if span[0] < span[1])
    return all(a[1] <= b[0] for a, b in pairwise(spans))


def transfers(schedule, played):
    """Return what moved: [request, 0 or 1, unit, tile, bytes, {(begin, done, channel) as played}].

    In lockstep the load and the store of a slot are one. Moving takes at least a cycle (where no
    channel is instant), so a unit has one slot with bytes to move that starts in a cycle.
    """
    found = {}
    for what, kind in (("store", 0), ("load", 1)):
        names = ("request", "begin", "done", "channel")
        columns = of(played, "unit", *(f"{what}_{name}" for name in names))
        for tile, (unit, request, *times) in enumerate(zip(*columns, strict=True)):
            nbytes = schedule.tiles[f"{what}_bytes"][tile % len(schedule)]
            if nbytes.any():
                slot = schedule.machine.swap == "lockstep"
                key = (unit, request) if slot else (kind, tile)
                move = found.setdefault(key, [request, kind, unit, tile, 0, set()])
                move[4] = move[4] + nbytes
                move[5].add(tuple(times))
    return sorted(found.values(), key=lambda move: move[:4])


def serve(schedule, moves):
    """Return (begin, done, channel) of each: every channel serves in the order of ``moves``."""
    free = {}
    for request, _, unit, _, nbytes, _ in moves:
        parts = []
        for level, channel in enumerate(schedule.machine.channels):
            if nbytes[level]:
                key = (level, 0 if channel.shared else unit)
                begin = max(request, free.get(key, 0))
                free[key] = begin + math.ceil(nbytes[level] / channel.bytes_per_cycle)
                parts.append((begin, free[key] + channel.latency_cycles, level))
        done = max(part[1] for part in parts)
        yield min(p[0] for p in parts), done, min(p[2] for p in parts if p[1] == done)


def instant(schedule, nbytes=None):
    """Return which channels take no time, or whether these bytes take none."""
    channels = schedule.machine.channels
    free = np.array([c.bytes_per_cycle == math.inf and not c.latency_cycles for c in channels])
    return free if nbytes is None else free[nbytes > 0].all()


def test_a_unit_computes_one_tile_at_a_time():
    for schedule in random_schedules(2000, seed=1):
        played = events.play(schedule)
        cycles = np.tile(schedule.tiles["compute_cycles"], schedule.runs)
        assert (played.compute_end - played.compute_start == cycles).all()
        for unit in range(schedule.machine.units):
            mine = played.unit == unit
            assert apart(zip(played.compute_start[mine], played.compute_end[mine], strict=True))
        assert played.total_cycles == max(played.store_done)


def test_channels_serve_in_order_and_without_gaps():
    for schedule in random_schedules(2000, seed=7):
        if schedule.machine.swap == "lockstep" and instant(schedule).any():
            continue
        played = events.play(schedule)
        moves = transfers(schedule, played)
        queued = [move for move in moves if not instant(schedule, move[4])]
        for move, expected in zip(queued, serve(schedule, queued), strict=True):
            assert move[5] == {expected}
        busy = [
            sum(math.ceil(move[4][level] / channel.bytes_per_cycle) for move in moves)
            for level, channel in enumerate(schedule.machine.channels)
        ]
        assert played.channel_busy_cycles.tolist() == busy


def claims(schedule, played):
    """Return (cycle, unit) of each claim, list order, elastic: who can, by when tiles ended.

    Right where every tile takes at least a cycle, so that nothing claimed in a cycle ends in it.
    """
    made = np.zeros((len(played.unit), 2), dtype=np.int64)
    pool_of, first = np.tile(schedule.tiles["pool"], schedule.runs), 0
    for kind, pool in enumerate(schedule.machine.pools):
        now, ends = schedule.machine.launch_cycles, [[] for _ in range(pool.units)]
        for tile in np.flatnonzero(pool_of == kind):
            room = [
                sorted(e, reverse=True)[pool.input_buffers - 1]
                if len(e) >= pool.input_buffers
                else 0
                for e in ends
            ]
            now = max(now, min(room))
            held = [sum(end > now for end in e) for e in ends]
            unit = min((held[u], u) for u in range(pool.units) if room[u] <= now)[1]
            ends[unit].append(int(played.compute_end[tile]))
            made[tile] = now, first + unit
        first += pool.units
    return made


@pytest.mark.parametrize("order", ["in_order", "list"])
def test_elastic_equations(order):
    least = 1 if order == "list" else 0
    for schedule in random_schedules(1000, seed=2, swap="elastic", order=order, least=least):
        played = events.play(schedule)
        made = claims(schedule, played) if order == "list" else None
        if made is not None:
            assert (played.unit == made[:, 1]).all()
        check_elastic(schedule, played, made)


def check_elastic(schedule, played, made):
    """Check the equations of the contract, tile by tile of each unit."""
    for pool, mine in tiles_by_unit(schedule, played):
        for j, tile in enumerate(mine):
            claim = schedule.machine.launch_cycles if made is None else made[tile, 0]
            if made is None and j >= pool.input_buffers:
                claim = played.compute_end[mine[j - pool.input_buffers]]
            before = [played.load_request[mine[j - 1]]] if j else []
            assert played.load_request[tile] == max(
                [claim, *before, *needs(schedule, played, tile)]
            )
            start = [played.load_done[tile]] + ([played.compute_end[mine[j - 1]]] if j else [])
            if j >= pool.output_buffers:
                start.append(played.store_done[mine[j - pool.output_buffers]])
            assert played.compute_start[tile] == max(start)
            assert played.store_request[tile] == played.compute_end[tile]


def tiles_by_unit(schedule, played):
    """Return the pool and the tiles of each unit, in order (of claims too: no one overtakes)."""
    pools = [pool for pool in schedule.machine.pools for _ in range(pool.units)]
    return [(pool, np.flatnonzero(played.unit == unit)) for unit, pool in enumerate(pools)]


def needs(schedule, played, tile):
    """Return when the tiles it depends on are done."""
    first = tile // len(schedule) * len(schedule)
    return [played.store_done[first + b] for a, b in schedule.dependencies if first + a == tile]


def test_sequential_equations():
    for schedule in random_schedules(500, seed=3, swap="sequential", order="in_order"):
        played = events.play(schedule)
        for _, mine in tiles_by_unit(schedule, played):
            free = [schedule.machine.launch_cycles, *played.store_done[mine]]
            for tile, claim in zip(mine, free, strict=False):
                expected = max([claim, *needs(schedule, played, tile)])
                assert played.load_request[tile] == expected
        assert (played.compute_start == played.load_done).all()
        assert (played.store_request == played.compute_end).all()


@pytest.mark.parametrize("order", ["in_order", "list"])
def test_lockstep_equations(order):
    """Slots of independent tiles; in list order also who starts its slot first."""
    for schedule in random_schedules(500, seed=8, swap="lockstep", order=order, edges=(), least=1):
        played = events.play(schedule)
        held = np.ones(len(played.unit), dtype=int)
        for _, mine in tiles_by_unit(schedule, played):
            if not len(mine):
                continue
            held[mine[0]] = 0
            # The slot that computes tile j stores j − 1 and loads j + 1; the next one stores j.
            slots = [schedule.machine.launch_cycles, *played.compute_start[mine]]
            assert played.load_request[mine].tolist() == slots[:-1]
            stored, loaded = [0, *played.store_done[mine][:-1]], [*played.load_done[mine][1:], 0]
            ends = np.max([played.compute_end[mine], stored, loaded], axis=0)
            assert played.store_request[mine].tolist() == ends.tolist()
            assert slots[2:] == ends[:-1].tolist()
        if order == "list":
            claimed = np.lexsort((played.unit, held, played.load_request))
            kinds = np.tile(schedule.tiles["pool"], schedule.runs)[claimed]
            assert all((np.diff(claimed[kinds == kind]) > 0).all() for kind in set(kinds))


@pytest.mark.parametrize("swap", ["lockstep", "sequential"])
def test_one_unit_equals_the_closed_form(swap):
    rng = np.random.default_rng(4)
    for _ in range(500):
        count, runs = (int(n) for n in rng.integers(1, 9, 2))
        rows = [
            tuple(int(n) for n in rng.integers(0, 30, 3) * rng.integers(0, 2, 3))
            for _ in range(count)
        ]
        memory = {
            "bytes_per_cycle": float(rng.choice([0.7, 1, 3, math.inf])),
            "latency_cycles": int(rng.integers(0, 9)),
        }
        played = play(rows, channels=[Channel("dram", **memory)], swap=swap, runs=runs)
        columns = np.array(rows).T
        double = swap == "lockstep"
        closed = pipeline_cycles(*columns, **memory, double_buffered=double, runs=runs)
        assert played.total_cycles == closed


def greedy(cycles, units):
    """List scheduling: each task goes to the unit that is free first, the lower one of equals."""
    free = [(0, unit) for unit in range(units)]
    placed = []
    for length in cycles:
        start, unit = heapq.heappop(free)
        heapq.heappush(free, (start + length, unit))
        placed.append((start, unit))
    return placed


@pytest.mark.parametrize("swap", ["sequential", "elastic"])
def test_list_order_of_independent_tiles_is_greedy(swap):
    rng = np.random.default_rng(5)
    for _ in range(500):
        units = int(rng.integers(1, 6))
        cycles = rng.integers(0, 9, rng.integers(1, 30)).tolist()
        rows = [(length, 0, 0) for length in cycles]
        played = play(rows, swap=swap, order="list", pools=[buffers(1, units)])
        assert list(zip(*of(played, "compute_start", "unit"), strict=True)) == greedy(cycles, units)
        bound = max(sum(cycles) / units, max(cycles))
        assert bound <= played.total_cycles <= (2 - 1 / units) * bound


def without_contention(schedule):
    machine = schedule.machine.without_contention()
    return Schedule(schedule.tiles, machine, schedule.runs, schedule.dependencies)


@pytest.mark.parametrize(
    "how", [{"swap": "sequential"}, *({"swap": swap, "edges": (), "least": 1} for swap in SWAPS)]
)
def test_own_channels_are_never_slower(how):
    """Where a unit's transfers keep their order: always sequential; else as above and below."""
    for schedule in random_schedules(400, seed=6, order="in_order", **how):
        alone = events.play(without_contention(schedule))
        assert (alone.store_done <= events.play(schedule).store_done).all()


def test_own_channels_can_be_slower_where_requests_change_places():
    # Unit 1, own channel: loads 3 0–5; computes 1 0–5 and 3 (no cycles) 5–5. So at 5 it requests
    # store 3 (9) and load 5 (1), the store goes first: computes 5 15–65.
    # Shared: load 0 (1 byte) of unit 0 goes first, load 3 is there at 6. Load 5, requested at 5, is
    # now before store 3, requested at 6: computes 5 7–57.
    rows = [(0, 1, 0), (5, 0, 0), (0, 0, 0), (0, 5, 9), (0, 0, 0), (50, 1, 0)]
    shared = schedule_of(rows, swap="elastic", pools=[buffers(2, units=2)])
    assert events.play(shared).total_cycles == 57
    assert events.play(without_contention(shared)).total_cycles == 65
