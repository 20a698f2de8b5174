"""Dictionary times column-sparse codes (CoSpaDi, DSFormer), and the pattern of the codes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
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
    sparse_factor,
)
from accsim.spec.pattern import Pattern
from accsim.spec.workload import Layer

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ColumnSparse(Pattern):
    """Of each column the s largest |w| are kept; ties to the lowest index.

    Metadata: ⌈log2 k⌉ bits a kept weight.
    """

    count: int

    family: ClassVar[str] = "columns"
    grammar: ClassVar[str] = "columns:s (columns:16)"
    summary: ClassVar[str] = "the s largest |w| of each column, wherever they are"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"columns:s needs s >= 1; got '{self.count}'")

    @classmethod
    def parse(cls, text: str) -> ColumnSparse | None:
        """Recognise ``columns:16``."""
        if not text.startswith("columns"):
            return None
        match = re.fullmatch(r"columns:(\d{1,9})", text)
        if match is None:
            raise InputError(f"columns:s needs a whole number; got '{text}'")
        return cls(int(match[1]))

    def __str__(self) -> str:
        return f"columns:{self.count}"

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the s largest |w| of each column; deterministic, no seed used."""
        columns = np.abs(weights).T.copy()
        k = columns.shape[1]
        if self.count >= k:
            return np.ones(weights.shape, dtype=np.bool_)
        least = np.partition(columns, k - self.count, axis=1)[:, k - self.count, None]
        keep = columns > least
        ties = columns == least  # the first of them, as many as still fit
        room = self.count - np.count_nonzero(keep, axis=1)[:, None]
        keep |= ties & (np.cumsum(ties, axis=1) <= room)
        return np.ascontiguousarray(keep.T)

    def check(self, mask: BoolArray) -> list[str]:
        """No column may hold more than s."""
        counts = np.count_nonzero(mask, axis=0)
        bad = np.flatnonzero(counts > self.count)[:20]
        return [f"column {c} keeps {counts[c]} > {self.count}" for c in bad]

    def metadata_bits(self, mask: BoolArray) -> int:
        """An index into the column for each slot."""
        k, n = mask.shape
        return self.kept(k, n) * index_bits(k)

    def kept(self, k: int, n: int) -> int:
        """Every column keeps as many as it may."""
        return min(self.count, k) * n

    def block_bound(self, rows: int) -> int | None:
        """All s may lie in one block."""
        return self.count if self.count < rows else None


@dataclass(frozen=True)
class Dictionary(Scheme):
    """Y = (X·D)·S: D (k × atoms) dense, S (atoms × n) with ``count`` non-zeros a column."""

    atoms: int
    count: int

    family: ClassVar[str] = "dict"
    grammar: ClassVar[str] = "dict:atoms,s (dict:1024,16)"
    summary: ClassVar[str] = "a dense dictionary times s codes a column (CoSpaDi, DSFormer)"

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.atoms:
            raise InputError(f"dict:atoms,s needs 1 <= s <= atoms; got '{self}'")

    @classmethod
    def parse(cls, text: str) -> Dictionary:
        """Parse ``dict:1024,16``."""
        words = Words(text, cls.grammar)
        atoms, count = words.next("atoms"), words.next("non-zeros a column")
        words.end()
        return cls(words.as_whole(atoms, "number of atoms"), words.as_whole(count, "s"))

    def __str__(self) -> str:
        return f"dict:{self.atoms},{self.count}"

    def pieces(self, layer: Layer) -> tuple[Layer, ...]:
        """D, then S."""
        op = linear_of(layer)
        atoms = piece(layer, "dict", op.in_features, self.atoms)
        codes = ColumnSparse(self.count)
        return finish(
            layer, [atoms, piece(layer, "codes", self.atoms, op.out_features, pattern=codes)]
        )

    def factors(self, k: int, n: int, rng: np.random.Generator) -> Factors:
        """D and S."""
        codes = sparse_factor(ColumnSparse(self.count), self.atoms, n, rng)
        return {"d": rng.standard_normal((k, self.atoms)), "s": codes}

    def dense(self, factors: Factors) -> Floats:
        """D·S."""
        return factors["d"] @ factors["s"]

    def product(self, x: Floats, factors: Factors, multiply: Multiply) -> Floats:
        """(x·D)·S."""
        return multiply("codes", multiply("dict", x, factors["d"]), factors["s"])
