"""Reuse chains of binary networks: each output is computed from the most similar one.

The columns of a ±1 matrix W (k × n) are the vertices of a complete graph; an edge weighs their
Hamming distance. Along a minimum spanning tree, output j = output of its parent ± 2·x where the
two columns differ: d additions instead of k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.sparsity.masks import Masks
from accsim.sparsity.nm import index_bits
from accsim.sparsity.schemes.grammar import Words
from accsim.sparsity.schemes.scheme import (
    Factors,
    Floats,
    Multiply,
    Scheme,
    finish,
    linear_of,
    piece,
)
from accsim.sparsity.unstructured import Unstructured
from accsim.spec.workload import Layer

Ints = npt.NDArray[np.int64]
# All distances are held at once, as float32: 256 MiB.
MAX_COLUMNS = 8192


@dataclass(frozen=True, eq=False)
class Chain:
    """A minimum spanning tree of columns: ``order`` of computing, ``parents`` (−1 at the root)
    and ``distances`` (k at the root, which is computed in full), by column.
    """

    k: int
    order: Ints
    parents: Ints
    distances: Ints

    @property
    def additions(self) -> int:
        """Additions of one token: k for the root, the distance for each other column."""
        return int(self.distances.sum())

    @property
    def saved(self) -> int:
        """Additions of one token saved against n columns of k each."""
        return self.k * len(self.parents) - self.additions


def spanning_chain(weights: npt.NDArray[np.generic]) -> Chain:
    """Return the exact minimum spanning tree of the columns of a matrix of signs (Prim).

    Negative entries count as −1, all others as +1. Rooted at column 0; of equal edges the one
    that reaches the lowest column, from the column that was first at that distance.

    >>> spanning_chain(np.array([[1, 1, -1], [1, 1, -1], [1, -1, -1]])).parents.tolist()
    [-1, 0, 1]
    """
    if weights.ndim != 2 or 0 in weights.shape:
        raise InputError(f"a chain needs a k × n matrix; got shape {weights.shape}")
    k, n = weights.shape
    if n > MAX_COLUMNS:
        raise InputError(f"a chain has at most {MAX_COLUMNS} columns; got {n}: split the layer")
    distance = _distances(weights)
    parents, nearest = np.zeros(n, np.int64), distance[0].copy()
    order, distances = np.zeros(n, np.int64), np.full(n, k, np.int64)
    parents[0], nearest[0] = -1, np.inf
    outside = np.ones(n, np.bool_)
    outside[0] = False
    for step in range(1, n):
        new = int(nearest.argmin())
        order[step], distances[new] = new, int(nearest[new])
        outside[new], nearest[new] = False, np.inf
        closer = outside & (distance[new] < nearest)
        nearest[closer], parents[closer] = distance[new, closer], new
    return Chain(k, order, parents, distances)


def _distances(weights: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Hamming distances of all pairs of columns: exact in float32 below 2**24 rows."""
    signs = np.where(np.less(weights, 0), -1, 1).astype(np.float32)
    apart: npt.NDArray[np.float32] = (np.float32(len(signs)) - signs.T @ signs) / np.float32(2)
    return apart


def chained(layer: Layer, chain: Chain) -> tuple[Layer, ...]:
    """Return the layer of deltas that ``chain`` leaves of a binary layer: exact in MACs.

    As many weights are kept as there are additions; where they lie is the pattern's own choice.
    Outputs are then summed along the tree (t · (n − 1) additions).
    """
    op = linear_of(layer)
    k, n = op.in_features, op.out_features
    if (chain.k, len(chain.parents)) != (k, n):
        shape = f"{chain.k}×{len(chain.parents)}"
        raise InputError(f"'{layer.name}' is {k}×{n}; the chain is of a {shape} matrix")
    pattern = Unstructured(1 - chain.additions / (k * n))
    return finish(layer, [piece(layer, "deltas", k, n, pattern=pattern)])


@dataclass(frozen=True)
class Mst(Scheme):
    """Reuse chains along a minimum spanning tree, on the signs of synthetic weights.

    For real binary weights: ``chained(layer, spanning_chain(weights))``.
    """

    seed: int = 0

    family: ClassVar[str] = "mst"
    grammar: ClassVar[str] = "mst[:seed=0]"
    summary: ClassVar[str] = "binary networks: each output from the most similar one"

    @classmethod
    def parse(cls, text: str) -> Mst:
        """Parse ``mst``."""
        words = Words(text, cls.grammar)
        seed = words.whole("seed", 0)
        words.end("seed")
        return cls(seed)

    def __str__(self) -> str:
        return "mst" + (f":seed={self.seed}" if self.seed else "")

    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """The deltas."""
        linear_of(layer)
        return chained(layer, spanning_chain(Masks(self.seed).weights(layer)))

    def adds(self, layer: Layer) -> int:
        """Each output but the root's starts from its parent's."""
        return layer.gemm.t * (layer.gemm.n - 1) * layer.runs

    def extra_bits(self, layer: Layer, masks: Masks) -> int:
        """The parent of each column."""
        return layer.gemm.n * index_bits(layer.gemm.n) * layer.repeats

    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """Signs, the deltas along the chain (root in full), and the chain itself."""
        signs = np.where(rng.random((k, n)) < 0.5, -1.0, 1.0)
        chain = spanning_chain(signs)
        deltas = signs.copy()
        others = chain.order[1:]
        deltas[:, others] -= signs[:, chain.parents[others]]
        tree = {"order": chain.order.astype(float), "parents": chain.parents.astype(float)}
        return {"signs": signs, "deltas": deltas} | tree

    def dense(self, factors: Factors) -> Floats:
        """The signs."""
        return factors["signs"]

    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """x·Δ, then sums along the tree."""
        y = multiply("deltas", x, factors["deltas"])
        for column in factors["order"][1:].astype(int):
            y[:, column] += y[:, int(factors["parents"][column])]
        return y
