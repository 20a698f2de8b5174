"""Energy of layers on an FPGA card: every resource of the design clocked, those at work toggling.

The law is that of accsim.spec.fpga_power.draw_w. A part of the design toggles in the share of the
cycles in which it works; the card's static power lasts the whole time. Equations: docs/fpga.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.devices.fpga_resources import (
    ARRAY,
    BUFFERS,
    Bill,
    block_of,
    buffer_widths,
    cornered,
    resources,
    total,
)
from accsim.spec.corner import Side
from accsim.spec.device import Parts
from accsim.spec.fpga import Fpga
from accsim.spec.fpga_power import RESOURCES, draw_w
from accsim.spec.schedule import Evaluation
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.floating[Any]]
SIDES: tuple[Side, Side] = ("low", "high")

PARTS = {
    "dsp": "DSPs",
    "lut": "LUTs and the wires behind them",
    "ff": "flip-flops",
    "bram36": "BRAM",
    "uram": "URAM",
    "clock_tree": "the global clock network",
    "channels": "memory controllers and their I/O",
    "dram": "external memory transfers",
    "static": "leakage of the device",
    "card": "the card besides the device",
    "supply": "regulators",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Done:
    """What a design did, numbers or arrays (an entry a layer, a pass, a step)."""

    cycles: Any
    macs: Any = 0  # multiplications executed
    dram_bytes: Any = 0  # both ways
    selected_groups: Any = 0  # that went through the selection engine
    vector_elements: Any = 0  # that went through the vector engine


def design_energy_pj(device: Fpga, done: Done) -> Parts:
    """Return the energy in pJ by part of :data:`PARTS`, one entry each; the parts sum."""
    bill = resources(device)
    shares = busy_shares(device, done, bill)
    used: dict[str, Any] = {name: getattr(total(bill), name) for name in RESOURCES}
    toggles = {}
    for name in RESOURCES:  # draw_w is linear, so that all copies may toggle at their mean rate
        busy = sum(getattr(one, name) * shares[part] for part, one in bill.items())
        toggles[name] = device.board.toggle_rate * busy / max(used[name], 1)
    time_ns = np.asarray(done.cycles / device.clock_ghz)
    rate = np.asarray(done.dram_bytes) / np.maximum(time_ns, 1e-30)
    used["channels"] = device.ddr.channels
    watts = draw_w(device.board, used, device.clock_ghz, toggles, rate)
    return {name: power * time_ns * 1e3 for name, power in watts.items()}  # W · ns = 1000 pJ


def busy_shares(device: Fpga, done: Done, bill: Bill) -> dict[str, Floats]:
    """Return, for each part of the bill, the share of the cycles in which it works.

    The array by its multiplications, engines by what they took in, controllers by bytes; the
    sequencer always works. Of a buffer, as many blocks as its width needs make an access in each
    cycle the array works, and bytes to and from memory are accesses spread over all blocks.
    """
    cycles, array = np.maximum(np.asarray(done.cycles, dtype=np.float64), 1), device.array
    working = done.macs / (array.rows * array.cols * array.multipliers * cycles)
    moved = done.dram_bytes / cycles
    blocks = {part: bill[part].bram36 + bill[part].uram for part in BUFFERS}
    passing = moved * 8 / sum(n * _wires(device, part) for part, n in blocks.items())
    wide = buffer_widths(device)
    return {
        **dict.fromkeys(ARRAY, working),
        **{
            part: working * np.ceil(wide[part] / _wires(device, part)) / n + passing
            for part, n in blocks.items()
        },
        "selection": done.selected_groups / (device.selection.groups_per_cycle * cycles),
        "vector": done.vector_elements / (device.vector.lanes * cycles),
        "controllers": moved / device.channels[0].bytes_per_cycle,
        "control": np.ones_like(cycles),
    }


def _wires(device: Fpga, part: str) -> float:
    return block_of(device, part).wires


def energy_by_part(found: Evaluation, layers: Sequence[Layer], device: Fpga) -> Parts:
    """Return the energy of each layer in pJ by part.

    ``found.counts`` needs ``macs`` and ``dram_…_bytes``; ``selected_groups`` and
    ``vector_elements`` where those engines worked.
    """
    counts = found.counts
    done = Done(
        cycles=found.cycles,
        macs=counts["macs"],
        dram_bytes=counts.of("dram_", "_bytes"),
        selected_groups=counts.of("selected_groups", ""),
        vector_elements=counts.of("vector_elements", ""),
    )
    return design_energy_pj(device, done)


def energy_ends(
    found: Evaluation, layers: Sequence[Layer], device: Fpga
) -> dict[str, tuple[Floats, Floats]]:
    """Return (low, high) energy by part: the board's corners, what parts take of it included."""
    low, high = (energy_by_part(found, layers, cornered(device, side)) for side in SIDES)
    return {part: (low[part], high[part]) for part in low}
