"""The integral over a training schedule: time and energy of every phase, pass by pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accsim.base.errors import InputError
from accsim.devices.fpga_resources import check as resources_fit
from accsim.sparsity.schedule import TrainingSchedule
from accsim.spec.fpga import Fpga
from accsim.spec.pattern import Pattern
from accsim.spec.workload import Workload
from accsim.training.methods import Method, group_of, method_of
from accsim.training.step import PARTS, Step, training_step

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

SPANS = {
    "first": "first epoch of the span",
    "end": "epoch after its last",
    "state": "dense, n:m, or fading (MdGf before β = 0)",
    "steps": "training steps of the span",
    "step_s": "seconds of one step",
    "epoch_s": "seconds of one epoch",
    "seconds": "seconds of the span",
    **{f"{part}_s": f"of these, {part}" for part in PARTS},
    "step_j": "joules of one step",
    "joules": "joules of the span",
    "metadata_bytes": "metadata of packed copies written in the span",
}


@dataclass(frozen=True)
class Span:
    """Epochs first … end − 1 that compute the same step."""

    first: int
    end: int
    step: Step
    steps: int

    @property
    def seconds(self) -> float:
        """Seconds of the span."""
        return self.steps * self.step.seconds

    @property
    def joules(self) -> float:
        """Joules of the span."""
        return self.steps * self.step.energy_j

    @property
    def row(self) -> dict[str, Any]:
        """One row of ``SPANS``."""
        step, hz = self.step, self.step.device.clock_ghz * 1e9
        return {
            "first": self.first, "end": self.end, "state": step.state, "steps": self.steps,
            "step_s": step.seconds, "epoch_s": self.seconds / (self.end - self.first),
            "seconds": self.seconds,
            **{f"{part}_s": self.steps * cycles / hz for part, cycles in step.by_pass.items()},
            "step_j": step.energy_j, "joules": self.joules,
            "metadata_bytes": self.steps * step.metadata_bytes,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Training:
    """A whole training: spans of equal steps, in order.

    ``steps_per_epoch`` steps make one unit of the schedule. ``churn``: the share of mask bits that
    change from one step to the next; None: all metadata are written anew every step.
    """

    schedule: TrainingSchedule
    steps_per_epoch: int
    churn: float | None
    spans: tuple[Span, ...]

    @property
    def epochs(self) -> int:
        """Epochs of the schedule."""
        return self.schedule.end

    @property
    def steps(self) -> int:
        """Steps of the schedule."""
        return sum(span.steps for span in self.spans)

    @property
    def sparsest(self) -> Step:
        """The step of the last span that is not dense, the last step if all are."""
        sparse = [x.step for x in self.spans if x.step.group is not None and not x.step.fading]
        return (sparse or [self.spans[-1].step])[-1]

    @property
    def seconds(self) -> float:
        """Seconds of the whole schedule."""
        return sum(span.seconds for span in self.spans)

    @property
    def dense_seconds(self) -> float:
        """Seconds of as many dense steps."""
        return self.steps * self.sparsest.dense.seconds

    @property
    def joules(self) -> float:
        """Joules of the whole schedule."""
        return sum(span.joules for span in self.spans)

    @property
    def metadata_bytes(self) -> int:
        """Metadata of packed copies written over the schedule."""
        return sum(span.steps * span.step.metadata_bytes for span in self.spans)

    @cached_property
    def seconds_by_pass(self) -> dict[str, float]:
        """Seconds by part; they sum to ``seconds``."""
        rows = [span.row for span in self.spans]
        return {part: sum(row[f"{part}_s"] for row in rows) for part in PARTS}

    @cached_property
    def joules_by_pass(self) -> dict[str, float]:
        """Joules by part; they sum to ``joules``."""
        return {
            part: sum(span.steps * span.step.energy_by_pass[part] for span in self.spans)
            for part in PARTS
        }

    @property
    def table(self) -> pd.DataFrame:
        """One row a span, a pandas DataFrame; columns as in ``SPANS``."""
        import pandas as pd

        return pd.DataFrame([span.row for span in self.spans])

    @property
    def totals(self) -> dict[str, Any]:
        """Plain numbers: the schedule, then its sparsest step against the bound."""
        step = self.sparsest
        return {
            "workload": step.workload.name, "hardware": step.device.name,
            "method": step.method.name, "pattern": step.state, "batch": step.batch,
            "schedule": str(self.schedule), "epochs": self.epochs, "steps": self.steps,
            "seconds": self.seconds, "epoch_s": self.seconds / self.epochs,
            "dense_seconds": self.dense_seconds, "speedup": self.dense_seconds / self.seconds,
            "joules": self.joules, "dense_joules": self.steps * step.dense.energy_j,
            "metadata_bytes": self.metadata_bytes, "churn": self.churn,
            "step_cycles": step.cycles, "step_s": step.seconds, "step_j": step.energy_j,
            "dense_step_cycles": step.dense.cycles, "step_speedup": step.speedup,
            "step_bound": step.bound, "step_mac_bound": step.mac_bound, "step_macs": step.macs,
        }  # fmt: skip

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before the numbers."""
        step, notes = self.sparsest, []
        try:
            resources_fit(step.device)
        except InputError as error:
            notes.append(f"the design does not fit its card: {error}")
        if not step.workload.elementwise:
            notes.append(f"{step.workload.name} lists nothing between its layers: "
                         "no batch norm or activation is in it")  # fmt: skip
        if not any(cost.accesses for cost in step.products):
            notes.append("energy: accesses of buffers are not counted, only their clock")
        if self.churn is None and step.metadata_bytes:
            notes.append("all metadata are written at every step: no mask churn was given")
        return tuple(notes)

    def plot(self) -> matplotlib.figure.Figure:
        """Return the figure: time per epoch by pass, and the step against its bound."""
        from accsim.report.training import figure

        return figure(self)

    def save(self, folder: str | Path, *, plots: bool = True) -> list[Path]:
        """Write the answer to a folder; return the files.

        ``training.csv`` (spans), ``step.csv`` (the sparsest step by layer and part),
        ``decomposition.csv``, ``training.json`` (all of it, with provenance), ``training.png`` and
        ``.svg``.

        Raises:
            InputError: the folder cannot be made or written.
        """
        from accsim.training.files import save

        return save(self, folder, plots=plots)


def over_training(
    workload: Workload,
    device: Fpga,
    schedule: TrainingSchedule | str,
    method: str | Method,
    *,
    steps_per_epoch: int | None = None,
    samples: int | None = None,
    batch: int | None = None,
    churn: float | None = None,
    costs: Callable[..., Any] | None = None,
) -> Training:
    """Return time and energy of a whole training.

    Args:
        workload: the network; its batch is the step's unless ``batch`` says another.
        device: an FPGA accelerator.
        schedule: patterns over epochs, ``"0-10:dense,10-90:2:8"``; MdGf's β by ``;fade=10-50``.
        method: what sparse phases do (:func:`training_step`).
        steps_per_epoch: steps in one unit of the schedule.
        samples: instead: of the data set; an epoch is ⌈samples / batch⌉ steps.
        batch: samples a step.
        churn: share of mask bits that change a step (:func:`accsim.sparsity.schedule.churn`). Each
            index is rewritten when its weight leaves: bits change in pairs, so that churn · m/2n of
            the metadata is rewritten, all of it at most.
        costs: in place of the device's own ``pass_costs``.

    Raises:
        InputError: as :func:`training_step`, a schedule that breaks a rule, or neither or both of
            steps_per_epoch and samples.
    """
    plan = TrainingSchedule.parse(schedule) if isinstance(schedule, str) else schedule
    chosen = method_of(method)
    network = workload if batch is None else workload.with_batch(batch)
    steps = _steps(steps_per_epoch, samples, network.layers[0].batch)
    if churn is not None and not 0 <= churn <= 1:
        raise InputError(f"churn must be in 0…1; got {churn}")
    if plan.fade is not None and not chosen.fades:
        raise InputError(f"schedule: fade belongs to the method mdgf; got '{chosen.name}'")
    known: dict[tuple[str, bool], Step] = {}
    spans = []
    for first, end, pattern, fading in _spans(plan):
        key = (str(pattern), fading)
        if key not in known:
            known[key] = training_step(
                network, device, chosen, pattern, fading=fading, costs=costs,
                metadata_share=_rewritten(pattern, chosen, churn),
            )  # fmt: skip
        spans.append(Span(first, end, known[key], steps * (end - first)))
    return Training(plan, steps, churn, tuple(spans))


def _steps(steps_per_epoch: int | None, samples: int | None, batch: int) -> int:
    if (steps_per_epoch is None) == (samples is None):
        raise InputError("over_training needs one of steps_per_epoch and samples")
    name, given = ("samples", samples) if samples is not None else ("steps", steps_per_epoch)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 10**12:
        raise InputError(f"{name} must be a whole number from 1 to 10^12; got {given!r}")
    return math.ceil(given / batch) if samples is not None else given


def _spans(plan: TrainingSchedule) -> Iterator[tuple[int, int, Pattern, bool]]:
    """Yield (first, end, pattern, fading): phases, cut where a fade begins and ends."""
    target = next((x.pattern for x in plan.phases if plan.fade and x.first >= plan.fade[1]), None)
    for phase in plan.phases:
        begin, stop = plan.fade or (phase.first, phase.first)
        cuts = {phase.first, phase.end, *(x for x in (begin, stop) if phase.first < x < phase.end)}
        for first, end in pairwise(sorted(cuts)):
            fading = begin <= first < stop
            if fading and target is None:
                raise InputError("schedule: a fade must end in a phase n:m; got none after it")
            yield first, end, target if fading and target else phase.pattern, fading


def _rewritten(pattern: Pattern, method: Method, churn: float | None) -> float:
    group = group_of(pattern, method)
    if churn is None or group is None:
        return 1.0
    return min(1.0, churn * group.m / (2 * group.n))
