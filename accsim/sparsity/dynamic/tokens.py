"""Fewer tokens or fewer layers: pruning by block (FTP), exit (DyVTE), depth by step (VARiant)."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.base.rng import stream
from accsim.sparsity.dynamic.nouns import Dynamic, DynamicScheme, changed, matching, rebuilt
from accsim.sparsity.dynamic.roles import block, place, role
from accsim.sparsity.schemes.grammar import Words, short
from accsim.spec.workload import Layer, Linear, Matmul, Workload

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """Tokens (steps, items, blocks) that enter each block; 0: the block does not run."""

    blocks: tuple[str, ...]
    counts: Ints = field(repr=False)


class TokenScheme(DynamicScheme):
    """A rule for how many tokens enter each transformer block."""

    @property
    def steps(self) -> int:
        """How often the network runs: once unless a family says otherwise."""
        return 1

    @abstractmethod
    def counts(self, tokens: int, items: int, blocks: int, seed: int) -> Ints:
        """Return the tokens (steps, items, blocks) of items that start with ``tokens``."""

    def apply(self, workload: Workload, seed: int, layers: Sequence[str]) -> Dynamic[TokenCounts]:
        """Change the tokens of all matching layers of the blocks; the rest stays."""
        names = matching(workload, layers)
        inside = [x for x in workload if x.name in names and block(x)]
        first = next((x for x in inside if isinstance(x.op, Linear)), None)
        if first is None or not isinstance(first.op, Linear):
            raise InputError(f"'{self}' finds no linear layer in a numbered block")
        tokens, items = first.op.tokens, first.batch
        for layer in inside:
            _check(layer, tokens, items)
        blocks = tuple(dict.fromkeys(place(x) for x in inside))
        found = TokenCounts(blocks, self.counts(tokens, items, len(blocks), seed))
        chosen = {x.name: blocks.index(place(x)) for x in inside}

        def make(step: int) -> Workload:
            parts = [
                _retoken(x, found.counts[step, :, chosen[x.name]]) if x.name in chosen else [x]
                for x in workload
            ]
            return rebuilt(workload, (x for part in parts for x in part))

        return Dynamic(str(self), self.steps, make, found)


# role → the extents of the product that are tokens
AXES = {"qk": ("t", "n"), "av": ("t", "k")}


def _check(layer: Layer, tokens: int, items: int) -> None:
    """Refuse a layer whose tokens are not those of its network."""
    if layer.batch != items:
        raise InputError(f"'{layer.name}' has batch {layer.batch}, others have {items}")
    op = layer.op
    if isinstance(op, Linear):
        found = {op.tokens}
    elif role(layer) in AXES:
        found = {getattr(op, axis) for axis in AXES[role(layer) or ""]}
    else:
        raise InputError(f"'{layer.name}' is a {op.kind} whose tokens are not known by its name")
    if found != {tokens}:
        numbers = " × ".join(str(x) for x in sorted(found))
        raise InputError(
            f"'{layer.name}' works on {numbers} tokens, its network on {tokens}: whole sequences "
            "only (no decode, no experts)"
        )


def _retoken(layer: Layer, counts: Ints) -> list[Layer]:
    """Return the layer with the tokens each item has left."""
    if isinstance(layer.op, Linear):
        return _fewer(layer, layer.op, counts)
    sizes = Counter(int(c) for c in counts if c)
    assert isinstance(layer.op, Matmul)
    axes = AXES[role(layer) or ""]
    return [
        changed(
            layer,
            name=layer.name if len(sizes) == 1 else f"{layer.name}.t{size}",
            op=layer.op.model_copy(update=dict.fromkeys(axes, size)),
            batch=sizes[size],
        )
        for size in sorted(sizes)
    ]


def _fewer(layer: Layer, op: Linear, counts: Ints) -> list[Layer]:
    """Rows of all items together share the weights."""
    if not counts.any():
        return []
    if (counts == counts[0]).all():
        return [changed(layer, op=op.model_copy(update={"tokens": int(counts[0])}))]
    return [changed(layer, op=op.model_copy(update={"tokens": int(counts.sum())}), batch=1)]


@dataclass(frozen=True)
class Prune(TokenScheme):
    """Before each named block a share of the tokens is kept; ``fixed`` ones are never dropped.

    Kept: ⌈share · (tokens − fixed)⌉ + fixed.
    """

    stages: tuple[tuple[int, float], ...]
    fixed: int = 0

    family: ClassVar[str] = "tokens"
    grammar: ClassVar[str] = "tokens:block@share[,block@share…][,fixed=N] (tokens:3@0.7,6@0.7)"
    summary: ClassVar[str] = "tokens pruned before the named blocks (FTP, DynamicViT)"

    @classmethod
    def parse(cls, text: str) -> Prune:
        """Parse ``tokens:3@0.7,6@0.7,9@0.7,fixed=1``; blocks count from 0."""
        words = Words(text, cls.grammar)
        fixed = words.whole("fixed", 0)
        pairs = [words.next_pair("block@share")]
        for value in words.rest():
            at, _, share = value.partition("@")
            pairs.append((at, share))
        words.end("fixed")
        stages = tuple(
            (words.as_whole(at, "block", 0), words.as_number(share, "share", 0.0, 1.0))
            for at, share in pairs
        )
        if [at for at, _ in stages] != sorted({at for at, _ in stages}):
            raise words.wrong("needs its blocks in order, each once")
        return cls(stages, fixed)

    def __str__(self) -> str:
        stages = ",".join(f"{at}@{short(share)}" for at, share in self.stages)
        return f"tokens:{stages}" + (f",fixed={self.fixed}" if self.fixed else "")

    def counts(self, tokens: int, items: int, blocks: int, seed: int) -> Ints:
        """Every item alike."""
        shares = dict(self.stages)
        if max(shares) >= blocks:
            raise InputError(f"'{self}' names block {max(shares)}; there are {blocks}, from 0")
        if self.fixed > tokens:
            raise InputError(f"'{self}' keeps {self.fixed} tokens of {tokens}")
        left = list(accumulate((shares.get(b, 1.0) for b in range(blocks)), lambda a, b: a * b))
        # shares multiply before rounding: 0.7 · 0.7 of 196 is 96.04, not a share of a rounded 138
        now = [self.fixed + ceil(share * (tokens - self.fixed) - 1e-9) for share in left]
        return np.broadcast_to(np.array(now, np.int64), (1, items, blocks)).copy()


@dataclass(frozen=True)
class Exit(TokenScheme):
    """After its own exit block each item drops its ``visual`` tokens (DyVTE).

    Exit blocks are normal around ``block`` (assumed), half of the variance shared by the batch
    (assumed), rounded, from 1 to all blocks.
    """

    visual: int
    block: float
    spread: float = 2.0

    family: ClassVar[str] = "exit"
    grammar: ClassVar[str] = "exit:visual@block[,spread=2] (exit:576@18)"
    summary: ClassVar[str] = "visual tokens leave after an item's own exit block (DyVTE)"

    @classmethod
    def parse(cls, text: str) -> Exit:
        """Parse ``exit:576@18,spread=0``: the first 18 blocks see 576 visual tokens."""
        words = Words(text, cls.grammar)
        visual, at = words.next_pair("visual@block")
        spread = words.number("spread", 2.0)
        words.end("spread")
        return cls(
            words.as_whole(visual, "number of visual tokens"),
            words.as_number(at, "block", 1.0, 1e4),
            spread,
        )

    def __str__(self) -> str:
        return f"exit:{self.visual}@{short(self.block)},spread={short(self.spread)}"

    def counts(self, tokens: int, items: int, blocks: int, seed: int) -> Ints:
        """Items leave at different blocks."""
        if self.visual > tokens:
            raise InputError(f"'{self}' drops {self.visual} tokens of {tokens}")
        rng = stream(seed, "exit", items)
        shared, own = rng.standard_normal(), rng.standard_normal(items)
        drawn = self.block + self.spread * 0.5**0.5 * (shared + own)
        last = np.clip(np.rint(drawn), 1, blocks)
        stays = np.arange(blocks) < last[:, None]
        return np.where(stays, tokens, tokens - self.visual)[None].astype(np.int64)


@dataclass(frozen=True)
class Depth(TokenScheme):
    """Each step runs some of the blocks, evenly spread from the first to the last (VARiant)."""

    phases: tuple[tuple[int, int], ...]

    family: ClassVar[str] = "depth"
    grammar: ClassVar[str] = "depth:stepsxblocks[,stepsxblocks…] (depth:3x12,7x6)"
    summary: ClassVar[str] = "the number of blocks run changes by step (VARiant)"

    @classmethod
    def parse(cls, text: str) -> Depth:
        """Parse ``depth:3x12,7x6``: three steps of 12 blocks, seven of 6."""
        words = Words(text, cls.grammar)
        phases = []
        for value in [words.next("stepsxblocks"), *words.rest()]:
            steps, _, blocks = value.partition("x")
            phases.append(
                (words.as_whole(steps, "number of steps"), words.as_whole(blocks, "depth"))
            )
        words.end()
        return cls(tuple(phases))

    def __str__(self) -> str:
        return "depth:" + ",".join(f"{steps}x{blocks}" for steps, blocks in self.phases)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(steps for steps, _ in self.phases)

    def counts(self, tokens: int, items: int, blocks: int, seed: int) -> Ints:
        """All tokens or none."""
        found = np.zeros((self.steps, items, blocks), np.int64)
        depths = [depth for steps, depth in self.phases for _ in range(steps)]
        if max(depths) > blocks:
            raise InputError(f"'{self}' runs {max(depths)} blocks; there are {blocks}")
        for step, depth in enumerate(depths):
            found[step, :, np.rint(np.linspace(0, blocks - 1, depth)).astype(int)] = tokens
        return found
