"""Activation sparsity: input channels that no token needs are left out (act, rsparse, blockffn)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from accsim.base.errors import InputError
from accsim.sparsity.dynamic.activity import (
    BLOCKFFN_CHANNEL,
    RELU_CHANNEL,
    RELU_TOKEN,
    ActivationMasks,
    Activity,
    Input,
    fit_channel,
)
from accsim.sparsity.dynamic.nouns import Dynamic, DynamicScheme, changed, matching, rebuilt
from accsim.sparsity.dynamic.roles import block, place, role, site
from accsim.sparsity.presets import TEAL, preset
from accsim.sparsity.schemes.grammar import Words, short
from accsim.spec.pattern import DENSE
from accsim.spec.workload import Layer, Linear, Workload

Rewrite = Callable[[Layer, int], Sequence[Layer]]


@dataclass(frozen=True)
class Act(DynamicScheme):
    """Rows of W whose input is zero for every token of the step are neither loaded nor multiplied.

    With several tokens the union counts: a zero within it is still multiplied (its mask is in
    ``drawn``). ``level`` is a sparsity or a preset's name.
    """

    level: float | str
    activity: Activity = field(default_factory=Activity)
    steps: int = 1

    family: ClassVar[str] = "act"
    grammar: ClassVar[str] = "act:sparsity|preset[,topk][,channel=ρ][,token=ω][,steps=N] (act:0.5)"
    summary: ClassVar[str] = "sparse activations, correlated: input channels no token needs go"

    @classmethod
    def parse(cls, text: str) -> Act:
        """Parse ``act:0.5,topk`` or ``act:teal:Llama-3-8B@0.5``."""
        words = Words(text, cls.grammar)
        topk, level = words.flag("topk"), words.next("sparsity or preset")
        activity = _activity(words, topk)
        steps = words.whole("steps", 1, 1)
        words.end("topk", "channel", "token", "steps")
        if level.startswith(TEAL):
            return cls(preset(level).name, activity, steps)
        return cls(words.as_sparsity(level), activity, steps)

    def __str__(self) -> str:
        level = self.level if isinstance(self.level, str) else short(self.level)
        return f"act:{level}{_said(self.activity)}" + _steps(self.steps)

    def apply(
        self, workload: Workload, seed: int, layers: Sequence[str]
    ) -> Dynamic[ActivationMasks]:
        """Shrink k of every matching Linear layer of the blocks (of all, where there are none)."""
        densities = {x.name: self._density(x) for x in _inputs(workload, layers)}
        chosen = {name: d for name, d in densities.items() if d is not None}
        masks = _masks(workload, seed, self.activity, chosen)

        def compact(layer: Layer, step: int) -> Sequence[Layer]:
            return _shrunk(layer, k=int(masks.union(layer.name, step).sum()))

        return _rewritten(str(self), self.steps, workload, masks, compact)

    def _density(self, layer: Layer) -> float | None:
        """Return the density of the layer's input; None where a preset says nothing of it."""
        if not isinstance(self.level, str):
            return 1 - self.level
        where, part = block(layer), role(layer)
        scope = f"{where[1] if where else ''}.{part}"
        rows = [row for row in preset(self.level).rows if row.scope == scope]
        return rows[0].middle if rows else None


@dataclass(frozen=True)
class RSparse(DynamicScheme):
    """Large input channels times their rows of W, the rest through a low-rank path (R-Sparse)."""

    rank: int
    sparsity: float
    activity: Activity = field(default_factory=Activity)
    steps: int = 1

    family: ClassVar[str] = "rsparse"
    grammar: ClassVar[str] = (
        "rsparse:rank@sparsity[,topk][,channel=ρ][,token=ω][,steps=N] (rsparse:128@0.5)"
    )
    summary: ClassVar[str] = "large input channels as they are, the rest through a low-rank path"

    @classmethod
    def parse(cls, text: str) -> RSparse:
        """Parse ``rsparse:128@0.5``."""
        words = Words(text, cls.grammar)
        topk, (rank, sparsity) = words.flag("topk"), words.next_pair("rank@sparsity")
        activity = _activity(words, topk)
        steps = words.whole("steps", 1, 1)
        words.end("topk", "channel", "token", "steps")
        return cls(words.as_whole(rank, "rank"), words.as_sparsity(sparsity), activity, steps)

    def __str__(self) -> str:
        pair = f"{self.rank}@{short(self.sparsity)}"
        return f"rsparse:{pair}{_said(self.activity)}" + _steps(self.steps)

    def apply(
        self, workload: Workload, seed: int, layers: Sequence[str]
    ) -> Dynamic[ActivationMasks]:
        """Split every matching Linear layer in ``.large``, ``.rest.b`` and ``.rest.a``."""
        densities = {x.name: 1 - self.sparsity for x in _inputs(workload, layers)}
        masks = _masks(workload, seed, self.activity, densities)

        def split(layer: Layer, step: int) -> Sequence[Layer]:
            large = int(masks.union(layer.name, step).sum())
            k, n = layer.gemm.k, layer.gemm.n
            first = _renamed(_shrunk(layer, k=large), "large")
            if large == k:
                return first
            down = _shrunk(_bare(layer, "rest.b"), k=k - large, n=self.rank)
            return [*first, *down, *_shrunk(_bare(layer, "rest.a"), k=self.rank, n=n)]

        return _rewritten(str(self), self.steps, workload, masks, split)


@dataclass(frozen=True)
class BlockFFN(DynamicScheme):
    """A feed-forward layer cut in ``experts`` blocks of neurons; a step needs the union of them.

    The channel correlation is fitted to the density of one token and the union of ``window``.
    """

    experts: int
    density: float = 0.2
    union: float = 0.3
    window: int = 8
    steps: int = 1

    family: ClassVar[str] = "blockffn"
    grammar: ClassVar[str] = "blockffn:experts[,density=0.2,union=0.3,window=8][,steps=N]"
    summary: ClassVar[str] = "the union of the tokens' active neuron blocks (BlockFFN), fitted"

    @classmethod
    def parse(cls, text: str) -> BlockFFN:
        """Parse ``blockffn:56``."""
        words = Words(text, cls.grammar)
        experts = words.as_whole(words.next("number of experts"), "number of experts")
        density = words.number("density", 0.2, 0.0, 1.0)
        union, window = words.number("union", 0.3, 0.0, 1.0), words.whole("window", 8, 1)
        steps = words.whole("steps", 1, 1)
        words.end("density", "union", "window", "steps")
        fit_channel(density, union, window)
        return cls(experts, density, union, window, steps)

    def __str__(self) -> str:
        shares = (f"density={short(self.density)}", f"union={short(self.union)}")
        return f"blockffn:{self.experts},{','.join(shares)},window={self.window}" + _steps(
            self.steps
        )

    @property
    def activity(self) -> Activity:
        """The fitted model: hot experts only."""
        usual = (self.density, self.union, self.window) == (0.2, 0.3, 8)
        fitted = BLOCKFFN_CHANNEL if usual else fit_channel(self.density, self.union, self.window)
        return Activity(fitted, 0.0)

    def apply(
        self, workload: Workload, seed: int, layers: Sequence[str]
    ) -> Dynamic[ActivationMasks]:
        """Shrink n of gate and up, k of down, by the experts that no token of a step needs."""
        names = matching(workload, layers)
        parts = [x for x in workload if x.name in names and role(x) in ("gate", "up", "down")]
        if not parts:
            raise InputError(f"'{self}' finds no gate, up or down layer")
        inputs = {x.name: self._experts_of(x) for x in parts}
        masks = ActivationMasks(seed, self.activity, inputs)

        def compact(layer: Layer, step: int) -> Sequence[Layer]:
            active = int(masks.union(layer.name, step).sum())
            gemm = layer.gemm
            if role(layer) == "down":
                return _shrunk(layer, k=active * (gemm.k // self.experts))
            return _shrunk(layer, n=active * (gemm.n // self.experts))

        return _rewritten(str(self), self.steps, workload, masks, compact)

    def _experts_of(self, layer: Layer) -> Input:
        _plain(layer)
        hidden = layer.gemm.k if role(layer) == "down" else layer.gemm.n
        if hidden % self.experts:
            raise InputError(
                f"'{layer.name}' has {hidden} neurons; they must divide into {self.experts} experts"
            )
        return Input(
            site=f"{place(layer)}.experts", tokens=layer.gemm.t, channels=self.experts,
            density=self.density,
        )  # fmt: skip


def _inputs(workload: Workload, globs: Sequence[str]) -> list[Layer]:
    """Return the matching Linear layers with weights: of the blocks, of all where none are."""
    names = matching(workload, globs)
    found = [x for x in workload if x.name in names and isinstance(x.op, Linear)]
    found = [x for x in found if block(x)] or found
    if not found:
        raise InputError("activation sparsity finds no linear layer")
    return found


def _masks(
    workload: Workload, seed: int, activity: Activity, densities: dict[str, float]
) -> ActivationMasks:
    if not densities:
        raise InputError(f"the preset knows no layer of '{workload.name}'")
    inputs = {}
    for layer in workload:
        if layer.name in densities:
            _plain(layer)
            inputs[layer.name] = Input(
                site=site(layer), tokens=layer.gemm.t, channels=layer.gemm.k,
                density=densities[layer.name],
            )  # fmt: skip
    return ActivationMasks(seed, activity, inputs)


def _plain(layer: Layer) -> None:
    if layer.pattern != DENSE:
        raise InputError(
            f"'{layer.name}' is pruned to {layer.pattern}; leaving channels out would break its "
            "groups: use one of the two"
        )


def _rewritten(
    text: str, steps: int, workload: Workload, masks: ActivationMasks, rewrite: Rewrite
) -> Dynamic[ActivationMasks]:
    def make(step: int) -> Workload:
        parts = [rewrite(x, step) if x.name in masks.inputs else (x,) for x in workload]
        return rebuilt(workload, (x for part in parts for x in part))

    return Dynamic(text, steps, make, masks)


def _shrunk(layer: Layer, *, k: int | None = None, n: int | None = None) -> list[Layer]:
    """Return the layer with other extents, nothing if one of them is 0."""
    k = layer.gemm.k if k is None else k
    n = layer.gemm.n if n is None else n
    assert isinstance(layer.op, Linear)
    if not k or not n:
        return []
    op = layer.op.model_copy(update={"in_features": k, "out_features": n})
    return [changed(layer, op=op)]


def _bare(layer: Layer, name: str) -> Layer:
    """Return the layer under another name without bias and norms."""
    op = layer.op.model_copy(update={"bias": False})
    return changed(layer, name=f"{layer.name}.{name}", op=op, other_params=0, prunable=False)


def _renamed(layers: Sequence[Layer], name: str) -> list[Layer]:
    return [changed(layer, name=f"{layer.name}.{name}") for layer in layers]


def _activity(words: Words, topk: bool) -> Activity:
    channel = words.number("channel", RELU_CHANNEL, 0.0, 1.0)
    token = words.number("token", min(RELU_TOKEN, 1 - channel), 0.0, 1.0)
    return Activity(channel, token, topk)


def _said(activity: Activity) -> str:
    """Write the parameters that are not the default."""
    plain = Activity()
    text = ",topk" if activity.topk else ""
    if activity.channel != plain.channel:
        text += f",channel={short(activity.channel)}"
    if activity.token != plain.token:
        text += f",token={short(activity.token)}"
    return text


def _steps(steps: int) -> str:
    return f",steps={steps}" if steps > 1 else ""
