"""A Schedule played as events: the only user of SimPy. docs/engine.md is the contract.

A process a unit and a process a channel wait for each other; what a tile costs was decided before.
Everything that ends in a cycle is a SimPy event of normal urgency, so the two arbiters, which are
less urgent, see a settled cycle: the first gives out one claim (or slot start), and again when that
has settled; the second, the least urgent, ranks the cycle's requests and hands them to channels.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Generator
from copy import copy
from dataclasses import fields
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError
from accsim.spec.schedule import Channel as ChannelSpec
from accsim.spec.schedule import Ints, Played, Pool, Schedule

if TYPE_CHECKING:
    from simpy import Environment, Event

MAX_TILES = 5_000_000
CLAIM, TAKE_UP = 2, 3  # urgency of the arbiters; SimPy's own are 0 and 1
NONE = -1  # no tile; no channel; not yet
OF_TILES = [field.name for field in fields(Played)][1:-1]  # what is logged tile by tile

Life = Generator["Event", Any, None]


def play(schedule: Schedule) -> Played:
    """Play a schedule through, all runs.

    Raises:
        InputError: more than ``MAX_TILES`` tiles.
    """
    count = len(schedule) * schedule.runs
    if count > MAX_TILES:
        raise InputError(
            f"the event engine plays at most {MAX_TILES} tiles a layer; got {count} "
            "(the compiled engine gives the same cycles)"
        )
    return SWAPS[schedule.machine.swap](schedule).play()


class _Arbiter:
    """Calls back once at the end of a cycle it is due in, after all that is more urgent."""

    def __init__(self, env: Environment, urgency: int, call: Callable[[Event], None]) -> None:
        self._env, self._urgency, self._call = env, urgency, call
        self._event = env.event().succeed()
        env.step()  # an event that has happened can be scheduled again, at any urgency

    def due(self) -> None:
        if not self._event.callbacks:
            self._event.callbacks = [self._call]
            self._env.schedule(self._event, self._urgency)  # type: ignore[arg-type]


class _Sleeper:
    """Who waits until woken: ``value = yield sleeper.sleep()``."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._bell: Event | None = None

    def sleep(self) -> Event:
        self._bell = self._env.event()
        return self._bell

    def wake(self, value: int = NONE) -> None:
        if self._bell is not None:
            bell, self._bell = self._bell, None
            bell.succeed(value)


class _Queue:
    """Tiles to claim, in program order, and the units that have nothing else to do."""

    def __init__(self, tiles: Ints) -> None:
        self.tiles: deque[int] = deque(tiles.tolist())
        self.idle: list[int] = []  # a heap of unit numbers


class _Unit(_Sleeper):
    def __init__(self, env: Environment, number: int, pool: Pool, queue: _Queue) -> None:
        super().__init__(env)
        self.number, self.pool, self.queue = number, pool, queue
        self.held = 0  # tiles claimed whose computing has not ended
        self.tiles: list[int] = []  # elastic: claimed, in order,
        self.requested = 0  # and how many of them have requested their load
        self.idle = True  # lockstep: nothing to compute and nothing to store


class _Transfer:
    """The load of one tile, the store of another, or both at once."""

    __slots__ = ("begin", "channel", "last", "left", "load", "parts", "store", "stores", "unit")

    def __init__(self, unit: _Unit, load: int, store: int) -> None:
        self.unit, self.load, self.store = unit, load, store
        self.parts: list[tuple[_Channel, int]] = []  # where it queues, with how many bytes
        self.stores = False  # whether bytes of it are stored
        self.left = 0  # channels that have not delivered
        self.begin = self.last = self.channel = NONE

    def rank(self) -> tuple[bool, int, int]:
        """Order among the requests of one cycle."""
        return not self.stores, self.unit.number, self.load if self.store == NONE else self.store


class _Channel(_Sleeper):
    """A queue of transfers, served one at a time; latency passes after a transfer's turn."""

    def __init__(
        self, env: Environment, level: int, spec: ChannelSpec, done: Callable[[_Transfer], None]
    ) -> None:
        super().__init__(env)
        self._level, self._spec, self._done = level, spec, done
        self.instant = spec.bytes_per_cycle == math.inf and not spec.latency_cycles
        self.queue: deque[tuple[_Transfer, int]] = deque()
        self.busy_cycles = 0
        env.process(self._serve())

    def _serve(self) -> Life:
        env, bandwidth = self._env, self._spec.bytes_per_cycle
        while True:
            while not self.queue:
                yield self.sleep()
            transfer, nbytes = self.queue.popleft()
            if transfer.begin == NONE:
                transfer.begin = int(env.now)
            cycles = math.ceil(nbytes / bandwidth)
            self.busy_cycles += cycles
            yield env.timeout(cycles)
            self._send(transfer)

    def _send(self, transfer: _Transfer) -> None:
        if not self._spec.latency_cycles:
            self._deliver(transfer)
            return
        arrival = self._env.timeout(self._spec.latency_cycles, transfer)
        arrival.callbacks.append(lambda event: self._deliver(event.value))

    def _deliver(self, transfer: _Transfer) -> None:
        now = int(self._env.now)
        if now > transfer.last:
            transfer.last, transfer.channel = now, self._level
        else:  # another channel delivered in this cycle
            transfer.channel = min(transfer.channel, self._level)
        transfer.left -= 1
        if not transfer.left:
            self._done(transfer)


class _Player:
    """Units, channels and arbiters of one schedule; a subclass says how units live."""

    def __init__(self, schedule: Schedule) -> None:
        from simpy import Environment

        self._schedule = schedule
        self._rows = len(schedule)
        self._env = Environment(schedule.machine.launch_cycles)
        blank = array("q", [NONE]) * (self._rows * schedule.runs)
        self._log = SimpleNamespace(**{name: copy(blank) for name in OF_TILES})
        self._claims = _Arbiter(self._env, CLAIM, self._give_claim)
        self._asking: list[tuple[int, int]] = []  # a heap of (tiles held, unit)
        self._take_ups = _Arbiter(self._env, TAKE_UP, self._take_up)
        self._requests: list[_Transfer] = []
        tiles = schedule.tiles
        self._cycles: list[int] = tiles["compute_cycles"].tolist()
        self._load_bytes: list[list[int]] = tiles["load_bytes"].tolist()
        self._store_bytes: list[list[int]] = tiles["store_bytes"].tolist()
        self._read_dependencies()
        self._build_units()
        self._build_channels()

    def _read_dependencies(self) -> None:
        edges = self._schedule.dependencies
        needed = np.bincount(edges[:, 0], minlength=self._rows)
        self._needs: list[int] = np.tile(needed, self._schedule.runs).tolist()  # not done yet
        self._dependents: dict[int, list[int]] = {}
        for later, earlier in edges.tolist():
            self._dependents.setdefault(earlier, []).append(later)
        self._awaited: dict[int, Callable[[], None]] = {}  # what a tile's last need sets off

    def _build_units(self) -> None:
        machine = self._schedule.machine
        pool_of = np.tile(self._schedule.tiles["pool"], self._schedule.runs)
        self._units: list[_Unit] = []
        for kind, pool in enumerate(machine.pools):
            tiles = np.flatnonzero(pool_of == kind)
            if machine.order == "list":
                queues = [_Queue(tiles)] * pool.units
            else:
                queues = [_Queue(tiles[unit :: pool.units]) for unit in range(pool.units)]
            for queue in queues:
                self._units.append(_Unit(self._env, len(self._units), pool, queue))

    def _build_channels(self) -> None:
        self._channels: list[list[_Channel]] = []  # [level][unit]
        for level, spec in enumerate(self._schedule.machine.channels):
            own = [
                _Channel(self._env, level, spec, self._complete)
                for _ in range(1 if spec.shared else len(self._units))
            ]
            self._channels.append(own * len(self._units) if spec.shared else own)

    def play(self) -> Played:
        for unit in self._units:
            self._env.process(self._live(unit))
        self._env.run()
        done = self._log.store_done
        busy = [sum(c.busy_cycles for c in set(own)) for own in self._channels]
        return Played(
            total_cycles=max(done, default=self._schedule.machine.launch_cycles),
            **{name: np.array(times, np.int64) for name, times in vars(self._log).items()},
            channel_busy_cycles=np.array(busy, np.int64),
        )

    def _live(self, unit: _Unit) -> Life:
        """What a unit does, from waiting to waiting."""
        raise NotImplementedError

    def _grant(self, unit: _Unit) -> bool:
        """Let a unit claim (or start its slot), if it can; return whether it could."""
        raise NotImplementedError

    # Claims: one at a time, each when the one before has settled.

    def _ask(self, unit: _Unit) -> None:
        heappush(self._asking, (unit.held, unit.number))
        self._claims.due()

    def _give_claim(self, _: Event) -> None:
        asking = self._asking
        while asking:
            held, number = heappop(asking)
            unit = self._units[number]
            # An elastic unit that has since ended a tile asked again, holding fewer.
            if held == unit.held and self._grant(unit):
                break
        if asking:
            self._claims.due()

    def _claim(self, unit: _Unit) -> int:
        tile = unit.queue.tiles.popleft()
        self._log.unit[tile] = unit.number
        unit.held += 1
        return tile

    # Transfers: requested, ranked at the end of the cycle, complete when all channels delivered.

    def _request(self, unit: _Unit, load: int = NONE, store: int = NONE) -> _Transfer:
        transfer = _Transfer(unit, load, store)
        now = int(self._env.now)
        if load != NONE:
            self._log.load_request[load] = now
        if store != NONE:
            self._log.store_request[store] = now
        moved = zip(self._channels, self._moved(load, store), strict=False)
        transfer.parts = [(own[unit.number], nbytes) for own, nbytes in moved if nbytes]
        if all(channel.instant for channel, _ in transfer.parts):
            transfer.begin = now
            self._complete(transfer)
            return transfer
        transfer.left = len(transfer.parts)
        transfer.stores = store != NONE and any(self._store_bytes[store % self._rows])
        self._requests.append(transfer)
        self._take_ups.due()
        return transfer

    def _moved(self, load: int, store: int) -> list[int]:
        """Return the bytes of a transfer, channel by channel; nothing if it is of no tile."""
        if store == NONE:
            return self._load_bytes[load % self._rows] if load != NONE else []
        out = self._store_bytes[store % self._rows]
        if load == NONE:
            return out
        return [a + b for a, b in zip(out, self._load_bytes[load % self._rows], strict=True)]

    def _take_up(self, _: Event) -> None:
        requests, self._requests = self._requests, []
        if len(requests) > 1:
            requests.sort(key=_Transfer.rank)
        for transfer in requests:
            for channel, nbytes in transfer.parts:
                channel.queue.append((transfer, nbytes))
                channel.wake()

    def _complete(self, transfer: _Transfer) -> None:
        log, now = self._log, self._env.now
        if (tile := transfer.load) != NONE:
            log.load_begin[tile], log.load_done[tile] = transfer.begin, now
            log.load_channel[tile] = transfer.channel
        if (tile := transfer.store) != NONE:
            log.store_begin[tile], log.store_done[tile] = transfer.begin, now
            log.store_channel[tile] = transfer.channel
            if self._dependents:
                self._release(tile)
        transfer.unit.wake()

    def _release(self, tile: int) -> None:
        row = tile % self._rows
        for later in self._dependents.get(row, ()):
            waiting = tile - row + later
            self._needs[waiting] -= 1
            if not self._needs[waiting] and waiting in self._awaited:
                self._awaited.pop(waiting)()

    def _compute(self, unit: _Unit, tile: int) -> Life:
        self._log.compute_start[tile] = self._env.now
        yield self._env.timeout(self._cycles[tile % self._rows])
        self._log.compute_end[tile] = self._env.now
        unit.held -= 1


class _Sequential(_Player):
    def _live(self, unit: _Unit) -> Life:
        while True:
            self._ask(unit)
            tile = yield unit.sleep()
            if self._needs[tile]:
                self._awaited[tile] = unit.wake
                yield unit.sleep()
            loading = self._request(unit, load=tile)
            while loading.left:
                yield unit.sleep()
            yield from self._compute(unit, tile)
            storing = self._request(unit, store=tile)
            while storing.left:
                yield unit.sleep()

    def _grant(self, unit: _Unit) -> bool:
        if not unit.queue.tiles:
            return False
        unit.wake(self._claim(unit))
        return True


class _Elastic(_Player):
    def _live(self, unit: _Unit) -> Life:
        self._ask(unit)
        place = 0
        while True:
            while not self._can_compute(unit, place):
                yield unit.sleep()
            tile = unit.tiles[place]
            yield from self._compute(unit, tile)
            self._request(unit, store=tile)
            self._ask(unit)
            place += 1

    def _can_compute(self, unit: _Unit, place: int) -> bool:
        if place == len(unit.tiles) or self._log.load_done[unit.tiles[place]] == NONE:
            return False
        before = place - unit.pool.output_buffers  # the tile whose output buffer it needs
        return before < 0 or self._log.store_done[unit.tiles[before]] != NONE

    def _grant(self, unit: _Unit) -> bool:
        if not unit.queue.tiles:
            return False
        unit.tiles.append(self._claim(unit))
        self._load_claimed(unit)
        if unit.held < unit.pool.input_buffers:
            self._ask(unit)
        return True

    def _load_claimed(self, unit: _Unit) -> None:
        while unit.requested < len(unit.tiles):
            tile = unit.tiles[unit.requested]
            if self._needs[tile]:
                self._awaited[tile] = lambda: self._load_claimed(unit)
                return
            unit.requested += 1
            self._request(unit, load=tile)


class _Lockstep(_Player):
    def _live(self, unit: _Unit) -> Life:
        computing = storing = NONE
        while True:
            unit.idle = computing == storing == NONE
            self._ask(unit)
            loading = yield unit.sleep()
            moving = self._request(unit, loading, storing)
            if computing != NONE:
                yield from self._compute(unit, computing)
            while moving.left:
                yield unit.sleep()
            computing, storing = loading, computing

    def _grant(self, unit: _Unit) -> bool:
        queue = unit.queue
        claims = bool(queue.tiles) and not self._needs[queue.tiles[0]]
        starts = claims or not unit.idle
        if starts:
            unit.wake(self._claim(unit) if claims else NONE)
        else:
            heappush(queue.idle, unit.number)
        self._call_idle(queue)
        return starts

    def _call_idle(self, queue: _Queue) -> None:
        """Let the lowest idle unit ask again, when the next tile of its queue can be claimed."""
        if not (queue.idle and queue.tiles):
            return
        tile = queue.tiles[0]
        if self._needs[tile]:
            self._awaited[tile] = lambda: self._call_idle(queue)
        else:
            self._ask(self._units[heappop(queue.idle)])


SWAPS = {"elastic": _Elastic, "lockstep": _Lockstep, "sequential": _Sequential}
