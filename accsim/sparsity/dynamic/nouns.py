"""What a dynamic scheme gives: the workloads of its steps, and what was drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar, overload

from accsim.base.errors import InputError
from accsim.spec.workload import Layer, Workload

Drawn = TypeVar("Drawn", covariant=True)


class Dynamic(Sequence[Workload], Generic[Drawn]):
    """One workload a step, of dense extents after compaction: any device runs it.

    Workloads are made when asked for, the same in any order. ``drawn`` is what they came from:
    activation masks, attention masks, routings or token counts.
    """

    def __init__(self, text: str, steps: int, make: Callable[[int], Workload], drawn: Drawn):
        self.text, self._steps, self._make, self.drawn = text, steps, make, drawn

    def __len__(self) -> int:
        return self._steps

    @overload
    def __getitem__(self, at: int) -> Workload: ...
    @overload
    def __getitem__(self, at: slice) -> list[Workload]: ...
    def __getitem__(self, at: int | slice) -> Workload | list[Workload]:
        if isinstance(at, slice):
            return [self._make(step) for step in range(*at.indices(self._steps))]
        if not -self._steps <= at < self._steps:
            raise IndexError(at)
        return self._make(at % self._steps)

    def __iter__(self) -> Iterator[Workload]:
        return map(self._make, range(self._steps))

    def merged(self) -> Workload:
        """Return all steps as one workload, its layers named ``step.name`` if there are several.

        Parameters are then counted once a step.
        """
        if self._steps == 1:
            return self._make(0)
        layers = [
            changed(layer, name=f"{step}.{layer.name}")
            for step, workload in enumerate(self)
            for layer in workload
        ]
        return rebuilt(self._make(0), layers)


class DynamicScheme(ABC):
    """One family of dynamic sparsity. Subclasses are frozen dataclasses; ``str()`` parses back."""

    family: ClassVar[str]
    grammar: ClassVar[str]
    summary: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> DynamicScheme:
        """Return the scheme a text of this family names; InputError if its numbers are bad."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def apply(self, workload: Workload, seed: int, layers: Sequence[str]) -> Dynamic[object]:
        """Return the steps of a workload under this scheme."""


def changed(layer: Layer, **changes: object) -> Layer:
    """Return the layer with fields changed, checked anew."""
    return Layer(**({name: getattr(layer, name) for name in Layer.model_fields} | changes))


def rebuilt(workload: Workload, layers: Iterable[Layer]) -> Workload:
    """Return the workload with other layers; ``published`` totals are the dense network's."""
    found = tuple(layers)
    if not found:
        raise InputError(f"nothing of '{workload.name}' is left to compute")
    return Workload(
        name=workload.name, title=workload.title, sources=workload.sources,
        license=workload.license, layers=found,
    )  # fmt: skip


def matching(workload: Workload, layers: Sequence[str]) -> set[str]:
    """Return the names that match the globs; InputError if one matches nothing."""
    return {x.name for x in workload.select(*((layers,) if isinstance(layers, str) else layers))}
