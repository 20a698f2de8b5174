"""The energy of a step: what the card draws while each part of it runs (docs/fpga.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accsim.devices.fpga_energy import energy_by_part
from accsim.spec.counts import Counts
from accsim.spec.schedule import Evaluation

if TYPE_CHECKING:
    from accsim.training.other_work import Work
    from accsim.training.step import Step

SRAM = tuple(f"sram_{x}_{way}_bytes" for x in "xwy" for way in ("read", "write"))


def joules(step: Step) -> dict[str, dict[str, float]]:
    """Return joules by part of the step, then by part of the card.

    Buffer accesses are counted where the device's costs state them.
    """
    parts = tuple(step.by_pass)
    found = evaluation_of(step)
    by_card = energy_by_part(found, (), step.device)
    return {
        part: {name: float(values[at]) * 1e-12 for name, values in by_card.items()}
        for at, part in enumerate(parts)
    }


def evaluation_of(step: Step) -> Evaluation:
    """Return the step as the device's energy wants it: one entry a part."""
    places = {part: at for at, part in enumerate(step.by_pass)}
    names = ("macs", "dram_read_bytes", "dram_write_bytes", "selected_groups", "vector_elements",
             *SRAM)  # fmt: skip
    counts = {name: np.zeros(len(places), dtype=np.int64) for name in names}
    for cost in step.products:
        at = places[cost.product.which]
        counts["macs"][at] += cost.macs
        for name, value in cost.accesses.items():
            counts[name][at] += value
    for work in step.works:
        name = "selected_groups" if work.which == "selection" else "vector_elements"
        for at, share in _shares(step, work, places).items():
            counts[name][at] += round(share * work.elements)
        if work.hidden_elements and work.way in places:  # rode on a product
            counts["vector_elements"][places[work.which]] -= work.hidden_elements
            counts["vector_elements"][places[work.way]] += work.hidden_elements
    for part, (load, store) in step.bytes_by_pass.items():
        counts["dram_read_bytes"][places[part]] += load
        counts["dram_write_bytes"][places[part]] += store
    cycles = np.array(list(step.by_pass.values()), dtype=np.int64)
    zeros = np.zeros_like(cycles)
    return Evaluation(cycles, {}, Counts(counts), zeros, zeros, tuple(places))


def _shares(step: Step, work: Work, places: dict[str, int]) -> dict[int, float]:
    """Return the parts a work toggles in: selection and optimiser are one stream in an update."""
    stream = ("optimiser", "selection")
    cycles = [step.by_pass[part] for part in stream]
    if work.way != "update" or not sum(cycles):
        return {places[work.which]: 1.0}
    return {places[x]: c / sum(cycles) for x, c in zip(stream, cycles, strict=True)}
