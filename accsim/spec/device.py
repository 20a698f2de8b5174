"""What shared code asks of a device: of its noun (``Device``) and of the class that runs it.

A device family is a class that inherits :class:`Family`, registered under the entry-point group
``accsim.devices`` by the ``kind`` its noun has. It brings its noun, ``evaluate`` and its peak; what
else it does not bring has a default. Loading, simulating, tables, figures and ``why`` know no more
of a device than what stands here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from accsim.spec.elementwise import Elementwise, ElementwiseCosts
from accsim.spec.energy import Energy, Price
from accsim.spec.memory import MemoryLevel
from accsim.spec.pattern import DENSE
from accsim.spec.schedule import Evaluation, Ints, Schedule
from accsim.spec.sourced import Sourced
from accsim.spec.why import Counterfactuals

if TYPE_CHECKING:
    from accsim.sparsity.masks import Masks
    from accsim.spec.workload import Layer

Floats = npt.NDArray[np.floating[Any]]
Parts = dict[str, Floats]  # energy by part, pJ, one entry a layer
LEVELS = ("closed", "events", "register")


class Device(Protocol):
    """A device's noun: a frozen pydantic model (``Spec``) with these fields or properties.

    A field ``energy`` of type ``Energy`` is taken for its energy table, with the ranges of its
    numbers; a family whose energy comes from elsewhere has none.
    """

    @property
    def name(self) -> str:
        """What it is called in results."""

    @property
    def title(self) -> str:
        """One line about it."""

    @property
    def kind(self) -> str:
        """The family's name in the entry-point group."""

    @property
    def clock_ghz(self) -> float:
        """The clock all cycles are counted in: seconds are cycles / clock_ghz / 1e9."""

    @property
    def sources(self) -> Mapping[str, Sourced]:
        """Dotted path of each number → where it comes from; the loader fills it in."""

    @property
    def memory_levels(self) -> Sequence[MemoryLevel]:
        """Every level from the registers outwards; the off-chip one is called ``dram``."""

    def model_dump(self, *, mode: str = ..., exclude: Any = ...) -> dict[str, Any]:
        """Return plain data, as pydantic does."""


class Family(Protocol):
    """A device family: inherit it, give ``spec``, ``evaluate`` and ``peak_macs_per_cycle``.

    ``spec``: the noun, whose ``kind`` is the name it is registered by.
    ``levels``: the levels of detail it has. ``closed`` is ``evaluate``; ``events`` needs
    ``schedule``; ``register`` needs ``clock_tiles``.
    ``tables``: keys of its files that may hold a word, the name of another file: key → (folder in
    hwconfigs/, key that file says its name with), e.g. ``{"energy": ("energy", "table")}``.
    """

    spec: ClassVar[type[Any]]
    levels: ClassVar[tuple[str, ...]] = ("closed",)
    tables: ClassVar[Mapping[str, tuple[str, str]]] = {}
    device: Any

    def __init__(self, device: Any) -> None:
        self.device = device

    @abstractmethod
    def evaluate(self, layers: Sequence[Layer], masks: Masks) -> Evaluation:
        """Return cycles by cause, action counts and modes of layers, in closed form.

        ``causes`` as :func:`accsim.spec.schedule.all_causes` makes them; the off-chip channel is
        called ``dram``. Bytes are counted as ``{channel}_read_bytes`` and ``_write_bytes`` (those
        of buffers as ``sram_…``).
        """

    def in_network(self, layers: Sequence[Layer]) -> Self:
        """Return the family as it is while these layers run one after the other.

        What a layer finds in a cache depends on the others. Without it, layers run alone and again
        and again, as in a benchmark. By default there is no difference.
        """
        return self

    @staticmethod
    @abstractmethod
    def peak_macs_per_cycle(device: Any, layer: Layer) -> float:
        """Return the effective MACs (with a kept weight) of a clock, all units busy.

        It may depend on the layer's dtype and pattern; what is achieved never exceeds it.
        """

    # --- levels of detail

    @staticmethod
    def check_level(device: Any, level: str) -> None:
        """Refuse a level of ``levels`` that this very device does not have (InputError)."""

    def schedule(self, layer: Layer, masks: Masks) -> Schedule:
        """Return the tiles of a layer for the engine (docs/engine.md): ``runs`` are all its runs.

        The machine's launch is that of one call; those of other repeats are added by the caller.
        """
        raise NotImplementedError

    def clock_tiles(self, layer: Layer, masks: Masks) -> tuple[Schedule, Ints]:
        """Return the schedule of a layer and the cycles of its tiles at register level."""
        raise NotImplementedError

    def launches(self, layer: Layer) -> int:
        """Return how many times a layer is started: its schedule's machine launches once."""
        return int(layer.repeats)

    def follows_mask(self, layer: Layer, mode: str) -> bool:
        """Say whether layers of equal shape and pattern may differ in their tiles, by their masks.

        If not, ``events`` plays one of them for all.
        """
        return bool(layer.pattern != DENSE)

    # --- sparse operands made at run time

    @staticmethod
    def generator_us(
        device: Any, layers: Sequence[Layer], *, compress: bool, setup: bool
    ) -> tuple[Floats, Floats, Floats] | None:
        """Return (value, low, high) of the time before each call of a layer, µs.

        ``compress``: W is packed at run time. ``setup``: the library's plan is made anew for every
        call. Not-a-number where nothing is known of a layer's kernel; None: of no layer.
        """
        return None

    # --- between GEMMs

    @staticmethod
    def elementwise(
        device: Any, kernels: Sequence[Elementwise], *, fused: bool
    ) -> ElementwiseCosts | None:
        """Return what kernels between layers cost; None: the family does not know.

        ``fused``: those that can be are part of the kernel before them.
        """
        return None

    # --- energy

    @staticmethod
    def prices(device: Any, dtypes: Sequence[str]) -> dict[str, Price]:
        """Return what each counted action costs, and the part of the energy it belongs to."""
        return {}

    @staticmethod
    def static_mw(device: Any) -> float:
        """Return the power burnt whether or not anything moves; its part is ``static``."""
        return 0.0

    @staticmethod
    def energy_pj(found: Evaluation, layers: Sequence[Layer], device: Any) -> Parts | None:
        """Return the energy of each layer by part, in the family's own way.

        None: counts × ``prices``, and ``static_mw`` over the time (:mod:`accsim.cost.energy`).
        """
        return None

    @staticmethod
    def energy_range_pj(
        found: Evaluation, layers: Sequence[Layer], device: Any
    ) -> dict[str, tuple[Floats, Floats]] | None:
        """Return (low, high) energy of each layer by part.

        None: the corners of the noun's energy table; where it has none, no range is known.
        """
        return None

    @staticmethod
    def energy_words(device: Any) -> str:
        """Return where its energies come from, in a few words."""
        table = table_of(device)
        return "none" if table is None else f"{table.table} ({table.node_nm:g} nm)"

    # --- what is shown

    @staticmethod
    def meanings(device: Any) -> Mapping[str, str]:
        """Return what columns mean: its ``extra`` ones, its parts of energy (``energy_…_j``).

        Also those all devices have, where they mean something more special here.
        """
        return {}

    @staticmethod
    def counterfactuals() -> Counterfactuals:
        """Return its part of ``why``: how bounds are worded, what to try against them."""
        return Counterfactuals()


def table_of(device: Any) -> Energy | None:
    """Return the energy table a device has, None if it has none."""
    table = getattr(device, "energy", None)
    return table if isinstance(table, Energy) else None


def dram_of(device: Device) -> MemoryLevel | None:
    """Return the memory level called ``dram``, None if there is none."""
    return next((level for level in device.memory_levels if level.name == "dram"), None)
