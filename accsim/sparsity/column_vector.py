"""Column-vector sparsity (vectorSparse, CLASP): V consecutive outputs at one k, kept together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.share import check_share, read_share, share_text
from accsim.sparsity.tiles import WholeTiles

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]

MAX_VECTOR = 1024
INDEX_BITS = 32
POINTER_BITS = 32


@dataclass(frozen=True)
class ColumnVector(WholeTiles):
    """The vectors of largest Σ|w|: round((1 − s)·vectors) of the matrix.

    A vector is V consecutive outputs at one k (a column of the stored outputs × k matrix, hence
    the name); the last vector of a k is shorter when V does not divide n, is scored by what is
    there and is stored padded to V. Ties keep the lowest k, then the lowest output.

    Metadata: the k of each stored vector in 32 bits (chosen: plain integers, as a GPU kernel
    reads them), and ⌈n/V⌉ + 1 pointers of 32 bits into them, by V outputs.
    """

    length: int
    sparsity: float

    family: ClassVar[str] = "column_vector"
    grammar: ClassVar[str] = "cv:V@s (cv:8@0.75)"
    summary: ClassVar[str] = "vectors of V consecutive outputs at one k by Σ|w|, a share s pruned"

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_VECTOR:
            raise InputError(f"cv:V@s needs 1 <= V <= {MAX_VECTOR}; got '{self.length}'")
        check_share(self.sparsity, "cv:V@s")

    @classmethod
    def parse(cls, text: str) -> ColumnVector | None:
        """Recognise ``cv:8@0.75``."""
        if re.split("[:@]", text)[0] != "cv":
            return None
        match = re.fullmatch(r"cv:(\d{1,9})@(.*)", text)
        if match is None:
            raise InputError(f"column vectors are written cv:V@s; got '{text}'")
        return cls(int(match[1]), read_share(match[2], "cv:V@s", text))

    def __str__(self) -> str:
        return f"cv:{self.length}@{share_text(self.sparsity)}"

    @property
    def tile(self) -> tuple[int, int]:
        """One k, V outputs."""
        return 1, self.length

    @property
    def power(self) -> int:
        """Vectors are ordered by Σ|w|."""
        return 1

    @property
    def noun(self) -> str:
        """A vector."""
        return "vector"

    def metadata_bits(self, mask: BoolArray) -> int:
        """One index a stored vector, and the pointers."""
        rows = self.grid(*mask.shape)[1]
        return int(np.count_nonzero(self.held(mask))) * INDEX_BITS + (rows + 1) * POINTER_BITS
