"""One training step on a device: cycles by cause, bytes, dataflows, and where the bound goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from accsim.base.errors import InputError, one_of
from accsim.sparsity.nm import NM
from accsim.spec.fpga import Fpga
from accsim.spec.pattern import Pattern
from accsim.spec.workload import Workload
from accsim.training.energy import joules
from accsim.training.methods import METHODS, Method, group_of, method_of, speedup_bound, written
from accsim.training.other_work import OTHER, Engines, Work, between, check, updates
from accsim.training.product_costs import ProductCost, product_costs
from accsim.training.products import PASSES, first_layer, passes, prunable

PARTS = (*PASSES, *OTHER)
CAUSES = {"dram": "memory"}  # a cause's word in a decomposition
ROWS = {
    "layer": "name in the workload",
    "pass": "ff, bp, wu, or selection, optimiser, batch_norm, activation",
    "level": "dense or n:m: what the packed operand of the product is",
    "flow": "dataflow the search chose: ws or os; 'ws os' where phases of a bp differ",
    "why": "cycles of each dataflow the array has",
    "macs": "multiply-accumulates as if dense",
    "cycles": "array clock cycles, or cycles the array waits for this work",
    "work_cycles": "of these, multiplying at the array's full rate",
    "padding_cycles": "idle PEs and part-filled groups",
    "fill_drain_cycles": "fill, drain, adders that wait",
    "dram_cycles": "waiting for memory",
    "other_cycles": "the rest: launch, vector and selection engines",
    "load_bytes": "read from DDR",
    "store_bytes": "written to DDR",
    "metadata_bits": "of the packed operand, or rewritten by the selection",
}
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Step:
    """A training step of all samples of a batch."""

    workload: Workload
    device: Fpga
    method: Method
    group: NM | None
    fading: bool
    products: tuple[ProductCost, ...]
    works: tuple[Work, ...]
    metadata_share: float = 1.0
    costs: Any = None

    @property
    def batch(self) -> int:
        """Samples of the step."""
        return self.workload.layers[0].batch

    @property
    def state(self) -> str:
        """What the step computes: ``dense``, ``2:8``, or ``fading``."""
        return "fading" if self.fading else written(self.group)

    @cached_property
    def by_pass(self) -> dict[str, int]:
        """Cycles by part: the three passes, then other work; they sum to ``cycles``."""
        found = dict.fromkeys(PARTS, 0)
        for cost in self.products:
            found[cost.product.which] += cost.cycles
        for work in self.works:
            found[work.which] += work.cycles
        return found

    @property
    def cycles(self) -> int:
        """Cycles of the step."""
        return sum(self.by_pass.values())

    @property
    def seconds(self) -> float:
        """Seconds of the step."""
        return self.cycles / self.device.clock_ghz * 1e-9

    @cached_property
    def causes(self) -> dict[str, int]:
        """Cycles by cause: those of the products, then each kind of other work."""
        found: dict[str, int] = {}
        for cost in self.products:
            for cause, cycles in cost.causes.items():
                found[cause] = found.get(cause, 0) + cycles
        return found | {which: self.by_pass[which] for which in OTHER}

    @cached_property
    def bytes_by_pass(self) -> dict[str, tuple[int, int]]:
        """Bytes (loaded, stored) by part."""
        found = dict.fromkeys(PARTS, (0, 0))
        pairs = [(x.product.which, x.load_bytes, x.store_bytes) for x in self.products]
        for which, load, store in pairs + [
            (x.which, x.load_bytes, x.store_bytes) for x in self.works
        ]:
            found[which] = (found[which][0] + load, found[which][1] + store)
        return found

    @property
    def load_bytes(self) -> int:
        """Bytes read from DDR."""
        return sum(load for load, _ in self.bytes_by_pass.values())

    @property
    def store_bytes(self) -> int:
        """Bytes written to DDR."""
        return sum(store for _, store in self.bytes_by_pass.values())

    @property
    def metadata_bytes(self) -> int:
        """Bytes of metadata the selection writes."""
        return sum(work.metadata_bytes for work in self.works)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the products as if dense."""
        return sum(cost.product.macs for cost in self.products)

    @cached_property
    def energy_parts(self) -> dict[str, dict[str, float]]:
        """Joules by part of the step, then by part of the card."""
        return joules(self)

    @cached_property
    def energy_by_pass(self) -> dict[str, float]:
        """Joules by part of the step."""
        return {part: sum(card.values()) for part, card in self.energy_parts.items()}

    @property
    def energy_j(self) -> float:
        """Joules of the step."""
        return sum(self.energy_by_pass.values())

    # --- against the bound

    @cached_property
    def dense(self) -> Step:
        """The dense step on the same device."""
        if self.method.name == "dense":
            return self
        return training_step(self.workload, self.device, "dense", costs=self.costs)

    @property
    def speedup(self) -> float:
        """The dense step's time over this one's."""
        return self.dense.cycles / self.cycles

    @property
    def bound(self) -> float:
        """What MACs alone allow: 3/(2 + r) or 3/(1 + 2r)."""
        return speedup_bound(self.method, None if self.fading else self.group)

    @property
    def mac_bound(self) -> float:
        """What the MACs of this network allow: its dense first layer and missing bp included."""
        return self.macs / sum(_kept(x.product.level) * x.product.macs for x in self.products)

    @cached_property
    def decomposition(self) -> dict[str, float]:
        """Cycles of this step: the dense step over the bound, then what keeps it from there.

        ``bound`` is dense cycles / bound: all of the dense step shrunk alike. A part that does not
        shrink adds what it has more than its shrunk self, one that shrinks better is negative.
        ``first_layer``: its forward pass is dense; ``bp_missing``: it has no bp, which would shrink
        (more than the mean of the step); ``dense_layers``: not pruned; ``unequal``: products of a
        layer whose MACs differ. The entries sum to ``cycles``.
        """
        share = 1 / self.bound
        found = {"bound": share * self.dense.cycles}
        found |= _of_work(self, share)
        mine, theirs = self.causes, self.dense.causes
        for cause in dict.fromkeys([*mine, *theirs]):
            if cause != "work":
                word = CAUSES.get(cause, cause)
                found[word] = mine.get(cause, 0) - share * theirs.get(cause, 0)
        return found

    # --- tables

    @cached_property
    def rows(self) -> list[Row]:
        """One row a layer and part (``ROWS``), in order of layers."""
        made: dict[tuple[int, str], Row] = {}
        for cost in self.products:
            at = (cost.product.layer, cost.product.which)
            row = made.get(at)
            made[at] = cost.row if row is None else _joined(row, cost.row)
        for work in self.works:
            at = (work.layer, work.which)
            new = _row_of(work, self.workload.layers[work.layer].name)
            made[at] = _joined(made[at], new) if at in made else new
        order = sorted(made, key=lambda key: (key[0], PARTS.index(key[1])))
        return [made[key] for key in order]


def training_step(
    workload: Workload,
    device: Fpga,
    method: str | Method = "dense",
    pattern: str | Pattern = "dense",
    *,
    batch: int | None = None,
    fading: bool = False,
    metadata_share: float = 1.0,
    costs: Callable[..., Any] | None = None,
) -> Step:
    """Return what one step costs.

    Args:
        workload: the network; its batch is the step's.
        device: an FPGA accelerator.
        method: ``dense``, ``sr_ste``, ``sdgf``, ``mdgf``, ``bdwp``, ``bimask``, ``transposable``.
        pattern: n:m, at a level the array has.
        batch: samples a step, if not the workload's own.
        fading: a step of MdGf before β = 0: products are dense, masks are searched.
        metadata_share: of the metadata, what changes from step to step and is rewritten.
        costs: in place of the device's own ``pass_costs``.

    Raises:
        InputError: hardware of another kind, an unknown method, another pattern, a missing level.
    """
    fpga, chosen = check(device), method_of(method)
    group = group_of(pattern, chosen)
    if not 0 <= metadata_share <= 1:
        raise InputError(f"metadata_share must be in 0…1; got {metadata_share}")
    if fading and not chosen.fades:
        raise InputError(f"fading steps belong to the method mdgf; got '{chosen.name}'")
    _check_level(fpga, written(group))
    network = workload if batch is None else workload.with_batch(batch)
    products = passes(network, METHODS["dense"] if fading else chosen,
                      "dense" if fading or group is None else group)  # fmt: skip
    engines = Engines.of(fpga)
    found = product_costs(products, fpga, costs)
    hosts: dict[tuple[int, str], int] = {}
    for cost in found:
        at = (cost.product.layer, cost.product.which)
        hosts[at] = hosts.get(at, 0) + cost.cycles
    works = [
        *updates(network, engines, chosen, group, fading=fading, metadata_share=metadata_share),
        *between(network, engines, hosts),
    ]
    return Step(network, fpga, chosen, group, fading, tuple(found), tuple(works),
                metadata_share, costs)  # fmt: skip


def _kept(level: str) -> float:
    if level == "dense":
        return 1.0
    n, m = (int(word) for word in level.split(":"))
    return n / m


def _check_level(device: Fpga, level: str) -> None:
    if level not in device.array.levels:
        raise InputError(
            f"pattern must be a level of the array of '{device.name}', "
            f"one of {one_of(device.array.levels)}; got '{level}'"
        )


def _of_work(step: Step, share: float) -> dict[str, float]:
    """Return what MACs at full rate add to the bound: layers and passes that shrink less."""
    found = dict.fromkeys(("first_layer", "bp_missing", "dense_layers", "unequal"), 0.0)
    first = first_layer(step.workload)
    forward = 1.0
    if step.group is not None and step.method.ff_sparse and not step.fading:
        forward = step.group.n / step.group.m
    mine, theirs = _work_by_layer(step), _work_by_layer(step.dense)
    for at in range(len(step.workload.layers)):
        more = sum(mine[at].values()) - share * sum(theirs[at].values())
        if at == first and step.workload.layers[at].has_weights:
            kept = (1 - forward) * theirs[at]["ff"]
            found["first_layer"] += kept
            found["bp_missing"] += more - kept
        else:
            found["unequal" if prunable(step.workload, at) else "dense_layers"] += more
    return found


def _work_by_layer(step: Step) -> list[dict[str, int]]:
    found = [dict.fromkeys(PASSES, 0) for _ in step.workload.layers]
    for cost in step.products:
        found[cost.product.layer][cost.product.which] += cost.causes.get("work", 0)
    return found


def _row_of(work: Work, name: str) -> Row:
    return {
        "layer": name, "pass": work.which, "level": "", "flow": "", "why": "", "macs": 0,
        "cycles": work.cycles, "work_cycles": 0, "padding_cycles": 0, "fill_drain_cycles": 0,
        "dram_cycles": 0, "other_cycles": work.cycles, "load_bytes": work.load_bytes,
        "store_bytes": work.store_bytes, "metadata_bits": 8 * work.metadata_bytes,
    }  # fmt: skip


def _joined(one: Row, other: Row) -> Row:
    """Return two rows of the same layer and part as one."""
    return {name: value if name in ("layer", "pass", "level") else _added(value, other[name], name)
            for name, value in one.items()}  # fmt: skip


def _added(one: Any, other: Any, name: str) -> Any:
    if not isinstance(one, str):
        return one + other
    if one == other or not other:
        return one
    separator = " " if name == "flow" else "; "
    parts: Sequence[str] = [*one.split(separator), *other.split(separator)]
    return separator.join(dict.fromkeys(parts))
