"""One training step as a timeline: forward, then backward layer by layer, then the update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from accsim.devices.fpga_ops import make_ops
from accsim.devices.fpga_passes import pass_costs, plan_of
from accsim.devices.fpga_schedule import spell_out
from accsim.engine.timeline import Part, TimelineSummary, write_parts_timeline
from accsim.spec.schedule import Schedule
from accsim.training.product_costs import ProductCost, ops_of
from accsim.training.step import Step


def write_step_timeline(step: Step, path: str | Path) -> TimelineSummary:
    """Write a step for ui.perfetto.dev: products tile by tile, other work as one slice each.

    Raises:
        InputError: a path of another ending or that cannot be written.
    """
    parts = list(parts_of(step))
    name = f"{step.method.name} {step.state}: {step.workload.name} on {step.device.name}"
    return write_parts_timeline(parts, path, clock_ghz=step.device.clock_ghz, name=name)


def parts_of(step: Step) -> Iterator[Part]:
    """Yield the parts in the order they run; their cycles sum to the step's."""
    layers = range(len(step.workload.layers))
    for at in layers:
        yield from _works(step, at, "ff", ("selection",))
        yield from _products(step, at, ("ff",))
        yield from _works(step, at, "ff", ("batch_norm", "activation"))
    for at in reversed(layers):
        yield from _works(step, at, "bp", ("batch_norm", "activation", "selection"))
        yield from _products(step, at, ("bp", "wu"))
    for at in layers:
        yield from _works(step, at, "update", ("optimiser", "selection"))


def _products(step: Step, at: int, which: Sequence[str]) -> Iterator[Part]:
    for cost in step.products:
        product = cost.product
        if product.layer == at and product.which in which:
            texts = {"pass": product.which, "level": product.level, "flow": cost.flow}
            yield Part(f"{product.name} {product.which}", texts, _schedule(step, cost))


def _schedule(step: Step, cost: ProductCost) -> Schedule:
    ops = ops_of([cost.product])
    return spell_out(make_ops(ops, step.device), plan_of(pass_costs(ops, step.device)), step.device)


def _works(step: Step, at: int, way: str, which: Sequence[str]) -> Iterator[Part]:
    for work in step.works:
        if work.layer == at and work.way == way and work.which in which and work.cycles:
            texts = {"pass": work.which, "level": "", "flow": ""}
            yield Part(f"{work.name} {work.which}", texts, cycles=work.cycles)
