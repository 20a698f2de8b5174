"""The pipeline of a schedule as events: the only user of SimPy.

Two actors share the clock: the array computes, the memory channel moves. A barrier swaps the
ping-pong buffers when both are done. Processes only wait; what a tile costs was decided before.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.kernels.pipeline import memory_cycles
from accsim.spec.schedule import Schedule

Ints = npt.NDArray[np.int64]
MAX_TILES = 5_000_000


@dataclass(frozen=True, eq=False)
class Timeline:
    """What happened when: the end, and start and end of every tile's compute, in cycles."""

    total_cycles: int
    compute_start: Ints
    compute_end: Ints
    channel_busy_cycles: int


def run(schedule: Schedule) -> Timeline:
    """Play a schedule through, all runs.

    Raises:
        InputError: more than ``MAX_TILES`` tiles.
    """
    count = len(schedule) * schedule.runs
    if count > MAX_TILES:
        raise InputError(
            f"the event engine plays at most {MAX_TILES} tiles a layer; got {count} "
            "(use level 'closed', which gives the same cycles)"
        )
    return _Player(schedule).play()


class _Player:
    def __init__(self, schedule: Schedule) -> None:
        import simpy

        self._simpy = simpy
        self._schedule = schedule
        self._env = simpy.Environment()
        self._channel = simpy.Resource(self._env)
        repeat = schedule.runs
        tiles = schedule.tiles
        self._compute = np.tile(tiles["compute_cycles"], repeat).tolist()
        self._load = np.tile(tiles["load_bytes"], repeat).tolist()
        self._store = np.tile(tiles["store_bytes"], repeat).tolist()
        self._start = np.zeros(len(self._compute), dtype=np.int64)
        self._end = np.zeros(len(self._compute), dtype=np.int64)
        self._busy = 0

    def play(self) -> Timeline:
        slots = self._overlapped if self._schedule.double_buffered else self._sequential
        done = self._env.process(slots())
        self._env.run(until=done)
        return Timeline(int(self._env.now), self._start, self._end, self._busy)

    def _overlapped(self) -> Generator[Any, Any, None]:
        yield self._env.timeout(self._schedule.launch_cycles)
        yield from self._move(self._load[0])
        last = len(self._compute) - 1
        for tile in range(last + 1):
            ahead = self._load[tile + 1] if tile < last else 0
            behind = self._store[tile - 1] if tile > 0 else 0
            computing = self._env.process(self._work(tile))
            moving = self._env.process(self._move(behind + ahead))
            yield computing & moving  # the buffers swap here
        yield from self._move(self._store[last])

    def _sequential(self) -> Generator[Any, Any, None]:
        yield self._env.timeout(self._schedule.launch_cycles)
        for tile in range(len(self._compute)):
            yield from self._move(self._load[tile])
            yield from self._work(tile)
            yield from self._move(self._store[tile])

    def _work(self, tile: int) -> Generator[Any, Any, None]:
        self._start[tile] = self._env.now
        yield self._env.timeout(self._compute[tile])
        self._end[tile] = self._env.now

    def _move(self, nbytes: int) -> Generator[Any, Any, None]:
        with self._channel.request() as turn:
            yield turn
            schedule = self._schedule
            cycles = int(memory_cycles(nbytes, schedule.bytes_per_cycle, schedule.latency_cycles))
            self._busy += cycles
            yield self._env.timeout(cycles)
