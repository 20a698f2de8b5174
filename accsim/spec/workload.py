"""Gemm, Layer, Workload: what is computed. Shapes only; masks belong to the pattern.

Everywhere a GEMM is ``Y[t×n] = X[t×k] · W[k×n]``: t tokens (or output pixels × batch), k the
reduction, n output features. A convolution lowers to one GEMM per group, with k ordered
(kernel row, kernel column, input channel), the channel fastest: an ``n:m`` group therefore lies
along input channels at a fixed kernel position.
"""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from accsim.base.errors import InputError, near
from accsim.spec.base import (
    MAX_ELEMENTS,
    MAX_EXTENT,
    MAX_MACS,
    MAX_REPEATS,
    Count,
    Extent,
    FiniteFloat,
    Spec,
    refusal,
)
from accsim.spec.dtype import DTypeName
from accsim.spec.elementwise import Elementwise
from accsim.spec.pattern import DENSE, Pattern, parse_pattern

Noun = TypeVar("Noun", bound=Spec)


def _pair(value: Any) -> Any:
    """Let ``3`` stand for ``(3, 3)`` in height × width fields."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Pair = Annotated[tuple[Extent, Extent], BeforeValidator(_pair)]
Padding = Annotated[tuple[Count, Count], BeforeValidator(_pair)]


class Gemm(Spec):
    """The extents of ``Y[t×n] = X[t×k] · W[k×n]``."""

    t: Extent
    k: Extent
    n: Extent

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense product."""
        return self.t * self.k * self.n


class Conv2d(Spec):
    """A 2-D convolution. ``size`` is the input's height and width.

    ``ceil_mode`` rounds the number of output positions up instead of down (SCALE-Sim's rule).
    """

    kind: Literal["conv2d"] = "conv2d"
    in_channels: Extent
    out_channels: Extent
    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: Extent = 1
    bias: bool = False
    ceil_mode: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Conv2d:
        for channels in (self.in_channels, self.out_channels):
            if channels % self.groups:
                raise ValueError(
                    f"groups must divide the channels; got {self.groups} of {channels}"
                )
        for axis in (0, 1):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if span > self.size[axis] + 2 * self.padding[axis]:
                raise ValueError(
                    f"the kernel ({span} with dilation) must fit in the padded input "
                    f"({self.size[axis]} + 2·{self.padding[axis]})"
                )
        return self

    def output(self, axis: int) -> int:
        """Return the number of output positions along ``axis`` (0 height, 1 width)."""
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        room = self.size[axis] + 2 * self.padding[axis] - span
        step = self.stride[axis]
        return (-(-room // step) if self.ceil_mode else room // step) + 1

    @cached_property
    def touched(self) -> tuple[int, int]:
        """Input rows and columns that any output reads: padding and skipped inputs not counted."""
        counts = []
        for axis in (0, 1):
            reads = {
                out * self.stride[axis] + tap * self.dilation[axis] - self.padding[axis]
                for out in range(self.output(axis))
                for tap in range(self.kernel[axis])
            }
            counts.append(sum(0 <= at < self.size[axis] for at in reads))
        return counts[0], counts[1]

    def lower(self, batch: int) -> tuple[Gemm, int]:
        """Return the GEMM of one group and the number of groups."""
        taps = self.kernel[0] * self.kernel[1]
        gemm = Gemm(
            t=batch * self.output(0) * self.output(1),
            k=self.in_channels // self.groups * taps,
            n=self.out_channels // self.groups,
        )
        return gemm, self.groups

    @property
    def params(self) -> int:
        """Weights and biases."""
        taps = self.kernel[0] * self.kernel[1]
        weights = self.in_channels // self.groups * taps * self.out_channels
        return weights + (self.out_channels if self.bias else 0)


class Linear(Spec):
    """A fully connected layer applied to ``tokens`` rows of each item of the batch."""

    kind: Literal["linear"] = "linear"
    in_features: Extent
    out_features: Extent
    tokens: Extent = 1
    bias: bool = False

    def lower(self, batch: int) -> tuple[Gemm, int]:
        """Return the GEMM and a count of 1."""
        return Gemm(t=self.tokens * batch, k=self.in_features, n=self.out_features), 1

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.in_features * self.out_features + (self.out_features if self.bias else 0)


class Matmul(Spec):
    """A product of two activations (attention scores, attention context): nothing to prune.

    The batch multiplies how often it runs, not an extent: each item has its own operands.
    """

    kind: Literal["matmul"] = "matmul"
    t: Extent
    k: Extent
    n: Extent

    def lower(self, batch: int) -> tuple[Gemm, int]:
        """Return the GEMM and the batch as its count."""
        return Gemm(t=self.t, k=self.k, n=self.n), batch

    @property
    def params(self) -> int:
        """No weights: 0."""
        return 0


Operator = Annotated[Conv2d | Linear | Matmul, Field(discriminator="kind")]


class Layer(Spec):
    """A named operation of the network.

    ``repeats`` identical operations (each with its own weights) run one after the other.
    ``other_params`` belong to the layer but do not run on the array (norms, embeddings).
    """

    name: str = Field(min_length=1, max_length=200)
    op: Operator
    repeats: Annotated[Extent, Field(le=MAX_REPEATS)] = 1
    batch: Annotated[Extent, Field(le=MAX_REPEATS)] = 1
    dtype: DTypeName = "int8"
    pattern: Pattern = DENSE
    prunable: bool = True
    other_params: Count = 0

    @model_validator(mode="after")
    def _activations_stay_dense(self) -> Layer:
        if not self.has_weights and self.pattern != DENSE:
            raise ValueError(
                f"'{self.name}' multiplies two activations and has no weights to prune"
            )
        gemm = self.gemm
        largest = max(gemm.t * gemm.k, gemm.k * gemm.n, gemm.t * gemm.n)
        if largest > MAX_ELEMENTS:
            raise ValueError(
                f"'{self.name}' must have operands of at most {MAX_ELEMENTS:.0e} elements; "
                f"got {largest:.3e}"
            )
        if self.macs > MAX_MACS:
            raise ValueError(
                f"'{self.name}' must have at most {MAX_MACS:.0e} multiply-accumulates; "
                f"got {self.macs:.3e}"
            )
        return self

    @property
    def has_weights(self) -> bool:
        """Whether W holds weights (and can be pruned) rather than activations."""
        return self.op.kind != "matmul"

    @cached_property
    def _lowered(self) -> tuple[Gemm, int]:
        return self.op.lower(self.batch)

    @cached_property
    def shape_key(self) -> str:
        """What decides the layer's shape: equal keys and patterns have equal timing."""
        return f"{self.op!r} {self.repeats} {self.batch} {self.dtype}"

    @property
    def gemm(self) -> Gemm:
        """The GEMM the layer lowers to; it runs ``runs`` times."""
        return self._lowered[0]

    @property
    def runs(self) -> int:
        """How often the GEMM runs: repeats × groups (× batch for activation products)."""
        return self._lowered[1] * self.repeats

    @property
    def input_elements(self) -> int:
        """Elements of X one run reads, each once: a convolution's map, not lowered to t × k."""
        gemm, op = self.gemm, self.op
        if not isinstance(op, Conv2d):
            return gemm.t * gemm.k
        rows, cols = (max(1, used) for used in op.touched)
        return min(gemm.t * gemm.k, self.batch * rows * cols * (op.in_channels // op.groups))

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates, all runs."""
        return self.gemm.macs * self.runs

    @property
    def params(self) -> int:
        """Weights, biases and ``other_params``, all repeats."""
        return self.op.params * self.repeats + self.other_params


class Published(Spec):
    """A published total a test holds the workload to."""

    value: FiniteFloat
    tolerance: FiniteFloat
    source: str = Field(min_length=1)


class Workload(Spec):
    """A network: layers in order, with unique names.

    >>> gemm(4, 4, 4).prune("2:4").layers[0].pattern
    NM(n=2, m=4)
    """

    name: str = Field(min_length=1)
    title: str = ""
    sources: tuple[str, ...] = ()
    license: str = ""
    published: dict[str, Published] = Field(default_factory=dict)
    layers: tuple[Layer, ...] = Field(min_length=1)
    elementwise: tuple[Elementwise, ...] = ()  # what runs between the layers; no GEMM, no MACs

    @model_validator(mode="after")
    def _names_are_unique(self) -> Workload:
        seen: set[str] = set()
        for name in [x.name for x in self.layers] + [x.name for x in self.elementwise]:
            if name in seen:
                raise ValueError(f"layer names must be unique; '{name}' stands twice")
            seen.add(name)
        return self

    def __iter__(self) -> Iterator[Layer]:  # type: ignore[override]
        return iter(self.layers)

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of the whole network."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Parameters of the whole network, norms and embeddings included."""
        return sum(layer.params for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``; InputError with the near word if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = [layer.name for layer in self.layers]
        raise InputError(f"workload '{self.name}' has no layer '{name}'{near(name, known)}")

    def select(self, *patterns: str) -> Workload:
        """Return the workload with only the layers whose name matches one of the globs.

        What runs between layers stays if the layer before it does.
        """
        if not patterns:
            raise InputError("select needs at least one glob of layer names")
        keep = self._matching(patterns)
        after = tuple(x for x in self.elementwise if x.after in keep)
        return self._with(tuple(x for x in self.layers if x.name in keep), after)

    def prune(
        self,
        pattern: Pattern | str,
        *,
        layers: Sequence[str] = ("*",),
        skip: Sequence[str] = (),
    ) -> Workload:
        """Return the workload with ``pattern`` on every prunable layer that matches.

        Args:
            pattern: a pattern or its short string (``"2:4"``, ``"unstructured@0.9"``).
            layers: globs of layer names to prune.
            skip: globs of layer names to leave as they are.

        Raises:
            InputError: an unknown pattern, or a glob that matches no layer.
        """
        chosen = parse_pattern(pattern) if isinstance(pattern, str) else pattern
        if not isinstance(chosen, Pattern):
            raise InputError(f"pattern must be a word such as '2:4'; got {pattern!r}")
        names = self._matching(layers) - self._matching(skip)
        return self._with(
            tuple(
                layer.model_copy(update={"pattern": chosen})
                if layer.name in names and layer.prunable and layer.has_weights
                else layer
                for layer in self.layers
            )
        )

    def with_batch(self, batch: int) -> Workload:
        """Return the workload with every layer's batch set."""
        whole = _index(batch)
        if whole is None or not 1 <= whole <= MAX_REPEATS:
            raise InputError(f"batch must be a whole number from 1 to {MAX_REPEATS}; got {batch!r}")
        return self._freshened(batch=whole)

    def with_dtype(self, dtype: str) -> Workload:
        """Return the workload with every layer's operands in ``dtype``."""
        return self._freshened(dtype=dtype)

    def _freshened(self, **changes: Any) -> Workload:
        layers = tuple(_fresh(layer, **changes) for layer in self.layers)
        return self._with(layers, tuple(_fresh(x, **changes) for x in self.elementwise))

    def _with(
        self, layers: tuple[Layer, ...], elementwise: tuple[Elementwise, ...] | None = None
    ) -> Workload:
        more = self.elementwise if elementwise is None else elementwise
        return self.model_copy(update={"layers": layers, "elementwise": more})

    def _matching(self, globs: Sequence[str]) -> set[str]:
        names: set[str] = set()
        for glob in [globs] if isinstance(globs, str) else globs:
            found = {x.name for x in self.layers if fnmatch.fnmatchcase(x.name, glob)}
            if not found:
                known = [layer.name for layer in self.layers]
                raise InputError(f"no layer of '{self.name}' matches '{glob}'{near(glob, known)}")
            names |= found
        return names


def _fresh(one: Noun, **changes: Any) -> Noun:
    """Rebuild a layer so that its checks and cached shapes are its own."""
    fields = {name: getattr(one, name) for name in type(one).model_fields}
    return _built(type(one), fields | changes)


def gemm(t: int, k: int, n: int, *, dtype: str = "int8", name: str = "gemm") -> Workload:
    """Return a workload of one layer, ``Y[t×n] = X[t×k] · W[k×n]`` with prunable weights W.

    Raises:
        InputError: an extent out of range, an unknown number format, or an absurd size.


    >>> gemm(256, 256, 128).macs
    8388608
    """
    names = {"t": "tokens", "k": "in_features", "n": "out_features"}
    op: dict[str, Any] = {"kind": "linear"}
    for letter, extent in (("t", t), ("k", k), ("n", n)):
        whole = _index(extent)
        if whole is None or not 1 <= whole <= MAX_EXTENT:
            raise InputError(
                f"gemm: {letter} must be a whole number from 1 to {MAX_EXTENT}; got {extent!r}"
            )
        op[names[letter]] = whole
    layer = _built(Layer, {"name": name, "op": op, "dtype": dtype})
    return Workload(name=f"{name}_{t}x{k}x{n}", layers=(layer,))


def _index(value: Any) -> int | None:
    """Return a whole number of any integer type, None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _built(noun: type[Noun], fields: dict[str, Any]) -> Noun:
    try:
        return noun.model_validate(fields)
    except ValidationError as error:
        raise refusal(error, f"layer '{fields['name']}'") from None
