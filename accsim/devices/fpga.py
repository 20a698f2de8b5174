"""The FPGA family: layers → Evaluation, inference of n:m sparse networks. Equations: docs/fpga.md.

A layer runs at the fastest level of the array that its pattern fits, in the dataflow and tiles
:func:`pass_costs` finds; training steps (accsim.training) ask the same of every pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices.fpga_energy import PARTS, energy_by_part, energy_ends
from accsim.devices.fpga_ops import PassOps, make_ops
from accsim.devices.fpga_passes import CAUSES, PassCosts, pass_costs, plan_of
from accsim.devices.fpga_resources import check
from accsim.devices.fpga_schedule import spell_out
from accsim.sparsity.masks import Masks
from accsim.spec.counts import Counts
from accsim.spec.device import Family, Parts
from accsim.spec.fpga import Fpga, TensorPes
from accsim.spec.pattern import DENSE, Pattern
from accsim.spec.schedule import Evaluation, Schedule, all_causes
from accsim.spec.workload import Layer

__all__ = ["FpgaDevice", "PassCosts", "PassOps", "pass_costs"]

Ints = npt.NDArray[np.int64]
EXTRA = {"tile_t": "t", "tile_k": "k", "tile_n": "n", "ws_cycles": "ws_cycles",
         "os_cycles": "os_cycles"}  # fmt: skip

MEANINGS = {
    "mode": "level of the PEs, and the dataflow",
    "work_cycles": "multiplications of stored weights, all multipliers busy",
    "padding_cycles": "PEs beside ragged tiles, groups only partly filled",
    "fill_drain_cycles": "weights in, skew, adders waited for, results out",
    "metadata_cycles": "waiting for positions of kept weights",
    "launch_cycles": "fixed cycles of a pass",
    "tile_t": "rows of X in one tile",
    "tile_k": "reduction of one tile",
    "tile_n": "columns of W in one tile",
    "ws_cycles": "cycles of one call with weights staying, its best tiles; −1: not in the array",
    "os_cycles": "cycles of one call with sums staying, its best tiles; −1: not in the array",
    **{f"energy_{part}_j": f"energy: {words}" for part, words in PARTS.items()},
}


class FpgaDevice(Family):
    """FPGA accelerators: registered under ``accsim.devices`` as ``fpga``."""

    spec: ClassVar[type[Any]] = Fpga
    levels: ClassVar[tuple[str, ...]] = ("closed", "events")
    tables: ClassVar[Mapping[str, tuple[str, str]]] = {"board": ("boards", "name")}
    device: Fpga

    def in_network(self, layers: Sequence[Layer]) -> FpgaDevice:
        """Return the family itself, if its card holds the design.

        Raises:
            InputError: more resources than the card has.
        """
        check(self.device)
        return self

    def evaluate(self, layers: Sequence[Layer], masks: Masks) -> Evaluation:
        """Return cycles by cause, counts and modes of layers.

        Raises:
            InputError: a number format other than the device's, or a layer it cannot hold.
        """
        costs, levels = self._costs(layers)
        again = np.array([x.repeats - 1 for x in layers], np.int64) * self.device.launch_cycles
        causes = {name: costs[name] for name in CAUSES}
        causes["launch"] = causes["launch"] + again
        cycles = costs.cycles + again
        counts = {
            "macs": costs.macs,
            "dram_read_bytes": costs.load_bytes,
            "dram_write_bytes": costs.store_bytes,
        }
        kept = [masks.kept(x) * x.gemm.t * x.runs for x in layers]
        return Evaluation(
            cycles=cycles,
            causes=all_causes(causes, ["dram"], cycles),
            counts=Counts(counts),
            metadata_bits=costs.metadata_bits,
            effective_macs=np.array(kept, dtype=np.int64),
            mode=tuple(f"{level} {flow}" for level, flow in zip(levels, costs.flow, strict=True)),
            extra={name: costs[row].astype(np.float64) for name, row in EXTRA.items()},
        )

    def schedule(self, layer: Layer, masks: Masks) -> Schedule:
        """Return the tiles of one layer, spelled out, as the closed form chose them."""
        costs, levels = self._costs([layer])
        ops = make_ops(passes_of([layer], levels), self.device)
        return spell_out(ops, plan_of(costs), self.device)

    def follows_mask(self, layer: Layer, mode: str) -> bool:
        """Say whether equal layers may differ by their masks: never, n:m is fixed."""
        return False

    def _costs(self, layers: Sequence[Layer]) -> tuple[PassCosts, list[str]]:
        """Return each layer's costs at its fastest level, and that level."""
        wrong = next((x for x in layers if x.dtype != self.device.format), None)
        if wrong is not None:
            raise InputError(
                f"layer '{wrong.name}': '{self.device.name}' computes in {self.device.format}; "
                f"got dtype {wrong.dtype}"
            )
        choices = [levels_of(layer.pattern, self.device.array) for layer in layers]
        owner = np.array([i for i, each in enumerate(choices) for _ in each])
        levels = [level for each in choices for level in each]
        repeated = [layer for layer, each in zip(layers, choices, strict=True) for _ in each]
        costs = pass_costs(passes_of(repeated, levels), self.device)
        rank = np.lexsort((costs.load_bytes + costs.store_bytes, costs.cycles, owner))
        chosen = rank[np.unique(owner[rank], return_index=True)[1]]
        return PassCosts(costs.table[:, chosen]), [levels[i] for i in chosen]

    @staticmethod
    def peak_macs_per_cycle(device: Fpga, layer: Layer) -> int:
        """Return the multipliers of all PEs."""
        return device.array.rows * device.array.cols * device.array.multipliers

    @staticmethod
    def energy_pj(found: Evaluation, layers: Sequence[Layer], device: Any) -> Parts:
        """Return the card's energy by part."""
        return energy_by_part(found, layers, device)

    @staticmethod
    def energy_range_pj(
        found: Evaluation, layers: Sequence[Layer], device: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Return (low, high) of each part: the board's numbers at their low, at their high."""
        return energy_ends(found, layers, device)

    @staticmethod
    def energy_words(device: Any) -> str:
        """Return which board the energies are of."""
        return f"board {device.board.name}"

    @staticmethod
    def meanings(device: Any) -> Mapping[str, str]:
        """Return what the family's columns mean."""
        return MEANINGS


@lru_cache(maxsize=4096)
def levels_of(pattern: Pattern, array: TensorPes) -> tuple[str, ...]:
    """Return the levels that can run a pattern: dense, and n:m that no block of m exceeds."""
    found = ["dense"]
    for level in array.levels:
        if level != "dense" and pattern != DENSE:
            n, m = (int(word) for word in level.split(":"))
            bound = pattern.block_bound(m)
            if bound is not None and bound <= n:
                found.append(level)
    return tuple(found)


def passes_of(layers: Sequence[Layer], levels: Sequence[str]) -> PassOps:
    """Return layers' products at these levels, all their runs."""
    rows = [(x.gemm.t, x.gemm.k, x.gemm.n, x.runs, x.input_elements) for x in layers]
    t, k, n, count, inputs = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return PassOps(t, k, n, count, inputs, tuple(levels))
