"""An ONNX graph → trace: shapes by inference, masks of the weights it holds.

Only the graph is read; nothing runs. A weight is what initializers and Constant nodes hold,
directly or through Transpose, Identity, Reshape, Cast and DequantizeLinear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accsim.base.errors import InputError
from accsim.spec.workload import Conv2d, Linear, Matmul
from accsim.traces.capture.seen import (
    DENSE_FROM,
    Seen,
    checked,
    conv_weight,
    format_of,
    needed,
    split_rows,
    trace_of,
    unique,
)
from accsim.traces.container import regular_size
from accsim.traces.trace import Trace

MAX_BYTES = 2**31  # the limit of protobuf
MAX_ELEMENTS = 2**31
_PASSING = ("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze")
_FRESH = ("Constant", "ConstantOfShape")  # the second stands for weights left out of a file
_HIDING = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "LSTM", "GRU", "RNN",
           "Attention", "DeformConv", "Einsum", "Scan", "Loop", "If")  # fmt: skip

Sides = tuple[int, ...]


def read_onnx(
    path: str | Path,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    weights: bool = False,
    dense_from: float = DENSE_FROM,
    provenance: Mapping[str, Any] | None = None,
) -> Trace:
    """Return the trace of an ONNX file: Conv, ConvTranspose, Gemm and MatMul.

    Layers are named after their weight (``conv1`` of ``conv1.weight``), else after their node.
    Networks published without the values of their weights give shapes only.

    Args:
        path: the .onnx file.
        shapes: shapes of inputs, by name, where the file leaves them open.
        batch: what an open first extent of an input stands for.
        weights: keep the weights, not only their masks.
        dense_from: share of kept weights from which a layer counts as dense.
        provenance: license, source … of the model.

    Raises:
        InputError: onnx is missing, the file is none, an extent stays open, or an operation hides
            products.
    """
    onnx = needed("onnx", "onnx")
    file = str(path)
    if regular_size(path) > MAX_BYTES:
        raise InputError(f"must be at most {MAX_BYTES} bytes", file=path)
    try:
        model = onnx.load(file, load_external_data=False)
        _close(model, shapes or {}, batch, file)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        graph = _Graph(onnx, model, file)
        graph.walk()
    except InputError as error:
        raise InputError(error.message, file=error.file or file) from None
    except Exception as error:  # protobuf and onnx raise all kinds of things
        lines = str(error).strip().splitlines()
        reason = lines[0][:160] if lines else type(error).__name__
        raise InputError(f"is no ONNX model that can be read: {reason}", file=path) from None
    about = {
        "source": Path(path).name,
        "versions": {"onnx": str(onnx.__version__), "ir": str(model.ir_version)},
        **(provenance or {}),
    }
    try:
        made = trace_of(
            Path(path).stem, graph.seen, weights=weights, dense_from=dense_from,
            inputs=graph.inputs, provenance=about,
        )  # fmt: skip
    except InputError as error:
        raise InputError(error.message, file=file) from None
    made.file = file
    return made


def _close(model: Any, shapes: Mapping[str, tuple[int, ...]], batch: int, file: str) -> None:
    """Give open extents of the inputs their values."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = {x.name: x for x in model.graph.input if x.name not in held}
    for name in shapes:
        if name not in inputs:
            raise InputError(f"has no input '{name}'; there are {', '.join(inputs)}", file=file)
    for name, value in inputs.items():
        extents = value.type.tensor_type.shape.dim
        wanted = shapes.get(name)
        if wanted is not None and len(wanted) != len(extents):
            raise InputError(f"input '{name}' has {len(extents)} extents; got {len(wanted)}")
        for i, extent in enumerate(extents):
            if wanted is not None:
                extent.dim_value = wanted[i]
            elif i == 0 and not extent.dim_value:
                extent.dim_value = batch


class _Graph:
    """A graph with its shapes and constants, walked node by node."""

    def __init__(self, onnx: Any, model: Any, file: str) -> None:
        self.onnx, self.graph, self.file = onnx, model.graph, file
        self.seen: list[Seen] = []
        self._used: dict[str, int] = {}
        self._held: dict[str, Any] = {x.name: x for x in self.graph.initializer}
        self._sparse = {x.values.name: x for x in self.graph.sparse_initializer}
        self._made = {out: node for node in self.graph.node for out in node.output}
        self._shapes: dict[str, Sides] = {}
        self._types: dict[str, int] = {}
        for value in (*self.graph.input, *self.graph.value_info, *self.graph.output):
            kind = value.type.tensor_type
            self._types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                self._shapes[value.name] = tuple(x.dim_value for x in kind.shape.dim)
        for tensor in self.graph.initializer:
            self._shapes[tensor.name] = tuple(tensor.dims)
            self._types[tensor.name] = tensor.data_type
        for name, sparse in self._sparse.items():
            self._shapes[name] = tuple(sparse.dims)
            self._types[name] = sparse.values.data_type
        names = [x.name for x in self.graph.input if x.name not in self._held]
        self.inputs = {name: self.shape(name, "input") for name in names}
        self._batch = next((s[0] for s in self.inputs.values() if s), 1)

    def walk(self) -> None:
        """See every node that multiplies."""
        sees: dict[str, Callable[[Any], None]] = {
            "Conv": self._conv, "ConvTranspose": self._transposed, "Gemm": self._gemm,
            "MatMul": self._matmul,
        }  # fmt: skip
        for node in self.graph.node:
            if node.op_type in _HIDING:
                raise InputError(f"node '{node.name or node.output[0]}': {node.op_type} hides "
                                 f"products and cannot be captured")  # fmt: skip
            if node.op_type in sees and node.domain in ("", "ai.onnx"):
                sees[node.op_type](node)

    def shape(self, name: str, what: str) -> Sides:
        """Return a tensor's shape, all extents known."""
        found = self._shapes.get(name)
        if found is None or any(extent < 1 for extent in found):
            got = "none" if found is None else list(found)
            raise InputError(
                f"{what} '{name}': every extent must be known and at least 1; got {got} "
                "(give the shapes of the inputs)"
            )
        return found

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {x.name: self.onnx.helper.get_attribute_value(x) for x in node.attribute}

    # Constants.

    def _constant(self, name: str) -> bool:
        """Return whether a tensor is made of weights alone."""
        for _ in range(len(self._made) + 1):
            if name in self._held or name in self._sparse:
                return True
            node = self._made.get(name)
            if node is None or node.op_type in _FRESH:
                return node is not None
            if node.op_type not in (*_PASSING, "DequantizeLinear"):
                return False
            name = node.input[0]
        return False

    def _values(self, name: str) -> Any:
        """Return the values of a constant; None if the file does not hold them."""
        if name in self._held:
            return self._array(self._held[name])
        if name in self._sparse:
            return self._dense(self._sparse[name])
        node = self._made[name]
        if node.op_type == "Constant":
            found = self._attributes(node)
            if "sparse_value" in found:
                return self._dense(found["sparse_value"])
            return self._array(found["value"]) if "value" in found else None
        values = None if node.op_type in _FRESH else self._values(node.input[0])
        if values is None or node.op_type in ("Identity", "Cast"):
            return values
        if node.op_type == "DequantizeLinear":
            return self._dequantized(node, values)
        if node.op_type == "Transpose":
            return values.transpose(self._attributes(node).get("perm"))
        return values.reshape(self.shape(name, "weight"))

    def _dequantized(self, node: Any, values: Any) -> Any:
        """Return which integers differ from the zero point: what is zero stays zero."""
        if len(node.input) < 3:
            return values
        zero = self._values(node.input[2]) if self._constant(node.input[2]) else None
        if zero is None:
            return None
        zero = zero.astype(np.int32)
        if zero.ndim == 1 and zero.size > 1:
            axis = self._attributes(node).get("axis", 1) % values.ndim
            zero = zero.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        return (values.astype(np.int32) - zero).astype(np.float32)

    def _array(self, tensor: Any) -> Any:
        if math.prod(tensor.dims) > MAX_ELEMENTS:
            raise InputError(f"weight '{tensor.name}' must have at most {MAX_ELEMENTS} elements")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            return None
        try:
            return self.onnx.numpy_helper.to_array(tensor)
        except ValueError:  # shapes alone: networks published without their weights
            return None

    def _dense(self, sparse: Any) -> Any:
        """Return a sparse tensor's values in place: indices are flat, or one row an entry."""
        dims = tuple(sparse.dims)
        if not 0 < math.prod(dims) <= MAX_ELEMENTS:
            raise InputError(
                f"weight '{sparse.values.name}' must have 1 to {MAX_ELEMENTS} elements"
            )
        values, at = self._array(sparse.values), self._array(sparse.indices)
        if values is None or at is None or values.ndim != 1 or len(at) != len(values):
            raise InputError(f"weight '{sparse.values.name}': values and indices must go together")
        dense = np.zeros(math.prod(dims), dtype=values.dtype)
        limits = (dense.size,) if at.ndim == 1 else dims
        table = at.reshape(len(values), -1)
        if table.shape[1] != len(limits) or (table < 0).any() or (table >= limits).any():
            raise InputError(f"weight '{sparse.values.name}': indices must lie within {list(dims)}")
        dense[np.ravel_multi_index(tuple(table.T), limits)] = values
        return dense.reshape(dims)

    # Nodes.

    def _name(self, node: Any, weight: str | None) -> str:
        """Name a layer after its weight, followed through what it passes, else its node."""
        while weight in self._made and self._made[weight].op_type in (
            *_PASSING,
            "DequantizeLinear",
        ):
            weight = self._made[weight].input[0]
        ending = next((x for x in (".weight", "_weight") if weight and weight.endswith(x)), None)
        named = weight.removesuffix(ending) if weight and ending else node.name or node.output[0]
        return unique((named.strip("/") or node.op_type)[-180:], self._used)

    def _format(self, node: Any, name: str) -> str:
        number = self._types.get(node.input[0], 0) or self._types.get(node.input[1], 0)
        if not number:
            return "fp32"
        if number == self.onnx.TensorProto.FLOAT8E4M3FN:
            return "fp8"
        return format_of(str(self.onnx.helper.tensor_dtype_to_np_dtype(number)), name)

    def _add(self, node: Any, one: Seen, weight: str | None, order: Callable[[Any], Any]) -> None:
        one.dtype = self._format(node, one.name)
        values = self._values(weight) if weight is not None else None
        if values is not None:
            one.weight = lambda: order(_storable(values))
        self.seen.append(one)

    def _conv(self, node: Any) -> None:
        x, w = self.shape(node.input[0], "tensor"), self.shape(node.input[1], "weight")
        known, held = self._attributes(node), self._constant(node.input[1])
        name, spatial = self._name(node, node.input[1] if held else None), len(x) - 2
        if spatial not in (1, 2):
            raise InputError(f"'{name}': a convolution must have 1 or 2 dimensions; got {spatial}")
        stride, dilation = (_full(known.get(k), spatial) for k in ("strides", "dilations"))
        before, after = _pads(known, x[2:], w[2:], stride, dilation)
        least = [min(pair) for pair in zip(before, after, strict=True)]
        # Uneven padding: the rest is taken as part of the input.
        size = [s + a + b - 2 * m for s, a, b, m in zip(x[2:], before, after, least, strict=True)]
        one = spatial == 1
        groups = known.get("group", 1)
        op = checked(
            Conv2d, name, in_channels=x[1], out_channels=w[0], size=_flat(size, one, 1),
            kernel=_flat(w[2:], one, 1), stride=_flat(stride, one, 1),
            padding=_flat(least, one, 0), dilation=_flat(dilation, one, 1),
            groups=groups, bias=len(node.input) > 2,
        )  # fmt: skip
        if w[1] * groups != x[1]:
            raise InputError(f"'{name}': weights must take {x[1]} channels; got {w[1]} × {groups}")
        high = (1, *w[2:]) if one else w[2:]
        self._add(
            node, Seen(name, op, batch=x[0], prunable=held), node.input[1] if held else None,
            lambda values: conv_weight(values.reshape(*w[:2], *high), groups),
        )  # fmt: skip

    def _transposed(self, node: Any) -> None:
        """See a transposed convolution as each input position times all taps (col2im)."""
        x, w = self.shape(node.input[0], "tensor"), self.shape(node.input[1], "weight")
        held, groups = self._constant(node.input[1]), self._attributes(node).get("group", 1)
        name = self._name(node, node.input[1] if held else None)
        k, n = w[0] // groups, math.prod(w[1:])
        op = checked(Linear, name, in_features=k, out_features=n, tokens=math.prod(x[2:]))
        self._add(
            node, Seen(name, op, batch=x[0], repeats=groups, prunable=held),
            node.input[1] if held else None,
            lambda values: values.reshape((k, n) if groups == 1 else (groups, k, n)),
        )  # fmt: skip

    def _gemm(self, node: Any) -> None:
        known = self._attributes(node)
        turned = [bool(known.get(key, 0)) for key in ("transA", "transB")]
        self._product(node, *turned, bias=len(node.input) > 2)

    def _matmul(self, node: Any) -> None:
        self._product(node, False, False, bias=False)

    def _product(self, node: Any, turn_a: bool, turn_b: bool, *, bias: bool) -> None:
        names = list(node.input[:2])
        a, b = (self.shape(name, "tensor") for name in names)
        a, b = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
        a = (*a[:-2], a[-1], a[-2]) if turn_a else a
        b = (*b[:-2], b[-1], b[-2]) if turn_b else b
        held = [self._constant(name) for name in names]
        if held == [True, False]:  # W · X is (Xᵀ · Wᵀ)ᵀ
            a, b = (*b[:-2], b[-1], b[-2]), (*a[:-2], a[-1], a[-2])
            names, turn_b = names[::-1], not turn_a
        weight = names[1] if held[0] != held[1] else None
        name = self._name(node, weight)
        t, k, n = a[-2], a[-1], b[-1]
        if b[-2] != k:
            raise InputError(f"'{name}': inner extents must be equal; got {k} and {b[-2]}")
        runs = math.prod(np.broadcast_shapes(a[:-2], b[:-2]))
        if weight is not None and math.prod(b[:-2]) == 1:
            batch, tokens = split_rows(runs * t, self._batch)
            op = checked(Linear, name, in_features=k, out_features=n, tokens=tokens, bias=bias)
            one = Seen(name, op, batch)
        elif weight is not None and math.prod(b[:-2]) == runs:
            op = checked(Linear, name, in_features=k, out_features=n, tokens=t)
            one = Seen(name, op, 1, runs)
        else:
            batch, repeats = split_rows(runs, self._batch)
            one, weight = Seen(name, checked(Matmul, name, t=t, k=k, n=n), batch, repeats), None

        def order(values: Any) -> Any:
            values = values if values.ndim > 1 else values.reshape(-1, 1)
            values = np.swapaxes(values, -1, -2) if turn_b else values
            return values.reshape((k, n) if one.repeats == 1 else (one.repeats, k, n))

        self._add(node, one, weight, order)


def _storable(values: Any) -> Any:
    """Return weights in a type a trace may hold."""
    return values.astype(np.float32) if values.dtype.kind == "f" and values.itemsize > 4 else values


def _full(value: Any, spatial: int) -> list[int]:
    return list(value) if value else [1] * spatial


def _flat(sides: Any, one: bool, high: int) -> Sides:
    """Return height and width; one dimension has a height of ``high``."""
    return (high, *sides) if one else tuple(sides)


def _pads(
    known: Mapping[str, Any], size: Any, kernel: Any, stride: list[int], dilation: list[int]
) -> tuple[list[int], list[int]]:
    """Return the padding before and after each side, ``auto_pad`` worked out."""
    spatial = len(size)
    word = known.get("auto_pad", b"NOTSET").decode()
    if word == "VALID":
        return [0] * spatial, [0] * spatial
    if word == "NOTSET":
        pads = list(known.get("pads", [0] * 2 * spatial))
        return pads[:spatial], pads[spatial:]
    if word not in ("SAME_UPPER", "SAME_LOWER"):
        raise InputError(f"auto_pad must be a word of ONNX; got '{word[:20]}'")
    totals = [
        max((-(-s // j) - 1) * j + d * (k - 1) + 1 - s, 0)
        for s, k, j, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    # Which side has the odd one more changes no shape.
    return [x // 2 for x in totals], [x - x // 2 for x in totals]
