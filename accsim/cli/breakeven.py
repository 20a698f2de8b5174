"""`accsim breakeven`: will a pattern be faster on my shapes, and how sure is that."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from accsim.base.errors import InputError

_PATIENCE_S = 2.0  # before anything is said about progress, and between two lines of it
_OPTIONS = {"hardware": "--hw", "patterns": "--patterns", "t": "--t", "shapes": "--shapes",
            "dtype": "--dtype", "dynamic": "--dynamic", "uncached_setup": "--uncached-setup",
            "seed": "--seed"}  # fmt: skip


@click.command()
@click.option("--hw", required=True, metavar="NAME|FILE,…", help="Hardware (accsim show hw).")
@click.option("--patterns", default="2:4", show_default=True, metavar="PATTERN,…",
              help="Against dense: 2:4,tvw:128@0.75 …")  # fmt: skip
@click.option("--t", default="1:65536", show_default=True, metavar="T,…|LO:HI[:POINTS]",
              help="Rows of X; a range is geometric, powers of two by default.")  # fmt: skip
@click.option("--shapes", metavar="KxN,…|WORKLOAD",
              help="Weight matrices, or those of a workload's layers; by default of BERT and Llama "
              "768x3072, 1024x4096, 4096x4096, 4096x11008, 11008x4096, 8192x8192.")  # fmt: skip
@click.option("--dtype", default="fp16", show_default=True, metavar="FORMAT",
              help="Number format of both sides.")  # fmt: skip
@click.option("--dynamic", is_flag=False, flag_value="w", metavar="[w|x]",
              help="The sparse operand is packed before every call: W, or X.")  # fmt: skip
@click.option("--uncached-setup", is_flag=True,
              help="The library's plan is made anew for every call.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and masks.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Write CSV, JSON, PNG, SVG.")  # fmt: skip
@click.option("--no-plots", is_flag=True, help="With --out: tables only.")
@click.option("--json", "as_json", is_flag=True, help="Print rows and crossings as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def breakeven(
    hw: str, patterns: str, t: str, shapes: str | None, dtype: str, dynamic: str | None,
    uncached_setup: bool, seed: int, out: Path | None, no_plots: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Map where each pattern is faster than dense: t × shapes, with the margin and its interval.

    \b
    accsim breakeven --hw a100_pcie_80gb --t 512 --shapes 4096x4096
    accsim breakeven --hw a100_pcie_80gb,h100_pcie_80gb --patterns 2:4,tvw:128@0.75 --out map/
    accsim breakeven --hw h100_pcie_80gb --shapes bert-base --t 1:65536:33 --dynamic x
    """
    from accsim.break_even.run import breakeven as compute

    if out is not None:
        _writable(out)
    try:
        found = compute(
            hw, patterns, t, shapes, dtype=dtype, dynamic=dynamic or False,
            uncached_setup=uncached_setup, seed=seed, progress=None if quiet else _progress(),
        )  # fmt: skip
    except InputError as error:
        raise _of_option(error) from None
    if as_json:
        from accsim.result import json_text

        data = {**found.data, "provenance": found.provenance}
        click.echo(json_text(data), nl=False)
    elif not quiet:
        _print(found)
    if out is not None:
        files = found.save(out, plots=not no_plots)
        if not quiet and not as_json:
            click.echo(f"wrote {', '.join(f.name for f in files)} to {out}")


def _of_option(error: InputError) -> InputError:
    """Return the error with the argument it begins with spelt as the option."""
    first = error.message.replace(":", " ").split(" ", 1)[0]
    if error.file or first not in _OPTIONS:
        return error
    return InputError(_OPTIONS[first] + error.message[len(first) :])


def _progress() -> Callable[[int, int, str], None]:
    """Return what says on stderr how far a run is that takes longer than two seconds."""
    last = time.monotonic()

    def say(done: int, whole: int, what: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _PATIENCE_S:
            last = time.monotonic()
            click.echo(f"breakeven: {done} of {whole} done; now {what}", err=True)

    return say


def _writable(folder: Path) -> None:
    """Refuse an output folder before the work, not after it."""
    import tempfile

    if str(folder).strip() in ("", "."):
        raise InputError("--out needs the name of a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write results: {error.strerror or error}", file=folder) from None


def _print(found: Any) -> None:
    from shutil import get_terminal_size

    from accsim.report.breakeven_text import breakeven_lines

    width = get_terminal_size().columns if sys.stdout.isatty() else 120
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in breakeven_lines(found, width):
        click.echo(line.encode(encoding, "replace").decode(encoding))
