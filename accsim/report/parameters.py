"""Devices and workloads as lines of text: every parameter with unit and source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accsim.spec.hardware import Systolic
from accsim.spec.workload import Workload


def parameter_lines(hardware: Systolic) -> Iterator[str]:
    """Yield one line a parameter: path, value with unit, range, status, source."""
    yield f"{hardware.name}: {hardware.title}"
    data = hardware.model_dump(mode="json", exclude={"sources", "name", "title"})
    rows = [(path, *_value(path, value, hardware)) for path, value in _leaves(data, "")]
    wide = max(len(path) for path, _, _ in rows)
    value_wide = min(max(len(value) for _, value, _ in rows), 28)
    for path, value, source in rows:
        yield f"{path:<{wide}}  {value:<{value_wide}}  {source}".rstrip()


def _leaves(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        for i, value in enumerate(data):
            yield from _leaves(value, f"{path}.{i}")
    elif data is not None:
        yield path, data


def _value(path: str, value: Any, hardware: Systolic) -> tuple[str, str]:
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
