"""Balanced sparsity (bank-balanced): the same number kept in every block of an output's k."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.nm import MAX_GROUP, NM
from accsim.sparsity.share import check_share, keep_of, read_share, share_text
from accsim.sparsity.tiles import largest, padded
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Balanced(Pattern):
    """The q = round((1 − s)·L) largest |w| of every L consecutive k of an output.

    The rule is that of q:L, written by sparsity and made for large L; q is at least 1. A shorter
    last block keeps min(q, its length): the count is the same in each as long as it fits. A block
    may hold fewer than q, its slots are then stored empty. Ties keep the lowest k.

    Metadata: ⌈log2 L⌉ bits for each stored slot.
    """

    length: int
    sparsity: float

    family: ClassVar[str] = "balanced"
    grammar: ClassVar[str] = "balanced:L@s (balanced:64@0.75)"
    summary: ClassVar[str] = "round((1 − s)·L) largest of every L consecutive k of an output"

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_GROUP:
            raise InputError(f"balanced:L@s needs 1 <= L <= {MAX_GROUP}; got '{self.length}'")
        check_share(self.sparsity, "balanced:L@s")
        if self.quota < 1:
            raise InputError(
                f"balanced:L@s must keep at least one of L, (1 - s)·L > 0.5; got '{self}'"
            )

    @classmethod
    def parse(cls, text: str) -> Balanced | None:
        """Recognise ``balanced:64@0.75``."""
        if re.split("[:@]", text)[0] != "balanced":
            return None
        match = re.fullmatch(r"balanced:(\d{1,9})@(.*)", text)
        if match is None:
            raise InputError(f"balanced sparsity is written balanced:L@s; got '{text}'")
        return cls(int(match[1]), read_share(match[2], "balanced:L@s", text))

    def __str__(self) -> str:
        return f"balanced:{self.length}@{share_text(self.sparsity)}"

    @property
    def quota(self) -> int:
        """q, the most a block keeps."""
        return keep_of(self.length, self.sparsity)

    @cached_property
    def rule(self) -> NM:
        """The same rule as q:L."""
        return NM(self.quota, self.length)

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the q largest |w| of each block of a (k, n) matrix; deterministic, no seed used."""
        k, n = weights.shape
        whole = np.abs(padded(weights, self.length, 1))  # the padding comes last: it loses ties
        lanes = np.ascontiguousarray(whole.reshape(-1, self.length, n).transpose(0, 2, 1))
        keep = largest(lanes, self.quota).transpose(0, 2, 1).reshape(-1, n)
        return np.ascontiguousarray(keep[:k])

    def check(self, mask: BoolArray) -> list[str]:
        """Count each block by running counts, unlike the generator."""
        return self.rule.check(mask)

    def metadata_bits(self, mask: BoolArray) -> int:
        """Bits of all stored slots, empty ones included."""
        return self.rule.metadata_bits(mask)

    def stored(self, mask: BoolArray) -> int:
        """Return the slots of all blocks, empty ones included."""
        return self.rule.stored(mask)

    def kept(self, k: int, n: int) -> int:
        """Every block keeps as many as it may."""
        return self.rule.kept(k, n)

    def block_bound(self, rows: int) -> int | None:
        """Return q per block, or what of it lies inside; None where that fills the rows."""
        bound = self.rule.block_bound(rows)
        return bound if bound < rows or self.quota == self.length else None
