"""One DRAM channel, command by command: an open-page first-ready scheduler over banks.

Requests are bursts, in order of arrival, all there from the start. The scheduler sees a window of
them that begins at the oldest one still waiting. In a cycle it issues, on a free command bus, the
first of these that is legal:

1. the precharge or the refresh of what is due for refresh (nothing else may use those banks);
2. the oldest column command of the direction the data bus has; of the other direction only when
   the window holds none of this one (so reads and writes go in batches);
3. the oldest row command, one request a bank, this direction before the other: precharge only a
   row that no request of this direction in the window asks for.

The data bus is never asked directly: CCD, the turnaround rules and WTR keep bursts apart.
Cycles are whole command clocks; a command is legal at the cycle it is issued in, and holds its bus
for the clocks it takes. Where nothing is legal the clock jumps to the next cycle something is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Entries of the parameter table: timings in clocks, then what the channel is made of.
RCD, RP, CL, CWL, RAS, CCD_S, CCD_L, RRD_S, RRD_L, FAW = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
WR, WTR_S, WTR_L, RTP, RFC, REFI, TURN = 10, 11, 12, 13, 14, 15, 16
BURST = 17  # clocks of data of one burst
ACT_CLOCKS, PRE_CLOCKS, COL_CLOCKS = 18, 19, 20  # clocks a command holds its bus
ROW_BUS = 21  # 1: row commands have a bus of their own
RANKS, GROUPS, BANKS = 22, 23, 24  # banks of one group
PER_BANK = 25  # 1: a refresh takes one bank, else all banks of a rank; RFC and REFI of that
WINDOW = 26  # requests the scheduler sees
PARAMETERS = 27

# Columns of the request table of a channel.
RANK, GROUP, BANK, ROW, WRITE = 0, 1, 2, 3, 4  # BANK counts through the whole channel

# What may be done next: nothing; precharge or refresh what is due; precharge or activate.
_NOTHING, _CLOSE, _REFRESH, _PRECHARGE, _ACTIVATE = 0, 1, 2, 3, 4
_NEVER = 2**62
_CLOSED = -1


@njit(cache=True, nogil=True)
def _choose_target(
    p: Ints, rank: int, requests: Ints, lo: int, hi: int, done: Flags, refreshed: Flags,
    last_used: Ints, asked: Flags,
) -> int:  # fmt: skip
    """First bank of the rank's next refresh: of single banks the one that is in the way least.

    Each is refreshed once a round. Best is one the window does not ask for, then the one used last:
    a stream has just left it and is back there latest.
    """
    banks = p[GROUPS] * p[BANKS]
    first = rank * banks
    if not p[PER_BANK]:
        return int(first)
    asked[first : first + banks] = False
    for i in range(lo, hi):
        if not done[i]:
            asked[requests[i, BANK]] = True
    if refreshed[first : first + banks].all():
        refreshed[first : first + banks] = False
    best = -1
    for b in range(first, first + banks):
        if refreshed[b]:
            continue
        better = best < 0 or (asked[best] and not asked[b])
        if better or (asked[best] == asked[b] and last_used[b] > last_used[best]):
            best = b
    return best


@njit(cache=True, nogil=True)
def _refresh_step(
    p: Ints, target: Ints, size: int, open_row: Ints, bank_act: Ints, bank_pre: Ints
) -> tuple[int, int, int]:
    """What the refresh that can go on first does next: command, rank, earliest cycle."""
    chosen, which, when = _NOTHING, 0, _NEVER
    for rank in range(p[RANKS]):
        if target[rank] < 0:
            continue
        step, ready = _REFRESH, 0
        for b in range(target[rank], target[rank] + size):
            if open_row[b] != _CLOSED:
                ready = max(ready, bank_pre[b]) if step == _CLOSE else bank_pre[b]
                step = _CLOSE
            elif step == _REFRESH:
                ready = max(ready, bank_act[b])
        if ready < when:
            chosen, which, when = step, rank, ready
    return chosen, which, when


@njit(cache=True, nogil=True)
def _refresh(
    p: Ints, step: int, lo: int, hi: int, now: int, open_row: Ints, bank_act: Ints
) -> None:
    """Precharge or refresh banks lo ... hi − 1."""
    for b in range(lo, hi):
        if step == _REFRESH:
            bank_act[b] = now + p[RFC]
        elif open_row[b] != _CLOSED:
            open_row[b], bank_act[b] = _CLOSED, now + p[RP]


@njit(cache=True, nogil=True)
def _direction(requests: Ints, lo: int, hi: int, done: Flags, direction: int) -> int:
    """Direction whose column commands may go: the present one while the window holds any of it."""
    for i in range(lo, hi):
        if not done[i] and requests[i, WRITE] == direction:
            return direction
    return 1 - direction


@njit(cache=True, nogil=True)
def _column_step(
    requests: Ints, lo: int, hi: int, done: Flags, direction: int, held: Flags, open_row: Ints,
    bank_col: Ints, column: Ints, now: int,
) -> tuple[int, int]:  # fmt: skip
    """The oldest legal column command, else the one legal first: request, earliest cycle."""
    chosen, when = -1, _NEVER
    for i in range(lo, hi):
        bank = requests[i, BANK]
        if done[i] or requests[i, WRITE] != direction or held[bank]:
            continue
        if open_row[bank] == requests[i, ROW]:
            ready = max(bank_col[bank], column[direction, requests[i, RANK], requests[i, GROUP]])
            if ready < when:
                chosen, when = i, ready
            if ready <= now:
                break
    return chosen, when


@njit(cache=True, nogil=True)
def _row_step(
    requests: Ints, lo: int, hi: int, done: Flags, direction: int, held: Flags, open_row: Ints,
    bank_act: Ints, bank_pre: Ints, act: Ints, faw: Ints, faw_clocks: int, now: int, taken: Flags,
) -> tuple[int, int, int]:  # fmt: skip
    """The first legal row command, else the one legal soonest: command, request, earliest cycle."""
    for i in range(lo, hi):
        bank = requests[i, BANK]
        taken[bank] = False
    for i in range(lo, hi):
        bank = requests[i, BANK]
        wants_it = requests[i, WRITE] == direction and open_row[bank] == requests[i, ROW]
        taken[bank] |= wants_it and not done[i]
    command, chosen, when = _NOTHING, -1, _NEVER
    for turned in range(2):
        for i in range(lo, hi):
            bank, rank = requests[i, BANK], requests[i, RANK]
            mine = requests[i, WRITE] == (1 - direction if turned else direction)
            if done[i] or not mine or taken[bank] or held[bank]:
                continue
            taken[bank] = True
            if open_row[bank] == requests[i, ROW]:
                continue
            step, ready = _PRECHARGE, bank_pre[bank]
            if open_row[bank] == _CLOSED:
                step, ready = _ACTIVATE, max(bank_act[bank], act[rank, requests[i, GROUP]])
                ready = max(ready, faw[rank, 0] + faw_clocks)
            if ready < when:
                command, chosen, when = step, i, ready
            if ready <= now:
                return command, chosen, when
    return command, chosen, when


@njit(cache=True, nogil=True)
def _issue_column(
    p: Ints, request: Ints, now: int, column: Ints, bank_pre: Ints, last_used: Ints
) -> int:
    """Push back what a read or a write delays; return the cycle its last data has moved."""
    rank, group, bank, write = request[RANK], request[GROUP], request[BANK], request[WRITE]
    lag = p[CWL] if write else p[CL]
    end = now + lag + p[BURST]
    for r in range(p[RANKS]):
        for g in range(p[GROUPS]):
            near = r == rank and g == group
            follow = now + (p[CCD_L] if near else p[CCD_S])
            if r != rank:
                follow = now + p[BURST] + p[TURN]
            column[write, r, g] = max(column[write, r, g], follow)
            other_lag = p[CL] if write else p[CWL]
            turn = end + p[TURN] - other_lag
            if write and r == rank:
                turn = end + (p[WTR_L] if near else p[WTR_S])
            column[1 - write, r, g] = max(column[1 - write, r, g], turn)
    bank_pre[bank] = max(bank_pre[bank], end + p[WR] if write else now + p[RTP])
    last_used[bank] = now
    return int(end)


@njit(cache=True, nogil=True)
def _issue_activate(
    p: Ints, request: Ints, now: int, open_row: Ints, bank_col: Ints, bank_pre: Ints, act: Ints,
    faw: Ints,
) -> None:  # fmt: skip
    rank, group, bank = request[RANK], request[GROUP], request[BANK]
    open_row[bank] = request[ROW]
    bank_col[bank] = now + p[RCD]
    bank_pre[bank] = now + p[RAS]
    for g in range(p[GROUPS]):
        act[rank, g] = max(act[rank, g], now + (p[RRD_L] if g == group else p[RRD_S]))
    faw[rank, 0], faw[rank, 1], faw[rank, 2] = faw[rank, 1], faw[rank, 2], faw[rank, 3]
    faw[rank, 3] = now


@njit(cache=True, nogil=True)
def replay(p: Ints, requests: Ints, done_cycle: Ints) -> tuple[int, int]:
    """Run a channel until its last request; return how many activates and refreshes it took.

    Args:
        p: (PARAMETERS,), entries RCD ... WINDOW above.
        requests: (requests, 5), columns RANK ... WRITE above, in order of arrival.
        done_cycle: (requests,), set to the cycle in which a request's last data has moved.
    """
    count, banks = requests.shape[0], p[RANKS] * p[GROUPS] * p[BANKS]
    open_row = np.full(banks, _CLOSED, np.int64)
    bank_act, bank_pre = np.zeros(banks, np.int64), np.zeros(banks, np.int64)
    bank_col = np.zeros(banks, np.int64)
    taken, held = np.zeros(banks, np.bool_), np.zeros(banks, np.bool_)
    act = np.zeros((p[RANKS], p[GROUPS]), np.int64)
    column = np.zeros((2, p[RANKS], p[GROUPS]), np.int64)
    faw = np.full((p[RANKS], 4), -p[FAW], np.int64)
    done = np.zeros(count, np.bool_)
    refreshed, asked = np.zeros(banks, np.bool_), np.zeros(banks, np.bool_)
    last_used, target = np.full(banks, -1, np.int64), np.full(p[RANKS], -1, np.int64)
    due, size = np.empty(p[RANKS], np.int64), 1 if p[PER_BANK] else p[GROUPS] * p[BANKS]
    for rank in range(p[RANKS]):  # ranks take turns
        due[rank] = p[REFI] * (rank + 1) // p[RANKS]
    now, head, direction, row_free, col_free = 0, 0, 0, 0, 0
    activates, refreshes = 0, 0
    while head < count:
        hi = min(head + p[WINDOW], count)
        for rank in range(p[RANKS]):
            if target[rank] < 0 and due[rank] <= now:
                target[rank] = _choose_target(p, rank, requests, head, hi, done, refreshed,
                                              last_used, asked)  # fmt: skip
                held[target[rank] : target[rank] + size] = True
        step, rank, when = _refresh_step(p, target, size, open_row, bank_act, bank_pre)
        when = max(when, row_free)
        if when <= now:
            lo, past = target[rank], target[rank] + size
            _refresh(p, step, lo, past, now, open_row, bank_act)
            if step == _REFRESH:
                due[rank] += p[REFI]
                held[lo:past], refreshed[lo:past] = False, True
                target[rank] = -1
                refreshes += 1
            row_free = now + p[PRE_CLOCKS]
            col_free = col_free if p[ROW_BUS] else row_free
            continue
        direction = _direction(requests, head, hi, done, direction)
        i, ready = _column_step(requests, head, hi, done, direction, held, open_row, bank_col,
                                column, now)  # fmt: skip
        ready = max(ready, col_free)
        if ready <= now:
            done[i] = True
            done_cycle[i] = _issue_column(p, requests[i], now, column, bank_pre, last_used)
            col_free = now + p[COL_CLOCKS]
            row_free = row_free if p[ROW_BUS] else col_free
            while head < count and done[head]:
                head += 1
            continue
        when = min(when, ready)
        step, i, ready = _row_step(requests, head, hi, done, direction, held, open_row, bank_act,
                                   bank_pre, act, faw, p[FAW], now, taken)  # fmt: skip
        ready = max(ready, row_free)
        if ready <= now:
            if step == _ACTIVATE:
                _issue_activate(p, requests[i], now, open_row, bank_col, bank_pre, act, faw)
                activates += 1
                row_free = now + p[ACT_CLOCKS]
            else:
                bank = requests[i, BANK]
                open_row[bank], bank_act[bank] = _CLOSED, now + p[RP]
                row_free = now + p[PRE_CLOCKS]
            col_free = col_free if p[ROW_BUS] else row_free
            continue
        when = min(when, ready)
        for rank in range(p[RANKS]):
            if due[rank] > now:
                when = min(when, due[rank])
        now = when
    return activates, refreshes


def _mixed(values: Ints) -> Ints:
    """24 well-mixed bits of each value (Fibonacci hashing), as controllers hash address bits."""
    return ((values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)).astype(
        np.int64
    )


def locate(
    bursts: Ints, *, channels: int, unit: int, lanes: int, row_bursts: int, ranks: int,
    groups: int, banks: int,
) -> tuple[Ints, Ints]:  # fmt: skip
    """Return the channel of each burst address, and its request-table line (WRITE is 0).

    Units of ``unit`` bursts go round the channels. In a channel, neighbouring bursts go round
    ``lanes`` bank groups; the rows they fill together are followed by those in other groups, other
    banks, other ranks, then by the next row. Every round starts at a place hashed from the address
    above it, so that no stride meets one channel or bank only. Memory has no end here.

    Args:
        bursts: (n,) address of a burst in bursts.
        channels, unit: channels of the memory, and neighbouring bursts one of them gets.
        lanes: bank groups neighbouring bursts alternate between; divides groups.
        row_bursts: bursts of one row of one bank.
        ranks, groups, banks: ranks of a channel, bank groups of a rank, banks of a group.
    """
    above, inside = np.divmod(bursts, unit * channels)
    channel = (inside // unit + _mixed(above)) % channels
    local = above * unit + inside % unit
    turn, lane = np.divmod(local, lanes)
    lane = (lane + _mixed(turn)) % lanes
    sets = groups // lanes * banks
    above, place = np.divmod(turn // row_bursts, sets)
    place = (place + _mixed(above)) % sets
    row, rank = np.divmod(above, ranks)
    group = lane + lanes * (place % (groups // lanes))
    bank = (rank * groups + group) * banks + place // (groups // lanes)
    return channel, np.stack([rank, group, bank, row, np.zeros_like(row)], axis=1)
