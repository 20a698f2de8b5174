"""Dynamic schemes by text."""

from __future__ import annotations

from collections.abc import Sequence

from accsim.base.errors import InputError, near
from accsim.sparsity.dynamic.activations import Act, BlockFFN, RSparse
from accsim.sparsity.dynamic.attention import BigBird, Causal, SparseD, Window
from accsim.sparsity.dynamic.moe import Moe
from accsim.sparsity.dynamic.nouns import Dynamic, DynamicScheme
from accsim.sparsity.dynamic.tokens import Depth, Exit, Prune
from accsim.spec.workload import Workload

FAMILIES: dict[str, type[DynamicScheme]] = {
    family.family: family
    for family in (
        Act, RSparse, BlockFFN, Moe, Causal, Window, BigBird, SparseD, Prune, Exit, Depth,
    )
}  # fmt: skip


def dynamics() -> dict[str, tuple[str, str]]:
    """Return (grammar, summary) of every dynamic scheme by name, for ``accsim show``."""
    return {name: (family.grammar, family.summary) for name, family in FAMILIES.items()}


def parse_dynamic(text: str) -> DynamicScheme:
    """Return the dynamic scheme a text names.

    Raises:
        InputError: an unknown scheme (with the near word), or numbers that break a rule.

    >>> str(parse_dynamic("causal"))
    'causal:block=64'
    """
    text = str(text).strip()
    head = text.partition(":")[0]
    if head not in FAMILIES:
        raise InputError(
            f"dynamic scheme must be one of {', '.join(FAMILIES)}; got '{text}'"
            f"{near(head, FAMILIES)}"
        )
    return FAMILIES[head].parse(text)


def apply_dynamic(
    workload: Workload,
    text: str | DynamicScheme,
    seed: int = 0,
    layers: Sequence[str] = ("*",),
) -> Dynamic[object]:
    """Return the steps of a workload under a dynamic scheme: a sequence of Workloads.

    The same text, seed and workload give the same steps on any machine, in any order.

    Raises:
        InputError: a bad text, a glob that matches nothing, or layers the scheme cannot change.

    >>> from accsim.spec.workload import gemm
    >>> apply_dynamic(gemm(1, 1000, 8), "act:0.9,topk")[0].layers[0].gemm.k
    100
    """
    scheme = parse_dynamic(text) if isinstance(text, str) else text
    return scheme.apply(workload, seed, layers)
