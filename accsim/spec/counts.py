"""How often each action happens: what energy is computed from. Counts add; energies come last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Counts(Mapping[str, Ints]):
    """Actions by name, one entry a layer (all runs) or a tile (one run).

    The names are the device's own, with their unit: ``macs``, ``select_bits``,
    ``dram_read_bytes``. A device prices each of its names (see cost/energy.py).

    >>> (Counts({"macs": np.array([1, 2])}) + Counts({"macs": np.array([3, 4])}))["macs"].tolist()
    [4, 6]
    """

    actions: Mapping[str, Ints]

    def __getitem__(self, name: str) -> Ints:
        return self.actions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.actions)

    def __len__(self) -> int:
        return len(self.actions)

    def __add__(self, other: Counts) -> Counts:
        """Add entry by entry; an action only one of the two has is kept as it is."""
        names = [*self, *(name for name in other if name not in self)]
        return Counts({name: self._plus(other, name) for name in names})

    def _plus(self, other: Counts, name: str) -> Ints:
        if name in self and name in other:
            return self[name] + other[name]
        return self[name] if name in self else other[name]

    def _each(self, change: Callable[[Ints], Ints]) -> Counts:
        return Counts({name: change(values) for name, values in self.items()})

    def take(self, which: npt.NDArray[np.intp]) -> Counts:
        """Return the chosen entries, repeats allowed."""
        return self._each(lambda values: values[which])

    def total(self, times: int = 1) -> Counts:
        """Return the sums of all entries, ``times`` over, as one entry."""
        return self._each(lambda values: times * values.sum(keepdims=True))

    def of(self, prefix: str, suffix: str) -> Ints | int:
        """Return the sum of the actions named ``prefix…suffix``; 0 if there are none."""
        found = [v for name, v in self.items() if name.startswith(prefix) and name.endswith(suffix)]
        return sum(found[1:], start=found[0]) if found else 0


def stack(counts: Sequence[Counts]) -> Counts:
    """Return one Counts with the entries of several that name the same actions, in order."""
    return Counts({name: np.concatenate([c[name] for c in counts]) for name in counts[0]})
