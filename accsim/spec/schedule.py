"""Schedule: what a device makes of an operation, and all an engine needs to know of it.

The contract a device implements; docs/engine.md says what every field means and how a schedule is
played. Engines (closed form, compiled, events) only wait; they never ask what a tile is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from accsim.base.errors import AccsimError
from accsim.spec.counts import Counts

Ints = npt.NDArray[np.int64]
Tiles = npt.NDArray[np.void]
SwapName = Literal["elastic", "lockstep", "sequential"]
OrderName = Literal["in_order", "list"]

# What a unit can be busy with. Waiting is named after the channel waited for, and after launch.
COMPUTE_CAUSES = (
    "work",  # useful multiplications, streaming
    "padding",  # steps in which PEs or lanes are given nothing: ragged edges, padded extents
    "fill_drain",  # skew, preload, drain, prologue and epilogue
    "imbalance",  # units or PEs that wait for the fullest one
    "metadata",  # decoding positions of non-zeros
    "gather",  # bringing scattered operands together, scattering results
    "generator",  # making masks or compressing operands on the fly
    "checker",  # checksums and comparisons that computing waits for
    "throttle",  # clock below the reference one, under a power cap
)
EXTENTS = ("t", "k", "n", "t0", "k0", "n0")
BYTES = ("load_bytes", "metadata_bytes", "gather_bytes", "store_bytes")
MAX_CYCLES = 2**62


def _check(right: bool, noun: str, name: str, rule: str, value: object) -> None:
    if not right:
        raise AccsimError(f"{noun} '{name}': {rule}; got {value}")


def _every(
    right: npt.NDArray[np.bool_], name: str, rule: str, values: npt.NDArray[np.int64]
) -> None:
    if not right.all():
        at = int(np.argwhere(~right)[0][0])
        raise AccsimError(f"schedule, tile {at}: {name} {rule}; got {values[at]}")


@cache
def tile_dtype(levels: int) -> np.dtype[np.void]:
    """Return the dtype of a tile whose bytes move over ``levels`` channels.

    >>> tile_dtype(2)["load_bytes"].shape
    (2,)
    """
    cycles = ("compute_cycles", *(f"{cause}_cycles" for cause in COMPUTE_CAUSES))
    scalars: list[tuple[str, type]] = [(name, np.int64) for name in (*EXTENTS, "pool", *cycles)]
    moved = [(name, np.int64, (levels,)) for name in BYTES]
    return np.dtype([*scalars, *moved])


@dataclass(frozen=True)
class Channel:
    """A memory level as tiles see it: bytes a cycle, and cycles until the last one arrives."""

    name: str
    bytes_per_cycle: float
    latency_cycles: int = 0
    shared: bool = True

    def __post_init__(self) -> None:
        _check(self.bytes_per_cycle > 0, "channel", self.name, "bytes_per_cycle must be > 0", self)
        _check(self.latency_cycles >= 0, "channel", self.name, "latency_cycles must be ≥ 0", self)


@dataclass(frozen=True)
class Pool:
    """Equal compute units, and the tiles one of them can hold before and after computing."""

    name: str
    units: int = 1
    input_buffers: int = 2
    output_buffers: int = 2

    def __post_init__(self) -> None:
        least = min(self.units, self.input_buffers, self.output_buffers)
        _check(least >= 1, "pool", self.name, "units and buffers must be ≥ 1", self)


@dataclass(frozen=True)
class Machine:
    """What tiles run on: units in pools, channels from the farthest memory to the nearest."""

    channels: tuple[Channel, ...]
    pools: tuple[Pool, ...] = (Pool("array"),)
    swap: SwapName = "lockstep"
    order: OrderName = "in_order"
    launch_cycles: int = 0

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        taken = {*COMPUTE_CAUSES, "launch"}
        _check(len({*names, *taken}) == len(names) + len(taken), "machine", "channels",
               f"names must differ from each other and from {sorted(taken)}", names)  # fmt: skip
        _check(bool(self.pools), "machine", "pools", "there must be at least one", self.pools)
        _check(self.swap in get_args(SwapName), "machine", "swap", "unknown", self.swap)
        _check(self.order in get_args(OrderName), "machine", "order", "unknown", self.order)
        _check(self.launch_cycles >= 0, "machine", "launch_cycles", "must be ≥ 0",
               self.launch_cycles)  # fmt: skip

    @property
    def units(self) -> int:
        """Units of all pools together."""
        return sum(pool.units for pool in self.pools)

    @property
    def causes(self) -> tuple[str, ...]:
        """Every cause a cycle of this machine can have, in the order they are shown."""
        return (*COMPUTE_CAUSES, *(channel.name for channel in self.channels), "launch")

    def without_contention(self) -> Machine:
        """Return the machine with a channel of full bandwidth for each unit."""
        return replace(self, channels=tuple(replace(c, shared=False) for c in self.channels))


@dataclass(frozen=True, eq=False)
class Schedule:
    """Tiles of one operation in program order, run ``runs`` times on a machine.

    Raises:
        AccsimError: an array that breaks the contract; it names the tile and the rule.
    """

    tiles: Tiles
    machine: Machine
    runs: int = 1
    dependencies: Ints = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    actions: Counts = field(default_factory=lambda: Counts({}))

    def __post_init__(self) -> None:
        levels = len(self.machine.channels)
        _check(self.tiles.dtype == tile_dtype(levels), "schedule", "tiles",
               f"must be of tile_dtype({levels})", self.tiles.dtype)  # fmt: skip
        _check(self.runs >= 1, "schedule", "runs", "must be ≥ 1", self.runs)
        self._check_tiles()
        self._check_edges()

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def compute_cycles(self) -> int:
        """Cycles units are busy, all tiles and runs."""
        return self.runs * int(self.tiles["compute_cycles"].sum())

    def _check_tiles(self) -> None:
        tiles = self.tiles
        if not len(tiles):
            return
        for name in ("pool", "compute_cycles", *(f"{c}_cycles" for c in COMPUTE_CAUSES), *BYTES):
            _every(tiles[name] >= 0, name, "must be ≥ 0", tiles[name])
        _every(tiles["pool"] < len(self.machine.pools), "pool", "must be a pool", tiles["pool"])
        busy = tiles["compute_cycles"]
        parts = np.zeros_like(busy)
        for cause in COMPUTE_CAUSES:
            parts += tiles[f"{cause}_cycles"]
        _every(parts == busy, "compute_cycles", "must be the sum of its causes", busy)
        load = tiles["load_bytes"]
        part = tiles["metadata_bytes"] + tiles["gather_bytes"]
        _every(part <= load, "load_bytes", "must hold its metadata and gather bytes", load)

    def _check_edges(self) -> None:
        edges = self.dependencies
        _check(edges.ndim == 2 and edges.shape[1] == 2, "schedule", "dependencies",
               "must be (edges, 2)", edges.shape)  # fmt: skip
        if len(edges):
            later, earlier = edges.T
            right = (earlier >= 0) & (earlier < later) & (later < len(self))
            _every(right, "dependencies", "a tile depends on earlier ones only", edges)
        for name, values in self.actions.items():
            _check(len(values) == len(self), "schedule", f"actions.{name}",
                   "must have one entry a tile", len(values))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Played:
    """What happened when; one entry a tile and run in program order (docs/engine.md)."""

    total_cycles: int
    unit: Ints
    load_request: Ints
    load_begin: Ints
    load_done: Ints
    compute_start: Ints
    compute_end: Ints
    store_request: Ints
    store_begin: Ints
    store_done: Ints
    load_channel: Ints
    store_channel: Ints
    channel_busy_cycles: Ints


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a device says of each layer, one entry a layer, all its runs together.

    ``causes`` maps every cause (compute causes, the device's channels, launch; zeros included) to
    cycles; they sum to ``cycles``. ``mode`` is how the device runs the layer; ``extra`` holds
    columns only this device or timing convention has.
    """

    cycles: Ints
    causes: dict[str, Ints]
    counts: Counts
    metadata_bits: Ints
    effective_macs: Ints
    mode: tuple[str, ...]
    extra: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def take(self, which: npt.NDArray[np.intp]) -> Evaluation:
        """Return the chosen entries, repeats allowed."""
        return Evaluation(
            cycles=self.cycles[which],
            causes={name: values[which] for name, values in self.causes.items()},
            counts=self.counts.take(which),
            metadata_bits=self.metadata_bits[which],
            effective_macs=self.effective_macs[which],
            mode=tuple(self.mode[i] for i in which),
            extra={name: values[which] for name, values in self.extra.items()},
        )


def all_causes(known: Mapping[str, Ints], channels: Sequence[str], cycles: Ints) -> dict[str, Ints]:
    """Return ``known`` in the order causes are shown, with zeros for those not named.

    Raises:
        AccsimError: a cause that is neither a compute cause, a channel nor launch; or cycles that
            are not the sum of their causes.
    """
    names = (*COMPUTE_CAUSES, *channels, "launch")
    _check(set(known) <= set(names), "evaluation", "causes", f"must be among {names}", list(known))
    causes = {name: known.get(name, np.zeros_like(cycles)) for name in names}
    spent = np.sum(list(causes.values()), axis=0)
    _every(spent == cycles, "cycles", "must be the sum of their causes", cycles)
    return causes
