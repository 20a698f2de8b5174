"""The header of a trace: what was recorded, of which network, by whom."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, JsonValue, StringConstraints, ValidationError

from accsim.base.errors import InputError, one_of
from accsim.files.validate import build
from accsim.files.workload import MAX_LAYERS
from accsim.files.yaml import Node
from accsim.spec.base import Count, Extent, Spec
from accsim.spec.workload import Conv2d, Layer, Matmul, Workload
from accsim.traces import strict_json
from accsim.traces.container import MAX_DIMENSIONS, TYPES
from accsim.traces.pattern import TRACED

FORMAT = "accsim-trace"
VERSION = 1
MAX_STEPS = 10**6
BITS = "BITS"  # booleans, eight a byte, the first in the most significant bit, rest zero
VALUES = ("I8", "U8", "I16", "F8_E4M3", "BF16", "F16", "F32")  # what weights may be
PREFIXES = ("mask", "weights", "activations", "density", "extra")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
M = TypeVar("M", bound=Spec)


class Array(Spec):
    """What one array is: its type (``BITS`` or the container's), its shape, its digest."""

    type: str
    shape: Annotated[tuple[Count, ...], Field(max_length=MAX_DIMENSIONS)]
    sha256: Sha256

    @property
    def held(self) -> tuple[str, tuple[int, ...]]:
        """Return type and shape in the container: bits are bytes there."""
        return (
            ("U8", (-(-math.prod(self.shape) // 8),))
            if self.type == BITS
            else (
                self.type,
                self.shape,
            )
        )


class Provenance(Spec):
    """Who made a trace, when, from what, under which licence, with which versions."""

    made_by: str = ""
    date: str = ""
    source: str = ""
    license: str = ""
    versions: dict[str, str] = Field(default_factory=dict)


class Header(Spec):
    """Everything of a trace but the arrays."""

    format: Literal["accsim-trace"] = "accsim-trace"
    version: Literal[1] = 1
    workload: Workload
    steps: Annotated[Count, Field(le=MAX_STEPS)] = 0
    inputs: dict[str, tuple[Extent, ...]] = Field(default_factory=dict)
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    provenance: Provenance = Provenance()
    arrays: dict[str, Array] = Field(default_factory=dict)

    def text(self) -> str:
        """Return the header as canonical JSON."""
        return strict_json.dump(self.model_dump(mode="json"))


def digest(text: str) -> str:
    """Return the sha256 of a header's text: it covers every array through its own sha256."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_header(text: str, file: str) -> Header:
    """Return the header of a JSON text.

    Raises:
        InputError: any rule it breaks, with its place.
    """
    data = strict_json.parse(text, "header", file)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"header: format must be '{FORMAT}'", file=file)
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        got = ascii(data.get("version"))[:40]
        raise InputError(f"header: version must be {VERSION}; got {got}", file=file)
    network = data.get("workload")
    layers = network.get("layers") if isinstance(network, dict) else None
    if isinstance(network, dict) and isinstance(layers, list):
        if len(layers) > MAX_LAYERS:
            raise InputError(f"header: workload must have at most {MAX_LAYERS} layers", file=file)
        network["layers"] = [_with_traced(layer) for layer in layers]
    header = built(Header, data, file)
    check_arrays(header, file)
    return header


def _with_traced(layer: Any) -> Any:
    """Put the pattern in the place of its word: a trace must not depend on what is registered."""
    known = isinstance(layer, dict) and layer.get("pattern") == "traced"
    return layer | {"pattern": TRACED} if known else layer


def built(model: type[M], data: Any, file: str) -> M:
    """Return a noun from plain data; complaints name the place in the header."""
    try:
        return model.model_validate(data)
    except ValidationError:
        return build(model, data, _nodes(data, file), extra="header: ")


def _nodes(value: Any, file: str) -> Node:
    if isinstance(value, dict):
        return Node({key: _nodes(item, file) for key, item in value.items()}, file, None)
    if isinstance(value, list):
        return Node([_nodes(item, file) for item in value], file, None)
    return Node(value, file, None)


def check_arrays(header: Header, file: str) -> None:
    """Refuse arrays of no layer, of a wrong type or shape, and ``traced`` without a mask."""
    layers = {layer.name: layer for layer in header.workload}
    for name, array in header.arrays.items():
        rule = _rule(name, array, layers, header.steps)
        if rule:
            raise InputError(f"array '{name[:80]}': {rule}", file=file)
    for layer in header.workload:
        kinds = (f"mask/{layer.name}", f"weights/{layer.name}")
        if layer.pattern == TRACED and not any(kind in header.arrays for kind in kinds):
            raise InputError(
                f"layer '{layer.name}' is traced: the trace must hold its mask or its weights",
                file=file,
            )


def _rule(name: str, array: Array, layers: Mapping[str, Layer], steps: int) -> str | None:
    """Return the rule an array breaks."""
    prefix, _, rest = name.partition("/")
    if prefix not in PREFIXES or not rest:
        return f"must be named {one_of(PREFIXES)}/…"
    if prefix == "extra":
        known = (*TYPES, BITS)
        return None if array.type in known else f"type must be one of {one_of(known)}"
    if prefix == "activations":
        step, _, rest = rest.partition("/")
        if not (step.isascii() and step.isdigit() and str(int(step[:8])) == step) or (
            int(step) >= steps
        ):
            return f"the step must be a whole number below {steps}; got '{step[:20]}'"
    if rest not in layers:
        return "there is no such layer"
    if prefix in ("mask", "weights") and not layers[rest].has_weights:
        return "the layer multiplies two activations and has no weights"
    types, shapes = wanted(prefix, layers[rest], steps)
    if array.type not in types:
        return f"type must be one of {one_of(types)}; got '{array.type[:20]}'"
    if array.shape not in shapes:
        return f"shape must be {' or '.join(str(list(s)) for s in shapes)}; got {[*array.shape]}"
    return None


def wanted(
    prefix: str, layer: Layer, steps: int = 0
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Return the types and shapes an array of a layer may have.

    Weights and their masks are (k, n), or (runs, k, n) where the runs of a layer differ.
    Activations are what the layer takes: (batch, height, width, channels) of a convolution, (t, k)
    of the others; with repeats in front where these differ.
    """
    gemm, op = layer.gemm, layer.op
    if prefix == "density":
        return ("F64",), ((steps,),)
    if prefix == "activations":
        base: tuple[int, ...] = (gemm.t, gemm.k)
        runs = layer.runs if isinstance(op, Matmul) else layer.repeats
        if isinstance(op, Conv2d):
            base = (layer.batch, *op.size, op.in_channels)
    else:
        base, runs = (gemm.k, gemm.n), layer.runs
    shapes = (base, (runs, *base)) if runs > 1 else (base,)
    return VALUES if prefix == "weights" else (BITS,), shapes
