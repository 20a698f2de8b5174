"""Weights of a safetensors file + a workload of the same layer names → trace.

Tensors are ``<layer>.weight``, behind one prefix at most: (out, in) or (in, out) of linear layers,
(out, in / groups, height, width) of convolutions. Compressed layouts of compressed-tensors 0.10.2
(sparse_compressors/sparse_bitmask.py and sparse_24_bitmask.py; Apache-2.0) are read too:

- ``bitmask``: U8, one row an output, eight inputs a byte, the first in the *least* significant bit;
- ``compressed``: the kept values, row by row (2:4: shaped rows × columns / 2);
- ``shape``: I64, rows and columns; ``row_offsets``: I64, where each row's values start (not 2:4).

Integers packed into ``weight_packed`` (pack-quantized, marlin_24) are refused.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from accsim.base.errors import InputError, near
from accsim.spec.workload import Conv2d, Layer, Workload
from accsim.traces import strict_json
from accsim.traces.capture.seen import DENSE_FROM, Seen, conv_weight, listed, trace_of
from accsim.traces.container import Container, open_container
from accsim.traces.header import VALUES
from accsim.traces.matrix import read_bytes
from accsim.traces.trace import Trace, numpy_type

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[Any]

MAX_ELEMENTS = 2**31
MAX_FILES = 1000
_INDEX = ".index.json"
_ENDINGS = (".weight", ".weight.bitmask", ".bitmask", ".weight_packed")


def capture_safetensors(
    path: str | Path,
    workload: str | Path | Workload,
    *,
    names: Mapping[str, str] | None = None,
    rows: Literal["k", "n"] | None = None,
    partial: bool = False,
    weights: bool = False,
    dense_from: float = DENSE_FROM,
    provenance: Mapping[str, Any] | None = None,
) -> Trace:
    """Return the trace of a workload whose weights lie in a safetensors file.

    Args:
        path: a .safetensors file, or the .index.json of several.
        workload: the architecture: a catalogue name, a file, or a Workload.
        names: tensors of layers that the rule does not find: layer → tensor. Both may hold one
            ``*``, which stands for the same text.
        rows: whether the rows of linear weights are n (outputs, as PyTorch has it) or k; None to
            tell by those that are not square.
        partial: let layers without a tensor be; they stay dense.
        weights: keep the weights, not only their masks.
        dense_from: share of kept weights from which a layer counts as dense.
        provenance: license, source … of the weights.

    Raises:
        InputError: a file that breaks the format, a layer without a tensor, or one of another
            shape.
    """
    from accsim.traces.load import load_workload

    if rows not in ("k", "n", None):
        raise InputError(f"rows must be k or n; got {rows!r}")
    network = workload if isinstance(workload, Workload) else load_workload(workload)
    try:
        tensors = _Tensors(path)
        tensor_of = _matched(network, tensors, names or {}, partial)
        turned = _turned(network, tensors, tensor_of, rows)
        seen = [_seen(layer, tensors, tensor_of.get(layer.name), turned) for layer in network]
        about = {"source": Path(path).name, **(provenance or {})}
        made = trace_of(
            network.name, seen, weights=weights, dense_from=dense_from, title=network.title,
            provenance=about,
        )  # fmt: skip
    except InputError as error:
        raise InputError(error.message, file=error.file or path, line=error.line) from None
    made.file = str(path)
    return made


class _Tensors:
    """The tensors of one or several files by name, compressed ones under the name of the whole."""

    def __init__(self, path: str | Path) -> None:
        self._files = _parts(path) if str(path).endswith(_INDEX) else [open_container(path)]
        self._at: dict[str, Container] = {}
        for file in self._files:
            for name in file.spans:
                if name in self._at:
                    raise InputError(f"tensor {ascii(name)[:80]} stands in two files")
                self._at[name] = file
        self.names = {
            name.removesuffix(ending)
            for name in self._at
            for ending in _ENDINGS
            if name.endswith(ending)
        }

    def parts(self, name: str) -> dict[str, str]:
        """Return the tensors that make up a weight, by their last word; {"": …} for a plain one."""
        for plain in (f"{name}.weight", name):
            if plain in self._at:
                return {"": plain}
        if f"{name}.weight_packed" in self._at:
            raise InputError(
                f"tensor '{name}.weight_packed': packed integers (pack-quantized, marlin_24) are "
                "not read; decompress them first"
            )
        for stem in (f"{name}.weight", name):
            if f"{stem}.bitmask" in self._at:
                words = ("bitmask", "compressed", "shape", "row_offsets")
                return {w: f"{stem}.{w}" for w in words if f"{stem}.{w}" in self._at}
        raise InputError(f"has no tensor '{name}.weight'{near(name, self.names)}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight."""
        parts = self.parts(name)
        if "" in parts:
            return self._at[parts[""]].spans[parts[""]].shape
        for word in ("compressed", "shape"):
            if word not in parts:
                raise InputError(f"tensor '{parts['bitmask']}' needs its '{word}'")
        found = self._read(parts["shape"]).ravel()
        if found.dtype.kind not in "iu" or len(found) != 2 or min(found) < 1:
            raise InputError(f"tensor '{parts['shape']}' must be rows and columns")
        shape = tuple(int(x) for x in found)
        if math.prod(shape) > MAX_ELEMENTS:
            raise InputError(f"weight '{name}' must have at most {MAX_ELEMENTS} elements")
        return shape

    def values(self, name: str) -> Values:
        """Return a weight as it stands, decompressed."""
        parts = self.parts(name)
        if "" in parts:
            return self._read(parts[""])
        kept, packed = self.kept(name), self._read(parts["compressed"]).ravel()
        count = int(np.count_nonzero(kept))
        if packed.size != count:
            raise InputError(f"tensor '{parts['compressed']}' must hold {count} values; "
                             f"got {packed.size}")  # fmt: skip
        if "row_offsets" in parts:
            each = np.count_nonzero(kept, axis=1)
            if not np.array_equal(self._read(parts["row_offsets"]).ravel(), each.cumsum() - each):
                raise InputError(f"tensor '{parts['row_offsets']}' must count the bits of each row")
        dense = np.zeros(kept.shape, dtype=packed.dtype)
        dense[kept] = packed
        return dense

    def kept(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which weights a bit mask keeps, zero or not; of a plain tensor: not zero."""
        parts = self.parts(name)
        if "" in parts:
            return np.asarray(self._read(parts[""]) != 0, dtype=np.bool_)
        rows, columns = self.shape(name)
        bits = self._read(parts["bitmask"])
        if bits.dtype != np.uint8 or bits.shape != (rows, -(-columns // 8)):
            raise InputError(
                f"tensor '{parts['bitmask']}' must be U8 {[rows, -(-columns // 8)]}; "
                f"got {bits.dtype} {list(bits.shape)}"
            )
        flags = np.unpackbits(bits, axis=1, bitorder="little").view(np.bool_)
        if flags[:, columns:].any():
            raise InputError(f"tensor '{parts['bitmask']}': bits past the last column must be 0")
        return flags[:, :columns]

    def _read(self, name: str) -> Values:
        file = self._at[name]
        span = file.spans[name]
        raw = b"".join(file.chunks(name))
        return np.frombuffer(raw, dtype=numpy_type(span.type)).reshape(span.shape)


def _parts(path: str | Path) -> list[Container]:
    """Return the files an index names: plain names in its own folder."""
    table = strict_json.parse(read_bytes(path), "index", str(path), one_line=False)
    map_ = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(map_, dict) or not all(isinstance(x, str) for x in map_.values()):
        raise InputError("must hold a weight_map of tensors to files")
    files = sorted(set(map_.values()))
    if not 0 < len(files) <= MAX_FILES:
        raise InputError(f"must name 1 to {MAX_FILES} files; got {len(files)}")
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise InputError(f"must name files beside it; got {ascii(file)[:80]}")
    return [open_container(Path(path).parent / file) for file in files]


def _matched(
    network: Workload, tensors: _Tensors, names: Mapping[str, str], partial: bool
) -> dict[str, str]:
    """Return the tensor of each layer that has weights."""
    layers = [layer.name for layer in network if layer.has_weights]
    given: dict[str, str] = {}
    for glob, tensor in names.items():
        found = fnmatch.filter(layers, glob.replace("[", "[[]").replace("?", "[?]"))
        if not found:
            raise InputError(f"names: no layer '{glob}'{near(glob, layers)}")
        before, _, after = glob.partition("*")
        for layer in found:
            middle = layer[len(before) : len(layer) - len(after)] if "*" in glob else ""
            given[layer] = tensor.replace("*", middle).removesuffix(".weight")
            tensors.parts(given[layer])
    rest = [layer for layer in layers if layer not in given]
    prefix = _prefix(rest, tensors.names)
    made = given | {x: f"{prefix}{x}" for x in rest if f"{prefix}{x}" in tensors.names}
    missing = [layer for layer in layers if layer not in made]
    if missing and (not partial or not made):
        raise InputError(
            f"has no tensors of {listed(missing, 3)}; its tensors begin "
            f"{listed(sorted(tensors.names), 3)} (map them by name)"
        )
    return made


def _prefix(layers: list[str], names: set[str]) -> str:
    """Return what stands in front of most layers' names, the shortest of equals."""
    wanted, counts = set(layers), dict[str, int]()
    for name in names:
        at = -1
        while (at := name.find(".", at + 1)) >= 0:
            if name[at + 1 :] in wanted:
                counts[name[: at + 1]] = counts.get(name[: at + 1], 0) + 1
    counts[""] = len(wanted & names)
    return max(counts, key=lambda x: (counts[x], -len(x)))


def _turned(
    network: Workload, tensors: _Tensors, tensor_of: Mapping[str, str], rows: str | None
) -> dict[str, bool]:
    """Return whether the weights of each linear layer are (n, k) and must be transposed."""
    made: dict[str, bool] = {}
    square = []
    for layer in network:
        if layer.name not in tensor_of or isinstance(layer.op, Conv2d):
            continue
        shape, gemm = tensors.shape(tensor_of[layer.name]), layer.gemm
        if gemm.k == gemm.n and rows is None:
            square.append(layer.name)
        elif rows is not None:
            made[layer.name] = rows == "n"
        else:
            made[layer.name] = shape[-2:] == (gemm.n, gemm.k)
    ways = set(made.values())
    if square and len(ways) == 2:
        raise InputError(f"weights of {listed(square, 2)} are square and others lie both ways: "
                         "say rows = n or k")  # fmt: skip
    return made | dict.fromkeys(square, ways != {False})


def _seen(layer: Layer, tensors: _Tensors, tensor: str | None, turned: Mapping[str, bool]) -> Seen:
    one = Seen(
        layer.name, layer.op, layer.batch, layer.repeats, layer.dtype, layer.other_params,
        layer.prunable,
    )  # fmt: skip
    if tensor is None:
        return one
    order = _order(layer, tensors.shape(tensor), tensor, turned.get(layer.name, False))
    one.weight = lambda: order(_typed(tensors.values(tensor), tensor))
    one.kept = lambda: order(tensors.kept(tensor))
    return one


def _order(
    layer: Layer, shape: tuple[int, ...], tensor: str, turn: bool
) -> Callable[[Values], Values]:
    """Return what lowers a tensor to (k, n) or (runs, k, n); refuse one of another shape."""
    gemm, op = layer.gemm, layer.op
    if isinstance(op, Conv2d):
        full = (op.out_channels, op.in_channels // op.groups, *op.kernel)
        flat = (*full[:2], math.prod(full[2:])) if 1 in op.kernel else full
        if shape in (full, flat) and layer.repeats == 1:
            return lambda values: conv_weight(values.reshape(full), op.groups)
        wanted: list[tuple[int, ...]] = [full]
    else:
        last = (gemm.n, gemm.k) if turn else (gemm.k, gemm.n)
        wanted = [last] if layer.runs == 1 else [(layer.runs, *last), last]
        if shape in wanted:
            return lambda values: np.swapaxes(values, -1, -2) if turn else values
    known = " or ".join(str(list(x)) for x in wanted)
    raise InputError(f"tensor '{tensor}' of '{layer.name}' must have shape {known}; "
                     f"got {list(shape)}")  # fmt: skip


def _typed(values: Values, tensor: str) -> Values:
    """Return weights in a type a trace may hold."""
    if values.dtype == np.float64:
        return values.astype(np.float32)
    if values.dtype not in {numpy_type(name) for name in VALUES}:
        raise InputError(f"tensor '{tensor}' must hold weights; got {values.dtype}")
    return values
