"""Structured factors: block-diagonal · n:m · block-diagonal (ARMOR), and Kronecker sums."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.sparsity.schemes.grammar import Words
from accsim.sparsity.schemes.scheme import (
    Factors,
    Floats,
    Multiply,
    Scheme,
    blocks,
    finish,
    linear_of,
    piece,
    sparse_factor,
)
from accsim.spec.workload import Layer

CORE = NM(2, 4)


@dataclass(frozen=True)
class Armor(Scheme):
    """W = L·C·R: L (k × k) and R (n × n) block-diagonal in blocks of ``block``, C 2:4.

    Costs t·(k + n)·block MACs more than the 2:4 product: 6.25 % of the dense ones at
    k = n = 4096, block 128. A shorter last block is allowed.
    """

    block: int

    family: ClassVar[str] = "armor"
    grammar: ClassVar[str] = "armor:block (armor:128)"
    summary: ClassVar[str] = "block-diagonal · 2:4 · block-diagonal (ARMOR)"

    @classmethod
    def parse(cls, text: str) -> Armor:
        """Parse ``armor:128``."""
        words = Words(text, cls.grammar)
        block = words.as_whole(words.next("block"), "block")
        words.end()
        return cls(block)

    def __str__(self) -> str:
        return f"armor:{self.block}"

    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """The blocks of L, the 2:4 core, the blocks of R."""
        op = linear_of(layer)
        core = piece(layer, "core", op.in_features, op.out_features, pattern=CORE)
        left = self._diagonal(layer, "left", op.in_features)
        right = self._diagonal(layer, "right", op.out_features)
        return finish(layer, [*left, core, *right])

    def _diagonal(self, layer: Layer, name: str, extent: int) -> list[Layer]:
        sizes = blocks(extent, self.block)
        return [piece(layer, f"{name}{b}", b, b, copies=count) for b, count in sizes]

    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """L, C and R, all in full."""
        return {
            "l": self._block_diagonal(k, rng),
            "c": sparse_factor(CORE, k, n, rng),
            "r": self._block_diagonal(n, rng),
        }

    def _block_diagonal(self, extent: int, rng: np.random.Generator) -> Floats:
        block_of = np.arange(extent) // self.block
        inside = block_of[:, None] == block_of[None, :]
        return np.where(inside, rng.standard_normal((extent, extent)), 0.0)

    def dense(self, factors: Factors) -> Floats:
        """L·C·R."""
        return factors["l"] @ factors["c"] @ factors["r"]

    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """((x·L)·C)·R, block by block."""
        x = self._through("left", x, factors["l"], multiply)
        x = multiply("core", x, factors["c"])
        return self._through("right", x, factors["r"], multiply)

    def _through(self, name: str, x: Floats, diagonal: Floats, multiply: Multiply) -> Floats:
        extent = len(diagonal)
        edges = [*range(0, extent, self.block), extent]
        parts = [
            multiply(f"{name}{stop - start}", x[:, start:stop], diagonal[start:stop, start:stop])
            for start, stop in pairwise(edges)
        ]
        return np.hstack(parts)


@dataclass(frozen=True)
class Kronecker(Scheme):
    """W = Σ A_i ⊗ B_i over ``terms``: A (rows × cols), B (k/rows × n/cols).

    Computed as two GEMMs, the one of fewer MACs first: all terms side by side, then summed along
    the reduction, so no separate additions.
    """

    rows: int
    cols: int
    terms: int = 1

    family: ClassVar[str] = "kron"
    grammar: ClassVar[str] = "kron:rowsxcols[,terms] (kron:64x64,4)"
    summary: ClassVar[str] = "a sum of Kronecker products, A of rows × cols, as two small GEMMs"

    @classmethod
    def parse(cls, text: str) -> Kronecker:
        """Parse ``kron:64x64,4``."""
        words = Words(text, cls.grammar)
        rows, cross, cols = words.next("rowsxcols").partition("x")
        if not cross:
            raise words.wrong("lacks its rowsxcols")
        terms = words.rest() or ["1"]
        if len(terms) > 1:
            raise words.wrong(f"has no '{terms[1]}'")
        words.end()
        return cls(
            words.as_whole(rows, "number of rows"),
            words.as_whole(cols, "number of columns"),
            words.as_whole(terms[0], "number of terms"),
        )

    def __str__(self) -> str:
        return f"kron:{self.rows}x{self.cols}" + (f",{self.terms}" if self.terms > 1 else "")

    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """The first and the second GEMM."""
        op = linear_of(layer)
        k, n, tokens, terms = op.in_features, op.out_features, op.tokens, self.terms
        if k % self.rows or n % self.cols:
            raise InputError(
                f"'{layer.name}' is {k}×{n}; {self} needs rows that divide {k}, columns that "
                f"divide {n}"
            )
        k2, n2 = k // self.rows, n // self.cols
        if self._inner_first(k, n):
            first = piece(layer, "inner", k2, terms * n2, tokens=tokens * self.rows)
            second = piece(layer, "outer", terms * self.rows, self.cols, tokens=tokens * n2)
        else:
            first = piece(layer, "outer", self.rows, terms * self.cols, tokens=tokens * k2)
            second = piece(layer, "inner", terms * k2, n2, tokens=tokens * self.cols)
        return finish(layer, [first, second])

    def _inner_first(self, k: int, n: int) -> bool:
        """Say whether X·B before A costs no more MACs than the other order."""
        k1, n1, k2, n2 = self.rows, self.cols, k // self.rows, n // self.cols
        return k1 * n2 * (k2 + n1) <= k2 * n1 * (k1 + n2)

    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """A (terms, rows, cols) and B (terms, k/rows, n/cols)."""
        inner = (self.terms, k // self.rows, n // self.cols)
        outer = (self.terms, self.rows, self.cols)
        return {"a": rng.standard_normal(outer), "b": rng.standard_normal(inner)}

    def dense(self, factors: Factors) -> Floats:
        """Σ A_i ⊗ B_i."""
        terms = zip(factors["a"], factors["b"], strict=True)
        return np.asarray(sum(np.kron(a, b) for a, b in terms))

    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """The two GEMMs, with the axes swapped between them."""
        a, b = factors["a"], factors["b"]
        (_, k1, n1), (_, k2, n2) = a.shape, b.shape
        cube = x.reshape(len(x), k1, k2)
        if self._inner_first(k1 * k2, n1 * n2):
            z = _first("inner", cube, b, multiply)
            return _second("outer", z, a, multiply).transpose(0, 2, 1).reshape(len(x), n1 * n2)
        z = _first("outer", cube.transpose(0, 2, 1), a, multiply)
        return _second("inner", z, b, multiply).reshape(len(x), n1 * n2)


def _first(name: str, cube: Floats, terms: Floats, multiply: Multiply) -> Floats:
    """(t, u, v) times all (v, w) terms side by side: (t, w, term, u)."""
    t, u, v = cube.shape
    count, _, w = terms.shape
    side = terms.transpose(1, 0, 2).reshape(v, count * w)
    return (
        multiply(name, cube.reshape(t * u, v), side).reshape(t, u, count, w).transpose(0, 3, 2, 1)
    )


def _second(name: str, z: Floats, terms: Floats, multiply: Multiply) -> Floats:
    """(t, w, term, u) times the (u, c) terms, summed over terms: (t, w, c)."""
    t, w, count, u = z.shape
    stacked = terms.reshape(count * u, -1)
    return multiply(name, z.reshape(t * w, count * u), stacked).reshape(t, w, -1)
