"""A network end to end: its GEMMs, and the kernels between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError
from accsim.result import Result
from accsim.spec.elementwise import Elementwise, ElementwiseCosts, Floats

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "kind": "what the kernels do",
    "kernels": "kernels of this kind in the network, fused ones too",
    "launches": "of these, launched by themselves",
    "time_s": "seconds of all of them",
    "share": "of the time of the whole network",
    "energy_j": "joules of all of them",
    "l2_bytes": "bytes they read and write",
    "dram_bytes": "of these, to and from DRAM",
}


@dataclass(frozen=True, eq=False)
class EndToEnd:
    """The time and energy of a network, GEMMs and the rest; kernels run one after the other.

    The gaps of a host that launches too late are not in it.
    """

    result: Result
    fused: bool
    kernels: tuple[Elementwise, ...]
    costs: ElementwiseCosts

    @property
    def gemm_s(self) -> float:
        """Seconds of the GEMMs: the result's own."""
        return self.result.latency_s

    @property
    def gemm_energy_j(self) -> float:
        """Joules of the GEMMs: the result's own."""
        return self.result.energy_j

    @property
    def other_s(self) -> float:
        """Seconds of what is no GEMM."""
        return float(self.costs.time_s.sum())

    @property
    def other_energy_j(self) -> float:
        """Joules of what is no GEMM."""
        return float(self.costs.energy_pj.sum()) * 1e-12

    @property
    def total_s(self) -> float:
        """Seconds of the whole network."""
        return self.gemm_s + self.other_s

    @property
    def energy_j(self) -> float:
        """Joules of the whole network."""
        return self.gemm_energy_j + self.other_energy_j

    @property
    def share_other(self) -> float:
        """Share of the time that is no GEMM."""
        return self.other_s / self.total_s

    @property
    def modes(self) -> tuple[str, ...]:
        """How layers with weights run, in order of first use: ``dense`` where nothing is gained."""
        layers = self.result.workload.layers
        pairs = zip(layers, self.result.evaluation.mode, strict=True)
        return tuple(dict.fromkeys(mode for layer, mode in pairs if layer.has_weights))

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """One row a kind of kernel, the slowest first, as plain lists (``COLUMNS``)."""
        repeats = np.array([x.repeats for x in self.kernels], dtype=np.float64)
        kinds = np.array([x.kind for x in self.kernels], dtype=np.str_)

        def by_kind(values: Floats) -> dict[str, float]:
            return {str(kind): float(values[kinds == kind].sum()) for kind in np.unique(kinds)}

        time = by_kind(self.costs.time_s)
        order = sorted(time, key=lambda kind: -time[kind])
        amounts = {
            "kernels": repeats, "launches": self.costs.launches, "time_s": self.costs.time_s,
            "share": self.costs.time_s / self.total_s, "energy_j": self.costs.energy_pj * 1e-12,
            "l2_bytes": self.costs.l2_bytes, "dram_bytes": self.costs.dram_bytes,
        }  # fmt: skip
        sums = {name: by_kind(values) for name, values in amounts.items()}
        columns: dict[str, list[Any]] = {"kind": order}
        for name, found in sums.items():
            whole = name in ("kernels", "launches")
            columns[name] = [int(found[x]) if whole else found[x] for x in order]
        return columns

    @property
    def table(self) -> pd.DataFrame:
        """One row a kind of kernel, a pandas DataFrame; columns as in ``COLUMNS``."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    @property
    def totals(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "fused": self.fused, "gemm_s": self.gemm_s, "other_s": self.other_s,
            "total_s": self.total_s, "share_other": self.share_other,
            "gemm_energy_j": self.gemm_energy_j, "other_energy_j": self.other_energy_j,
            "energy_j": self.energy_j, "modes": list(self.modes),
        }  # fmt: skip


def end_to_end(result: Result, fused: bool = False) -> EndToEnd:
    """Return a run's network end to end: its GEMMs and what its file says runs between them.

    Args:
        result: what :func:`accsim.simulate` gave, on a GPU.
        fused: kernels that can be are part of the kernel before them.

    Raises:
        InputError: a device that does not say what such kernels cost, or a network whose file
            lists none (those of ``--dynamic`` schemes have lost them).
    """
    if not isinstance(result, Result):
        raise InputError(f"end_to_end needs what simulate returns; got {type(result).__name__}")
    kernels = result.workload.elementwise
    if not kernels:
        raise InputError(
            f"end to end: '{result.workload.name}' lists no elementwise kernels between its layers"
        )
    costs = result.family.elementwise(result.hardware, kernels, fused=fused)
    if costs is None:
        raise InputError(
            f"end to end: {result.hardware.kind} '{result.hardware.name}' does not say what "
            "elementwise kernels cost"
        )
    return EndToEnd(result, fused, kernels, costs)
