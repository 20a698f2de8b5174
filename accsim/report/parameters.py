"""Devices and workloads as lines of text: every parameter with unit and source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accsim.base.errors import InputError
from accsim.spec.device import Device
from accsim.spec.dram import DramPart
from accsim.spec.hardware import Systolic
from accsim.spec.workload import Workload


def parameter_lines(hardware: Any) -> Iterator[str]:
    """Yield one line a parameter of any noun with sources: value with unit, range, source."""
    yield f"{hardware.name}: {hardware.title}"
    data = hardware.model_dump(mode="json", exclude={"sources", "name", "title"})
    rows = [(path, *_value(path, value, hardware)) for path, value in _leaves(data, "")]
    wide = max(len(path) for path, _, _ in rows)
    value_wide = min(max(len(value) for _, value, _ in rows), 28)
    for path, value, source in rows:
        yield f"{path:<{wide}}  {value:<{value_wide}}  {source}".rstrip()


def memory_lines(hardware: Device) -> Iterator[str]:
    """Yield the memory levels from the registers outwards: size, rate, latency, energy."""
    if not hardware.memory_levels:
        return
    head = f"{'level':<10}{'bytes':>12}{'B/cycle':>10}{'latency':>9}{'read':>12}{'write':>12}"
    yield f"{head}  buffers"
    for level in hardware.memory_levels:
        size = "–" if level.bytes is None else f"{level.bytes:,}"
        rate = "–" if level.bytes_per_cycle is None else f"{level.bytes_per_cycle:g}"
        costs = (level.read_pj_per_byte, level.write_pj_per_byte)
        read, write = ("–" if pj is None else f"{pj:.3g} pJ/B" for pj in costs)
        yield (
            f"{level.name:<10}{size:>12}{rate:>10}{level.latency_cycles:>9}{read:>12}{write:>12}  "
            f"{'double' if level.double_buffered else 'single'}"
        )


def area_lines(hardware: Device, dtype: str, checker: str) -> Iterator[str]:
    """Yield the area of every part at the hardware's node, low … high, and what a checker adds.

    Raises:
        InputError: a device that is not systolic.
    """
    from accsim.cost.area import area_table, overhead_percent
    from accsim.files.area import load_area

    if not isinstance(hardware, Systolic):
        raise InputError(
            f"area is known of kind systolic only; '{hardware.name}' is of kind {hardware.kind}"
        )
    table = load_area(hardware.energy.table)
    yield f"{hardware.name}: {dtype} PEs, area table {table.table}, checker {checker}"
    yield f"{'part':<16}{'mm²':>10}{'low':>10}{'high':>10}{'share':>9}"
    for row in area_table(hardware, table, dtype, checker):
        yield (
            f"{row['part']:<16}{row['mm2']:>10.4f}{row['low_mm2']:>10.4f}{row['high_mm2']:>10.4f}"
            f"{row['percent']:>8.1f}%"
        )
    if checker != "none":
        added = overhead_percent(checker, hardware, table, dtype)
        for what, span in (
            ("the unprotected array", added.array_percent),
            ("array and buffers", added.with_buffers_percent),
        ):
            yield f"adds {span.value:.2f} % ({span.low:.2f} … {span.high:.2f}) to {what}"


def dram_lines(part: DramPart) -> Iterator[str]:
    """Yield peak and sustained bandwidths of a DRAM part for usual accesses."""
    from accsim.spec.dram_access import sustained_gb_per_s

    yield f"peak {part.peak_gb_per_s:.4g} GB/s; sustained (closed form, docs/dram.md):"
    stream = 2**16
    rows: list[tuple[str, int, int | None, float]] = [
        ("streaming reads", stream, stream, 0.0), ("streaming copy", stream, stream, 0.5)
    ]  # fmt: skip
    rows += [(f"random runs of {run} B", run, None, 0.0) for run in (64, 256, 1024, 4096)]
    for words, run, stride, written in rows:
        rate = sustained_gb_per_s(part, run, stride, written)
        yield f"{words:<24}{rate:>9.4g} GB/s  {rate / part.peak_gb_per_s:.0%} of peak"


def _leaves(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        for i, value in enumerate(data):
            yield from _leaves(value, f"{path}.{i}")
    elif data is not None:
        yield path, data


def _value(path: str, value: Any, hardware: Any) -> tuple[str, str]:
    entry = hardware.sources.get(path)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if entry is None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value), "default of accsim" if is_number else ""
    span = ""
    if entry.low is not None or entry.high is not None:
        low = entry.value if entry.low is None else entry.low
        high = entry.value if entry.high is None else entry.high
        span = f" ({low:g} … {high:g})"
    shown = entry.value if isinstance(entry.value, int) else f"{entry.value:g}"
    return f"{shown} {entry.unit}".rstrip() + span, f"[{entry.status}] {entry.source}"


def workload_line(workload: Workload) -> str:
    """Return title, layers, MACs and parameters in one line."""
    return (
        f"{workload.title}; {len(workload.layers)} layers, "
        f"{workload.macs / 1e9:.4g} GMAC, {workload.params / 1e6:.4g} M parameters"
    )


def workload_lines(workload: Workload) -> Iterator[str]:
    """Yield title, totals, sources and one line a layer."""
    yield f"{workload.name}: {workload_line(workload)}"
    for source in workload.sources:
        yield f"source: {source}"
    for name, published in workload.published.items():
        own = getattr(workload, name)
        yield f"{name}: {own} (published {published.value:g}: {published.source})"
    wide = max(len(layer.name) for layer in workload.layers)
    for layer in workload.layers:
        gemm = layer.gemm
        shape = f"{gemm.t} x {gemm.k} x {gemm.n}"
        times = f" x{layer.runs}" if layer.runs > 1 else ""
        yield f"{layer.name:<{wide}}  {layer.op.kind:<7} {shape}{times}  {layer.dtype}"
