"""The load → compute → store pipeline of tiles through double-buffered memory, as arrays.

Ping-pong buffers swap at a barrier: while tile j computes, the memory channels store tile j−1 and
load tile j+1, and the next slot begins when all three are done:

    total = load(0) + Σ_j max(compute_j, memory(store_{j−1} + load_{j+1})) + store(last)

where memory is that of the slowest channel. Without double buffering the three follow each other.
Nothing here knows what a tile is. (docs/engine.md, swaps ``lockstep`` and ``sequential``.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def memory_cycles(nbytes: Any, bytes_per_cycle: Any, latency_cycles: Any) -> Ints:
    """Return whole cycles to move ``nbytes`` in one go: latency + ⌈bytes / bandwidth⌉, 0 for none.

    >>> memory_cycles(np.array([0, 1, 65]), 32.0, 10).tolist()
    [0, 11, 13]
    """
    nbytes = np.asarray(nbytes)
    with np.errstate(invalid="ignore", divide="ignore"):
        moving = np.ceil(nbytes / bytes_per_cycle).astype(np.int64)
    return np.where(nbytes > 0, moving + latency_cycles, 0)


def pipeline_cycles(
    compute_cycles: Ints,
    load_bytes: Ints,
    store_bytes: Ints,
    *,
    bytes_per_cycle: Any,
    latency_cycles: Any,
    double_buffered: bool,
    runs: int = 1,
) -> int:
    """Return the cycles of ``runs`` passes over the tiles, back to back.

    Args:
        compute_cycles: (tiles,) cycles each tile keeps the array busy.
        load_bytes: (tiles,) or (tiles, channels) bytes that must arrive before the tile can start.
        store_bytes: the same, of bytes that leave after it.
        bytes_per_cycle: sustained bandwidth of the channel, or of each, > 0 (inf allowed).
        latency_cycles: added to every non-empty transfer.
        double_buffered: whether transfers overlap computing.
        runs: identical passes; the last store of one shares a slot with the next one's compute.
    """
    waits = pipeline_waits(
        compute_cycles, load_bytes, store_bytes, bytes_per_cycle=bytes_per_cycle,
        latency_cycles=latency_cycles, double_buffered=double_buffered, runs=runs,
    )  # fmt: skip
    return int(runs) * int(compute_cycles.sum()) + sum(waits)


def pipeline_waits(
    compute_cycles: Ints,
    load_bytes: Ints,
    store_bytes: Ints,
    *,
    bytes_per_cycle: Any,
    latency_cycles: Any,
    double_buffered: bool,
    runs: int = 1,
) -> list[int]:
    """Return the cycles nothing computes, by the channel waited for: the slowest of each slot.

    Arguments are those of :func:`pipeline_cycles`.
    """
    rates = np.atleast_1d(bytes_per_cycle), np.atleast_1d(latency_cycles)
    channels = len(rates[0])
    load, store = (
        np.reshape(v, (len(compute_cycles), channels)) for v in (load_bytes, store_bytes)
    )
    none = np.zeros(1, dtype=np.int64)

    def waits(compute: Ints, nbytes: Ints) -> Ints:
        cycles = memory_cycles(nbytes, *rates)
        wait = np.maximum(cycles.max(axis=1, initial=0) - compute, 0)
        slowest = cycles.argmax(axis=1) if channels else np.zeros(len(cycles), dtype=np.intp)
        return np.array([wait[slowest == c].sum() for c in range(channels)], dtype=np.int64)

    if not double_buffered:
        total = runs * (waits(0 * compute_cycles, load) + waits(0 * compute_cycles, store))
        return list(total.tolist())
    edges = waits(none, load[:1]) + waits(none, store[-1:])
    ahead, behind = np.roll(load, -1, axis=0), np.roll(store, 1, axis=0)
    first, last = compute_cycles[:1], compute_cycles[-1:]
    if len(compute_cycles) > 1:  # the first slot of all stores nothing, the last loads nothing
        middle = runs * waits(compute_cycles, ahead + behind)
        middle += waits(first, ahead[:1]) - waits(first, ahead[:1] + behind[:1])
        middle += waits(last, behind[-1:]) - waits(last, ahead[-1:] + behind[-1:])
    elif runs == 1:
        middle = 0 * edges
    else:
        middle = waits(first, load) + waits(first, store)
        middle += (runs - 2) * waits(first, load + store)
    return list((edges + middle).tolist())
