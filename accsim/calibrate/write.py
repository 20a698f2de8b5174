"""A calibration as YAML: kernels and where they hold, laid over the GPU that was calibrated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence

from accsim.calibrate.gpu import KernelFit
from accsim.spec.gpu import PARAMETERS

DIGITS = 4


def device_text(
    fits: Sequence[KernelFit], base: str, source: str, about: Mapping[str, str], title: str = ""
) -> str:
    """Return the file of a calibrated GPU.

    Args:
        fits: what was fitted.
        base: name or path of the GPU file it extends.
        source: what the numbers were fitted to: file, device, date.
        about: header of the measurements, kept as comments.
        title: one line about the device; the base's if empty.
    """
    lines = [f"# {key}: {value}" for key, value in about.items()]
    lines += [f"extends: {json.dumps(base)}"]
    lines += [f"title: {json.dumps(title, ensure_ascii=False)}"] if title else []
    return "\n".join([*lines, *blocks(fits, source)]) + "\n"


def blocks(fits: Sequence[KernelFit], source: str) -> Iterator[str]:
    """Yield the lines of the sections ``kernels`` and ``calibrated``."""
    yield "kernels:"
    for family in dict.fromkeys(found.family for found in fits):
        yield f"  {family}:"
        for found in fits:
            if found.family == family:
                yield from _kernel(found, source)
    yield "calibrated:"
    for found in fits:
        yield from _calibrated(found, source)


def _kernel(found: KernelFit, source: str) -> Iterator[str]:
    yield f"    {found.dtype}:"
    words = f"fitted to {len(found.rows)} measurements of {source}"
    yield f"      source: {json.dumps(words, ensure_ascii=False)}"
    yield "      status: fitted"
    for name in PARAMETERS:
        yield f"      {name}: {_quantity(found, name)}"
    kernel = found.kernel
    yield f"      raster: {kernel.raster}"
    yield f"      largest_tile: {kernel.largest_tile}"
    yield f"      most_splits: {kernel.most_splits}"
    if kernel.stream_k:
        yield "      stream_k: true"
    for name in ("pad_t", "pad_k", "pad_n"):
        if getattr(kernel, name) > 1:
            about = 'source: "as of the base", status: assumed'
            yield f"      {name}: {{value: {getattr(kernel, name)}, {about}}}"
    if kernel.tiles:
        yield f"      tiles: {[list(tile) for tile in kernel.tiles]}"
    if kernel.y_bytes is not None:
        yield f"      y_bytes: {_number(kernel.y_bytes)}"


def _quantity(found: KernelFit, name: str) -> str:
    """Return a value with one standard error either way, within the bounds of the search."""
    value, error = found.fit.values[name], found.fit.standard_errors[name]
    if not math.isfinite(error):
        return _number(value)
    bounds = next(p for p in found.fit.parameters if p.name == name)
    factor = math.exp(min(error / value, 700.0))
    low, high = max(value / factor, bounds.low), min(value * factor, bounds.high)
    low, high = min(low, float(_number(value))), max(high, float(_number(value)))
    return f"{{value: {_number(value)}, low: {_number(low)}, high: {_number(high)}}}"


def _number(value: float) -> str:
    return f"{float(f'{value:.{DIGITS}g}'):g}"


def _calibrated(found: KernelFit, source: str) -> Iterator[str]:
    (record,) = found.domain.record()
    errors = found.intervals.quantiles
    yield f"  - family: {found.family}"
    yield f"    dtype: {found.dtype}"
    yield f"    source: {json.dumps(source, ensure_ascii=False)}"
    yield "    status: fitted"
    yield f"    measurements: {len(found.rows)}"
    for axis in ("t", "k", "n"):
        low, high = record[axis]
        yield f"    {axis}: [{math.floor(low + 1e-6)}, {math.ceil(high - 1e-6)}]"
    low, high = record["intensity"]
    yield f"    intensity: [{low:.6g}, {high:.6g}]"
    shown = ", ".join(f"{regime}: {errors[regime]:.3g}" for regime in sorted(errors))
    yield f"    error: {{{shown}}}"
