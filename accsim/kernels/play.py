"""Play tiles on units and channels: `events` for every machine, `lone` for units on their own.

The rules are in docs/engine.md. A channel serves requests in the order of their cycles, and all
requests of a cycle are known when the channels take them up; so the cycle in which a transfer
arrives is known at once, and no channel has a queue. A unit's computing likewise: when it ends is
known as soon as the tile's load and the buffers it waits for have been taken up. Events are what
is left: ends of computing (elastic), of stores (sequential) and of slots (lockstep), one a unit at
a time, and the ends of stores that tiles depend on.

A tile of a run is named p = run·tiles + i, its program order; −1 is no tile. What is known of it
is column p of the table of times. Everything is in a few tables of int64, passed as they are:
counting references to the arrays of a tuple, in each call, takes ten times as long as the work.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Whole = Any  # an int64, compiled or not

# The work between two calls is less than passing tables on; a division that could raise costs too.
_helper = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)

ELASTIC, LOCKSTEP, SEQUENTIAL = 0, 1, 2

# Columns of the table of tiles: bytes to load follow, one column a channel, then bytes to store.
CYCLES, FLAGS, BYTES = 0, 1, 2
# Flags: its load (store) is not complete in the cycle of its request; it stores bytes on any
# channel; other tiles need it.
LOAD_WAITS, STORE_WAITS, STORES, NEEDED = 1, 2, 4, 8

# Rows of the table of times. Who plays on with events needs two more.
UNIT, LOAD_REQUEST, LOAD_BEGIN, LOAD_DONE, COMPUTE_START, COMPUTE_END = 0, 1, 2, 3, 4, 5
STORE_REQUEST, STORE_BEGIN, STORE_DONE, LOAD_CHANNEL, STORE_CHANNEL = 6, 7, 8, 9, 10
PLAYED_ROWS = 11
AFTER = 11  # the tile its unit claimed next
MISSING = 12  # tiles it needs that are not done
ROWS = 13
NOT_YET = -1  # a cycle that is not known

# Columns of the table of channels; FREE + u: the cycle in which the one of unit u becomes free.
LATENCY, OWN, BUSY_CYCLES, FREE = 0, 1, 2, 3  # OWN: 1 if each unit has its own, else 0

# Columns of the table of queues: place in its pool of the next tile, from a tile to the next one;
# where the pool starts in the list of tiles by pool, and its tiles in a run.
HEAD, STEP, POOL_START, POOL_TILES = 0, 1, 2, 3

# Columns of the table of units. Who builds it fills in the first four.
INPUTS, OUTPUTS = 0, 1  # buffers
QUEUE = 2  # the queue it takes its tiles from
POOL_FIRST = 3  # the first unit of its pool
HELD = 4  # tiles claimed whose computing has not ended (sequential: whose store has not)
NEWEST = 5  # the tile claimed last
TO_LOAD, TO_COMPUTE = 6, 7  # the first tile whose load is not requested; that is not computed
BUSY = 8  # the tile it computes
FIRST, STARTED = 9, 10  # the first tile it computed, and how many it has begun
BLOCKER = 11  # the tile whose store the next one to compute needs out of the way
ENDED = 12  # the cycle in which it last ended computing
IN_SLOT, LOADING, TO_STORE = 13, 14, 15  # lockstep
TOUCHED, RANKED = 16, 17  # it is on the agenda's TOUCHES; CLAIMS
UNIT_COLUMNS = 18

# The agenda: heaps of pairs, the size of one at 0 and its smallest pair at 1.
EVENTS = 0  # (cycle, unit), or (cycle, −1 − p) for the end of the store of p
REQUESTS = 1  # (rank, p)
CLAIMS = 2  # (tiles held, unit) of units that may be able to claim
TOUCHES = 3  # a plain list: units that are to be put among the claims


@_helper
def _push(agenda: Ints, heap: Whole, key: Whole, value: Whole) -> None:
    agenda[heap, 0, 0] += 1
    place = agenda[heap, 0, 0]
    while place > 1:
        above = place >> 1
        other = agenda[heap, above, 0]
        if other < key or (other == key and agenda[heap, above, 1] <= value):
            break
        agenda[heap, place, 0], agenda[heap, place, 1] = other, agenda[heap, above, 1]
        place = above
    agenda[heap, place, 0], agenda[heap, place, 1] = key, value


@_helper
def _drop(agenda: Ints, heap: Whole) -> None:
    """Take the smallest pair out."""
    last, place = agenda[heap, 0, 0], 1
    agenda[heap, 0, 0] = last - 1
    key, value = agenda[heap, last, 0], agenda[heap, last, 1]
    while 2 * place < last:
        below = 2 * place
        if below + 1 < last:
            left, right = agenda[heap, below, 0], agenda[heap, below + 1, 0]
            if right < left or (
                right == left and agenda[heap, below + 1, 1] < agenda[heap, below, 1]
            ):
                below += 1
        other = agenda[heap, below, 0]
        if key < other or (key == other and value <= agenda[heap, below, 1]):
            break
        agenda[heap, place, 0], agenda[heap, place, 1] = other, agenda[heap, below, 1]
        place = below
    agenda[heap, place, 0], agenda[heap, place, 1] = key, value


@_helper
def _remove(u: Whole, agenda: Ints) -> None:
    """Make unit u the first to claim, and take it out. It happens seldom: it is searched."""
    place = 1
    while agenda[CLAIMS, place, 1] != u:
        place += 1
    while place > 1:
        above = place >> 1
        agenda[CLAIMS, place, 0] = agenda[CLAIMS, above, 0]
        agenda[CLAIMS, place, 1] = agenda[CLAIMS, above, 1]
        place = above
    _drop(agenda, CLAIMS)


@_helper
def _touch(u: Whole, units: Ints, agenda: Ints) -> None:
    if not units[u, TOUCHED]:
        units[u, TOUCHED] = 1
        agenda[TOUCHES, 0, 0] += 1
        agenda[TOUCHES, agenda[TOUCHES, 0, 0], 0] = u


@_helper
def _row(p: Whole, tiles: Ints) -> Whole:
    return p if p < tiles.shape[0] else p % tiles.shape[0]


@_helper
def _named(place: Whole, queue: Whole, queues: Ints, by_pool: Ints, runs: Whole) -> Whole:
    """Return the place-th tile of a queue's pool, all runs counted; −1 after the last one."""
    count = queues[queue, POOL_TILES]
    if place < count:
        return by_pool[queues[queue, POOL_START] + place]
    if place >= count * runs:
        return -1
    run = place // count
    return run * by_pool.size + by_pool[queues[queue, POOL_START] + place - run * count]


@_helper
def _carry(
    cycle: Whole,
    u: Whole,
    loaded: Whole,
    stored: Whole,
    tiles: Ints,
    bandwidth: Floats,
    channels: Ints,
) -> tuple[Whole, Whole, Whole]:
    """Let the channels take up a transfer; return its begin, its end, the last channel or −1.

    What comes over channels without limit and latency has arrived at once, as if it were nothing.
    """
    begin, done, last = -1, cycle, -1
    levels = bandwidth.size
    loaded, stored = _row(loaded, tiles), _row(stored, tiles)
    for level in range(levels):
        nbytes = 0
        if loaded >= 0:
            nbytes += tiles[loaded, BYTES + level]
        if stored >= 0:
            nbytes += tiles[stored, BYTES + levels + level]
        if nbytes == 0:
            continue
        free = FREE + u * channels[level, OWN]
        busy = math.ceil(nbytes / bandwidth[level])
        taken = max(channels[level, free], cycle)
        channels[level, free] = taken + busy
        channels[level, BUSY_CYCLES] += busy
        if begin < 0 or taken < begin:
            begin = taken
        arrived = taken + busy + channels[level, LATENCY]
        if arrived > done:
            done, last = arrived, level
    if begin < 0:
        begin = cycle
    return begin, done, last


@_helper
def _loaded(p: Whole, begin: Whole, done: Whole, channel: Whole, times: Ints) -> None:
    times[LOAD_BEGIN, p], times[LOAD_DONE, p], times[LOAD_CHANNEL, p] = begin, done, channel


@_helper
def _stored(p: Whole, begin: Whole, done: Whole, channel: Whole, times: Ints) -> None:
    times[STORE_BEGIN, p], times[STORE_DONE, p], times[STORE_CHANNEL, p] = begin, done, channel


@_helper
def _computed(p: Whole, start: Whole, tiles: Ints, times: Ints) -> Whole:
    end = start + tiles[_row(p, tiles), CYCLES]
    times[COMPUTE_START, p], times[COMPUTE_END, p] = start, end
    return end


@_helper
def _announce(p: Whole, tiles: Ints, times: Ints, agenda: Ints) -> None:
    """Make an event of the end of a store if tiles need it; before the units of its cycle."""
    if tiles[_row(p, tiles), FLAGS] & NEEDED:
        _push(agenda, EVENTS, times[STORE_DONE, p], -1 - p)


@_helper
def _load(cycle: Whole, u: Whole, tiles: Ints, units: Ints, times: Ints, agenda: Ints) -> None:
    """Request every load of a unit that is next and whose tiles needed are done."""
    p = units[u, TO_LOAD]
    while p >= 0 and times[MISSING, p] == 0:
        times[LOAD_REQUEST, p] = cycle
        if tiles[_row(p, tiles), FLAGS] & LOAD_WAITS:
            _push(agenda, REQUESTS, units.shape[0] + u, p)
        else:
            _loaded(p, cycle, cycle, -1, times)
        p = times[AFTER, p]
    units[u, TO_LOAD] = p


@_helper
def _start_cycle(u: Whole, units: Ints, times: Ints) -> Whole:
    """Return when a unit starts its next tile, NOT_YET if that is not known."""
    p, blocker = units[u, TO_COMPUTE], units[u, BLOCKER]
    if p < 0 or units[u, BUSY] >= 0 or times[LOAD_DONE, p] == NOT_YET:
        return NOT_YET
    start = max(times[LOAD_DONE, p], units[u, ENDED])
    if blocker < 0:
        return start
    emptied = times[STORE_DONE, blocker]
    return emptied if emptied == NOT_YET else max(start, emptied)


@_helper
def _advance(u: Whole, p: Whole, units: Ints, times: Ints) -> None:
    """Make p the tile a unit computes."""
    if units[u, STARTED] == 0:
        units[u, FIRST] = p
    units[u, STARTED] += 1
    if units[u, STARTED] == units[u, OUTPUTS]:
        units[u, BLOCKER] = units[u, FIRST]
    elif units[u, STARTED] > units[u, OUTPUTS]:
        units[u, BLOCKER] = times[AFTER, units[u, BLOCKER]]
    units[u, BUSY], units[u, TO_COMPUTE] = p, times[AFTER, p]


@_helper
def _compute(u: Whole, tiles: Ints, units: Ints, times: Ints, agenda: Ints) -> None:
    """Give a unit its next tile as soon as it is known when it can start, now or later."""
    start = _start_cycle(u, units, times)
    if start != NOT_YET:
        p = units[u, TO_COMPUTE]
        _advance(u, p, units, times)
        _push(agenda, EVENTS, _computed(p, start, tiles, times), u)


@_helper
def _claim(
    cycle: Whole,
    u: Whole,
    p: Whole,
    swap: Whole,
    tiles: Ints,
    units: Ints,
    times: Ints,
    agenda: Ints,
) -> None:
    """Elastic and sequential: a unit takes tile p."""
    newest = units[u, NEWEST]
    times[AFTER, p] = -1
    if newest >= 0:
        times[AFTER, newest] = p
    units[u, NEWEST] = p
    if units[u, TO_LOAD] < 0:
        units[u, TO_LOAD] = p
    if units[u, TO_COMPUTE] < 0:
        units[u, TO_COMPUTE] = p
    _load(cycle, u, tiles, units, times, agenda)
    _compute(u, tiles, units, times, agenda)
    if swap == ELASTIC:
        _touch(u, units, agenda)


@_helper
def _end_tile(
    cycle: Whole, u: Whole, swap: Whole, tiles: Ints, units: Ints, times: Ints, agenda: Ints
) -> None:
    """Elastic: computing ends. Sequential: computing ends, or the store after it."""
    p, holds = units[u, BUSY], False
    if p >= 0:
        units[u, BUSY], units[u, ENDED] = -1, cycle
        times[STORE_REQUEST, p] = cycle
        if tiles[_row(p, tiles), FLAGS] & STORE_WAITS:
            _push(agenda, REQUESTS, u, p)
            holds = swap == SEQUENTIAL
        else:
            _stored(p, cycle, cycle, -1, times)
            _announce(p, tiles, times, agenda)
    if not holds:
        units[u, HELD] -= 1
        _touch(u, units, agenda)
        _compute(u, tiles, units, times, agenda)


@_helper
def _start_slot(
    cycle: Whole, u: Whole, p: Whole, tiles: Ints, units: Ints, times: Ints, agenda: Ints
) -> None:
    """Lockstep: compute the tile loaded, store the one computed, load p; any may be −1."""
    computing, storing = units[u, TO_COMPUTE], units[u, TO_STORE]
    units[u, IN_SLOT], units[u, LOADING], units[u, BUSY] = 1, p, computing
    waits, is_load, end = 0, 1, cycle
    if computing >= 0:
        end = _computed(computing, cycle, tiles, times)
    if p >= 0:
        times[LOAD_REQUEST, p] = cycle
        waits |= tiles[_row(p, tiles), FLAGS] & LOAD_WAITS
    if storing >= 0:
        times[STORE_REQUEST, storing] = cycle
        flags = tiles[_row(storing, tiles), FLAGS]
        waits |= flags & STORE_WAITS
        is_load = 0 if flags & STORES else 1
    if waits:
        _push(agenda, REQUESTS, is_load * units.shape[0] + u, max(p, storing))
    else:
        _end_transfer(u, cycle, cycle, -1, tiles, units, times, agenda)
        _push(agenda, EVENTS, end, u)


@_helper
def _end_transfer(
    u: Whole,
    begin: Whole,
    done: Whole,
    channel: Whole,
    tiles: Ints,
    units: Ints,
    times: Ints,
    agenda: Ints,
) -> None:
    """Lockstep: it is known when the slot's transfer is complete."""
    loading, storing = units[u, LOADING], units[u, TO_STORE]
    if loading >= 0:
        _loaded(loading, begin, done, channel, times)
    if storing >= 0:
        _stored(storing, begin, done, channel, times)
        _announce(storing, tiles, times, agenda)


@_helper
def _end_slot(u: Whole, units: Ints, agenda: Ints) -> None:
    if units[u, BUSY] >= 0:
        units[u, HELD] -= 1
    units[u, TO_STORE], units[u, TO_COMPUTE] = units[u, BUSY], units[u, LOADING]
    units[u, IN_SLOT] = 0
    _touch(u, units, agenda)


@_helper
def _release(
    cycle: Whole,
    p: Whole,
    swap: Whole,
    heirs: Ints,
    tiles: Ints,
    units: Ints,
    times: Ints,
    agenda: Ints,
) -> None:
    """Tile p is done: tell the tiles that need it."""
    i = _row(p, tiles)
    for edge in range(heirs[i], heirs[i + 1]):
        heir = p - i + heirs[edge]
        times[MISSING, heir] -= 1
        u = times[UNIT, heir]
        if times[MISSING, heir] == 0 and u >= 0:
            if swap != LOCKSTEP:
                _load(cycle, u, tiles, units, times, agenda)
                _compute(u, tiles, units, times, agenda)
            else:  # not yet claimed, it names a unit that waits for it; others may, too
                for other in range(units[u, POOL_FIRST], units.shape[0]):
                    if units[other, QUEUE] == units[u, QUEUE] and not units[other, IN_SLOT]:
                        _touch(other, units, agenda)


@_helper
def _settle(
    cycle: Whole, swap: Whole, heirs: Ints, tiles: Ints, units: Ints, times: Ints, agenda: Ints
) -> None:
    while agenda[EVENTS, 0, 0] > 0 and agenda[EVENTS, 1, 0] == cycle:
        who = agenda[EVENTS, 1, 1]
        _drop(agenda, EVENTS)
        if who < 0:
            _release(cycle, -1 - who, swap, heirs, tiles, units, times, agenda)
        elif swap == LOCKSTEP:
            _end_slot(who, units, agenda)
        else:
            _end_tile(cycle, who, swap, tiles, units, times, agenda)


@_helper
def _start(
    cycle: Whole, u: Whole, swap: Whole, runs: Whole, by_pool: Ints, queues: Ints,
    tiles: Ints, units: Ints, times: Ints, agenda: Ints,
) -> None:  # fmt: skip
    """One claim, or one start of a slot, if this unit can make it."""
    queue, p = units[u, QUEUE], -1
    if units[u, HELD] < units[u, INPUTS] and not units[u, IN_SLOT]:
        p = _named(queues[queue, HEAD], queue, queues, by_pool, runs)
    if swap == LOCKSTEP and p >= 0 and times[MISSING, p] > 0:
        times[UNIT, p] = u  # who waits for it
        p = -1
    if p >= 0:
        queues[queue, HEAD] += queues[queue, STEP]
        units[u, HELD] += 1
        times[UNIT, p], times[LOAD_DONE, p], times[STORE_DONE, p] = u, NOT_YET, NOT_YET
    if swap == LOCKSTEP:
        if max(p, units[u, TO_COMPUTE], units[u, TO_STORE]) >= 0:
            _start_slot(cycle, u, p, tiles, units, times, agenda)
    elif p >= 0:
        _claim(cycle, u, p, swap, tiles, units, times, agenda)


@_helper
def _take_up(
    cycle: Whole, swap: Whole, bandwidth: Floats, channels: Ints, tiles: Ints,
    units: Ints, times: Ints, agenda: Ints,
) -> None:  # fmt: skip
    """Let the channels take up the requests of this cycle in their order."""
    while agenda[REQUESTS, 0, 0] > 0:
        rank, p = agenda[REQUESTS, 1, 0], agenda[REQUESTS, 1, 1]
        _drop(agenda, REQUESTS)
        is_load = rank >= units.shape[0]
        u = rank - units.shape[0] if is_load else rank
        loading, storing = (p, -1) if is_load else (-1, p)
        if swap == LOCKSTEP:
            loading, storing = units[u, LOADING], units[u, TO_STORE]
        begin, done, last = _carry(cycle, u, loading, storing, tiles, bandwidth, channels)
        if swap == LOCKSTEP:
            _end_transfer(u, begin, done, last, tiles, units, times, agenda)
            busy = units[u, BUSY]
            _push(agenda, EVENTS, max(done, times[COMPUTE_END, busy]) if busy >= 0 else done, u)
        elif is_load:
            _loaded(p, begin, done, last, times)
            _compute(u, tiles, units, times, agenda)
        else:
            _stored(p, begin, done, last, times)
            _announce(p, tiles, times, agenda)
            if swap == SEQUENTIAL:
                _push(agenda, EVENTS, done, u)
            _compute(u, tiles, units, times, agenda)


@_helper
def _rank(units: Ints, agenda: Ints) -> None:
    """Rank the units touched, fewest tiles held first."""
    for place in range(1, agenda[TOUCHES, 0, 0] + 1):
        u = agenda[TOUCHES, place, 0]
        units[u, TOUCHED] = 0
        if units[u, RANKED]:  # it has since ended a tile: it moves up
            _remove(u, agenda)
        units[u, RANKED] = 1
        _push(agenda, CLAIMS, units[u, HELD], u)
    agenda[TOUCHES, 0, 0] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def events(
    launch: Whole, swap: Whole, runs: Whole, by_pool: Ints, heirs: Ints, bandwidth: Floats,
    channels: Ints, queues: Ints, tiles: Ints, units: Ints, times: Ints, agenda: Ints,
) -> None:  # fmt: skip
    """Play all runs of all tiles from cycle ``launch`` on; fill in the times.

    Args:
        launch: cycle before which nothing starts.
        swap: ELASTIC, LOCKSTEP or SEQUENTIAL.
        runs: how often all tiles are run.
        by_pool: (tiles,) tiles of pool 0 in program order, of pool 1, …
        heirs: (tiles + 1 + edges,) who needs tile i: places heirs[i] to heirs[i + 1] of itself.
        bandwidth: (levels,) bytes a cycle.
        channels: (levels, FREE + units).
        queues: (queues, 4), changed.
        tiles: (tiles, BYTES + 2·levels).
        units: (units, UNIT_COLUMNS), changed.
        times: (ROWS, tiles·runs), MISSING filled in, and UNIT −1 where that is not 0.
        agenda: (4, room, 2), empty.
    """
    for u in range(units.shape[0]):
        _touch(u, units, agenda)
    going, cycle = True, launch
    while going:
        _settle(cycle, swap, heirs, tiles, units, times, agenda)
        _rank(units, agenda)
        while agenda[CLAIMS, 0, 0] > 0:
            u = agenda[CLAIMS, 1, 1]
            units[u, RANKED] = 0
            _drop(agenda, CLAIMS)
            _start(cycle, u, swap, runs, by_pool, queues, tiles, units, times, agenda)
            _settle(cycle, swap, heirs, tiles, units, times, agenda)
            _rank(units, agenda)
        _take_up(cycle, swap, bandwidth, channels, tiles, units, times, agenda)
        going = agenda[EVENTS, 0, 0] > 0
        cycle = agenda[EVENTS, 1, 0]


@_helper
def _ring(buffers: Whole, tiles: Whole) -> Ints:
    """Return room for the last ``buffers`` tiles, a power of two; less if there are fewer."""
    size = 1
    while size < buffers and size < tiles:
        size *= 2
    return np.zeros(size, np.int64)


@_helper
def _lone_elastic(
    launch: Whole, u: Whole, runs: Whole, by_pool: Ints, bandwidth: Floats, channels: Ints,
    queues: Ints, tiles: Ints, units: Ints, times: Ints,
) -> None:  # fmt: skip
    """Two sequences of requests, loads and stores: the next one is the earlier of two."""
    queue, inputs, outputs = units[u, QUEUE], units[u, INPUTS], units[u, OUTPUTS]
    ends, dones = _ring(inputs, times.shape[1]), _ring(outputs, times.shape[1])
    loads, stores = 0, 0  # requested so far
    request, end = launch, launch
    to_load, to_store = queues[queue, HEAD], queues[queue, HEAD]
    loading = _named(to_load, queue, queues, by_pool, runs)
    storing = loading
    while True:
        claims = loading >= 0 and loads - inputs < stores
        if claims and loads >= inputs:
            request = max(request, ends[(loads - inputs) & (ends.size - 1)])
        if claims and (stores == loads or request < end):
            times[UNIT, loading], times[LOAD_REQUEST, loading] = u, request
            begin, done, last = _carry(request, u, loading, -1, tiles, bandwidth, channels)
            _loaded(loading, begin, done, last, times)
            computes = stores == loads
            loads += 1
            to_load += queues[queue, STEP]
            loading = _named(to_load, queue, queues, by_pool, runs)
        elif stores < loads:
            times[STORE_REQUEST, storing] = end
            begin, done, last = _carry(end, u, -1, storing, tiles, bandwidth, channels)
            _stored(storing, begin, done, last, times)
            dones[stores & (dones.size - 1)] = done
            stores += 1
            to_store += queues[queue, STEP]
            storing = _named(to_store, queue, queues, by_pool, runs)
            computes = stores < loads
        else:
            return
        if computes:
            start = max(end, times[LOAD_DONE, storing])
            if stores >= outputs:
                start = max(start, dones[(stores - outputs) & (dones.size - 1)])
            end = _computed(storing, start, tiles, times)
            ends[stores & (ends.size - 1)] = end


@_helper
def _lone_lockstep(
    launch: Whole, u: Whole, runs: Whole, by_pool: Ints, bandwidth: Floats, channels: Ints,
    queues: Ints, tiles: Ints, units: Ints, times: Ints,
) -> None:  # fmt: skip
    queue, cycle = units[u, QUEUE], launch
    place, storing, computing = queues[queue, HEAD], -1, -1
    loading = _named(place, queue, queues, by_pool, runs)
    while max(storing, computing, loading) >= 0:
        begin, done, last = _carry(cycle, u, loading, storing, tiles, bandwidth, channels)
        end = done
        if storing >= 0:
            times[STORE_REQUEST, storing] = cycle
            _stored(storing, begin, done, last, times)
        if computing >= 0:
            end = max(end, _computed(computing, cycle, tiles, times))
        if loading >= 0:
            times[UNIT, loading], times[LOAD_REQUEST, loading] = u, cycle
            _loaded(loading, begin, done, last, times)
            place += queues[queue, STEP]
        cycle, storing, computing = end, computing, loading
        loading = _named(place, queue, queues, by_pool, runs)


@_helper
def _lone_sequential(
    launch: Whole, u: Whole, runs: Whole, by_pool: Ints, bandwidth: Floats, channels: Ints,
    queues: Ints, tiles: Ints, units: Ints, times: Ints,
) -> None:  # fmt: skip
    queue, cycle = units[u, QUEUE], launch
    place = queues[queue, HEAD]
    p = _named(place, queue, queues, by_pool, runs)
    while p >= 0:
        times[UNIT, p], times[LOAD_REQUEST, p] = u, cycle
        begin, done, last = _carry(cycle, u, p, -1, tiles, bandwidth, channels)
        _loaded(p, begin, done, last, times)
        cycle = _computed(p, done, tiles, times)
        times[STORE_REQUEST, p] = cycle
        begin, done, last = _carry(cycle, u, -1, p, tiles, bandwidth, channels)
        _stored(p, begin, done, last, times)
        cycle = done
        place += queues[queue, STEP]
        p = _named(place, queue, queues, by_pool, runs)


@njit(cache=True, nogil=True, error_model="numpy")
def lone(
    launch: Whole, swap: Whole, runs: Whole, by_pool: Ints, bandwidth: Floats, channels: Ints,
    queues: Ints, tiles: Ints, units: Ints, times: Ints,
) -> None:  # fmt: skip
    """Do what `events` does where units do not know each other: own queues, own channels.

    For tiles that need no other. One unit after the other, with no events to look for. Arguments
    as for `events`; of times only the PLAYED_ROWS.
    """
    for u in range(units.shape[0]):
        if swap == ELASTIC:
            _lone_elastic(
                launch, u, runs, by_pool, bandwidth, channels, queues, tiles, units, times
            )
        elif swap == LOCKSTEP:
            _lone_lockstep(
                launch, u, runs, by_pool, bandwidth, channels, queues, tiles, units, times
            )
        else:
            _lone_sequential(
                launch, u, runs, by_pool, bandwidth, channels, queues, tiles, units, times
            )
