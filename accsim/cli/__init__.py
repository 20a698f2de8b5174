"""The command line. Imports happen inside commands, so that ``accsim --help`` stays quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from accsim import __version__
from accsim.base.errors import AccsimError, InputError
from accsim.cli.breakeven import breakeven
from accsim.cli.calibrate import calibrate
from accsim.cli.show import show
from accsim.cli.trace import trace
from accsim.cli.train import train
from accsim.cli.words import Group, overrides_of

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="accsim")
def app() -> None:
    """Simulate accelerators for sparse neural networks: latency, energy, where cycles go.

    \b
    accsim run resnet50 --hw systolic_nm_32x32 --pattern 2:4
    accsim show hw
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; every user error is one line on stderr and exit code 2."""
    try:
        app.main(args=argv, prog_name="accsim", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _fail(error.format_message())
    except AccsimError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", code=130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _fail(f"cannot write: {error.strerror or error}")
    except MemoryError:
        _fail("out of memory: choose fewer or smaller layers, or level 'closed'")


def _fail(message: str, code: int = 2) -> None:
    click.echo(f"accsim: error: {message}", err=True)
    sys.exit(code)


@app.command()
@click.argument("workload")
@click.option("--hw", required=True, metavar="NAME|FILE", help="Hardware (see: accsim show hw).")
@click.option(
    "--pattern", metavar="PATTERN", help="Prune every weight layer: 2:4, unstructured@0.9 …"
)
@click.option("--scheme", metavar="TEXT",
              help="Rewrite layers: lowrank:64+2:4, … (`accsim show schemes`).")  # fmt: skip
@click.option("--dynamic", metavar="TEXT",
              help="Sparsity drawn at run time: moe:8,2 … (`accsim show dynamics`).")  # fmt: skip
@click.option("--layers", multiple=True, metavar="GLOB", help="Run only layers whose name matches.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Leave matching layers unpruned.")
@click.option("--batch", type=int, metavar="N", help="Items processed together.")
@click.option("--dtype", metavar="FORMAT", help="int8, int16, fp4, fp8, bf16, fp16, tf32, fp32.")
@click.option("--level", default="closed", show_default=True, help="closed, events or register.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, masks, operands.")
@click.option("--iid", is_flag=True, help="Weights without row and column scales.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override hardware.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write tables, figures."
)
@click.option("--timeline", type=click.Path(path_type=Path), metavar="FILE",
              help="Write a timeline for ui.perfetto.dev: .pftrace or .json.")  # fmt: skip
@click.option("--no-plots", is_flag=True, help="With --out: tables only.")
@click.option("--all-layers", is_flag=True, help="Print every layer, also equal ones in a row.")
@click.option("--why", is_flag=True, help="Say what bounds each layer and what would help.")
@click.option("--quality", is_flag=True, help="Print what the masks leave of the weights.")
@click.option("--end-to-end", "whole", is_flag=True,
              help="Add the kernels between GEMMs (GPUs).")  # fmt: skip
@click.option("--fused", is_flag=True, help="With --end-to-end: those that can be are epilogues.")
@click.option("--json", "as_json", is_flag=True, help="Print totals and layers as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def run(
    workload: str, hw: str, pattern: str | None, layers: tuple[str, ...], skip: tuple[str, ...],
    batch: int | None, dtype: str | None, level: str, seed: int, overrides: tuple[str, ...],
    out: Path | None, timeline: Path | None, no_plots: bool, all_layers: bool, why: bool,
    quality: bool, as_json: bool, quiet: bool, scheme: str | None, dynamic: str | None,
    iid: bool, whole: bool, fused: bool,
) -> None:  # fmt: skip
    """Simulate WORKLOAD: a name, a file, NAME:LAYER, or gemm:TxKxN.

    \b
    accsim run resnet50 --hw systolic_nm_32x32 --pattern 2:4 --out out/
    accsim run resnet50:layer3.0.conv2 --hw systolic_ws_32x32 --level register
    accsim run gemm:512x768x768 --hw systolic_ws_32x32 --set array.rows=64 --set dataflow=os
    accsim run topology.csv --hw systolic_os_32x32 --set timing=scalesim_v3
    accsim run bert-base --hw a100_pcie_80gb --batch 32 --pattern 2:4 --end-to-end --fused
    """
    from accsim.files.hardware import load_hardware
    from accsim.simulation import simulate
    from accsim.traces.replay import masks_of

    if fused and not whole:
        raise InputError("--fused needs --end-to-end")
    network = _network(workload, batch, dtype, layers)
    if pattern is not None:
        network = network.prune(pattern, skip=skip)
    elif skip:
        raise InputError("--skip needs --pattern: nothing is pruned")
    network = _rewritten(network, scheme, dynamic, seed)
    hardware = load_hardware(hw, overrides_of(overrides))
    if hw.lower().endswith(".cfg") and not quiet:
        _say_ignored(hw)
    if out is not None:
        if str(out).strip() in ("", "."):
            raise InputError("--out needs the name of a folder")
        _writable(out)
    if timeline is not None:
        from accsim.engine.perfetto import check_path

        check_path(timeline)
    masks = masks_of(network, seed, iid=iid)
    with _progress(level, len(network.layers), quiet) as advance:
        result = simulate(network, hardware, level=level, masks=masks, progress=advance)
    between = _between(result, fused) if whole else None
    if as_json:
        from accsim.result import json_text

        data = {"totals": result.totals, "layers": result.columns}
        if quality:
            data = {
                "totals": result.totals | result.retained,
                "layers": result.columns | result.quality,
            }
        if between is not None:
            data["end_to_end"] = between.totals | {"kinds": between.columns}
        click.echo(json_text(data), nl=False)
    elif not quiet:
        _print(result, all_layers)
        if quality:
            from accsim.report.terminal import quality_lines

            for line in quality_lines(result):
                click.echo(line)
        for line in result.why() if why else ():
            click.echo(line)
        if between is not None:
            from accsim.report.end_to_end import end_to_end_lines

            for line in end_to_end_lines(between):
                _say(line)
    if timeline is not None:
        _timeline(result, masks, timeline, quiet or as_json)
    if out is not None:
        files = result.save(out, plots=not no_plots)
        if not quiet and not as_json:
            click.echo(f"wrote {', '.join(f.name for f in files)} to {out}")


def _rewritten(network: Any, scheme: str | None, dynamic: str | None, seed: int) -> Any:
    """Return the layers a scheme really computes, then what is drawn of them at run time."""
    if scheme is not None:
        from accsim.sparsity.schemes import apply_scheme

        network = apply_scheme(network, scheme)
    if dynamic is not None:
        from accsim.sparsity.dynamic import apply_dynamic

        network = apply_dynamic(network, dynamic, seed).merged()
    return network


def _between(result: Any, fused: bool) -> Any:
    """Return the network end to end: what runs between GEMMs added."""
    from accsim.network import end_to_end

    return end_to_end(result, fused)


def _timeline(result: Any, masks: Any, path: Path, quiet: bool) -> None:
    """Write the timeline of a run, and say what was drawn together."""
    from accsim.engine.timeline import write_timeline

    made = write_timeline(
        result.workload, result.hardware, masks, path, energy_j=result.columns["energy_j"]
    )
    if quiet:
        return
    click.echo(f"wrote {path}: {made.slices} slices of {made.layers} layers")
    if made.aggregated_layers:
        most = max(made.aggregated_layers.values())
        click.echo(
            f"note: in {len(made.aggregated_layers)} layers a slice stands for up to {most} tiles"
        )


def _say_ignored(path: str) -> None:
    """Name the keys of a SCALE-Sim .cfg that have no meaning here."""
    from accsim.files.scalesim import ignored_keys

    keys = ignored_keys(path)
    if keys:
        click.echo(f"note: {path}: not used: {', '.join(keys)}", err=True)


def _network(word: str, batch: int | None, dtype: str | None, layers: tuple[str, ...]) -> Any:
    """Return the workload a command-line word stands for."""
    import re

    from accsim.spec.workload import gemm
    from accsim.traces.load import load_workload

    sizes = re.fullmatch(r"gemm:(\d{1,12})[x,](\d{1,12})[x,](\d{1,12})", word)
    if sizes:
        t, k, n = map(int, sizes.groups())
        network = gemm(t, k, n, dtype=dtype or "int8")
        return network if batch is None else network.with_batch(batch)
    if word.startswith("gemm:"):
        raise InputError(f"a GEMM is written gemm:TxKxN, e.g. gemm:512x768x768; got '{word}'")
    name, _, only = word.partition(":") if not Path(word).exists() else (word, "", "")
    network = load_workload(name, batch=batch, dtype=dtype)
    chosen = ((only,) if only else ()) + layers
    return network.select(*chosen) if chosen else network


def _writable(folder: Path) -> None:
    """Refuse an output folder before the work, not after it."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write results: {error.strerror or error}", file=folder) from None


class _progress:
    """A progress bar on stderr for the slow levels, silent otherwise."""

    def __init__(self, level: str, layers: int, quiet: bool) -> None:
        self._show = level != "closed" and not quiet and sys.stderr.isatty()
        self._layers = layers

    def __enter__(self) -> Callable[[str], None] | None:
        if not self._show:
            return None
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._bar.start()
        task = self._bar.add_task("", total=self._layers)
        return lambda name: self._bar.update(task, advance=1, description=name)

    def __exit__(self, *_: object) -> None:
        if self._show:
            self._bar.stop()


def _print(result: Any, all_layers: bool) -> None:
    from rich.console import Console

    from accsim.report.terminal import print_result

    width = None if sys.stdout.isatty() else 120
    print_result(result, Console(width=width, highlight=False), all_layers=all_layers)


app.add_command(show)
app.add_command(trace)
app.add_command(calibrate)
app.add_command(breakeven)
app.add_command(train)


@app.command()
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Only this group of rows.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Write ledger.csv and ledger.md.")  # fmt: skip
@click.option("--summary", is_flag=True, help="Print the table of the README, in markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print rows, counts and drift as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Print every row, not only failures.")
@click.option("--update", is_flag=True, help="For developers: record what is found as expected.")
def validate(
    groups: tuple[str, ...], out: Path | None, summary: bool, as_json: bool, verbose: bool,
    update: bool,
) -> None:  # fmt: skip
    """Hold accsim against published and measured numbers, and show where it fails.

    Known failures are shown and do not stop anything. Exit code 1: a row moved from what is
    recorded in accsim/validate/expected.csv, better or worse; each is named on stderr.

    \b
    accsim validate
    accsim validate --group energy -v
    accsim validate --out ledger/
    """
    from accsim.validate import ledger, text

    if out is not None:
        if str(out).strip() in ("", "."):
            raise InputError("--out needs the name of a folder")
        _writable(out)
    chosen = ledger.chosen_groups(groups)
    with _progress("validate", len(chosen), quiet=as_json) as advance:
        found = ledger.validate(chosen, expected=ledger.EXPECTED, progress=advance)
    if as_json:
        from accsim.result import json_text

        _say(json_text(ledger.as_data(found)).rstrip())
    elif summary:
        _say(text.summary_md(found).rstrip())
    else:
        for line in text.ledger_lines(found, _width(), verbose=verbose):
            _say(line)
    if out is not None:
        files = ledger.save(found, out)
        if not (as_json or summary):
            click.echo(f"wrote {', '.join(f.name for f in files)} to {out}")
    for drift in found.drifts:
        click.echo(f"accsim: drift: {drift.id}: {drift.what}", err=True)
    if update:
        ledger.record(found, chosen, ledger.EXPECTED)
        click.echo(f"recorded {len(found.rows)} rows in {ledger.EXPECTED}", err=True)
    elif found.drifts:
        sys.exit(1)


def _width() -> int:
    """Return the columns to print: those of the terminal, 120 for a file or a pipe."""
    from shutil import get_terminal_size

    return get_terminal_size().columns if sys.stdout.isatty() else 120


def _say(line: str) -> None:
    """Print a line in what the stream can encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(line.encode(encoding, "replace").decode(encoding))


@app.command()
@click.argument("what", type=click.Choice(["hw", "workload", "energy"]))
def schema(what: str) -> None:
    """Print the JSON Schema of a file format, for editors that complete and check YAML.

    \b
    accsim schema hw > hw.schema.json
    """
    import json

    from accsim.files.schema import schema_of

    click.echo(json.dumps(schema_of(what), indent=1))


if __name__ == "__main__":
    main()
