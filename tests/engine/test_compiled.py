"""The compiled player against schedules worked by hand, a slow twin and laws.

The twin steps a clock and reads docs/engine.md line by line: in each cycle it asks of every tile
what can happen now, makes claims, and lets every channel pick from its queue.
"""

import dataclasses
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from numba import config

from accsim.base.errors import InputError
from accsim.engine import compiled
from accsim.kernels.pipeline import pipeline_cycles
from accsim.spec.schedule import Channel, Machine, Played, Pool, Schedule, tile_dtype

SWAPS = ("elastic", "lockstep", "sequential")
CASES = 40 if config.DISABLE_JIT else 1500  # of each swap
FIELDS = tuple(field.name for field in dataclasses.fields(Played))


def schedule(machine, compute, load, store, pool=0, edges=(), runs=1):
    """A schedule of tiles given as columns; bytes are (tiles, levels)."""
    tiles = np.zeros(len(compute), tile_dtype(len(machine.channels)))
    tiles["compute_cycles"] = tiles["work_cycles"] = compute
    tiles["load_bytes"], tiles["store_bytes"], tiles["pool"] = load, store, pool
    needs = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return Schedule(tiles, machine, runs=runs, dependencies=needs)


# ---- worked by hand ------------------------------------------------------------------------------


def three_tiles(swap, buffers):
    """Loads of 2 bytes, computing 3, 1, 4 cycles, stores of 1, 2, 1 bytes; latency 1 cycle."""
    pool = Pool("array", input_buffers=buffers, output_buffers=buffers)
    machine = Machine((Channel("dram", 1.0, latency_cycles=1),), (pool,), swap)
    return schedule(machine, [3, 1, 4], [[2]] * 3, [[1], [2], [1]])


def test_elastic_two_buffers_by_hand():
    # cycle  0: tiles 0 and 1 are claimed, their loads requested. Load 0 takes 0-2, arrives 3.
    #        2: load 1 takes 2-4, arrives 5.
    #        3: tile 0 computes 3-6.
    #        6: store 0 and, tile 2 being claimed, load 2 are requested; the store goes first: 6-7,
    #           arrives 8. Tile 1 computes 6-7.
    #        7: store 1 is requested; load 2 was earlier: 7-9, arrives 10.
    #        9: store 1 takes 9-11, arrives 12.
    #       10: tile 2 computes 10-14; store 2 takes 14-15, arrives 16.
    played = compiled.play(three_tiles("elastic", 2))
    assert played.load_request.tolist() == [0, 0, 6]
    assert played.load_begin.tolist() == [0, 2, 7]
    assert played.load_done.tolist() == [3, 5, 10]
    assert played.compute_start.tolist() == [3, 6, 10]
    assert played.compute_end.tolist() == [6, 7, 14]
    assert played.store_request.tolist() == [6, 7, 14]
    assert played.store_begin.tolist() == [6, 9, 14]
    assert played.store_done.tolist() == [8, 12, 16]
    assert played.total_cycles == 16
    assert played.channel_busy_cycles.tolist() == [2 + 2 + 2 + 1 + 2 + 1]
    assert played.load_channel.tolist() == played.store_channel.tolist() == [0, 0, 0]


def test_elastic_one_buffer_by_hand():
    # cycle  0: load 0 takes 0-2, arrives 3; tile 0 computes 3-6.
    #        6: store 0 (6-7, arrives 8); tile 1 is claimed, its load takes 7-9, arrives 10.
    #       10: the one output buffer is free since 8: tile 1 computes 10-11.
    #       11: store 1 (11-13, arrives 14); load 2 takes 13-15, arrives 16.
    #       16: tile 2 computes 16-20; store 2 takes 20-21, arrives 22.
    played = compiled.play(three_tiles("elastic", 1))
    assert played.load_request.tolist() == [0, 6, 11]
    assert played.load_begin.tolist() == [0, 7, 13]
    assert played.compute_start.tolist() == [3, 10, 16]
    assert played.store_begin.tolist() == [6, 11, 20]
    assert played.total_cycles == 22


def test_lockstep_by_hand():
    # slot at  0: load 0 (2 bytes, arrives 3).
    #          3: computes 0 until 6; load 1 (3-5, arrives 6).
    #          6: computes 1 until 7; store 0 and load 2 together (3 bytes: 6-9, arrive 10).
    #         10: computes 2 until 14; store 1 (10-12, arrives 13).
    #         14: store 2 (14-15, arrives 16).
    played = compiled.play(three_tiles("lockstep", 2))
    assert played.load_request.tolist() == [0, 3, 6]
    assert played.load_done.tolist() == [3, 6, 10]
    assert played.compute_start.tolist() == [3, 6, 10]
    assert played.compute_end.tolist() == [6, 7, 14]
    assert played.store_request.tolist() == [6, 10, 14]
    assert played.store_done.tolist() == [10, 13, 16]
    assert played.total_cycles == 16


def test_sequential_by_hand():
    # (load, compute, store) take (2+1, 3, 1+1), (2+1, 1, 2+1), (2+1, 4, 1+1): 8, 7 and 9 cycles.
    played = compiled.play(three_tiles("sequential", 2))
    assert played.load_request.tolist() == [0, 8, 15]
    assert played.compute_start.tolist() == [3, 11, 18]
    assert played.store_done.tolist() == [8, 15, 24]
    assert played.total_cycles == 24


def test_list_order_and_a_dependency_by_hand():
    # Two units with one buffer share a channel of 1 byte a cycle; tile 2 needs tile 1; launch at 5.
    # cycle  5: unit 0 claims tile 0, unit 1 tile 1. Load 0 takes 5-6, load 1 takes 6-8.
    #        6: tile 0 computes 6-16 on unit 0.
    #        8: tile 1 computes 8-9 on unit 1.
    #        9: unit 1 stores tile 1 (9-12) and claims tile 2, which waits for that store.
    #       12: tile 2 is loaded 12-13, computed 13-14, stored 14-15; at 14 unit 1 claims tile 3:
    #           its load is requested with that store, goes after it (15-16), computes 16-17.
    #       16: tile 0 ends and stores nothing: done.
    #       17: tile 3 stores nothing.
    machine = Machine((Channel("dram", 1.0),), (Pool("sm", 2, 1, 1),), "elastic", "list", 5)
    played = compiled.play(
        schedule(machine, [10, 1, 1, 1], [[1], [2], [1], [1]], [[0], [3], [1], [0]], edges=[(2, 1)])
    )
    assert played.unit.tolist() == [0, 1, 1, 1]
    assert played.load_request.tolist() == [5, 5, 12, 14]
    assert played.load_begin.tolist() == [5, 6, 12, 15]
    assert played.compute_start.tolist() == [6, 8, 13, 16]
    assert played.store_done.tolist() == [16, 12, 15, 17]
    assert played.store_channel.tolist() == [-1, 0, 0, -1]
    assert played.total_cycles == 17


def test_a_slot_that_stores_goes_first_whatever_the_channel():
    # Two units in lockstep; only dram takes time. cycle 0: slots that load nothing end at once, the
    # next ones compute tiles 0 and 1 until 3. At 3 unit 0 loads tile 4; unit 1 stores a byte over
    # the other channel and loads tile 5: a store, it is served by dram first.
    channels = (Channel("dram", 1.0), Channel("sram", math.inf))
    machine = Machine(channels, (Pool("array", 2),))
    load = [[0, 0]] * 4 + [[4, 0]] * 2
    store = [[0, 0], [0, 1]] + [[0, 0]] * 4
    played = compiled.play(schedule(machine, [3] * 6, load, store))
    assert played.load_request.tolist() == [0, 0, 0, 0, 3, 3]
    assert played.load_begin.tolist() == [0, 0, 0, 0, 7, 3]
    assert played.store_channel.tolist() == [0, 0, -1, -1, -1, -1]


# ---- the slow twin -------------------------------------------------------------------------------


class Twin:
    """One schedule, stepped cycle by cycle; a time that has not come is None."""

    def __init__(self, given):
        self.machine, self.now, self.due = given.machine, given.machine.launch_cycles, set()
        self.pools = [at for at, pool in enumerate(self.machine.pools) for _ in range(pool.units)]
        self.tiles, self.queues = [], {}
        for run in range(given.runs):
            for row in given.tiles:
                self.tiles.append({"p": len(self.tiles), "row": row, "needs": []})
            base = run * len(given)
            for later, earlier in given.dependencies:
                self.tiles[base + later]["needs"].append(self.tiles[base + earlier])
        for unit, pool in enumerate(self.pools):
            theirs = [tile for tile in self.tiles if tile["row"]["pool"] == pool]
            if self.machine.order == "list":
                theirs = self.queues.get(self.pools.index(pool), theirs)
                self.queues[unit] = theirs  # one list for all units of the pool
            else:
                first = self.pools.index(pool)
                self.queues[unit] = theirs[unit - first :: self.machine.pools[pool].units]
        self.lines = {}  # (level, unit or None): [free, queue]
        self.busy = [0] * len(self.machine.channels)
        self.claimed = {unit: [] for unit in range(len(self.pools))}
        self.slot = dict.fromkeys(self.claimed)
        self.after_slot = dict.fromkeys(self.claimed, (None, None))  # to compute, to store

    # transfers
    def request(self, unit, kind, tile, nbytes):
        transfer = {"at": self.now, "rank": (self.now, kind, unit, tile["p"]), "begin": None,
                    "arrived": {}, "bytes": nbytes}  # fmt: skip
        channels = self.machine.channels
        used = [level for level, count in enumerate(nbytes) if count]
        if all(channels[k].bytes_per_cycle == math.inf and not channels[k].latency_cycles
               for k in used):  # fmt: skip
            transfer |= {"begin": self.now, "bytes": [0] * len(nbytes)}
            used = []
        for level in used:
            line = (level, None if channels[level].shared else unit)
            self.lines.setdefault(line, [0, []])[1].append(transfer)
        return transfer

    def complete(self, transfer):
        used = [level for level, count in enumerate(transfer["bytes"]) if count]
        arrived = transfer["arrived"]
        return all(level in arrived and arrived[level] <= self.now for level in used)

    def last(self, transfer):
        arrived = transfer["arrived"]
        return min((k for k in arrived if arrived[k] == max(arrived.values())), default=-1)

    def grant(self):
        for (level, _), line in self.lines.items():
            while line[1] and line[0] <= self.now:
                transfer = min(line[1], key=lambda each: each["rank"])
                line[1].remove(transfer)
                channel = self.machine.channels[level]
                cycles = math.ceil(transfer["bytes"][level] / channel.bytes_per_cycle)
                if transfer["begin"] is None or transfer["begin"] > self.now:
                    transfer["begin"] = self.now
                line[0] = self.now + cycles
                transfer["arrived"][level] = line[0] + channel.latency_cycles
                self.busy[level] += cycles
                self.due |= {line[0], transfer["arrived"][level]}

    # what both kinds of units share
    def done(self, tile):
        return tile.get("store_done") is not None

    def held(self, unit):
        return sum(tile.get("compute_end") is None for tile in self.claimed[unit])

    def take(self, unit):
        tile = self.queues[unit].pop(0)
        tile["unit"] = unit
        self.claimed[unit].append(tile)
        return tile

    def starts_computing(self, tile):
        tile["compute_start"] = self.now
        self.due.add(self.now + int(tile["row"]["compute_cycles"]))

    def ends_computing(self, tile):
        start = tile.get("compute_start")
        return (start is not None and tile.get("compute_end") is None
                and self.now >= start + tile["row"]["compute_cycles"])  # fmt: skip

    def arrives(self, tile, name):
        transfer = tile.get(name)
        return (transfer is not None and tile.get(f"{name}_done") is None
                and self.complete(transfer))  # fmt: skip

    # elastic and sequential
    def can_claim(self, unit):
        if not self.queues[unit]:
            return False
        if self.machine.swap == "sequential":
            return all(self.done(tile) for tile in self.claimed[unit])
        return self.held(unit) < self.machine.pools[self.pools[unit]].input_buffers

    def settle_unit(self, unit):
        changed, mine = False, self.claimed[unit]
        outputs = self.machine.pools[self.pools[unit]].output_buffers
        for j, tile in enumerate(mine):
            if self.done(tile):
                continue
            before = mine[j - 1] if j else None
            free = all(self.done(each) for each in tile["needs"])
            if "load" not in tile and free and (before is None or "load" in before):
                tile["load"] = self.request(unit, 1, tile, tile["row"]["load_bytes"])
                changed = True
            if self.arrives(tile, "load"):
                tile["load_done"], changed = self.now, True
            if (
                tile.get("load_done") is not None
                and tile.get("compute_start") is None
                and (before is None or before.get("compute_end") is not None)
                and (
                    j < outputs or self.machine.swap == "sequential" or self.done(mine[j - outputs])
                )
            ):
                self.starts_computing(tile)
                changed = True
            if self.ends_computing(tile):
                tile["compute_end"], changed = self.now, True
                tile["store"] = self.request(unit, 0, tile, tile["row"]["store_bytes"])
            if self.arrives(tile, "store"):
                tile["store_done"], changed = self.now, True
        return changed

    # lockstep
    def ready(self, unit):
        queue = self.queues[unit]
        return bool(queue) and all(self.done(each) for each in queue[0]["needs"])

    def can_start_slot(self, unit):
        return self.slot[unit] is None and (
            any(tile is not None for tile in self.after_slot[unit]) or self.ready(unit)
        )

    def start_slot(self, unit):
        computing, storing = self.after_slot[unit]
        loading = self.take(unit) if self.ready(unit) else None
        nbytes = np.zeros(len(self.machine.channels), dtype=np.int64)
        kind = 1
        if loading:
            nbytes += loading["row"]["load_bytes"]
        if storing:
            nbytes += storing["row"]["store_bytes"]
            kind = 0 if storing["row"]["store_bytes"].any() else 1
        transfer = self.request(unit, kind, storing or loading or computing, nbytes)
        if loading:
            loading["load"] = transfer
        if storing:
            storing["store"] = transfer
        if computing:
            self.starts_computing(computing)
        self.slot[unit] = (computing, storing, loading, transfer)

    def settle_slot(self, unit):
        if self.slot[unit] is None:
            return False
        changed, (computing, storing, loading, transfer) = False, self.slot[unit]
        for tile, name in ((loading, "load"), (storing, "store")):
            if tile and self.arrives(tile, name):
                tile[f"{name}_done"], changed = self.now, True
        if computing and self.ends_computing(computing):
            computing["compute_end"], changed = self.now, True
        if self.complete(transfer) and (not computing or computing.get("compute_end") is not None):
            self.slot[unit], self.after_slot[unit] = None, (loading, computing)
            changed = True
        return changed

    def play(self):
        lockstep = self.machine.swap == "lockstep"
        settle, able, act = (
            (self.settle_slot, self.can_start_slot, self.start_slot)
            if lockstep else (self.settle_unit, self.can_claim, self.take)
        )  # fmt: skip
        units = range(len(self.pools))
        while True:
            while any(settle(unit) for unit in units):
                pass
            willing = [unit for unit in units if able(unit)]
            if willing:
                act(min(willing, key=lambda unit: (self.held(unit), unit)))
                continue
            self.grant()
            self.due = {cycle for cycle in self.due if cycle > self.now}
            if not self.due:
                return self.played()
            self.now = min(self.due)

    def played(self):
        def column(of):
            return np.array([of(tile) for tile in self.tiles], dtype=np.int64)

        columns = {"unit": column(lambda tile: tile["unit"])}
        for name in ("load", "store"):
            columns |= {
                f"{name}_request": column(lambda tile, name=name: tile[name]["at"]),
                f"{name}_begin": column(lambda tile, name=name: tile[name]["begin"]),
                f"{name}_done": column(lambda tile, name=name: tile[f"{name}_done"]),
                f"{name}_channel": column(lambda tile, name=name: self.last(tile[name])),
            }
        for name in ("compute_start", "compute_end"):
            columns[name] = column(lambda tile, name=name: tile[name])
        end = columns["store_done"].max(initial=self.machine.launch_cycles)
        return Played(total_cycles=int(end), channel_busy_cycles=np.array(self.busy), **columns)


def random_machine(rng, swap, **fixed):
    """Any machine: one to three pools and units, up to three channels."""

    def buffers():
        return int(rng.choice([1, 2, 3, 10**12], p=[0.35, 0.4, 0.2, 0.05]))

    pools = tuple(
        Pool(f"p{i}", int(rng.integers(1, 4)), buffers(), buffers())
        for i in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))
    )
    channels = tuple(
        Channel(
            f"c{i}",
            float(rng.choice([0.7, 1, 2.5, 8, math.inf], p=[0.2, 0.3, 0.2, 0.1, 0.2])),
            int(rng.choice([0, 0, 1, 5])),
            bool(rng.random() < 0.7),
        )
        for i in range(rng.choice([0, 1, 2, 3], p=[0.05, 0.5, 0.3, 0.15]))
    )
    order = "list" if rng.random() < 0.5 else "in_order"
    made = {"channels": channels, "pools": pools, "order": order, "swap": swap,
            "launch_cycles": int(rng.choice([0, 0, 4]))}  # fmt: skip
    return Machine(**(made | fixed))


def random_schedule(rng, swap, edges=0.5, **fixed):
    machine = random_machine(rng, swap, **fixed)
    count, levels = int(rng.integers(0, 12)), len(machine.channels)
    slow, many = rng.random(2) < 0.5
    compute = rng.integers(0, 9 if slow else 3, count)
    load, store = (
        rng.integers(0, 9, (count, levels)) * (rng.random((count, levels)) < rng.random())
        for _ in range(2)
    )
    pairs = np.array(list(itertools.combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    chosen = rng.random(len(pairs)) < (0.3 if many else 0.1)
    needs = pairs[chosen][:, ::-1] if rng.random() < edges else pairs[:0]
    pool = rng.integers(0, len(machine.pools), count)
    return schedule(machine, compute, load, store, pool, needs, int(rng.choice([1, 1, 2, 3])))


def same(one, two):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.mark.parametrize("swap", SWAPS)
def test_equals_the_twin(swap):
    rng = np.random.default_rng(SWAPS.index(swap))
    for _ in range(CASES):
        given = random_schedule(rng, swap)
        same(compiled.play(given), Twin(given).play())


@pytest.mark.parametrize("swap", SWAPS)
def test_lone_units_are_played_as_events_are(swap):
    """The short cut and the event loop, on every schedule for which there is a short cut."""
    rng, found = np.random.default_rng(10), 0
    while found < CASES // 2:
        given = random_schedule(rng, swap, edges=0)
        if compiled._is_lone(given):
            found += 1
            same(compiled._play(given, lone=True), compiled._play(given, lone=False))


def test_a_short_cut_needs_lone_units():
    def is_lone(units, order, shared, edges):
        machine = Machine((Channel("dram", 1.0, shared=shared),), (Pool("a", units),), order=order)
        return compiled._is_lone(schedule(machine, [1, 1], 0, 0, edges=edges))

    assert is_lone(1, "list", True, [])
    assert is_lone(2, "in_order", False, [])
    assert not is_lone(1, "list", True, [(1, 0)])
    assert not is_lone(2, "in_order", True, [])
    assert not is_lone(2, "list", False, [])


# ---- laws ----------------------------------------------------------------------------------------


def per_run(given, values):
    return np.tile(values, (given.runs,) + (1,) * (values.ndim - 1))


def edges_of_runs(given):
    starts = len(given) * np.arange(given.runs)
    return (starts[:, None, None] + given.dependencies).reshape(-1, 2)


def transfers(given, played):
    """Return (unit, begin, done, bytes by level) of each transfer; a slot's two are one."""
    found = {}
    for name in ("load", "store"):
        nbytes = per_run(given, given.tiles[f"{name}_bytes"])
        begin, done, asked = (
            getattr(played, f"{name}_{at}") for at in ("begin", "done", "request")
        )
        for p, unit in enumerate(played.unit):
            slot = asked[p] if given.machine.swap == "lockstep" else (name, p)
            if not nbytes[p].any():
                continue
            before = found.get((unit, slot), (0, 0, 0, 0))[3]
            found[unit, slot] = (unit, begin[p], done[p], nbytes[p] + before)
    return list(found.values())


@pytest.mark.parametrize("swap", SWAPS)
def test_one_thing_after_the_other(swap):
    rng = np.random.default_rng(20)
    for _ in range(CASES // 4):
        given = random_schedule(rng, swap)
        played = compiled.play(given)
        assert (played.load_request >= given.machine.launch_cycles).all()
        assert (played.load_begin >= played.load_request).all()
        assert (played.load_done >= played.load_begin).all()
        assert (played.compute_start >= played.load_done).all()
        cycles = per_run(given, given.tiles["compute_cycles"])
        assert (played.compute_end == played.compute_start + cycles).all()
        assert (played.store_request >= played.compute_end).all()
        assert (played.store_done >= played.store_begin).all()
        later, earlier = edges_of_runs(given).T
        assert (played.load_request[later] >= played.store_done[earlier]).all()
        for unit in range(given.machine.units):
            order = np.argsort(played.load_request[played.unit == unit], kind="stable")
            start = played.compute_start[played.unit == unit][order]
            end = played.compute_end[played.unit == unit][order]
            assert (start[1:] >= end[:-1]).all()


@pytest.mark.parametrize("swap", SWAPS)
def test_channels_are_busy_for_all_bytes_and_for_one_transfer_at_a_time(swap):
    rng = np.random.default_rng(21)
    for _ in range(CASES // 4):
        given = random_schedule(rng, swap)
        played = compiled.play(given)
        moved = transfers(given, played)
        for level, channel in enumerate(given.machine.channels):
            busy = [math.ceil(nbytes[level] / channel.bytes_per_cycle) for *_, nbytes in moved]
            assert played.channel_busy_cycles[level] == sum(busy)
        if len(given.machine.channels) == 1:
            (channel,) = given.machine.channels
            lines = {}
            for (unit, begin, done, _), cycles in zip(moved, busy, strict=True):
                assert done == begin + cycles + channel.latency_cycles
                lines.setdefault(None if channel.shared else unit, []).append((begin, cycles))
            for line in lines.values():
                for (begin, cycles), (after, _) in itertools.pairwise(sorted(line)):
                    assert after >= begin + cycles


def test_elastic_buffers_hold_no_more_than_they_can():
    rng = np.random.default_rng(22)
    for _ in range(CASES // 4):
        given = random_schedule(rng, "elastic")
        played, first = compiled.play(given), 0
        for pool in given.machine.pools:
            for unit in range(first, first + pool.units):
                mine = np.flatnonzero(played.unit == unit)
                ahead, behind = pool.input_buffers, pool.output_buffers
                assert (
                    played.load_request[mine[ahead:]] >= played.compute_end[mine[:-ahead]]
                ).all()
                assert (
                    played.compute_start[mine[behind:]] >= played.store_done[mine[:-behind]]
                ).all()
            first += pool.units


@pytest.mark.parametrize("runs", [1, 2, 5])
@pytest.mark.parametrize("swap", ["lockstep", "sequential"])
def test_one_unit_takes_the_cycles_of_the_closed_form(swap, runs):
    rng = np.random.default_rng(23)
    for _ in range(CASES // 10):
        count = int(rng.integers(1, 9))
        compute, load, store = rng.integers(0, 30, (3, count)) * (rng.random((3, count)) < 0.8)
        memory = {"bytes_per_cycle": float(rng.choice([0.3, 1, 7, math.inf])),
                  "latency_cycles": int(rng.choice([0, 1, 20]))}  # fmt: skip
        machine = Machine((Channel("dram", **memory),), swap=swap, launch_cycles=6)
        given = schedule(machine, compute, load[:, None], store[:, None], runs=runs)
        expected = pipeline_cycles(
            compute, load, store, double_buffered=swap == "lockstep", runs=runs, **memory
        )
        for lone in (True, False):
            assert compiled._play(given, lone=lone).total_cycles == 6 + expected


def faster(given, rng):
    channels = tuple(
        dataclasses.replace(each, bytes_per_cycle=each.bytes_per_cycle * rng.choice([1, 1.4, 3]))
        for each in given.machine.channels
    )
    return dataclasses.replace(given, machine=dataclasses.replace(given.machine, channels=channels))


def alone(given):
    machine = given.machine.without_contention()
    return dataclasses.replace(given, machine=machine)


@pytest.mark.parametrize("swap", SWAPS)
def test_channels_of_its_own_and_bandwidth_never_make_a_unit_slower(swap):
    """Where who goes before whom never changes, every time is a maximum of sums: monotone.

    That is so in order, with channels of one's own: sequential; lockstep if no tile needs another;
    elastic if nothing is stored. The anomalies below are the rest.
    """
    rng = np.random.default_rng(24)
    for _ in range(CASES // 4):
        given = random_schedule(rng, swap, edges=0 if swap == "lockstep" else 0.5, order="in_order")
        if swap == "elastic":
            given.tiles["store_bytes"] = 0
        shared, own = compiled.total_cycles(given), compiled.total_cycles(alone(given))
        assert own <= shared
        assert compiled.total_cycles(faster(alone(given), rng)) <= own


@pytest.mark.parametrize(
    ("swap", "units", "tiles", "slow", "fast"),
    [
        # A store that comes earlier goes before a load that another tile waits for.
        ("elastic", 1, ([2, 0, 2], [0, 3, 1], [0, 2, 0]), (1.0, 6), (1.5, 7)),
        # A unit that is ready earlier goes before another one.
        ("sequential", 2, ([3, 2, 1], [1, 2, 1], [0, 1, 0]), (1.0, 6), (2.0, 7)),
    ],
)
def test_more_bandwidth_can_be_slower(swap, units, tiles, slow, fast):
    compute, load, store = np.array(tiles)
    for bandwidth, cycles in (slow, fast):
        machine = Machine((Channel("dram", bandwidth),), (Pool("array", units),), swap)
        given = schedule(machine, compute, load[:, None], store[:, None])
        assert compiled.total_cycles(given) == cycles


# ---- the face ------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", SWAPS)
def test_nothing_to_do_ends_with_the_launch(swap):
    machine = Machine((Channel("dram", 1.0),), swap=swap, launch_cycles=7)
    played = compiled.play(schedule(machine, [], np.zeros((0, 1)), np.zeros((0, 1)), runs=3))
    assert played.total_cycles == 7
    assert played.unit.shape == (0,)
    assert played.channel_busy_cycles.tolist() == [0]


def test_times_are_exact_near_the_limit():
    machine = Machine((Channel("dram", 2.0**-8),), swap="sequential")
    given = schedule(machine, [2**60 - 1], [[2**50]], [[0]])
    assert compiled.total_cycles(given) == 2**58 + 2**60 - 1


def test_refuses_what_it_cannot_play():
    one = Machine((Channel("dram", 1.0),))
    with pytest.raises(InputError, match=r"tiles times runs must be ≤ 200000000; got 2 tiles"):
        compiled.play(schedule(one, [1, 1], 0, 0, runs=10**8 + 1))
    with pytest.raises(InputError, match=r"cycles must be < 2\*\*62; they could reach 4.61e\+18"):
        compiled.play(schedule(one, [2**61, 2**61], 0, 0))
    with pytest.raises(InputError, match=r"cycles must be < 2\*\*62"):
        compiled.total_cycles(schedule(one, [1], [[2**61]], [[2**61]], runs=3))
    endless = Machine((Channel("dram", math.inf),))
    with pytest.raises(InputError, match=r"bytes of two tiles must be < 2\*\*63"):
        compiled.play(schedule(endless, [1], [[2**62]], [[2**62]]))


def test_numba_is_imported_by_who_plays_only():
    script = "import sys, accsim.engine.compiled; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
