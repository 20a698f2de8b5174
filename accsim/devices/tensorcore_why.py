"""What may help a layer on a GPU: the changes that ``why`` tries, bound by bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accsim.devices.tensorcore_route import route
from accsim.sparsity.masks import Masks
from accsim.spec.base import MAX_EXTENT, MAX_MACS
from accsim.spec.gpu import Gpu
from accsim.spec.pattern import DENSE, parse_pattern
from accsim.spec.why import Counterfactuals, Rule, WhatIf
from accsim.spec.workload import Layer

BATCH = 8  # by how much the batch is enlarged to see what reuse would bring
FREE = 1e6  # times wider: as good as infinite, and still a number
TWO_OF_FOUR = parse_pattern("2:4")


def _set(noun: Any, path: str, value: Any) -> Any:
    """Return a noun with the field at a dotted path replaced."""
    head, _, rest = path.partition(".")
    return noun.model_copy(update={head: _set(getattr(noun, head), rest, value) if rest else value})


def _times(path: str, factor: float) -> Callable[[Gpu], Gpu]:
    def change(gpu: Gpu) -> Gpu:
        value: Any = gpu
        for part in path.split("."):
            value = getattr(value, part)
        found: Gpu = _set(gpu, path, value * factor)
        return found

    return change


def _no_launch(gpu: Gpu) -> Gpu:
    """Return the GPU inside a graph: a call costs what one more kernel in a graph costs."""
    kernels = {
        family: {
            name: kernel.model_copy(update={"launch_us": gpu.launch.graph_us})
            for name, kernel in found.items()
        }
        for family, found in gpu.kernels.items()
    }
    return gpu.model_copy(update={"kernels": kernels})


def _larger_batch(layer: Layer, *_: Any) -> Layer | None:
    if layer.macs * BATCH > MAX_MACS or max(layer.gemm.t, layer.batch) * BATCH > MAX_EXTENT:
        return None
    fields = {name: getattr(layer, name) for name in Layer.model_fields}
    return Layer.model_validate(fields | {"batch": layer.batch * BATCH})


def _dense(layer: Layer, *_: Any) -> Layer | None:
    if layer.pattern == DENSE:
        return None
    return layer.model_copy(update={"pattern": DENSE})


def _two_of_four(layer: Layer, gpu: Gpu, _: Masks) -> Layer | None:
    if not (layer.pattern == DENSE and layer.prunable and layer.has_weights):
        return None
    pruned = layer.model_copy(update={"pattern": TWO_OF_FOUR})
    return pruned if route(pruned, gpu) == "nm" else None


WHAT_IFS = {
    "dense": WhatIf("dense", layer=_dense),
    "sparse": WhatIf("2:4 weights", layer=_two_of_four),
    "batch": WhatIf(f"a batch {BATCH} times as large", layer=_larger_batch, items=BATCH),
    "graph": WhatIf("launched inside a graph", device=_no_launch),
    "dram": WhatIf("DRAM twice as fast", device=_times("dram.gb_per_s", 2)),
    "l2_size": WhatIf("an L2 twice as large", device=_times("l2.mb", 2)),
    "l2": WhatIf("an L2 twice as fast", device=_times("l2.bytes_per_clock", 2)),
    "shared": WhatIf("shared memory twice as fast", device=_times("sm.shared_bytes_per_clock", 2)),
    "cap": WhatIf("no power cap", device=_times("board.cap_w", FREE)),
}
RULES = {
    "dram": Rule("{lost} waiting for DRAM ({moved} at {rate}, {busy} busy)", None,
                 ("l2_size", "dram", "batch", "sparse", "dense")),
    "onchip": Rule("{lost} waiting for {level}", None, ("l2", "shared", "sparse", "dense")),
    "launch": Rule("{lost} starting {calls}", "graph", ("batch", "dense")),
    "imbalance": Rule("{lost} waiting for the fullest SM", None, ("batch", "sparse", "dense")),
    "padding": Rule("compute-bound ({work} work), {lost} of it on padding of tiles", None,
                    ("batch", "sparse", "dense")),
    "fill_drain": Rule("{lost} filling and draining tiles", None,
                       ("batch", "graph", "sparse", "dense")),
    "gather": Rule("{lost} gathering and scattering operands ({pattern})", "dense", ()),
    "throttle": Rule("{lost} lost to the power cap", "cap", ("sparse", "dense")),
    "work": Rule("compute-bound ({work} work, {peak} of peak)", None,
                 ("sparse", "dense", "cap", "batch")),
}  # fmt: skip
COUNTERFACTUALS = Counterfactuals(rules=RULES, what_ifs=WHAT_IFS)
