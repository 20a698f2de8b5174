"""A network end to end, in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from accsim.report.text import percent, si

if TYPE_CHECKING:
    from accsim.network import EndToEnd

MOST_KINDS = 5


def end_to_end_lines(found: EndToEnd) -> Iterator[str]:
    """Yield total, GEMMs, the rest, and the slowest kinds of the rest."""
    columns, total = found.columns, found.total_s
    launched, kernels = sum(columns["launches"]), sum(columns["kernels"])
    for name, seconds, joules, remark in (
        ("end to end", total, found.energy_j, "fused" if found.fused else "not fused"),
        ("  GEMM", found.gemm_s, found.gemm_energy_j, ", ".join(found.modes)),
        ("  other", found.other_s, found.other_energy_j, f"{launched} launches of {kernels}"),
    ):
        words = (si(seconds, "s"), si(joules, "J"), percent(seconds, total))
        yield f"{name:<13}{words[0]:<11}{words[1]:<11}{words[2]:<7}{remark}"
    kinds = [x for x in zip(columns["kind"], columns["time_s"], strict=True) if x[1]]
    words_by_kind = [f"{kind} {percent(seconds, total)}" for kind, seconds in kinds[:MOST_KINDS]]
    if kinds[MOST_KINDS:]:
        rest = sum(seconds for _, seconds in kinds[MOST_KINDS:])
        words_by_kind.append(f"{len(kinds) - MOST_KINDS} more {percent(rest, total)}")
    yield f"{'':<13}{', '.join(words_by_kind)}"
