"""`accsim calibrate`: a GPU's kernels from measurements, and the script that makes them."""

from __future__ import annotations

from pathlib import Path

import click

from accsim.base.errors import InputError, near, one_of


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--base", metavar="NAME|FILE", help="GPU to start from: its chip is kept.")
@click.option("--measurements", metavar="CSV", help="Latencies, as the printed script writes them.")
@click.option("--out", metavar="YAML", help="Where to write the calibrated GPU.")
@click.option("--device", help="Of a file with several: the one to use.")
@click.option("--output-bytes", metavar="FORMAT=N", multiple=True,
              help="Bytes of an output element where not the usual: int8=4.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of folds.")
@click.option("--print-script", is_flag=True, help="Print the PyTorch script that measures.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def calibrate(
    base: str | None,
    measurements: str | None,
    out: str | None,
    device: str | None,
    output_bytes: tuple[str, ...],
    seed: int,
    print_script: bool,
    quiet: bool,
) -> None:
    """Fit a GPU's library kernels to measured GEMMs; write a GPU that extends the base.

    \b
    accsim calibrate --print-script > measure_gpu.py
    python measure_gpu.py --out mine.csv                     # on the GPU
    accsim calibrate --base rtx4090 --measurements mine.csv --out my4090.yaml

    Eight physical parameters for every number format and pattern (dense, 2:4), by robust least
    squares. Errors are those of (k, n) the fit did not see. The file says where it was calibrated:
    predictions elsewhere carry a flag and a wider interval.
    """
    from accsim.calibrate.script import text

    if print_script:
        click.echo(text(), nl=False)
        return
    if base is None or measurements is None or out is None:
        missing = (
            "--base" if base is None else "--measurements" if measurements is None else "--out"
        )
        raise InputError(f"calibrate needs {missing} (or --print-script)")
    _calibrate(base, measurements, Path(out), device, _output_bytes(output_bytes), seed, quiet)


def _calibrate(
    base: str,
    path: str,
    out: Path,
    device: str | None,
    output_bytes: dict[str, float],
    seed: int,
    quiet: bool,
) -> None:
    from accsim.calibrate.gpu import calibrate as fitted
    from accsim.calibrate.gpu import described
    from accsim.calibrate.measurements import read
    from accsim.calibrate.write import device_text
    from accsim.files.hardware import load_hardware
    from accsim.spec.gpu import Gpu

    gpu = load_hardware(base)
    if not isinstance(gpu, Gpu):
        raise InputError(f"--base must be a GPU (kind tensorcore); '{base}' is {gpu.kind}")
    rows = read(path)
    for notice in rows.notices:
        click.echo(f"accsim: note: {notice}", err=True)
    if device is not None:
        known = sorted(set(rows.device.tolist()))
        if device not in known:
            raise InputError(
                f"--device must be one of {one_of(known)}; got '{device}'{near(device, known)}"
            )
        rows = rows.take(rows.device == device)
    found = fitted(
        gpu, rows, output_bytes=output_bytes, seed=seed,
        progress=None if quiet else lambda words: click.echo(f"fitting {words} …", err=True),
    )  # fmt: skip
    name = str(rows.device[0])
    about = {"calibrated": f"by accsim calibrate from {Path(path).name}", **rows.about}
    date = rows.about.get("date", "date not said")
    source = f"{Path(path).name}: {name}, {date}"
    extends = str(Path(base).resolve()) if Path(base).is_file() else base
    _write(out, device_text(found, extends, source, about, f"{name}, calibrated"))
    if not quiet:
        click.echo("\n".join(described(found)))
        for one in found:
            for warning in one.fit.warnings:
                click.echo(f"note: {one.dtype} {one.family}: {warning}")
        click.echo(f"written to {out}")


def _output_bytes(given: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in given:
        dtype, _, size = text.partition("=")
        if not dtype or size not in ("0.5", "1", "2", "4"):
            raise InputError(f"--output-bytes must be FORMAT=0.5, 1, 2 or 4; got '{text}'")
        found[dtype] = float(size)
    return found


def _write(out: Path, text: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out: cannot write {out}: {error.strerror}") from None
