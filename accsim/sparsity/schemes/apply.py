"""Schemes by text, and the rewrite of a workload."""

from __future__ import annotations

from collections.abc import Sequence

from accsim.base.errors import InputError, near
from accsim.sparsity.schemes.chains import Mst
from accsim.sparsity.schemes.dictionary import Dictionary
from accsim.sparsity.schemes.lowrank import LowRank, SLTrain
from accsim.sparsity.schemes.scheme import Scheme
from accsim.sparsity.schemes.structured import Armor, Kronecker
from accsim.spec.workload import Layer, Linear, Workload

FAMILIES: dict[str, type[Scheme]] = {
    family.family: family for family in (LowRank, SLTrain, Dictionary, Armor, Kronecker, Mst)
}


def schemes() -> dict[str, tuple[str, str]]:
    """Return (grammar, summary) of every scheme by name, for ``accsim show``."""
    return {name: (family.grammar, family.summary) for name, family in FAMILIES.items()}


def parse_scheme(text: str) -> Scheme:
    """Return the scheme a text names.

    Raises:
        InputError: an unknown scheme (with the near word), or numbers that break a rule.

    >>> str(parse_scheme("lowrank:64+2:4"))
    'lowrank:64+2:4'
    """
    text = str(text).strip()
    head = text.partition(":")[0].partition("+")[0]
    if head not in FAMILIES:
        grammars = ", ".join(family.grammar for family in FAMILIES.values())
        raise InputError(f"scheme must be one of {grammars}; got '{text}'{near(head, FAMILIES)}")
    return FAMILIES[head].parse(text)


def apply_scheme(
    workload: Workload, text: str | Scheme, layers: Sequence[str] = ("*",)
) -> Workload:
    """Return the workload with every matching Linear layer replaced by what is really computed.

    The pieces are called ``layer.piece``, follow each other in the layer's place, and are not
    prunable: the scheme has decided what is kept. Set the batch before: a rebuilt W (sltrain) does
    not depend on it. Layers that hold no prunable weights stay as they are.

    Raises:
        InputError: a bad text, a glob that matches nothing, no Linear among the matches, or a
            layer that is already pruned.
    """
    scheme = parse_scheme(text) if isinstance(text, str) else text
    names = {layer.name for layer in workload.select(*_globs(layers))}
    chosen = [x for x in workload if x.name in names and _rewritable(x)]
    if not chosen:
        raise InputError(f"'{scheme}' finds no linear layer with weights to rewrite")
    replaced: dict[str, tuple[Layer, ...]] = {x.name: scheme.pieces(x) for x in chosen}
    found = tuple(piece for x in workload for piece in replaced.get(x.name, (x,)))
    last = {name: pieces[-1].name for name, pieces in replaced.items()}
    between = (x.model_copy(update={"after": last.get(x.after, x.after)})
               for x in workload.elementwise)  # fmt: skip
    # `published` totals are the dense network's
    return Workload(
        name=workload.name, title=workload.title, sources=workload.sources,
        license=workload.license, layers=found, elementwise=tuple(between),
    )  # fmt: skip


def _globs(layers: Sequence[str]) -> Sequence[str]:
    return (layers,) if isinstance(layers, str) else layers


def _rewritable(layer: Layer) -> bool:
    return isinstance(layer.op, Linear) and layer.prunable
