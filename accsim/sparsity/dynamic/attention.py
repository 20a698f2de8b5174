"""Sparse attention: the two products of activations, cut into the blocks a mask keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from accsim.base.errors import InputError
from accsim.sparsity.dynamic import masks
from accsim.sparsity.dynamic.masks import BlockMask
from accsim.sparsity.dynamic.nouns import Dynamic, DynamicScheme, changed, matching, rebuilt
from accsim.sparsity.dynamic.roles import place, role
from accsim.sparsity.schemes.grammar import Words, short
from accsim.spec.workload import Layer, Matmul, Workload

BLOCK = 64


@dataclass(frozen=True)
class Heads:
    """The attention of one transformer block: its name, heads and extents."""

    where: str
    heads: int
    tq: int
    tk: int


class Attention(DynamicScheme):
    """Cut qk and av of every block by one mask: a product for each (queries, keys) of block rows.

    ``drawn`` holds the mask of each block (of the last step, where they differ).
    """

    @abstractmethod
    def mask(self, heads: Heads, seed: int) -> BlockMask:
        """Return the mask of one block."""

    @property
    def steps(self) -> int:
        """How often the network runs: once unless a family says otherwise."""
        return 1

    def full(self, step: int) -> bool:
        """Say whether a step computes full attention: none unless a family says so."""
        return False

    def apply(
        self, workload: Workload, seed: int, layers: Sequence[str]
    ) -> Dynamic[Mapping[str, BlockMask]]:
        """Rewrite the matching layers named ``….qk`` and ``….av``; all items of a batch alike."""
        names = matching(workload, layers)
        chosen = {x.name: _heads(x) for x in workload if x.name in names and role(x) in AXES}
        if not chosen:
            raise InputError(f"'{self}' finds no attention product (….qk, ….av)")
        drawn: dict[str, BlockMask] = {}
        for heads in dict.fromkeys(chosen.values()):
            if heads.where in drawn:
                raise InputError(f"qk and av of '{heads.where}' differ in heads or extents")
            drawn[heads.where] = self.mask(heads, seed)

        def make(step: int) -> Workload:
            if self.full(step):
                return rebuilt(workload, workload.layers)
            parts = [_cut(x, drawn[place(x)]) if x.name in chosen else [x] for x in workload]
            return rebuilt(workload, (x for part in parts for x in part))

        return Dynamic(str(self), self.steps, make, drawn)


# role → the extent of the product that runs over keys
AXES = {"qk": "n", "av": "k"}


def _heads(layer: Layer) -> Heads:
    op = layer.op
    if not isinstance(op, Matmul):
        raise InputError(f"'{layer.name}' is a {op.kind}; attention products are matmuls")
    return Heads(place(layer), layer.repeats, op.t, getattr(op, AXES[role(layer) or ""]))


def _cut(layer: Layer, mask: BlockMask) -> list[Layer]:
    """Return a product for each (queries, keys) that block rows have, as often as they do."""
    groups = mask.groups()
    return [_product(layer, q, keys, count) for (q, keys), count in groups.items()]


def _product(layer: Layer, queries: int, keys: int, count: int) -> Layer:
    op = layer.op.model_copy(update={"t": queries, AXES[role(layer) or ""]: keys})
    return changed(layer, name=f"{layer.name}.q{queries}k{keys}", op=op, repeats=count)


@dataclass(frozen=True)
class Causal(Attention):
    """Each query attends to the keys up to its own position."""

    block: int = BLOCK

    family: ClassVar[str] = "causal"
    grammar: ClassVar[str] = "causal[:block=64]"
    summary: ClassVar[str] = "causal attention, block by block"

    @classmethod
    def parse(cls, text: str) -> Causal:
        """Parse ``causal:block=128``."""
        words = Words(text, cls.grammar)
        block = words.whole("block", BLOCK, 1)
        words.end("block")
        return cls(block)

    def __str__(self) -> str:
        return f"causal:block={self.block}"

    def mask(self, heads: Heads, seed: int) -> BlockMask:
        """Every block at or before a query of its row."""
        return masks.window(heads.heads, heads.tq, heads.tk, self.block)


@dataclass(frozen=True)
class Window(Attention):
    """Each query attends to the last ``width`` positions; ``both``: as many ahead, too."""

    width: int
    block: int = BLOCK
    both: bool = False

    family: ClassVar[str] = "window"
    grammar: ClassVar[str] = "window:width[,block=64][,both] (window:512)"
    summary: ClassVar[str] = "sliding window: the last width positions, or to both sides"

    @classmethod
    def parse(cls, text: str) -> Window:
        """Parse ``window:512,both``."""
        words = Words(text, cls.grammar)
        both = words.flag("both")
        width, block = words.as_whole(words.next("width"), "width"), words.whole("block", BLOCK, 1)
        words.end("block", "both")
        return cls(width, block, both)

    def __str__(self) -> str:
        return f"window:{self.width},block={self.block}" + (",both" if self.both else "")

    def mask(self, heads: Heads, seed: int) -> BlockMask:
        """The blocks the window touches."""
        return masks.window(
            heads.heads, heads.tq, heads.tk, self.block, self.width, causal=not self.both
        )


@dataclass(frozen=True)
class BigBird(Attention):
    """A band, global rows and columns, and random blocks of each head (BigBird)."""

    window: int = 3
    globals_: int = 2
    randoms: int = 3
    block: int = BLOCK

    family: ClassVar[str] = "bigbird"
    grammar: ClassVar[str] = "bigbird[:window=3,global=2,random=3,block=64]"
    summary: ClassVar[str] = "a band of blocks, global rows and columns, random blocks"

    @classmethod
    def parse(cls, text: str) -> BigBird:
        """Parse ``bigbird:window=3,random=2``; counts are blocks."""
        words = Words(text, cls.grammar)
        found = cls(
            words.whole("window", 3, 1), words.whole("global", 2), words.whole("random", 3),
            words.whole("block", BLOCK, 1),
        )  # fmt: skip
        words.end("window", "global", "random", "block")
        if found.window % 2 == 0:
            raise words.wrong(f"needs an odd window, got '{found.window}'")
        return found

    def __str__(self) -> str:
        counts = f"window={self.window},global={self.globals_},random={self.randoms}"
        return f"bigbird:{counts},block={self.block}"

    def mask(self, heads: Heads, seed: int) -> BlockMask:
        """Random blocks of each head and transformer block have their own draws."""
        if heads.tq != heads.tk:
            raise InputError(
                f"'{heads.where}' has {heads.tq} queries and {heads.tk} keys; bigbird needs as many"
            )
        return masks.big_bird(
            heads.heads, heads.tq, self.block, window=self.window, globals_=self.globals_,
            randoms=self.randoms, seed=seed, name=heads.where,
        )  # fmt: skip


@dataclass(frozen=True)
class SparseD(Attention):
    """Full attention in the first steps, then each head's own top blocks, reused (SparseD)."""

    share: float
    steps: int = 10
    full_share: float = 0.2
    block: int = BLOCK

    family: ClassVar[str] = "sparsed"
    grammar: ClassVar[str] = "sparsed:share[,steps=10][,full=0.2][,block=64] (sparsed:0.3)"
    summary: ClassVar[str] = "diffusion steps: full attention first, then each head's top blocks"

    @classmethod
    def parse(cls, text: str) -> SparseD:
        """Parse ``sparsed:0.3,steps=64``."""
        words = Words(text, cls.grammar)
        share = words.as_number(words.next("share"), "share", 0.0, 1.0)
        steps, full = words.whole("steps", 10, 1), words.number("full", 0.2, 0.0, 1.0)
        block = words.whole("block", BLOCK, 1)
        words.end("steps", "full", "block")
        return cls(share, steps, full, block)

    def __str__(self) -> str:
        more = f"steps={self.steps},full={short(self.full_share)},block={self.block}"
        return f"sparsed:{short(self.share)},{more}"

    def full(self, step: int) -> bool:
        """The first round(full · steps) steps."""
        return step < round(self.full_share * self.steps)

    def mask(self, heads: Heads, seed: int) -> BlockMask:
        """The best blocks of each row of synthetic scores."""
        return masks.top_blocks(
            heads.heads, heads.tq, heads.tk, self.block, self.share, seed=seed, name=heads.where
        )
