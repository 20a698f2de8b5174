"""The pipeline of a three-deep tile loop summed over classes of equal slots.

Loops run outer, inner, k. The operand of the outer loop (A) stays while the inner loop passes,
unless k is cut and its panel does not fit; the operand of the inner loop (B) comes anew in every
round of the outer loop, unless all of it stays. What a slot costs depends on its own tile and on
its neighbours', and those differ only at the first and the last two positions of each loop.
Positions 0, 1, N − 2 and N − 1 with their multiplicities therefore stand for all: 4 × 4 × 4 slots a
tiling, however many tiles it has. The slot-by-slot sum is
:func:`accsim.kernels.pipeline.pipeline_cycles`; tests hold the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.kernels.pipeline import memory_cycles

Ints = npt.NDArray[np.int64]


class SlotSums(NamedTuple):
    """Totals over all tiles and runs."""

    cycles: Ints
    compute_cycles: Ints
    work_cycles: Ints
    load_bytes: Ints
    store_bytes: Ints


@dataclass(frozen=True)
class LoopNest:
    """Tiled loops, one entry a candidate on axis 0.

    ``outer``, ``inner``, ``depth``: numbers of tiles along the outer loop, the inner loop and k.
    ``a_bytes`` (m, 3 outer, 3 k), ``b_bytes`` (m, 3 inner, 3 k): of the first, a middle and the
    last tile. ``y_bytes`` (m, 2 outer, 2 inner), ``compute`` and ``work`` cycles (m, 2 outer,
    2 inner, 2 k): of a full and the last tile. ``a_stays``: A is loaded in the first inner position
    only; ``b_stays``: B in the first outer position only. ``runs`` passes over the nest.
    """

    outer: Ints
    inner: Ints
    depth: Ints
    a_bytes: Ints
    b_bytes: Ints
    y_bytes: Ints
    compute: Ints
    work: Ints
    a_stays: npt.NDArray[np.bool_]
    b_stays: npt.NDArray[np.bool_]
    runs: Ints

    def sums(
        self, bytes_per_cycle: float, latency_cycles: int, *, double_buffered: bool
    ) -> SlotSums:
        """Return the exact totals of the pipeline (kernels.pipeline's formula)."""

        def memory(nbytes: Ints) -> Ints:
            return memory_cycles(nbytes, bytes_per_cycle, latency_cycles)

        many = self._multiplicity()
        compute = _spread(self.compute)
        ahead, behind = self._ahead(), self._behind()
        if double_buffered:
            cycles = self._overlapped(many, compute, ahead, behind, memory)
        else:
            each = memory(ahead) + compute
            each[..., 0] += memory(behind)
            cycles = self.runs * _total(many, each)
        return SlotSums(
            cycles=cycles,
            compute_cycles=self.runs * self._over_tiles(self.compute),
            work_cycles=self.runs * self._over_tiles(self.work),
            load_bytes=self.runs * _total(many, ahead),
            store_bytes=self.runs * _total(many[..., :1], behind[..., None]),
        )

    def _overlapped(
        self, many: Ints, compute: Ints, ahead: Ints, behind: Ints, memory: object
    ) -> Ints:
        assert callable(memory)
        traffic = ahead.copy()
        traffic[..., 0] += behind
        slot = np.maximum(compute, memory(traffic))
        middle = _total(many, slot)
        last = tuple(np.where(count > 1, 3, 0) for count in (self.outer, self.inner, self.depth))
        item = np.arange(len(self.outer))
        c_first, c_last = compute[:, 0, 0, 0], compute[(item, *last)]
        behind_last = np.where(self.depth == 1, behind[(item, *last[:2])], 0)
        first_load = self.a_bytes[:, 0, 0] + self.b_bytes[:, 0, 0]
        edges = np.stack([first_load, self.y_bytes[:, 1, 1], ahead[:, 0, 0, 0], behind_last])
        load, store, opening, closing = memory(edges)
        opening, closing = np.maximum(c_first, opening), np.maximum(c_last, closing)
        longer = self.runs * middle - slot[:, 0, 0, 0] + opening - slot[(item, *last)] + closing
        one_tile = np.where(
            self.runs == 1,
            c_first,
            np.maximum(c_first, load) + np.maximum(c_first, store) + (self.runs - 2) * middle,
        )
        single = (self.outer == 1) & (self.inner == 1) & (self.depth == 1)
        total: Ints = load + np.where(single, one_tile, longer) + store
        return total

    def _over_tiles(self, pair: Ints) -> Ints:
        """Sum (full, last) values over all tiles of one run."""
        for count in (self.depth, self.inner, self.outer):
            full = (count - 1).reshape((-1,) + (1,) * (pair.ndim - 2))
            pair = pair[..., 0] * full + pair[..., 1]
        return pair

    def _multiplicity(self) -> Ints:
        o, i, k = (_counts(count) for count in (self.outer, self.inner, self.depth))
        product: Ints = o[:, :, None, None] * i[:, None, :, None] * k[:, None, None, :]
        return product

    def _ahead(self) -> Ints:
        """Return the bytes loaded in each slot: what the next tile does not find in the buffers."""
        a, b = self.a_bytes, self.b_bytes
        again_a = np.repeat(~self.a_stays[:, None], 4, axis=1)  # by inner position
        again_b = np.repeat(~self.b_stays[:, None], 4, axis=1)  # by outer position
        restart = a[:, 0, 0] + b[:, 0, 0]
        # the outer loop advances (or the nest starts over)
        outer = _next(a[:, :, 0], self.outer) + (b[:, 0, 0] * again_b[:, 0])[:, None]
        outer[:, 3] = restart
        outer[:, 0] = np.where(self.outer == 1, restart, outer[:, 0])
        # the inner loop advances
        first_round = again_b.copy()
        first_round[:, 0] = True
        inner = (_lay(a[:, :, 0]) * again_a[:, :1])[:, :, None]
        inner = inner + _next(b[:, :, 0], self.inner)[:, None, :] * first_round[:, :, None]
        inner[:, :, 3] = outer
        inner[:, :, 0] = np.where((self.inner == 1)[:, None], outer, inner[:, :, 0])
        # k advances
        first_column = again_a.copy()
        first_column[:, 0] = True
        deeper_a = _lay(_next(a, self.depth), axis=1)[:, :, None, :]
        deeper_b = _lay(_next(b, self.depth), axis=1)[:, None, :, :]
        ahead: Ints = (
            deeper_a * first_column[:, None, :, None] + deeper_b * first_round[:, :, None, None]
        )
        ahead[..., 3] = inner
        ahead[..., 0] = np.where((self.depth == 1)[:, None, None], inner, ahead[..., 0])
        return ahead

    def _behind(self) -> Ints:
        """Return the bytes stored in the slots of the first k: the outputs finished just before."""
        y = self.y_bytes
        full_inner, last_inner = _spread(y[:, :, 0]), y[:, :, 1]
        behind = np.repeat(full_inner[:, :, None], 4, axis=2)
        # first of the inner loop: the tile before ended a round of the outer loop
        behind[:, 1:, 0] = last_inner[:, :1]
        behind[:, 0, 0] = last_inner[:, 1]
        return behind


def _total(many: Ints, values: Ints) -> Ints:
    total: Ints = (many * values).sum(axis=(1, 2, 3))
    return total


def _spread(pair: Ints) -> Ints:
    """Lay (full, last) out over positions 0, 1, N − 2, N − 1 on every axis but the first."""
    for axis in range(1, pair.ndim):
        pair = np.take(pair, [0, 0, 0, 1], axis=axis)
    return pair


def _lay(three: Ints, axis: int = 1) -> Ints:
    """Lay (first, middle, last) out over positions 0, 1, N − 2, N − 1 on one axis."""
    return np.take(three, [0, 1, 1, 2], axis=axis)


def _next(three: Ints, count: Ints) -> Ints:
    """Return the value at the position after 0, 1, N − 2 (the fourth is filled by the caller)."""
    middle, last = three[..., 1], three[..., 2]
    two = (count == 2).reshape((-1,) + (1,) * (middle.ndim - 1))
    return np.stack([np.where(two, last, middle), middle, last, middle], axis=-1)


def _counts(count: Ints) -> Ints:
    """Return how many positions 0, 1, N − 2, N − 1 of a loop stand for."""
    one = np.ones_like(count)
    return np.stack([one, np.maximum(count - 3, 0), count >= 3, count >= 2], axis=1).astype(
        np.int64
    )
