"""Block sparsity (BSR): B × B blocks of W kept whole or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.share import check_share, keep_of, read_share, share_text
from accsim.sparsity.tiles import WholeTiles

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]

MAX_BLOCK = 1024
INDEX_BITS = 32
POINTER_BITS = 32


@dataclass(frozen=True)
class Block(WholeTiles):
    """The B × B blocks of largest Frobenius norm: round((1 − s)·blocks) of the matrix, or of a row.

    W is stored as its transpose, outputs × k: a *block row* is B consecutive outputs with all
    their k, and ``:row`` gives every block row the same budget, round((1 − s)·⌈k/B⌉). Blocks at a
    ragged edge are scored by what is there and stored padded to B × B. Ties keep the lowest
    index: row-major over (block of k, block of n), within a block row the lowest k.

    Metadata: 32 bits a stored block (its block column) and ⌈n/B⌉ + 1 row pointers of 32 bits.
    """

    size: int
    sparsity: float
    per_row: bool = False

    family: ClassVar[str] = "block"
    grammar: ClassVar[str] = "bsr:B@s[:row] (bsr:32@0.75)"
    summary: ClassVar[str] = (
        "B × B blocks by Frobenius norm, a share s pruned, of all or of each block row (:row)"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_BLOCK:
            raise InputError(f"bsr:B@s needs 1 <= B <= {MAX_BLOCK}; got '{self.size}'")
        check_share(self.sparsity, "bsr:B@s")

    @classmethod
    def parse(cls, text: str) -> Block | None:
        """Recognise ``bsr:32@0.75`` and ``bsr:32@0.75:row``."""
        if re.split("[:@]", text)[0] != "bsr":
            return None
        match = re.fullmatch(r"bsr:(\d{1,9})@([^:]*)(:row)?", text)
        if match is None:
            raise InputError(f"blocks are written bsr:B@s or bsr:B@s:row; got '{text}'")
        return cls(int(match[1]), read_share(match[2], "bsr:B@s", text), match[3] is not None)

    def __str__(self) -> str:
        return f"bsr:{self.size}@{share_text(self.sparsity)}{':row' if self.per_row else ''}"

    @property
    def tile(self) -> tuple[int, int]:
        """B × B."""
        return self.size, self.size

    @property
    def power(self) -> int:
        """Frobenius norms order blocks as their squares do."""
        return 2

    def pools(self, tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One pool, or one per block row: B outputs."""
        return np.ascontiguousarray(tiles.T) if self.per_row else super().pools(tiles)

    def unpool(self, chosen: BoolArray, shape: tuple[int, ...]) -> BoolArray:
        """Undo :meth:`pools`."""
        return chosen.T if self.per_row else super().unpool(chosen, shape)

    def _pool_name(self, pool: int) -> str:
        first = pool * self.size
        return f"block row {pool} (outputs from {first}) keeps" if self.per_row else "keeps"

    def metadata_bits(self, mask: BoolArray) -> int:
        """One block column a stored block, and the row pointers."""
        rows = self.grid(*mask.shape)[1]
        return int(np.count_nonzero(self.held(mask))) * INDEX_BITS + (rows + 1) * POINTER_BITS

    def kept(self, k: int, n: int) -> int | None:
        """Return the kept weights; None where the weights decide which blocks are ragged ones."""
        if not self.per_row:
            return super().kept(k, n)
        along_k = self.grid(k, n)[0]
        keep = keep_of(along_k, self.sparsity)
        if keep in (0, along_k):
            return k * n if keep else 0
        return None if k % self.size else keep * self.size * n
