"""What a capture saw of a network, and the trace that is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from accsim import __version__
from accsim.base.errors import InputError, one_of
from accsim.spec.base import refusal
from accsim.spec.pattern import DENSE, Pattern
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload
from accsim.traces.draft import Draft
from accsim.traces.pattern import obeyed
from accsim.traces.trace import Trace

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[Any]
    BoolArray = npt.NDArray[np.bool_]

DENSE_FROM = 0.99
# torch.finfo / onnx names of number formats → accsim's.
FORMATS = {
    "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "fp8",
    "int8": "int8", "uint8": "int8", "int16": "int16",
}  # fmt: skip


@dataclass
class Seen:
    """One product of the network as it ran.

    ``weight`` gives W as (k, n) or (runs, k, n) when called: nothing is copied before it is wanted.
    ``kept`` gives which of it a file keeps, where that is not "what is not zero".
    ``densities`` and ``masks`` (packed bits and their shape) of the input have one entry a step.
    """

    name: str
    op: Conv2d | Linear | Matmul
    batch: int = 1
    repeats: int = 1
    dtype: str = "fp32"
    other_params: int = 0
    prunable: bool = True
    weight: Callable[[], Values] | None = None
    kept: Callable[[], BoolArray] | None = None
    densities: list[float] = field(default_factory=list)
    masks: list[tuple[Values, tuple[int, ...]]] = field(default_factory=list)

    def layer(self, pattern: Pattern = DENSE) -> Layer:
        """Return the layer; InputError if it is past accsim's limits."""
        try:
            return Layer(
                name=self.name, op=self.op, batch=self.batch, repeats=self.repeats,
                dtype=self.dtype, other_params=self.other_params, pattern=pattern,
                prunable=self.prunable,
            )  # fmt: skip
        except ValidationError as error:
            raise refusal(error, f"layer '{self.name}'") from None

    def mask(self) -> BoolArray | None:
        """Return which weights are kept; None without weights."""
        if self.kept is not None:
            return self.kept()
        return None if self.weight is None else np.asarray(self.weight() != 0, dtype=np.bool_)


def needed(module: str, extra: str) -> Any:
    """Return an imported module of an extra.

    Raises:
        InputError: it is not installed; names what to type.
    """
    try:
        return import_module(module)
    except ImportError:
        missing = module.partition(".")[0]
        raise InputError(
            f"{missing} is not installed: pip install 'accsim[{extra}]', or pip install {missing}"
        ) from None


def format_of(name: str, what: str) -> str:
    """Return accsim's number format for a framework's name of it.

    >>> format_of("bfloat16", "fc")
    'bf16'
    """
    if name not in FORMATS:
        raise InputError(f"'{what}' must compute in {one_of(FORMATS)}; got {name}")
    return FORMATS[name]


def checked(op: type[Conv2d] | type[Linear] | type[Matmul], name: str, **sizes: Any) -> Any:
    """Return an operator; InputError that names the layer if its sizes break a rule."""
    try:
        return op(**sizes)
    except ValidationError as error:
        raise refusal(error, f"layer '{name}'") from None


def split_rows(rows: int, batch: int) -> tuple[int, int]:
    """Return (batch, rest) if the network's batch divides ``rows``, else (1, rows).

    >>> split_rows(256, 2), split_rows(5, 2)
    ((2, 128), (1, 5))
    """
    return (batch, rows // batch) if batch and rows % batch == 0 else (1, rows)


def conv_weight(values: Values, groups: int) -> Values:
    """Return W of a convolution: (out, in / groups, height, width) → (k, n) or (groups, k, n).

    k runs over (kernel row, kernel column, input channel), as :class:`Conv2d` lowers.
    """
    out, deep, high, wide = values.shape
    split = values.reshape(groups, out // groups, deep, high, wide).transpose(0, 3, 4, 2, 1)
    lowered = split.reshape(groups, high * wide * deep, out // groups)
    return lowered[0] if groups == 1 else lowered


def unique(name: str, used: dict[str, int]) -> str:
    """Return ``name``, or ``name#2`` … if it was used before."""
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}#{used[name]}"


def recognised(mask: BoolArray | None, dense_from: float) -> Pattern:
    """Return the pattern a mask, (k, n) or (runs, k, n), obeys; dense if nearly all is kept."""
    if mask is None or mask.mean() >= dense_from:
        return DENSE
    return obeyed(mask if mask.ndim == 2 else np.concatenate(list(mask), axis=1))


def check_dense_from(value: float) -> None:
    """Refuse a share that is not one."""
    if not 0 < value <= 1:
        raise InputError(f"dense_from must be above 0 and at most 1; got {value!r}")


def trace_of(
    name: str,
    seen: Sequence[Seen],
    *,
    weights: bool = False,
    dense_from: float = DENSE_FROM,
    title: str = "",
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    facts: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Trace:
    """Return the trace of what was seen: layers, masks (of layers not dense), densities.

    Args:
        name: of the network.
        seen: its products, in order.
        weights: keep the values of the weights too.
        dense_from: share of kept weights from which a layer counts as dense and has no mask
            (a few zeros by chance must not cost it the dense schedule).
        title: of the network.
        inputs: shapes of the network's inputs.
        facts: plain JSON.
        provenance: source, license, versions …

    Raises:
        InputError: nothing was seen, or a layer past accsim's limits.
    """
    check_dense_from(dense_from)
    if not seen:
        raise InputError(f"'{name}' has no convolution, linear layer or matrix product")
    patterns = [recognised(x.mask(), dense_from) for x in seen]
    layers = tuple(x.layer(pattern) for x, pattern in zip(seen, patterns, strict=True))
    try:
        network = Workload(name=name, title=title, layers=layers)
    except ValidationError as error:
        raise refusal(error, f"network '{name}'") from None
    made = {"made_by": f"accsim {__version__}", **(provenance or {})}
    draft = Draft(network, inputs=inputs, facts=facts, provenance=made)
    for one, pattern in zip(seen, patterns, strict=True):
        _put(draft, one, pattern, weights)
    return draft.finish()


def _put(draft: Draft, one: Seen, pattern: Pattern, weights: bool) -> None:
    """Record the arrays of one layer; a traced one needs its mask, a dense one none."""
    mask = one.mask() if pattern != DENSE else None
    if mask is not None:
        draft.mask(one.name, mask)
    if weights and one.weight is not None:
        draft.weights(one.name, one.weight())
    if one.densities:
        draft.densities(one.name, one.densities)
    for step, (bits, shape) in enumerate(one.masks):
        kept = np.unpackbits(bits, count=math.prod(shape)).view(np.bool_)
        draft.activation_mask(one.name, step, kept.reshape(shape))


def listed(words: Iterable[str], most: int = 5) -> str:
    """Return a few words of many, for an error.

    >>> listed("abc", most=2)
    "'a', 'b' and 1 more"
    """
    known = list(words)
    text = ", ".join(f"'{word}'" for word in known[:most])
    return text + (f" and {len(known) - most} more" if len(known) > most else "")
