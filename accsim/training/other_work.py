"""Work of a training step that is no product: selection, optimiser, batch norm, activation.

All of it goes through the vector engine, ``lanes`` elements a cycle, or the selection engine, and
through DDR; the slowest of them sets the time. The array waits, except for element-wise work that
rides on a product's way to memory (``fused``): of that only what outlasts the product shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from accsim.base.errors import InputError
from accsim.sparsity.nm import NM, index_bits
from accsim.spec.dtype import DTYPES
from accsim.spec.elementwise import Elementwise
from accsim.spec.fpga import Fpga
from accsim.spec.workload import Conv2d, Layer, Workload
from accsim.training.methods import Method
from accsim.training.products import prunable

OTHER = ("selection", "optimiser", "batch_norm", "activation")
STATES = {"sgd": 0, "momentum": 1, "adam": 2}  # numbers kept for each weight besides itself
NORMS = ("batchnorm", "layernorm", "rmsnorm")


@dataclass(frozen=True)
class Work:
    """One piece of other work of a layer; ``way``: ff, bp or update, when in the step it runs."""

    layer: int
    name: str
    which: str
    way: str
    cycles: int
    load_bytes: int
    store_bytes: int
    elements: int
    hidden_elements: int = 0
    metadata_bytes: int = 0


@dataclass(frozen=True)
class Engines:
    """What other work needs to know of a device."""

    device: Fpga
    rate: float  # bytes a cycle of all memory channels

    @classmethod
    def of(cls, device: Fpga) -> Engines:
        """Return the engines of a device."""
        return cls(device, sum(channel.bytes_per_cycle for channel in device.channels))

    @property
    def bits(self) -> int:
        """Width of an operand."""
        return DTYPES[self.device.format].bits

    def cycles(self, elements: int, groups: int, nbytes: int) -> int:
        """Return the cycles of one stream through vector engine, selection and memory."""
        return max(
            math.ceil(elements / self.device.vector.lanes),
            math.ceil(groups / self.device.selection.groups_per_cycle),
            math.ceil(nbytes / self.rate),
        )


@dataclass(frozen=True)
class Packed:
    """One packed copy of a layer's weights: groups searched for it and its size."""

    groups: int
    value_bytes: int
    metadata_bytes: int


def updates(
    workload: Workload,
    engines: Engines,
    method: Method,
    group: NM | None,
    *,
    fading: bool = False,
    metadata_share: float = 1.0,
) -> Iterator[Work]:
    """Yield optimiser and selection of every layer with parameters.

    An update reads the gradient, the master weight and the optimiser's numbers and writes them
    back, with a working copy in the array's format where a product reads one. Pre-generated
    copies are written in the same stream; critical ones by reading the working copy again
    before each product. ``metadata_share``: of the metadata, what is rewritten.
    """
    for at, layer in enumerate(workload.layers):
        if layer.params == 0:
            continue
        here = group if prunable(workload, at) else None
        copies = _copies(layer, engines, method, here, fading)
        critical = engines.device.selection.when == "critical"
        plain = here is None or fading or method.dense_copy or critical
        load, store = _update_bytes(layer, engines, plain)
        alone = engines.cycles(layer.params, 0, load + store)
        yield Work(at, layer.name, "optimiser", "update", alone, load, store, layer.params)
        for way, copy in _selections(copies, critical, method, fading):
            metadata = round(copy.metadata_bytes * metadata_share)
            packed = copy.value_bytes + metadata
            if critical and not (fading or way == "update"):
                read = layer.op.params * layer.repeats * engines.bits // 8
                cycles = engines.cycles(0, copy.groups, read + packed)
            else:
                read = 0
                both = engines.cycles(layer.params, copy.groups, load + store + packed)
                cycles = both - alone
            yield Work(at, layer.name, "selection", way, cycles, read, packed, copy.groups,
                       metadata_bytes=metadata)  # fmt: skip


def _update_bytes(layer: Layer, engines: Engines, working: bool) -> tuple[int, int]:
    vector, bits = engines.device.vector, engines.bits
    numbers = vector.master_bytes * (1 + STATES[vector.optimiser])
    # Where the master has the array's width it is the working copy itself.
    copy = bits // 8 if working and bits != 8 * vector.master_bytes else 0
    return layer.params * (bits // 8 + numbers), layer.params * (numbers + copy)


def _copies(
    layer: Layer, engines: Engines, method: Method, group: NM | None, fading: bool
) -> list[Packed]:
    """Return the packed copies: the one along k, then the one along n."""
    if group is None:
        return []
    k, n, runs = layer.gemm.k, layer.gemm.n, layer.runs
    taps = layer.op.kernel[0] * layer.op.kernel[1] if isinstance(layer.op, Conv2d) else 1
    ways = [(k, n), (taps * n, k // taps)]
    found: list[Packed] = []
    for along, across in ways[: method.searches]:
        groups = -(-along // group.m) * across * runs
        slots = group.slots(along) * across * runs
        stored = not fading and len(found) < method.copies
        value, index = slots * engines.bits, slots * index_bits(group.m)
        found.append(Packed(groups, -(-value // 8) * stored, -(-index // 8) * stored))
    return found


def _selections(
    copies: list[Packed], critical: bool, method: Method, fading: bool
) -> list[tuple[str, Packed]]:
    """Return when each selection runs: all in one stream unless each waits for its product."""
    if not copies:
        return []
    if critical and not fading and method.copies == len(copies):
        return list(zip(("ff", "bp"), copies, strict=False))
    whole = Packed(*(sum(getattr(c, f) for c in copies) for f in Packed.__annotations__))
    return [("ff" if critical and not fading else "update", whole)]


@dataclass(frozen=True)
class _Cost:
    """Of one element: passes and accesses of its own, then when riding on a product."""

    passes: float
    reads: float
    writes: float
    riding: float = 0.0


def _forward(kernel: Elementwise, fused: bool) -> _Cost:
    """Return the cost of a kernel in training.

    A batch norm goes through its input twice, for the statistics and to normalise; on the way to
    memory only the statistics can be taken. What else is fused saves one read and one write.
    """
    if kernel.kind == "batchnorm":
        return _Cost(1, 1, 1, riding=1) if fused else _Cost(2, 2, 1)
    return _riding(1, kernel.reads, kernel.writes, fused)


def _backward(kernel: Elementwise, fused: bool) -> _Cost:
    """Return the cost of a kernel's gradient: it reads dY and what the forward pass read.

    Of a norm the two sums over dY and x come before dX: two passes, the first of which can take dY
    as it comes. A sum hands dY to both of its inputs; two gradients are added where they meet.
    """
    if kernel.kind in NORMS:
        return _Cost(1, 3, 1, riding=1) if fused else _Cost(2, 4, 1)
    if kernel.kind == "add":
        return _riding(1, 2, 1, fused)
    return _riding(1, kernel.reads + kernel.writes, kernel.reads, fused)


def _riding(passes: float, reads: float, writes: float, fused: bool) -> _Cost:
    if fused:
        return _Cost(0, max(reads - 1, 0), max(writes - 1, 0), riding=passes)
    return _Cost(passes, reads, writes)


def between(
    workload: Workload, engines: Engines, hosts: Mapping[tuple[int, str], int]
) -> Iterator[Work]:
    """Yield norms, activations and the like of every layer, forward and backward.

    ``hosts``: cycles of a layer's products by (layer, pass). Forward work rides on the ff of the
    layer it follows; backward work on the bp of the one after that, which makes its dY.
    """
    slack = dict(hosts)
    places = {layer.name: at for at, layer in enumerate(workload.layers)}
    for way, cost_of in (("ff", _forward), ("bp", _backward)):
        for kernel in workload.elementwise:
            at = places.get(kernel.after)
            if at is None:  # before the first layer: data, or an embedding
                if way == "bp" or kernel.kind != "embedding":
                    continue
                at = 0
            cost = cost_of(kernel, engines.device.vector.fused and kernel.fusable)
            host = (at if way == "ff" else at + 1, way)
            yield _work(kernel, at, way, cost, engines, slack, host)


def _work(
    kernel: Elementwise, at: int, way: str, cost: _Cost, engines: Engines,
    slack: dict[tuple[int, str], int], host: tuple[int, str],
) -> Work:  # fmt: skip
    elements, width = kernel.elements * kernel.repeats, engines.bits / 8
    load = math.ceil(elements * cost.reads * width)
    store = math.ceil(elements * cost.writes * width)
    own = engines.cycles(math.ceil(elements * cost.passes), 0, load + store)
    riding = engines.cycles(math.ceil(elements * cost.riding), 0, 0)
    hidden = min(riding, slack.get(host, 0))
    slack[host] = slack.get(host, 0) - hidden
    which = "batch_norm" if kernel.kind in NORMS else "activation"
    return Work(at, kernel.name, which, way, own + riding - hidden, load, store,
                math.ceil(elements * (cost.passes + cost.riding)),
                min(hidden * engines.device.vector.lanes, elements))  # fmt: skip


def check(device: object) -> Fpga:
    """Return the device if it is an FPGA accelerator.

    Raises:
        InputError: another kind of hardware.
    """
    if not isinstance(device, Fpga):
        name, kind = getattr(device, "name", device), getattr(device, "kind", "no device")
        raise InputError(f"hardware must be of kind fpga to train; '{name}' is {kind}")
    return device
