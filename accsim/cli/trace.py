"""`accsim trace`: capture a model or read a matrix, and write what it holds as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from accsim.base.errors import InputError
from accsim.cli.words import Group

_OUT = click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE.trace",
                    help="The trace to write.")  # fmt: skip
_LICENSE = click.option("--license", "licence", metavar="TEXT", help="Of what is captured.")
_WEIGHTS = click.option("--weights", is_flag=True, help="Keep weights, not only their masks.")
_INPUT = click.option("--input", "inputs", multiple=True, metavar="SHAPE",
                      help="1x3x32x32 or ids=int:1x128:30522; once an input.")  # fmt: skip


@click.group(cls=Group)
def trace() -> None:
    """Make a trace: shapes, masks and activation sparsity of a real network, to replay."""


@trace.command("torch")
@click.argument("target")
@_INPUT
@click.option("--steps", type=int, default=1, show_default=True, help="Inputs to run.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawn inputs.")
@click.option("--activations", is_flag=True, help="Keep which inputs of layers are not zero.")
@_WEIGHTS
@_LICENSE
@_OUT
def trace_torch(
    target: str, inputs: tuple[str, ...], steps: int, seed: int, activations: bool, weights: bool,
    licence: str | None, out: Path,
) -> None:  # fmt: skip
    """Run a PyTorch model, TARGET = package.module:build or file.py:build, and record it.

    \b
    accsim trace torch my_pkg.my_model:build --input 1x3x32x32 --out net.trace
    accsim trace torch model.py:bert --input ids=int:1x128:30522 --activations --out bert.trace
    """
    from accsim.traces.capture.torch_modules import capture_torch

    _checked(out)
    found = capture_torch(
        target, inputs, steps=steps, seed=seed, weights=weights, activations=activations,
        provenance=_about(licence),
    )  # fmt: skip
    _write(found, out)


@trace.command("onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--batch", type=int, default=1, show_default=True, help="For an open first extent.")
@_WEIGHTS
@_LICENSE
@_OUT
def trace_onnx(model: Path, batch: int, weights: bool, licence: str | None, out: Path) -> None:
    """Read the shapes and the masks of weights out of an ONNX file.

    \b
    accsim trace onnx resnet18.onnx --out resnet18.trace
    """
    from accsim.traces.capture.onnx_graph import read_onnx

    _checked(out)
    _write(read_onnx(model, batch=batch, weights=weights, provenance=_about(licence)), out)


@trace.command("safetensors")
@click.argument("weights_file", metavar="WEIGHTS", type=click.Path(path_type=Path))
@click.option("--workload", required=True, metavar="NAME",
              help="What is computed: a catalogue name or a file.")  # fmt: skip
@click.option("--map", "names", multiple=True, metavar="LAYER=TENSOR",
              help="Where weights stand; * is the same on both sides.")  # fmt: skip
@click.option("--partial", is_flag=True, help="Layers without a tensor stay as they are.")
@_WEIGHTS
@_LICENSE
@_OUT
def trace_safetensors(
    weights_file: Path, workload: str, names: tuple[str, ...], partial: bool, weights: bool,
    licence: str | None, out: Path,
) -> None:  # fmt: skip
    """Lay the weights of a safetensors file over a workload: its layers with their real masks.

    \b
    accsim trace safetensors model.safetensors --workload bert-base --out bert.trace
    accsim trace safetensors pruned.safetensors --workload n.yaml --map "*=m.*.weight" --out n.trace
    """
    from accsim.traces.capture.safetensors_file import capture_safetensors
    from accsim.traces.load import load_workload

    _checked(out)
    found = capture_safetensors(
        weights_file, load_workload(workload), names=_pairs(names) or None, partial=partial,
        weights=weights, provenance=_about(licence),
    )  # fmt: skip
    _write(found, out)


@trace.command("config")
@click.argument("config", type=click.Path(path_type=Path))
@_INPUT
@click.option("--head", default="AutoModel", show_default=True, help="Class of transformers.")
@_LICENSE
@_OUT
def trace_config(
    config: Path, inputs: tuple[str, ...], head: str, licence: str | None, out: Path
) -> None:
    """Build the model of a Hugging Face config.json without its weights, and record its shapes.

    \b
    accsim trace config bert/config.json --input int:1x128:30522 --out bert.trace
    """
    from accsim.traces.capture.hf_config import capture_config

    _checked(out)
    _write(capture_config(config, inputs, head=head, provenance=_about(licence)), out)


@trace.command("matrix")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tokens", type=int, default=256, show_default=True, help="Rows of X.")
@click.option("--rows", type=click.Choice(["k", "n"]), help="What rows are; else by format.")
@_OUT
def trace_matrix(path: Path, tokens: int, rows: str | None, out: Path) -> None:
    """Read a mask or weights (.smtx .mtx .npy .npz) as one linear layer each.

    \b
    accsim trace matrix layer.smtx --tokens 128 --out layer.trace
    """
    from accsim.traces.matrix import read_matrix

    _checked(out)
    _write(read_matrix(path, tokens=tokens, rows=rows), out)  # type: ignore[arg-type]


@trace.command("show")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Read everything and compare every hash.")
def trace_show(path: Path, verify: bool) -> None:
    """Print what a trace holds and where it comes from.

    \b
    accsim trace show net.trace --verify
    """
    from accsim.traces.trace import read_trace

    found = read_trace(path)
    if verify:
        found.verify()
    for line in _lines(found):
        click.echo(line)
    if verify:
        click.echo("verified: every array is what the header says")


def _lines(found: Any) -> list[str]:
    network, about = found.workload, found.provenance.model_dump(exclude_none=True)
    lines = [f"{network.name}: {len(network.layers)} layers, {network.macs:,} MACs"]
    lines += [f"{key}: {value}" for key, value in about.items() if value]
    lines += [f"{key}: {value}" for key, value in found.facts.items()]
    lines.append(f"sha256: {found.digest}")
    for layer in network.layers:
        gemm = layer.gemm
        mask = found.weight_mask(layer)
        kept = "" if mask is None else f", {mask.mean():.1%} kept"
        density = found.activation_density(layer)
        active = "" if density is None else f", inputs {density.mean():.1%} not zero"
        shape = f"{gemm.t}x{gemm.k}x{gemm.n}" + (f" x{layer.runs}" if layer.runs > 1 else "")
        lines.append(f"  {layer.name}: {shape} {layer.dtype} {layer.pattern}{kept}{active}")
    return lines


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words)
    for layer, tensor in pairs.items():
        if not layer or not tensor:
            raise InputError(f"--map needs LAYER=TENSOR; got '{layer}={tensor}'")
    return pairs


def _about(licence: str | None) -> dict[str, str]:
    return {"license": licence} if licence else {}


def _checked(out: Path) -> None:
    if out.suffix != ".trace":
        raise InputError(f"--out must end in .trace; got '{out}'")
    if not out.parent.is_dir():
        raise InputError(f"--out: no folder '{out.parent}'")


def _write(found: Any, out: Path) -> None:
    from accsim.traces.trace import write_trace

    write_trace(out, found)
    layers = found.workload.layers
    click.echo(f"wrote {out}: {len(layers)} layers, {found.workload.macs:,} MACs")
