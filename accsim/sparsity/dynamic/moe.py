"""Mixture of experts: the expert layers of a workload with the ragged loads of a routing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from accsim.base.errors import InputError
from accsim.sparsity.dynamic.nouns import Dynamic, DynamicScheme, changed, matching, rebuilt
from accsim.sparsity.dynamic.roles import place
from accsim.sparsity.dynamic.routing import ASSUMED_ZIPF, MIXTRAL_STICKY, Router, Routing
from accsim.sparsity.schemes.grammar import Words, short
from accsim.spec.workload import Layer, Linear, Workload

OPTIONS = ("zipf", "dirichlet", "sticky", "capacity", "pad", "zero", "copy", "const", "tau",
           "steps")  # fmt: skip


@dataclass(frozen=True)
class Moe(DynamicScheme):
    """Every expert runs the tokens routed to it; layers of one block share the routing.

    Experts with equally many tokens become one layer (``….t512``, repeats: how many); idle ones
    none, so parameters are those of the experts that ran. A constant expert costs a k × 2 product
    a token, zero and copy experts nothing.
    """

    router: Router
    pad: bool = False
    steps: int = 1

    family: ClassVar[str] = "moe"
    grammar: ClassVar[str] = (
        "moe:experts,k[-k][,zipf=a|dirichlet=a][,sticky=p][,capacity=c[,pad]]"
        "[,zero=n][,copy=n][,const=n][,tau=w][,steps=N] (moe:8,2)"
    )
    summary: ClassVar[str] = "routing with skew, stickiness, capacity; ragged tokens per expert"

    @classmethod
    def parse(cls, text: str) -> Moe:
        """Parse ``moe:8,2,capacity=1.25``."""
        words = Words(text, cls.grammar)
        pad, experts = words.flag("pad"), words.as_whole(words.next("number of experts"), "number")
        least, _, most = words.next("k").partition("-")
        low = words.as_whole(least, "k")
        router = Router(
            experts=experts,
            least=low,
            most=words.as_whole(most, "k") if most else low,
            dirichlet=_maybe(words, "dirichlet", 1e-3),
            zipf=words.number("zipf", ASSUMED_ZIPF),
            sticky=words.number("sticky", MIXTRAL_STICKY, 0.0, 1.0),
            capacity=_maybe(words, "capacity", 1e-6),
            zero=words.whole("zero", 0),
            copy=words.whole("copy", 0),
            const=words.whole("const", 0),
            tau=words.number("tau", 1.0, 1e-6),
        )
        steps = words.whole("steps", 1, 1)
        words.end(*OPTIONS)
        if pad and router.capacity is None:
            raise words.wrong("pads to a capacity it lacks")
        return cls(router, pad, steps)

    def __str__(self) -> str:
        r = self.router
        text = f"moe:{r.experts},{r.least}" + (f"-{r.most}" if r.most != r.least else "")
        plain = Router(experts=r.experts, least=r.least, most=r.most)
        for name in OPTIONS:
            value = getattr(r, name, None)
            if value is not None and value != getattr(plain, name):
                text += f",{name}={short(value)}"
        return text + (",pad" if self.pad else "") + (f",steps={self.steps}" * (self.steps > 1))

    def apply(
        self, workload: Workload, seed: int, layers: Sequence[str]
    ) -> Dynamic[Mapping[str, Routing]]:
        """Replace every layer called ``….experts.…`` that matches."""
        names = matching(workload, layers)
        experts = [x for x in workload if x.name in names and ".experts." in x.name]
        if not experts:
            raise InputError(f"'{self}' finds no layer called ….experts.…")
        firsts: dict[str, Layer] = {}
        for layer in experts:
            _linear(layer)
            firsts.setdefault(place(layer), layer)
        routings = {where: self._route(workload, layer, seed) for where, layer in firsts.items()}
        chosen = {x.name for x in experts}

        def make(step: int) -> Workload:
            found: list[Layer] = []
            for layer in workload:
                if layer.name not in chosen:
                    found.append(layer)
                    continue
                routing = routings[place(layer)]
                found += self._loaded(layer, routing, step)
                if firsts[place(layer)] is layer:
                    found += _constants(layer, routing, step)
            return rebuilt(workload, found)

        return Dynamic(str(self), self.steps, make, routings)

    def _route(self, workload: Workload, layer: Layer, seed: int) -> Routing:
        """Draw a block's routing, for as many tokens as its other layers have."""
        where = place(layer)
        others = [
            x
            for x in workload
            if place(x) == where and isinstance(x.op, Linear) and ".experts." not in x.name
        ]
        if not others:
            raise InputError(
                f"'{layer.name}' needs another linear layer in its block: it says how many tokens "
                "are routed"
            )
        tokens = _linear(others[0]).tokens
        return self.router.route(seed, where, layer.batch, tokens, self.steps)

    def _loaded(self, layer: Layer, routing: Routing, step: int) -> list[Layer]:
        """Return one layer for each number of rows that experts run."""
        sizes = Counter(int(rows) for rows in routing.rows(step, pad=self.pad) if rows)
        found = [_sized(layer, f"t{rows}", rows, sizes[rows]) for rows in sorted(sizes)]
        # what a layer holds beside its weights is held once
        return found[:1] + [changed(x, other_params=0) for x in found[1:]]


def _sized(layer: Layer, name: str, rows: int, count: int) -> Layer:
    op = _linear(layer).model_copy(update={"tokens": rows})
    return changed(layer, name=f"{layer.name}.{name}", op=op, repeats=count, batch=1)


def _constants(layer: Layer, routing: Routing, step: int) -> list[Layer]:
    """Return the two weights each constant expert computes for each of its tokens."""
    r = routing.router
    loads = routing.tokens[step, r.slots - r.const :]
    sizes = Counter(int(rows) for rows in loads if rows)
    op = Linear(in_features=layer.gemm.k, out_features=2)
    plain = changed(layer, op=op, other_params=0)
    return [_sized(plain, f"const.t{rows}", rows, sizes[rows]) for rows in sorted(sizes)]


def _linear(layer: Layer) -> Linear:
    if not isinstance(layer.op, Linear):
        raise InputError(f"'{layer.name}' is a {layer.op.kind}; experts are linear layers")
    return layer.op


def _maybe(words: Words, name: str, low: float) -> float | None:
    value = words.option(name)
    return None if value is None else words.as_number(value, name, low, float("inf"))
