"""How unstructured non-zeros are stored: what the positions cost, and values stored beside them.

Matrices are stored by output: a stored row is one column of W (k, n), and positions count along k.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from accsim.base.errors import InputError, near, one_of

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]

POINTER_BITS = 32  # where each stored row begins, and where the last one ends


class Format(ABC):
    """One way to write down where the kept weights of a (k, n) mask are."""

    name: ClassVar[str]

    @abstractmethod
    def metadata_bits(self, mask: BoolArray) -> int:
        """Return the bits of all positions and pointers."""

    def stored(self, mask: BoolArray) -> int:
        """Return the values stored: the kept ones, and fillers if the format needs some."""
        return int(np.count_nonzero(mask))


class Bitmap(Format):
    """One bit an element, no pointers."""

    name = "bitmap"

    def metadata_bits(self, mask: BoolArray) -> int:
        """Return k·n."""
        return int(mask.size)


@dataclass(frozen=True)
class Csr(Format):
    """An index along k for each kept weight, and n + 1 row pointers of 32 bits."""

    index_bits: int
    name = "csr"

    def metadata_bits(self, mask: BoolArray) -> int:
        """Refuse k that the index cannot name."""
        k, n = mask.shape
        if k > 2**self.index_bits:
            raise InputError(
                f"csr{self.index_bits} needs k <= {2**self.index_bits}; got k = {k}: use csr32"
            )
        return int(np.count_nonzero(mask)) * self.index_bits + int(n + 1) * POINTER_BITS


@dataclass(frozen=True)
class RunLength(Format):
    """Before each value the number of zeros since the last one, in ``run_bits`` bits.

    A run longer than 2^run_bits − 1 takes fillers: a filler is the longest run and a stored zero,
    together 2^run_bits places. Runs restart in every stored row; zeros behind its last value are
    not written; n + 1 pointers of 32 bits say where the rows begin.
    """

    run_bits: int
    name = "rle"

    def metadata_bits(self, mask: BoolArray) -> int:
        """Return the runs of all entries, fillers included, and the pointers."""
        return self.stored(mask) * self.run_bits + int(mask.shape[1] + 1) * POINTER_BITS

    def stored(self, mask: BoolArray) -> int:
        """Return kept values and fillers."""
        k, _ = mask.shape
        at = np.flatnonzero(np.ascontiguousarray(mask.T))  # by output, then along k
        if not at.size:
            return 0
        zeros = np.diff(at, prepend=-1) - 1
        first = np.flatnonzero(np.diff(at // k, prepend=-1))  # the first entry of its row
        zeros[first] = at[first] % k
        return int(at.size + (zeros >> self.run_bits).sum())


FORMATS: dict[str, Format] = {
    "bitmap": Bitmap(),
    "csr16": Csr(16),
    "csr32": Csr(32),
    "rle4": RunLength(4),
}


def find_format(name: str) -> Format:
    """Return the format called ``name``; InputError with the known names if there is none.

    >>> find_format("csr16")
    Csr(index_bits=16)
    """
    if name not in FORMATS:
        raise InputError(
            f"format must be one of {one_of(FORMATS)}; got '{name}'{near(name, FORMATS)}"
        )
    return FORMATS[name]
