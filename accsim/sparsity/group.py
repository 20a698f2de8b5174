"""Group sparsity: whole filters, channels or filter positions of a layer, by mean |w|."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accsim.base.errors import InputError, near
from accsim.sparsity.share import check_share, keep_of, read_share, share_text
from accsim.sparsity.tiles import SHOWN, largest
from accsim.spec.pattern import Pattern

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]

KINDS = ("filter", "channel", "shape")
MAX_POSITIONS = 65536


@dataclass(frozen=True)
class Group(Pattern):
    """Groups kept whole or not at all: the round((1 − s)·groups) of largest mean |w|.

    In the GEMM orientation (k, n) a ``filter`` is an output column; a ``shape`` (one position of
    every filter) is a row of k; a ``channel`` is the rows of one input channel. A convolution's k
    is ordered (kernel row, kernel column, input channel), the channel fastest: with p kernel
    positions (``group:channel:9@0.5``) channel c has rows c, c + k/p, …, and p must divide k.
    Ties keep the lowest index. All groups are of one size, so no edge is ragged. To drop whole
    layers, leave them out of the workload: one pattern sees one layer.

    Metadata: 1 bit a group.
    """

    kind: str
    sparsity: float
    positions: int = 1

    family: ClassVar[str] = "group"
    grammar: ClassVar[str] = "group:kind@s (group:filter@0.5, group:channel:9@0.5, group:shape@0.5)"
    summary: ClassVar[str] = "whole filters, channels or filter positions by mean |w|"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known, slip = ", ".join(KINDS), near(self.kind, KINDS)
            raise InputError(f"group must be one of {known}; got '{self.kind}'{slip}")
        most = MAX_POSITIONS if self.kind == "channel" else 1
        if not 1 <= self.positions <= most:
            raise InputError(
                f"group:{self.kind} needs 1 <= kernel positions <= {most}; got '{self.positions}'"
            )
        check_share(self.sparsity, f"group:{self.kind}@s")

    @classmethod
    def parse(cls, text: str) -> Group | None:
        """Recognise ``group:filter@0.5`` and ``group:channel:9@0.5``."""
        if re.split("[:@]", text)[0] != "group":
            return None
        match = re.fullmatch(r"group:(\w+)(?::(\d{1,9}))?@(.*)", text)
        if match is None:
            raise InputError(f"groups are written group:kind@s or group:channel:p@s; got '{text}'")
        share = read_share(match[3], f"group:{match[1]}@s", text)
        return cls(match[1], share, int(match[2] or 1))

    def __str__(self) -> str:
        positions = f":{self.positions}" if self.positions != 1 else ""
        return f"group:{self.kind}{positions}@{share_text(self.sparsity)}"

    @property
    def _others(self) -> tuple[int, int]:
        """The axes of (position, channel, output) a group spans."""
        return (0, 1) if self.kind == "filter" else (0, 2)

    def _split(self, k: int, n: int) -> tuple[int, int, int]:
        """Return k × n as positions, channels, outputs."""
        if k % self.positions:
            raise InputError(
                f"pattern '{self}' needs k to be a multiple of {self.positions}; got {k}"
            )
        return self.positions, k // self.positions, n

    def groups(self, k: int, n: int) -> int:
        """Return how many groups a k × n matrix has."""
        _, channels, outputs = self._split(k, n)
        return outputs if self.kind == "filter" else channels

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Keep the groups of largest mean |w|; deterministic, no seed used."""
        parts = np.abs(np.ascontiguousarray(weights)).reshape(self._split(*weights.shape))
        scores = parts.sum(axis=self._others, dtype=np.float64, keepdims=True)
        chosen = largest(scores.ravel(), keep_of(scores.size, self.sparsity))
        spread = np.broadcast_to(chosen.reshape(scores.shape), parts.shape)
        return np.ascontiguousarray(spread).reshape(weights.shape)

    def check(self, mask: BoolArray) -> list[str]:
        """Each group is all or nothing, and no more of them than the budget."""
        parts = mask.reshape(self._split(*mask.shape))
        some, all_of = parts.any(axis=self._others), parts.all(axis=self._others)
        found = [f"{self.kind} {group} is kept in part" for group in np.flatnonzero(some & ~all_of)]
        held, most = int(some.sum()), keep_of(some.size, self.sparsity)
        over = [f"keeps {held} > {most} {self.kind}s"] if held > most else []
        return [*over, *found][:SHOWN]

    def metadata_bits(self, mask: BoolArray) -> int:
        """One bit a group."""
        return self.groups(*mask.shape)

    def kept(self, k: int, n: int) -> int:
        """Whole groups of one size."""
        groups = self.groups(k, n)
        return keep_of(groups, self.sparsity) * (k * n // groups)

    def block_bound(self, rows: int) -> int | None:
        """A column may be full anywhere: only the mask can tell (sparsity 0 is dense)."""
        return rows if self.sparsity == 0 else None
