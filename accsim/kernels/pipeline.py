"""The load → compute → store pipeline of tiles through double-buffered memory, as arrays.

Ping-pong buffers swap at a barrier: while tile j computes, the one memory channel stores tile j−1
and loads tile j+1, and the next slot begins when all three are done:

    total = load(0) + Σ_j max(compute_j, memory(store_{j−1} + load_{j+1})) + store(last)

Without double buffering the three follow each other. Nothing here knows what a tile is.
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
    bytes_per_cycle: float,
    latency_cycles: int,
    double_buffered: bool,
    runs: int = 1,
) -> int:
    """Return the cycles of ``runs`` passes over the tiles, back to back.

    Args:
        compute_cycles: (tiles,) cycles each tile keeps the array busy.
        load_bytes: (tiles,) bytes that must arrive before the tile can start.
        store_bytes: (tiles,) bytes that leave after it.
        bytes_per_cycle: sustained bandwidth of the memory channel, > 0 (inf allowed).
        latency_cycles: added to every non-empty transfer.
        double_buffered: whether transfers overlap computing.
        runs: identical passes; the last store of one shares a slot with the next one's compute.
    """
    memory = (bytes_per_cycle, latency_cycles)
    load = memory_cycles(load_bytes, *memory)
    store = memory_cycles(store_bytes, *memory)
    if not double_buffered:
        return int(runs) * int((load + compute_cycles + store).sum())
    wrapped = slot_cycles(compute_cycles, load_bytes, store_bytes, memory, wrap=True)
    alone = slot_cycles(compute_cycles, load_bytes, store_bytes, memory, wrap=False)
    first, last = int(load[0]), int(store[-1])
    if runs == 1:
        return first + int(alone.sum()) + last
    if (
        len(alone) == 1
    ):  # one tile a run: first slot loads the next, last slot stores the one before
        opening = max(int(compute_cycles[0]), first)
        closing = max(int(compute_cycles[0]), last)
        return first + opening + (runs - 2) * int(wrapped[0]) + closing + last
    middle = int(wrapped.sum())
    return (
        first + last + runs * middle
        - int(wrapped[0] - alone[0]) - int(wrapped[-1] - alone[-1])
    )  # fmt: skip


def slot_cycles(
    compute_cycles: Ints,
    load_bytes: Ints,
    store_bytes: Ints,
    memory: tuple[float, int],
    *,
    wrap: bool,
) -> Ints:
    """Return the cycles of each slot; ``wrap`` lets the last tile's slot load the first again."""
    ahead, behind = np.roll(load_bytes, -1), np.roll(store_bytes, 1)
    if not wrap:
        ahead[-1] = behind[0] = 0
    return np.maximum(compute_cycles, memory_cycles(ahead + behind, *memory))
