"""What a scheme is: a way to replace W by an operation graph. And what a graph costs, exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.sparsity.masks import Masks
from accsim.spec.dtype import DTYPES
from accsim.spec.pattern import DENSE, Pattern
from accsim.spec.workload import Layer, Linear, Matmul

Floats = npt.NDArray[np.float64]
Factors = dict[str, Floats]
# multiply(piece, x, w): the product a piece's layer stands for, once a run.
Multiply = Callable[[str, Floats, Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What layers cost: counts add.

    ``macs`` have a kept weight; ``adds`` are additions outside the products (merging two results,
    scattering a sparse matrix); ``params`` are numbers that are learnt and stored, ``stored_bits``
    their size with the metadata of the patterns. ``other_params`` (norms) are counted in both.
    """

    macs: int = 0
    adds: int = 0
    params: int = 0
    stored_bits: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            **{x.name: getattr(self, x.name) + getattr(other, x.name) for x in fields(self)}
        )


class Scheme(ABC):
    """One rewrite of a Linear layer. Subclasses are frozen dataclasses; ``str()`` parses back.

    ``factors``, ``dense`` and ``product`` say on real numbers what the pieces stand for.
    """

    family: ClassVar[str]
    grammar: ClassVar[str]
    summary: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Scheme:
        """Return the scheme a text of this family names; InputError if its numbers are bad."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """Return the layers computed instead of ``layer`` (a dense, prunable Linear)."""

    @abstractmethod
    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """Return random factors of a k × n matrix, zeros where the scheme keeps nothing."""

    @abstractmethod
    def dense(self, factors: Factors) -> Floats:
        """Return the W (k, n) that the factors stand for."""

    @abstractmethod
    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """Return x·W for x (t, k), every GEMM through ``multiply`` under its piece's name."""

    def adds(self, layer: Layer) -> int:
        """Return the additions outside the products, all repeats: none unless a family says so."""
        return 0

    def extra_bits(self, layer: Layer, masks: Masks) -> int:
        """Return stored bits that belong to no piece: none unless a family says so."""
        return 0

    def cost(self, layer: Layer, masks: Masks | None = None) -> Cost:
        """Return what the rewritten layer costs."""
        masks = masks or Masks()
        extra = Cost(adds=self.adds(layer), stored_bits=self.extra_bits(layer, masks))
        return cost(self.pieces(layer), masks) + extra


def cost(layers: Iterable[Layer], masks: Masks | None = None) -> Cost:
    """Return what layers cost as they stand, patterns counted: kept weights, packed bits.

    Patterns are asked for their real mask (synthetic weights, seed 0, unless ``masks`` is given).

    >>> from accsim.spec.workload import gemm
    >>> cost(gemm(4, 8, 2).prune("2:4").layers)
    Cost(macs=32, adds=0, params=8, stored_bits=80)
    """
    masks = masks or Masks()
    return sum((_cost(layer, masks) for layer in layers), Cost())


def _cost(layer: Layer, masks: Masks) -> Cost:
    gemm, bits, runs = layer.gemm, DTYPES[layer.dtype].bits, layer.runs
    weights = gemm.k * gemm.n if layer.has_weights else 0
    kept, packed = weights, weights * bits
    if layer.pattern != DENSE:
        mask = masks.mask(layer)
        kept, packed = int(mask.sum()), layer.pattern.packed_bits(mask, bits)
    others = layer.params - weights * runs
    return Cost(
        macs=(kept if layer.has_weights else gemm.k * gemm.n) * gemm.t * runs,
        params=others + kept * runs,
        stored_bits=others * bits + packed * runs,
    )


def linear_of(layer: Layer) -> Linear:
    """Return the layer's Linear, dense as a rewrite needs it; InputError otherwise."""
    if not isinstance(layer.op, Linear):
        raise InputError(f"'{layer.name}' is a {layer.op.kind}; only linear layers are rewritten")
    if layer.pattern != DENSE:
        raise InputError(
            f"'{layer.name}' already has the pattern {layer.pattern}; rewrite it while it is dense"
        )
    return layer.op


def piece(
    layer: Layer,
    name: str,
    k: int,
    n: int,
    *,
    tokens: int | None = None,
    pattern: Pattern = DENSE,
    copies: int = 1,
    batch: int | None = None,
) -> Layer:
    """Return ``layer`` with a k × n weight matrix of its own under ``layer.name + '.' + name``.

    ``copies`` run for every repeat; ``tokens`` and ``batch`` are the layer's own unless given.
    """
    op = linear_of(layer)
    tokens = op.tokens if tokens is None else tokens
    return Layer(
        name=f"{layer.name}.{name}",
        op=Linear(in_features=k, out_features=n, tokens=tokens),
        repeats=layer.repeats * copies,
        batch=layer.batch if batch is None else batch,
        dtype=layer.dtype,
        pattern=pattern,
        prunable=False,
    )


def product_of(layer: Layer, name: str, t: int, k: int, n: int) -> Layer:
    """Return a product of two computed operands: no weights, not multiplied by the batch."""
    return Layer(
        name=f"{layer.name}.{name}",
        op=Matmul(t=t, k=k, n=n),
        repeats=layer.repeats,
        dtype=layer.dtype,
        prunable=False,
    )


def finish(layer: Layer, pieces: Sequence[Layer], params: int = 0) -> tuple[Layer, ...]:
    """Give the pieces what the layer held besides W: bias, norms; and ``params`` more a repeat."""
    op = linear_of(layer)
    bias = op.out_features if op.bias else 0
    held = layer.other_params + (params + bias) * layer.repeats
    return (changed(pieces[0], other_params=held), *pieces[1:])


def changed(layer: Layer, **changes: Any) -> Layer:
    """Return the layer with fields changed, checked anew."""
    return Layer(**({name: getattr(layer, name) for name in Layer.model_fields} | changes))


def blocks(extent: int, size: int) -> list[tuple[int, int]]:
    """Return (block size, how many) along an extent: the last block may be shorter.

    >>> blocks(10, 4)
    [(4, 2), (2, 1)]
    """
    whole, rest = divmod(extent, size)
    return [(b, count) for b, count in ((size, whole), (rest, 1)) if b and count]


def sparse_factor(pattern: Pattern, k: int, n: int, rng: np.random.Generator) -> Floats:
    """Return a random (k, n) matrix with zeros where the pattern prunes."""
    weights = rng.standard_normal((k, n))
    return np.where(pattern.mask(weights.astype(np.float32)), weights, 0.0)
