"""The pipeline of a schedule, slot by slot, without a clock."""

from __future__ import annotations

from accsim.kernels.pipeline import pipeline_cycles
from accsim.spec.schedule import Schedule


def total_cycles(schedule: Schedule) -> int:
    """Return the cycles of a schedule: launch, first load, slots, last store, all runs."""
    tiles = schedule.tiles
    return schedule.launch_cycles + pipeline_cycles(
        tiles["compute_cycles"], tiles["load_bytes"], tiles["store_bytes"],
        bytes_per_cycle=schedule.bytes_per_cycle, latency_cycles=schedule.latency_cycles,
        double_buffered=schedule.double_buffered, runs=schedule.runs,
    )  # fmt: skip
