"""Low-rank plus sparse: kept apart (two paths) or added up first (SLTrain)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.masks import Masks
from accsim.sparsity.schemes.grammar import Words, short
from accsim.sparsity.schemes.scheme import (
    Factors,
    Floats,
    Multiply,
    Scheme,
    finish,
    linear_of,
    piece,
    product_of,
    sparse_factor,
)
from accsim.sparsity.unstructured import Unstructured
from accsim.spec.pattern import Pattern, parse_pattern
from accsim.spec.workload import Layer


@dataclass(frozen=True)
class LowRank(Scheme):
    """Y = (X·B)·A + X·S: B (k × r), A (r × n), S (k × n) in any pattern, or absent.

    The two results are merged by t·n additions.
    """

    rank: int
    sparse: Pattern | None = None

    family: ClassVar[str] = "lowrank"
    grammar: ClassVar[str] = "lowrank:rank[+pattern] (lowrank:64+sparse@0.95)"
    summary: ClassVar[str] = "two thin products beside a sparse one; any pattern may follow the +"

    @classmethod
    def parse(cls, text: str) -> LowRank:
        """Parse ``lowrank:64`` or ``lowrank:64+2:4``; ``sparse@s`` is unstructured@s."""
        low, plus, high = text.partition("+")
        words = Words(low, cls.grammar)
        rank = words.as_whole(words.next("rank"), "rank")
        words.end()
        if high.startswith("sparse"):
            high = high.replace("sparse", "unstructured", 1)
        return cls(rank, parse_pattern(high) if plus else None)

    def __str__(self) -> str:
        return f"lowrank:{self.rank}" + (f"+{self.sparse}" if self.sparse else "")

    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """B, A, and S if there is one."""
        op = linear_of(layer)
        k, n, rank = op.in_features, op.out_features, _fits(self.rank, layer)
        found = [piece(layer, "lowrank.b", k, rank), piece(layer, "lowrank.a", rank, n)]
        if self.sparse is not None:
            found.append(piece(layer, "sparse", k, n, pattern=self.sparse))
        return finish(layer, found)

    def adds(self, layer: Layer) -> int:
        """One addition an output merges the two paths."""
        return layer.gemm.t * layer.gemm.n * layer.runs if self.sparse is not None else 0

    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """B, A and S."""
        found = {"b": rng.standard_normal((k, self.rank)), "a": rng.standard_normal((self.rank, n))}
        if self.sparse is not None:
            found["s"] = sparse_factor(self.sparse, k, n, rng)
        return found

    def dense(self, factors: Factors) -> Floats:
        """B·A + S."""
        return factors["b"] @ factors["a"] + factors.get("s", 0.0)

    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """(x·B)·A + x·S."""
        y = multiply("lowrank.a", multiply("lowrank.b", x, factors["b"]), factors["a"])
        return y + multiply("sparse", x, factors["s"]) if "s" in factors else y


@dataclass(frozen=True)
class SLTrain(Scheme):
    """W = B·A + S is rebuilt in each forward pass, then Y = X·W is dense (Han et al., SLTrain).

    Saves memory, not work: k·r·n MACs and a scatter-add of S come on top of the dense product.
    The rebuilt W is an operand, not a parameter. S has a fixed random support; its metadata is
    counted as a bitmap (assumed).
    """

    rank: int
    sparsity: float

    family: ClassVar[str] = "sltrain"
    grammar: ClassVar[str] = "sltrain:rank@sparsity (sltrain:64@0.97)"
    summary: ClassVar[str] = "low-rank plus sparse, W rebuilt each forward: memory saved, no MACs"

    @classmethod
    def parse(cls, text: str) -> SLTrain:
        """Parse ``sltrain:64@0.97``."""
        words = Words(text, cls.grammar)
        rank, sparsity = words.next_pair("rank@sparsity")
        words.end()
        return cls(words.as_whole(rank, "rank"), words.as_sparsity(sparsity))

    def __str__(self) -> str:
        return f"sltrain:{self.rank}@{short(self.sparsity)}"

    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """B·A once, whatever the batch; then X times the dense sum."""
        op = linear_of(layer)
        k, n, rank = op.in_features, op.out_features, _fits(self.rank, layer)
        found = [
            piece(layer, "rebuild", rank, n, tokens=k, batch=1),
            product_of(layer, "dense", layer.gemm.t, k, n),
        ]
        return finish(layer, found, params=k * rank + self._support.kept(k, n))

    @property
    def _support(self) -> Unstructured:
        return Unstructured(self.sparsity)

    def adds(self, layer: Layer) -> int:
        """One addition for each non-zero of S, scattered into W."""
        return self._support.kept(layer.gemm.k, layer.gemm.n) * layer.repeats

    def extra_bits(self, layer: Layer, masks: Masks) -> int:
        """Where the non-zeros of S are: a bitmap."""
        return layer.gemm.k * layer.gemm.n * layer.repeats

    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """B, A and S."""
        return LowRank(self.rank, self._support).factors(k, n, rng)

    def dense(self, factors: Factors) -> Floats:
        """B·A + S."""
        return factors["b"] @ factors["a"] + factors["s"]

    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """x·(B·A + S), the sum made first."""
        w = multiply("rebuild", factors["b"], factors["a"]) + factors["s"]
        return multiply("dense", x, w)


def _fits(rank: int, layer: Layer) -> int:
    """Return the rank; InputError if the layer cannot have one so large."""
    most = min(layer.gemm.k, layer.gemm.n)
    if rank > most:
        raise InputError(f"'{layer.name}' is {layer.gemm.k}×{layer.gemm.n}; rank {rank} > {most}")
    return rank
