"""Unstructured sparsity: the largest |w| of the layer are kept, wherever they are."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError
from accsim.sparsity.formats import find_format
from accsim.sparsity.share import share_text
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Layer-wise magnitude pruning: exactly round((1 − sparsity)·k·n) weights are kept.

    Metadata: a bitmap, one bit an element, or the format named before the ``@``
    (:mod:`accsim.sparsity.formats`). Ties keep the lowest index (row-major).
    """

    sparsity: float
    storage: str = "bitmap"

    family: ClassVar[str] = "unstructured"
    grammar: ClassVar[str] = "unstructured[:format]@s (unstructured@0.9)"
    summary: ClassVar[str] = "the largest |w| of the layer, a share s pruned, e.g. unstructured@0.9"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sparsity) and 0 <= self.sparsity < 1):
            raise InputError(f"unstructured@s needs 0 <= s < 1; got '{self.sparsity}'")
        find_format(self.storage)

    @classmethod
    def parse(cls, text: str) -> Unstructured | None:
        """Recognise ``unstructured@0.9``, ``unstructured:csr16@0.9``."""
        if not text.startswith("unstructured"):
            return None
        match = re.fullmatch(r"unstructured(?::(\w+))?@([0-9.eE+-]+)", text)
        try:
            return cls(float(match[2] if match else "nan"), (match and match[1]) or "bitmap")
        except ValueError:
            raise InputError(f"unstructured@s needs a number 0 <= s < 1; got '{text}'") from None

    def __str__(self) -> str:
        storage = "" if self.storage == "bitmap" else f":{self.storage}"
        return f"unstructured{storage}@{share_text(self.sparsity)}"

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the largest |w| of a (k, n) matrix; deterministic, no seed used."""
        flat = np.abs(weights).ravel()
        keep = self.kept(*weights.shape)
        chosen = np.zeros(flat.size, dtype=np.bool_)
        if keep:
            threshold = np.partition(flat, flat.size - keep)[flat.size - keep]
            np.greater(flat, threshold, out=chosen)
            ties = np.flatnonzero(flat == threshold)
            chosen[ties[: keep - int(chosen.sum())]] = True
        return chosen.reshape(weights.shape)

    def check(self, mask: BoolArray) -> list[str]:
        """Any place is legal; only the number kept is limited."""
        kept, most = int(np.count_nonzero(mask)), self.kept(*mask.shape)
        return [f"keeps {kept} > {most}"] if kept > most else []

    def metadata_bits(self, mask: BoolArray) -> int:
        """Return what the format needs; a bitmap: one bit an element."""
        return find_format(self.storage).metadata_bits(mask)

    def stored(self, mask: BoolArray) -> int:
        """Return the kept weights, and the fillers of run-length storage."""
        return find_format(self.storage).stored(mask)

    def kept(self, k: int, n: int) -> int:
        """Return round((1 − sparsity)·k·n)."""
        return round((1 - self.sparsity) * k * n)

    def block_bound(self, rows: int) -> int | None:
        """Only the mask can tell (except that sparsity 0 is dense)."""
        return rows if self.sparsity == 0 else None
