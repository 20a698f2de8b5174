"""Masks of tiles in which every row and every column holds a limited number of entries.

A tile is a transportation problem: row i receives ``row_most`` units, column p gives at most
``column_most``, each place carries 0 or 1. What a column still has is its *spare*. All moves are
arcs between rows: u → v through column p takes p from u and gives it to v; the last row index
stands for the spare. Values are integers, so that sums are exact and every loop ends.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.float32]

GREEDY, SWAP, EXACT = 0, 1, 2
_NEVER = np.int64(2**62)


@njit(cache=True, nogil=True)
def solve(sizes: Sizes, row_most: int, column_most: int, effort: int) -> Bools:
    """Return the masks of tiles: (tiles, rows, columns) bool of float32 |w| of that shape.

    rows · row_most must be at most columns · column_most (transpose the tiles if it is not).
    effort 0: the greedy choice alone, which may leave rows short of row_most. 1: every row is
    filled, then pairs of rows exchange columns while that gains. 2: the largest sum there is.
    """
    tiles, rows, columns = sizes.shape
    held = np.zeros((tiles, rows + 1, columns), np.bool_)
    values = np.zeros((rows + 1, columns), np.int64)
    short, spare = np.empty(rows, np.int64), np.empty(columns, np.int64)
    room = np.empty(rows + 1, np.int64)
    for tile in range(tiles):
        short[:] = row_most
        spare[:] = column_most
        _greedy(sizes[tile], held[tile], short, spare, room)
        if effort == 0:
            continue
        _complete(held[tile], short, spare)
        _integers(sizes[tile], values)
        _swap(values, held[tile], spare, room)
        while effort == 2 and _cancel(values, held[tile], spare):
            pass
    return held[:, :rows, :].copy()


@njit(cache=True, nogil=True)
def _integers(sizes: Sizes, values: Ints) -> None:
    """Scale by a power of two so that the largest lies below 2**40."""
    largest = 0.0
    rows, columns = sizes.shape
    for i in range(rows):
        for p in range(columns):
            largest = max(largest, sizes[i, p])
    scale = 1.0
    if largest > 0.0:
        scale = 2.0 ** (39 - np.floor(np.log2(largest)))
    for i in range(rows):
        for p in range(columns):
            values[i, p] = np.int64(sizes[i, p] * scale)


@njit(cache=True, nogil=True)
def _greedy(sizes: Sizes, held: Bools, short: Ints, spare: Ints, best: Ints) -> None:
    """Take the largest place whose row and column have room, again and again; ties: lowest."""
    rows = sizes.shape[0]
    for i in range(rows):
        best[i] = _best_of_row(sizes, held, spare, i)
    while True:
        row = -1
        for i in range(rows):
            if best[i] >= 0 and (row < 0 or sizes[i, best[i]] > sizes[row, best[row]]):
                row = i
        if row < 0:
            return
        column = best[row]
        held[row, column] = True
        short[row] -= 1
        spare[column] -= 1
        best[row] = -1 if short[row] == 0 else _best_of_row(sizes, held, spare, row)
        if spare[column] == 0:
            for i in range(rows):
                if best[i] == column:
                    best[i] = _best_of_row(sizes, held, spare, i)


@njit(cache=True, nogil=True)
def _best_of_row(sizes: Sizes, held: Bools, spare: Ints, i: int) -> int:
    best = -1
    for p in range(sizes.shape[1]):
        free = spare[p] > 0 and not held[i, p]
        if free and (best < 0 or sizes[i, p] > sizes[i, best]):
            best = p
    return best


@njit(cache=True, nogil=True)
def _has(held: Bools, spare: Ints, u: int, p: int) -> bool:
    """Whether row u, or the spare, has column p to give."""
    return bool(spare[p] > 0 if u == held.shape[0] - 1 else held[u, p])


@njit(cache=True, nogil=True)
def _takes(held: Bools, v: int, p: int) -> bool:
    """Whether row v can be given column p; the spare takes anything."""
    return v == held.shape[0] - 1 or not held[v, p]


@njit(cache=True, nogil=True)
def _move(held: Bools, spare: Ints, u: int, v: int, p: int) -> None:
    last = held.shape[0] - 1
    if u == last:
        spare[p] -= 1
    else:
        held[u, p] = False
    if v == last:
        spare[p] += 1
    else:
        held[v, p] = True


@njit(cache=True, nogil=True)
def _complete(held: Bools, short: Ints, spare: Ints) -> None:
    """Fill the rows that are short, along the fewest moves from the spare."""
    rows = short.size
    parent, through = np.empty(rows + 1, np.int64), np.empty(rows + 1, np.int64)
    queue = np.empty(rows + 1, np.int64)
    while short.max() > 0:
        parent[:] = -1
        queue[0], head, tail, found = rows, 0, 1, -1
        while found < 0:
            u = queue[head]  # a row that is short can always be reached: see the docstring of solve
            head += 1
            for v in range(rows):
                if parent[v] >= 0 or found >= 0:
                    continue
                for p in range(spare.size):
                    if parent[v] < 0 and _has(held, spare, u, p) and _takes(held, v, p):
                        parent[v], through[v] = u, p
                        queue[tail] = v
                        tail += 1
                        if short[v] > 0:
                            found = v
        short[found] -= 1
        while found != rows:
            _move(held, spare, parent[found], found, through[found])
            found = parent[found]


@njit(cache=True, nogil=True)
def _cheapest(values: Ints, held: Bools, spare: Ints, u: int, v: int) -> int:
    """Return the column that is cheapest to move from u to v, -1 if there is none."""
    best = -1
    for p in range(spare.size):
        possible = _has(held, spare, u, p) and _takes(held, v, p)
        if possible and (
            best < 0 or values[u, p] - values[v, p] < values[u, best] - values[v, best]
        ):
            best = p
    return best


@njit(cache=True, nogil=True)
def _both_ways(values: Ints, held: Bools, spare: Ints, u: int, v: int) -> tuple[int, int]:
    """Return the cheapest column from u to v and from v to u; -1, -1 if either is missing.

    Without branches, the column in the low bits of its cost: this is where the time goes.
    """
    if v == held.shape[0] - 1:
        p, q = _cheapest(values, held, spare, u, v), _cheapest(values, held, spare, v, u)
        return (p, q) if p >= 0 and q >= 0 else (-1, -1)
    there, back = _NEVER, _NEVER
    for p in range(spare.size):
        cost = values[u, p] - values[v, p]
        there = min(there, cost * 64 + p if held[u, p] and not held[v, p] else _NEVER)
        back = min(back, p - cost * 64 if held[v, p] and not held[u, p] else _NEVER)
    if there == _NEVER or back == _NEVER:
        return -1, -1
    return int(there & 63), int(back & 63)


@njit(cache=True, nogil=True)
def _swap(values: Ints, held: Bools, spare: Ints, changed: Ints) -> None:
    """Exchange a column each between two rows while the sum grows."""
    nodes = held.shape[0] if spare.max() > 0 else held.shape[0] - 1
    changed[:] = 0  # the round in which a row last changed: pairs without news are skipped
    done, turn = 0, 0
    while turn <= done + 1:
        turn += 1
        for u in range(nodes):
            for v in range(u + 1, nodes):
                if max(changed[u], changed[v]) < turn - 1:
                    continue
                p, q = _both_ways(values, held, spare, u, v)
                if p >= 0 and values[u, p] - values[v, p] + values[v, q] - values[u, q] < 0:
                    _move(held, spare, u, v, p)
                    _move(held, spare, v, u, q)
                    changed[u] = changed[v] = done = turn


@njit(cache=True, nogil=True)
def _cancel(values: Ints, held: Bools, spare: Ints) -> bool:
    """Carry out one cycle of moves that gains; False when there is none: then the sum is largest.

    Arcs of a simple cycle never touch the same place: u → v needs a column that v lacks, v → x
    one that v has.
    """
    nodes = held.shape[0]
    cost, through = np.full((nodes, nodes), _NEVER), np.empty((nodes, nodes), np.int64)
    for u in range(nodes):
        for v in range(nodes):
            p = _cheapest(values, held, spare, u, v) if u != v else -1
            through[u, v] = p
            if p >= 0:
                cost[u, v] = values[u, p] - values[v, p]
    distance, parent = np.zeros(nodes, np.int64), np.full(nodes, -1, np.int64)
    last = -1
    for _ in range(nodes):
        last = -1
        for u in range(nodes):
            for v in range(nodes):
                if through[u, v] >= 0 and distance[u] + cost[u, v] < distance[v]:
                    distance[v], parent[v], last = distance[u] + cost[u, v], u, v
        if last < 0:
            return False
    for _ in range(nodes):  # from the last change, n steps back lead into the cycle
        last = parent[last]
    v = last
    while True:
        _move(held, spare, parent[v], v, through[parent[v], v])
        v = parent[v]
        if v == last:
            return True
