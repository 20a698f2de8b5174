"""Output-block sparsity (Fast Sparse ConvNets): M output channels share the k they keep."""

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

HEIGHTS = (1, 2, 4)
DELTA_BITS = 8  # assumed, see the docstring
POINTER_BITS = 32


@dataclass(frozen=True)
class OutputBlock(WholeTiles):
    """The M × 1 blocks of largest Σ|w|: round((1 − s)·blocks) of the matrix, M 1, 2 or 4.

    A block is M consecutive output channels at one k (Elsen et al., "Fast Sparse ConvNets", CVPR
    2020; there for 1 × 1 convolutions, with the first convolution and the last layer dense: leave
    those unpruned). The last block of a k is shorter when M does not divide n, is scored by what
    is there and is stored padded to M. Ties keep the lowest k, then the lowest output.

    Metadata: for each stored block the distance d from the k before it in the same M outputs
    (from −1 for the first), in ⌈d/255⌉ bytes: a zero byte means 255 further; and ⌈n/M⌉ + 1
    pointers of 32 bits. The byte and its escape are assumed: the paper codes deltas, we have no
    width from it.
    """

    height: int
    sparsity: float

    family: ClassVar[str] = "output_block"
    grammar: ClassVar[str] = "ob:M@s (ob:4@0.9)"
    summary: ClassVar[str] = "M × 1 blocks of output channels by Σ|w|, M 1, 2 or 4; delta indices"

    def __post_init__(self) -> None:
        if self.height not in HEIGHTS:
            raise InputError(f"ob:M@s needs M 1, 2 or 4; got '{self.height}'")
        check_share(self.sparsity, "ob:M@s")

    @classmethod
    def parse(cls, text: str) -> OutputBlock | None:
        """Recognise ``ob:4@0.9``."""
        if re.split("[:@]", text)[0] != "ob":
            return None
        match = re.fullmatch(r"ob:(\d{1,9})@(.*)", text)
        if match is None:
            raise InputError(f"output blocks are written ob:M@s; got '{text}'")
        return cls(int(match[1]), read_share(match[2], "ob:M@s", text))

    def __str__(self) -> str:
        return f"ob:{self.height}@{share_text(self.sparsity)}"

    @property
    def tile(self) -> tuple[int, int]:
        """One k, M outputs."""
        return 1, self.height

    @property
    def power(self) -> int:
        """Blocks are ordered by Σ|w|."""
        return 1

    def metadata_bits(self, mask: BoolArray) -> int:
        """The delta bytes of all stored blocks, and the pointers."""
        held = self.held(mask).T
        row, at = np.nonzero(held)
        first = np.diff(row, prepend=-1) > 0
        steps = at - np.where(first, -1, np.roll(at, 1))
        return int((-(-steps // 255)).sum()) * DELTA_BITS + (len(held) + 1) * POINTER_BITS
