"""Which mode of a tensor PE a layer runs in: how many k rows a PE covers and in how many passes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from accsim.sparsity.nm import index_bits
from accsim.spec.hardware import Array
from accsim.spec.pattern import Pattern


@dataclass(frozen=True)
class Mode:
    """How one layer uses a tensor PE.

    ``lanes`` rows of k a PE covers (its block); ``group`` and ``slots``: the packed format, slots
    stored for every group of k rows; ``index_bits`` a slot; ``passes`` over a block. In a
    ``driven`` mode passes and stored slots follow the real mask, fold by fold.
    """

    level: str
    lanes: int
    group: int
    slots: int
    index_bits: int
    passes: int
    driven: bool = False

    @property
    def passes_per_row(self) -> float:
        """Array passes a k row costs: what makes a mode fast."""
        return self.passes / self.lanes

    def stored(self, k: int) -> int:
        """Return the slots stored for k rows of one column."""
        return k // self.group * self.slots + min(self.slots, k % self.group)


@lru_cache(maxsize=4096)
def modes(pattern: Pattern, array: Array) -> tuple[Mode, ...]:
    """Return the modes that can run a layer with ``pattern``, the likeliest to be fastest first.

    A plain PE (one lane) knows only dense. A pattern fits level n:m when no aligned block of m
    rows can hold more than n kept weights; a level with more slots than multipliers takes
    ⌈n / multipliers⌉ passes; one with fewer packs several blocks in a PE when its lanes allow.
    """
    dense = Mode("dense", array.multipliers, 1, 1, 0, 1)
    found = [dense]
    for level in array.levels:
        if level != "dense":
            mode = _level_mode(level, pattern, array)
            if mode is not None:
                found.append(mode)
    found.sort(
        key=lambda mode: (mode.passes_per_row, mode.slots * (8 + mode.index_bits) / mode.group)
    )
    if array.adaptive and pattern.block_bound(array.lanes) is None:
        bits = index_bits(array.lanes)
        found.append(Mode("adaptive", array.lanes, array.lanes, 0, bits, 0, driven=True))
    return tuple(found)


def fixed(choices: tuple[Mode, ...]) -> list[Mode]:
    """Return the modes whose passes are the same in every fold."""
    return [mode for mode in choices if not mode.driven]


def _level_mode(level: str, pattern: Pattern, array: Array) -> Mode | None:
    n, m = (int(word) for word in level.split(":"))
    bound = pattern.block_bound(m)
    if bound is None or bound > n:
        return None
    if n > array.multipliers:
        return Mode(level, m, m, bound, index_bits(m), -(-bound // array.multipliers))
    blocks = max(1, min(array.multipliers // n, array.lanes // m))
    return Mode(level, blocks * m, m, bound, index_bits(m), 1)
