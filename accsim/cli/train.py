"""`accsim train`: time and energy of training with n:m sparsity on an FPGA."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from accsim.base.errors import InputError

IMAGENET_SAMPLES = 1_281_167  # training images of ILSVRC 2012
_OPTIONS = {"hardware": "--hw", "pattern": "--pattern", "method": "--method", "batch": "--batch",
            "training": "--schedule: training", "schedule:": "--schedule:", "churn": "--churn",
            "samples": "--samples", "steps": "--steps-per-epoch"}  # fmt: skip


@click.command()
@click.argument("workload")
@click.option("--hw", required=True, metavar="NAME|FILE", help="An FPGA accelerator.")
@click.option("--method", default="bdwp", show_default=True, metavar="METHOD",
              help="dense, sr_ste, sdgf, mdgf, bdwp, bimask, transposable.")  # fmt: skip
@click.option(
    "--pattern", metavar="N:M", help="Of sparse epochs; without --schedule of the one epoch."
)
@click.option("--schedule", metavar="TEXT",
              help="Patterns over epochs: 0-10:dense,10-90:2:8 (mdgf: ;fade=10-50).")  # fmt: skip
@click.option("--batch", type=int, metavar="N", help="Samples of a step.")
@click.option("--samples", type=int, metavar="N",
              help=f"Samples of an epoch; by default {IMAGENET_SAMPLES} (ImageNet).")  # fmt: skip
@click.option("--steps-per-epoch", type=int, metavar="N", help="In place of --samples.")
@click.option("--churn", type=float, metavar="SHARE",
              help="Mask bits that change a step; else all metadata are rewritten.")  # fmt: skip
@click.option("--layers", multiple=True, metavar="GLOB", help="Only layers whose name matches.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Leave matching layers dense.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override hardware.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Write CSV, JSON, PNG, SVG.")  # fmt: skip
@click.option("--timeline", type=click.Path(path_type=Path), metavar="FILE",
              help="Write one step for ui.perfetto.dev: .pftrace or .json.")  # fmt: skip
@click.option("--no-plots", is_flag=True, help="With --out: tables only.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def train(
    workload: str, hw: str, method: str, pattern: str | None, schedule: str | None,
    batch: int | None, samples: int | None, steps_per_epoch: int | None, churn: float | None,
    layers: tuple[str, ...], skip: tuple[str, ...], overrides: tuple[str, ...], out: Path | None,
    timeline: Path | None, no_plots: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train WORKLOAD on an FPGA: time and energy over a schedule, a step against its bound.

    \b
    accsim train resnet18 --hw vcu1525_sat --batch 512 --pattern 2:8
    accsim train resnet18 --hw vcu1525_sat --batch 512 --schedule 0-10:dense,10-90:2:8 --out out/
    accsim train vit-b-16 --hw vcu1525_sat --method sr_ste --pattern 2:8 --samples 50000
    """
    from accsim.cli.breakeven import _writable
    from accsim.cli.words import overrides_of
    from accsim.devices.fpga_resources import check as resources_fit
    from accsim.files.hardware import load_hardware
    from accsim.traces.load import load_workload
    from accsim.training.methods import method_of
    from accsim.training.other_work import check
    from accsim.training.over import over_training

    if timeline is not None:
        from accsim.engine.perfetto import check_path

        check_path(timeline)
    if samples is not None and steps_per_epoch is not None:
        raise InputError("--samples and --steps-per-epoch say the same: give one of them")
    try:
        chosen = method_of(method)
        network = load_workload(workload, batch=batch)
        if layers:
            network = network.select(*layers)
        if skip:
            network = _left_dense(network, skip)
        device = check(load_hardware(hw, overrides_of(overrides)))
        resources_fit(device)
        if out is not None:
            _writable(out)
        plan = _plan(chosen, pattern, schedule)
        unsaid = samples is None and steps_per_epoch is None
        samples = IMAGENET_SAMPLES if unsaid else samples
        found = over_training(network, device, plan, chosen, samples=samples, churn=churn,
                              steps_per_epoch=steps_per_epoch)  # fmt: skip
    except InputError as error:
        raise _of_option(error) from None
    _show(found, as_json, quiet)
    if unsaid and not (as_json or quiet):
        click.echo(
            f"note: an epoch is ImageNet's {IMAGENET_SAMPLES} samples; --samples says others"
        )
    if timeline is not None:
        from accsim.training.timeline import write_step_timeline

        made = write_step_timeline(found.sparsest, timeline)
        if not quiet and not as_json:
            click.echo(f"wrote {timeline}: {made.slices} slices of {made.layers} parts")
    if out is not None:
        files = found.save(out, plots=not no_plots)
        if not quiet and not as_json:
            click.echo(f"wrote {', '.join(f.name for f in files)} to {out}")


def _plan(method: Any, pattern: str | None, schedule: str | None) -> Any:
    """Return the schedule: one epoch of the pattern where none is given."""
    from accsim.sparsity.schedule import TrainingSchedule
    from accsim.training.methods import group_of, written

    if pattern is None and schedule is None and method.name != "dense":
        raise InputError(f"--method {method.name} needs --pattern N:M or --schedule")
    group = group_of(pattern or "dense", method)
    if schedule is None:
        return TrainingSchedule.parse(f"0-1:{written(group)}")
    plan = TrainingSchedule.parse(schedule)
    states = [written(group_of(phase.pattern, method)) for phase in plan.phases]
    if pattern is not None and written(group) not in states:
        raise InputError(f"--pattern {pattern} is in no phase of --schedule {schedule}")
    return plan


def _left_dense(network: Any, globs: tuple[str, ...]) -> Any:
    names = {layer.name for layer in network.select(*globs).layers}
    layers = tuple(
        x.model_copy(update={"prunable": False}) if x.name in names else x for x in network.layers
    )
    return network.model_copy(update={"layers": layers})


def _of_option(error: InputError) -> InputError:
    """Return the error with the argument it begins with spelt as the option."""
    first = error.message.split(" ", 1)[0]
    if error.file or first not in _OPTIONS:
        return error
    return InputError(_OPTIONS[first] + error.message[len(first) :])


def _show(found: Any, as_json: bool, quiet: bool) -> None:
    if as_json:
        from accsim.result import json_text
        from accsim.training.files import data, provenance

        click.echo(json_text({**data(found), "provenance": provenance(found)}), nl=False)
    elif not quiet:
        from accsim.report.training_text import training_lines

        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        for line in training_lines(found):
            click.echo(line.encode(encoding, "replace").decode(encoding))
