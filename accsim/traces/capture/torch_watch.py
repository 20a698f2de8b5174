"""Watching a PyTorch model run: every product that ATen computes, with what is weight in it.

Below the modules everything is one of a few ATen operations, functional calls and attention
included. An operand is a weight if nothing in it comes from the model's inputs; that is followed
from operation to operation, by storage. So masks, parametrizations and ``x @ self.w`` need no rule.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from accsim.base.errors import InputError
from accsim.spec.workload import Conv2d, Linear, Matmul
from accsim.traces.capture.seen import (
    Seen,
    checked,
    conv_weight,
    format_of,
    listed,
    needed,
    split_rows,
    unique,
)

MAX_PRODUCTS = 100_000
# ATen products of matrices, and where their two matrices stand among the arguments.
_PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1, "addmv": 1, "addbmm": 1}
_CONVOLUTIONS = ("convolution", "_convolution", "convolution_overrideable")
# Names of operations that multiply matrices, should any run that is none of the above.
_HIDING = re.compile(
    r"(?:^|_)(?:mm|bmm|addmm|baddbmm|matmul|gemm|linear|attention|conv(?!ert)\w*|rnn\w*|lstm\w*|gru\w*)"
    r"(?:_|$)"
)


class Recorder:
    """What is seen of one model over one or several runs (steps).

    Args:
        torch: the module.
        model: the nn.Module; hooks tell which of its modules is running.
        batch: first extent of the first input.
        densities: note the share of inputs that are not zero.
        masks: keep which inputs are not zero.
    """

    def __init__(self, torch: Any, model: Any, *, batch: int, densities: bool, masks: bool) -> None:
        self.torch, self.model, self.batch = torch, model, batch
        self.seen: list[Seen] = []
        self.embeddings: dict[str, Any] = {}
        self._densities, self._masks = densities, masks
        self._ref = needed("torch.multiprocessing.reductions", "torch").StorageWeakRef
        self._names = {module: name for name, module in model.named_modules()}
        self._stack: list[Any] = [model]
        self._params = {
            ref: (name, p) for name, p in model.named_parameters() for ref in self._refs(p)
        }
        self._fed: set[Any] = set()  # storages that hold something of the inputs
        self._owned: set[str] = set()  # parameters that are a layer's weight or bias
        self._touched: dict[str, int] = {}  # the others: the layer they were used after
        self._attention: Any = None  # number format of torch's attention, while it runs
        self._step = self._at = 0
        self._used: dict[str, int] = {}

    # Runs.

    def begin(self, step: int, inputs: Any) -> None:
        """Start a step; ``inputs`` are the tensors (nested at will) that are no weights."""
        self._step, self._at, self._used = step, 0, {}
        self._fed = {ref for tensor in self._tensors(inputs) for ref in self._refs(tensor)}

    def end(self) -> None:
        """Close a step: every step must run the same products."""
        if self._at != len(self.seen):
            raise InputError(
                f"step {self._step} must run the {len(self.seen)} products of step 0; "
                f"got {self._at}"
            )

    def finish(self) -> list[Seen]:
        """Give parameters that are no weights to the layer they were used after."""
        for name, layer in self._touched.items():
            if name not in self._owned and self.seen:
                size = self.model.get_parameter(name).numel()
                self.seen[min(layer, len(self.seen) - 1)].other_params += size
        return self.seen

    @property
    def unused(self) -> list[str]:
        """Parameters that no operation read."""
        known = self._touched.keys() | self._owned
        return [name for name, _ in self._params.values() if name not in known]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs inside."""
        torch, hooks = self.torch, []
        attend = torch.nn.functional.scaled_dot_product_attention
        for module in self._names:
            hooks.append(module.register_forward_pre_hook(self._enter, prepend=True))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        fast = torch.backends.mha.get_fastpath_enabled()
        rnn = any(isinstance(module, torch.nn.RNNBase) for module in self._names)
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # one fused operation hides its parts
            torch.nn.functional.scaled_dot_product_attention = self._attending(attend)
            with ExitStack() as stack:
                if rnn:  # oneDNN's recurrent layers hide their products
                    stack.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", message="TF32")
                    stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
                math = torch.nn.attention.SDPBackend.MATH
                stack.enter_context(torch.nn.attention.sdpa_kernel(math))
                stack.enter_context(torch.no_grad())
                stack.enter_context(_mode(self))
                yield
        finally:
            torch.nn.functional.scaled_dot_product_attention = attend
            torch.backends.mha.set_fastpath_enabled(fast)
            for hook in hooks:
                hook.remove()

    def _enter(self, module: Any, _: Any) -> None:
        self._stack.append(module)

    def _leave(self, module: Any, *_: Any) -> None:
        self._stack.pop()

    # Operations.

    def _attending(self, attend: Callable[..., Any]) -> Callable[..., Any]:
        """Return torch's attention, whose two products then have a name."""

        def attending(*args: Any, **kwargs: Any) -> Any:
            query = args[0] if args else kwargs.get("query")
            # Spelled out, it computes half precision in fp32; fused kernels do not.
            self._attention = getattr(query, "dtype", None)
            try:
                return attend(*args, **kwargs)
            finally:
                self._attention = None

        return attending

    def ran(self, func: Any, args: Any, kwargs: Any, again: Any) -> Any:
        """Run an ATen operation and note it."""
        name = func._overloadpacket.__name__
        product = name in _PRODUCTS or name in _CONVOLUTIONS
        if not product:
            with again:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self._refuse_hidden(func)
        out = func(*args, **kwargs)
        given = list(self._tensors((args, kwargs)))
        if name in _PRODUCTS:
            self._product(*args[_PRODUCTS[name] :][:2])
        elif name in _CONVOLUTIONS:
            self._convolution(*args[:9])
        elif name == "embedding":
            self._embedding(*args[:2])
        self._follow(func, args, kwargs, out, given)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any, given: list[Any]) -> None:
        """What is made of inputs is one; note parameters used."""
        fed = False
        for tensor in given:
            for ref in self._refs(tensor):
                fed = fed or ref in self._fed
                if ref in self._params:
                    self._touched.setdefault(self._params[ref][0], max(len(self.seen) - 1, 0))
        if not fed:
            return
        made = list(self._tensors(out))
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[i] if i < len(args) else kwargs.get(argument.name)
                made += self._tensors(value)
        for tensor in made:
            self._fed.update(self._refs(tensor))

    def _refuse_hidden(self, func: Any) -> None:
        if _HIDING.search(func._overloadpacket.__name__):
            raise InputError(f"operation {func} hides matrix products and cannot be captured")

    def _product(self, left: Any, right: Any) -> None:
        """Note a product of matrices, or of batches of them."""
        if right.dim() == 1:
            right = right[:, None]
        if left.dim() == 2:
            left, right = left[None], right[None]
        weights = [not self._is_fed(left), not self._is_fed(right)]
        if all(weights):  # such as a first hidden state of zeros
            weights = [self._parameter(left) is not None, self._parameter(right) is not None]
        if weights == [True, False]:
            left, right = right.transpose(1, 2), left.transpose(1, 2)
        if weights[0] == weights[1]:
            self._activations(left, right)
        else:
            self._linear(left, right)

    def _activations(self, x: Any, y: Any) -> None:
        count, t, k = x.shape
        name = self._plain_name()
        batch, repeats = split_rows(count, self.batch)
        op = checked(Matmul, name, t=t, k=k, n=y.shape[2])
        self._note(Seen(name, op, batch, repeats, self._format(x, name)), x)

    def _linear(self, x: Any, w: Any) -> None:
        count, t, k = x.shape
        if count > 1 and self._same(w):
            x, w, t, count = x.reshape(1, count * t, k), w[:1], count * t, 1
        name, bias = self._weight_name(w, w.shape[2] * count)
        batch, tokens = split_rows(t, self.batch)
        op = checked(
            Linear, name, in_features=k, out_features=w.shape[2], tokens=tokens,
            bias=bias and count == 1,
        )  # fmt: skip
        one = Seen(name, op, batch, count, self._format(x, name))
        one.weight = self._values(w, lambda values: values[0] if count == 1 else values)
        self._note(one, x if count > 1 else x[0])

    def _convolution(
        self, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
        transposed: bool, out_padding: Any, groups: int,
    ) -> None:  # fmt: skip
        if transposed or w.dim() == 5:
            self._lowered(x, w, stride, padding, dilation, transposed, groups)
            return
        if w.dim() == 3:  # in one dimension: a height of 1
            x, w = x[:, :, None], w[:, :, None]
            stride, padding, dilation = ((one, *more) for one, more in zip(
                (1, 0, 1), (stride, padding, dilation), strict=True))  # fmt: skip
        name, has_bias = self._weight_name(w, w.shape[0])
        op = checked(
            Conv2d, name, in_channels=x.shape[1], out_channels=w.shape[0], size=tuple(x.shape[2:]),
            kernel=tuple(w.shape[2:]), stride=tuple(stride), padding=tuple(padding),
            dilation=tuple(dilation), groups=groups, bias=has_bias,
        )  # fmt: skip
        one = Seen(name, op, x.shape[0], 1, self._format(x, name))
        if self._is_fed(w):
            one.prunable = False
        else:
            one.weight = self._values(w, lambda values: conv_weight(values, groups))
        self._note(one, x.permute(0, 2, 3, 1))

    def _lowered(
        self, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
        groups: int,
    ) -> None:  # fmt: skip
        """Note a transposed or 3-D convolution as the GEMM it lowers to.

        Transposed: each input position times all taps of all outputs, then added up (col2im).
        """
        taps, spots = int(np.prod(w.shape[2:])), x.shape[2:]
        if transposed:
            k, n = x.shape[1] // groups, w.shape[1] * taps
        else:
            k, n = w.shape[1] * taps, w.shape[0] // groups
            spots = [
                (size + 2 * pad - step * (tap - 1) - 1) // jump + 1
                for size, pad, step, tap, jump in zip(
                    spots, padding, dilation, w.shape[2:], stride, strict=True
                )
            ]
        name, bias = self._weight_name(w, n * groups)
        op = checked(Linear, name, in_features=k, out_features=n, tokens=int(np.prod(spots)),
                     bias=bias and groups == 1)  # fmt: skip
        one = Seen(name, op, x.shape[0], groups, self._format(x, name))

        def lower(values: Any) -> Any:
            split = values.reshape(groups, -1, *values.shape[1:])
            if transposed:
                return split.reshape(groups, k, n)[0 if groups == 1 else slice(None)]
            order = (0, 3, 4, 5, 2, 1)
            return split.transpose(order).reshape(groups, k, n)[0 if groups == 1 else slice(None)]

        if not self._is_fed(w):
            one.weight = self._values(w, lower)
        self._note(one, x, whole=False)

    def _embedding(self, table: Any, indices: Any) -> None:
        name = (self._parameter(table) or self._module_name()).removesuffix(".weight")
        rows, width = table.shape
        lookups = int(indices.numel()) + self.embeddings.get(name, {}).get("lookups", 0)
        if self._step == 0:
            self.embeddings[name] = {"rows": rows, "width": width, "lookups": lookups}

    def _note(self, one: Seen, x: Any, *, whole: bool = True) -> None:
        """Keep a product; in later steps its input only. ``x`` is shaped as the trace wants it."""
        if len(self.seen) >= MAX_PRODUCTS:
            raise InputError(f"a model may run at most {MAX_PRODUCTS} products")
        one.name = unique(one.name, self._used)
        if self._step == 0:
            self.seen.append(one)
        known = self.seen[self._at] if self._at < len(self.seen) else None
        if known is None or known.layer() != one.layer():
            raise InputError(
                f"step {self._step} must run the products of step 0; product {self._at + 1} is "
                f"'{one.name}'{'' if known is None else f' and was {known.name!r}, or its shape'}"
            )
        self._at += 1
        if self._densities or self._masks:
            alive = x != 0
            known.densities.append(float(alive.sum()) / max(alive.numel(), 1))
            if self._masks and whole:
                plain = alive.contiguous().cpu().numpy()
                if plain.ndim == 3 and plain.shape[0] == 1:
                    plain = plain[0]
                known.masks.append((np.packbits(plain), plain.shape))

    # Names.

    def _module_name(self) -> str:
        return self._names[self._stack[-1]] or type(self._stack[-1]).__name__.lower()

    def _plain_name(self) -> str:
        """Name a product without weights after the module it runs in."""
        module = self._stack[-1]
        prefix = f"{self._names[module]}." if self._names[module] else ""
        if self._attention is None and not isinstance(module, self.torch.nn.MultiheadAttention):
            return f"{prefix}matmul"
        scores, context = f"{prefix}qk", f"{prefix}av"
        return scores if self._used.get(scores, 0) == self._used.get(context, 0) else context

    def _weight_name(self, w: Any, outputs: int) -> tuple[str, bool]:
        """Return a layer's name, and whether it has a bias: of its module, or its parameter."""
        module, path = self._stack[-1], self._parameter(w)
        own = self._names[module]
        if path is None:  # computed: the module that has a weight of this size, else the product's
            inner = getattr(module, "weight", None)
            same = isinstance(inner, self.torch.Tensor) and inner.numel() == w.numel()
            if not same:
                return self._plain_name(), False
            for word in ("weight_orig", "parametrizations.weight.original"):
                self._owned.add(f"{own}.{word}" if own else word)
            return own or self._module_name(), self._own_bias(module, own, "weight", outputs)
        holder, _, word = path.rpartition(".")
        self._owned.add(path)
        for key, value in module._parameters.items():
            if value is not None and path == self._parameter(value) and key.endswith("weight"):
                holder, word, owner = own, key, module
                break
        else:
            owner = self.model.get_submodule(holder)
        bias = self._own_bias(owner, holder, word, outputs)
        rest = word.removesuffix("weight").rstrip("_")
        name = ".".join(x for x in (holder, rest or (word if word != "weight" else "")) if x)
        return name or self._module_name(), bias

    def _own_bias(self, module: Any, prefix: str, word: str, outputs: int) -> bool:
        """Return whether the module has the bias that goes with a weight, and note it."""
        key = word.replace("weight", "bias")
        value = module._parameters.get(key)
        if key == word or value is None or value.numel() != outputs:
            return False
        self._owned.add(f"{prefix}.{key}" if prefix else key)
        return True

    # Tensors.

    def _parameter(self, tensor: Any) -> str | None:
        return next(
            (self._params[ref][0] for ref in self._refs(tensor) if ref in self._params), None
        )

    def _is_fed(self, tensor: Any) -> bool:
        return any(ref in self._fed for ref in self._refs(tensor))

    def _refs(self, tensor: Any) -> list[Any]:
        """Return what names a tensor's storage (held, so that its address is not used again)."""
        try:
            return [self._ref(tensor.untyped_storage())]
        except (NotImplementedError, RuntimeError):  # sparse layouts have none
            return []

    def _tensors(self, value: Any) -> Iterator[Any]:
        leaves = self.torch.utils._pytree.tree_leaves(value)
        return (leaf for leaf in leaves if isinstance(leaf, self.torch.Tensor))

    def _same(self, w: Any) -> bool:
        """Return whether all matrices of a batch are one."""
        if w.stride(0) == 0:
            return True
        return not w.is_meta and bool((w == w[:1]).all())

    def _format(self, tensor: Any, name: str) -> str:
        number = self._attention or tensor.dtype
        return format_of(str(number).removeprefix("torch."), name)

    def _values(self, w: Any, shape: Callable[[Any], Any]) -> Callable[[], Any] | None:
        return None if w.is_meta else lambda: shape(numpy_of(self.torch, w))


def numpy_of(torch: Any, tensor: Any) -> Any:
    """Return a tensor's values as numpy, bf16 and fp8 through ml_dtypes."""
    import ml_dtypes

    plain = tensor.detach().cpu()
    plain = (plain.to_dense() if plain.layout != torch.strided else plain).contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    if plain.dtype == torch.float8_e4m3fn:
        return plain.view(torch.int8).numpy().view(ml_dtypes.float8_e4m3fn)
    return plain.numpy()


def _mode(recorder: Recorder) -> Any:
    """Return the mode that shows a recorder every ATen operation."""
    base: Any = needed("torch.utils._python_dispatch", "torch").TorchDispatchMode

    class Watch(base):  # type: ignore[misc]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return recorder.ran(func, args, kwargs or {}, self)

    return Watch()


def unused_fact(recorder: Recorder) -> dict[str, str]:
    """Return the fact that names parameters nothing read."""
    return {"unused_parameters": listed(recorder.unused)} if recorder.unused else {}
