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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.kernels.pipeline import memory_cycles
from accsim.spec.schedule import Channel

Ints = npt.NDArray[np.int64]


class SlotSums:
    """Totals over all tiles and runs, one entry a candidate: rows of one table.

    ``work_cycles`` are spent streaming, ``useful_cycles`` of them would do if no PE were idle;
    ``load_bytes[c]`` and ``waits[c]`` are bytes over channel c and cycles spent waiting for it.
    """

    def __init__(self, table: Ints) -> None:
        self.table = table
        self.cycles, self.compute_cycles, self.work_cycles, self.useful_cycles = table[:4]
        self.store_bytes = table[4]
        self.load_bytes, self.waits = np.split(table[5:], 2)

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def take(self, which: npt.NDArray[np.intp]) -> SlotSums:
        """Return the chosen entries, in that order, repeats allowed."""
        return SlotSums(self.table[:, which])

    @property
    def moved_bytes(self) -> Ints:
        """Bytes to and from the farthest memory."""
        moved: Ints = self.load_bytes[0] + self.store_bytes
        return moved


class Flow(NamedTuple):
    """What passes over one channel: bytes of the first, a middle and the last tile.

    ``a_bytes`` (m, 3 outer, 3 k), ``b_bytes`` (m, 3 inner, 3 k). ``a_stays``: A passes in the first
    inner position only; ``b_stays``: B in the first outer position only.
    """

    channel: Channel
    a_bytes: Ints
    b_bytes: Ints
    a_stays: npt.NDArray[np.bool_]
    b_stays: npt.NDArray[np.bool_]


# (cycles of computing, bytes over each channel) → the quantity of one slot that is summed
Quantity = Callable[[Ints, Sequence[Ints]], Ints]


@dataclass(frozen=True)
class LoopNest:
    """Tiled loops, one entry a candidate on axis 0.

    ``outer``, ``inner``, ``depth``: numbers of tiles along the outer loop, the inner loop and k.
    ``y_bytes`` (m, 2 outer, 2 inner), ``compute``, ``work`` and ``useful`` cycles (m, 2 outer,
    2 inner, 2 k): of a full and the last tile. ``flows``: operands, by channel. ``runs`` passes
    over the nest.
    """

    outer: Ints
    inner: Ints
    depth: Ints
    y_bytes: Ints
    compute: Ints
    work: Ints
    useful: Ints
    flows: tuple[Flow, ...]
    runs: Ints

    def sums(self, *, double_buffered: bool) -> SlotSums:
        """Return the exact totals of the pipeline (kernels.pipeline's formula)."""
        many = self._multiplicity()
        ahead, behind = [self._ahead(flow) for flow in self.flows], self._behind()
        add = self._overlapped if double_buffered else self._sequential

        def total(quantity: Quantity) -> Ints:
            return add(quantity, many, ahead, behind)

        busy = self.runs * self._over_tiles(self.compute)
        cycles = total(self._slot)
        waits = [cycles - busy]
        if len(self.flows) > 1:
            waits = [total(self._waiting_for(c)) for c in range(len(self.flows))]
        return SlotSums(np.stack([
            cycles,
            busy,
            self.runs * self._over_tiles(self.work),
            self.runs * self._over_tiles(self.useful),
            self.runs * _total(many[..., :1], behind[..., None]),
            *(self.runs * _total(many, moved) for moved in ahead),
            *waits,
        ]))  # fmt: skip

    def _memory(self, nbytes: Sequence[Ints]) -> list[Ints]:
        return [
            memory_cycles(n, flow.channel.bytes_per_cycle, flow.channel.latency_cycles)
            for n, flow in zip(nbytes, self.flows, strict=True)
        ]

    def _slot(self, compute: Ints, nbytes: Sequence[Ints]) -> Ints:
        """Return the cycles of a slot: until computing and the slowest channel are done."""
        for cycles in self._memory(nbytes):
            compute = np.maximum(compute, cycles)
        return compute

    def _waiting_for(self, channel: int) -> Quantity:
        """Return what gives the cycles of a slot in which all wait for this channel."""

        def waiting(compute: Ints, nbytes: Sequence[Ints]) -> Ints:
            cycles = np.stack(self._memory(nbytes))
            wait = np.maximum(cycles.max(axis=0) - compute, 0)
            return np.where(cycles.argmax(axis=0) == channel, wait, 0)

        return waiting

    def _sequential(
        self, quantity: Quantity, many: Ints, ahead: Sequence[Ints], behind: Ints
    ) -> Ints:
        each = quantity(np.zeros((), dtype=np.int64), ahead)
        if quantity == self._slot:
            each = each + _spread(self.compute)
        stored = quantity(np.zeros((), dtype=np.int64), [behind] * len(self.flows))
        total: Ints = self.runs * (_total(many, each) + _total(many[..., :1], stored[..., None]))
        return total

    def _overlapped(
        self, quantity: Quantity, many: Ints, ahead: Sequence[Ints], behind: Ints
    ) -> Ints:
        compute = _spread(self.compute)
        traffic = [moved.copy() for moved in ahead]
        for moved in traffic:
            moved[..., 0] += behind
        slot = quantity(compute, traffic)
        middle = _total(many, slot)
        last = tuple(np.where(count > 1, 3, 0) for count in (self.outer, self.inner, self.depth))
        item = np.arange(len(self.outer))
        c_first, c_last = compute[:, 0, 0, 0], compute[(item, *last)]
        none = np.zeros_like(c_first)
        first_load = [flow.a_bytes[:, 0, 0] + flow.b_bytes[:, 0, 0] for flow in self.flows]
        last_store = [self.y_bytes[:, 1, 1]] * len(self.flows)
        behind_last = [np.where(self.depth == 1, behind[(item, *last[:2])], 0)] * len(self.flows)
        longer = (
            self.runs * middle - slot[:, 0, 0, 0] - slot[(item, *last)]
            + quantity(c_first, [moved[:, 0, 0, 0] for moved in ahead])
            + quantity(c_last, behind_last)
        )  # fmt: skip
        one_tile = np.where(
            self.runs == 1,
            quantity(c_first, [none] * len(self.flows)),
            quantity(c_first, first_load)
            + quantity(c_first, last_store)
            + (self.runs - 2) * middle,
        )
        single = (self.outer == 1) & (self.inner == 1) & (self.depth == 1)
        edges = quantity(none, first_load) + quantity(none, last_store)
        total: Ints = edges + np.where(single, one_tile, longer)
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

    def _ahead(self, flow: Flow) -> Ints:
        """Return the bytes a channel loads in each slot: what the next tile finds no nearer."""
        a, b = flow.a_bytes, flow.b_bytes
        again_a = np.repeat(~flow.a_stays[:, None], 4, axis=1)  # by inner position
        again_b = np.repeat(~flow.b_stays[:, None], 4, axis=1)  # by outer position
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
