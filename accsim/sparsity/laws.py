"""How a global sparsity is shared among the layers of a network: uniform, ER, ERK, magnitude.

ER and ERK (Evci et al., RigL): density ∝ (Σ extents of the weight tensor) / (Π extents), with the
kernel's height and width among the extents for ERK only. A layer never exceeds density 1: what it
cannot take goes to the others in their proportion.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError, near, one_of
from accsim.sparsity.unstructured import Unstructured
from accsim.spec.pattern import Pattern
from accsim.spec.workload import Conv2d, Layer, Linear, Workload

if TYPE_CHECKING:
    import numpy.typing as npt

    Weights = Callable[[Layer], npt.NDArray[np.floating[Any]]]


def _extents(layer: Layer, kernel: bool) -> list[int]:
    """Return input channels (of one group), output channels and, if asked, the kernel's sides."""
    op = layer.op
    if isinstance(op, Conv2d):
        channels = [op.in_channels // op.groups, op.out_channels]
        return [*channels, *op.kernel] if kernel else channels
    assert isinstance(op, Linear)  # prunable layers are one of the two
    return [op.in_features, op.out_features]


def _ratio(layer: Layer, *, kernel: bool) -> float:
    extents = _extents(layer, kernel)
    return sum(extents) / math.prod(extents)


SCORES: dict[str, Callable[[Layer], float]] = {
    "uniform": lambda layer: 1.0,
    "er": lambda layer: _ratio(layer, kernel=False),
    "erk": lambda layer: _ratio(layer, kernel=True),
}
LAWS = (*SCORES, "magnitude")


def prunable_layers(workload: Workload) -> tuple[Layer, ...]:
    """Return the layers a law shares the budget among; InputError if there are none."""
    found = tuple(layer for layer in workload if layer.prunable and layer.has_weights)
    if not found:
        raise InputError(f"workload '{workload.name}' has no prunable layer")
    return found


def layer_densities(
    workload: Workload, sparsity: float, law: str = "erk", weights: Weights | None = None
) -> dict[str, float]:
    """Return the density of every prunable layer, weighted by its weights 1 − sparsity together.

    Args:
        workload: only prunable layers count, all their repeats and groups.
        sparsity: the global share pruned, 0 <= s < 1.
        law: uniform, er, erk; or magnitude: one threshold for the |w| of all layers.
        weights: for magnitude, what gives the (k, n) weights of a layer (all its runs share them).

    Raises:
        InputError: an unknown law, a bad sparsity, or magnitude without weights.

    >>> from accsim.spec.workload import gemm
    >>> layer_densities(gemm(1, 64, 64), 0.75, "uniform")
    {'gemm': 0.25}
    """
    if law not in LAWS:
        raise InputError(f"law must be one of {one_of(LAWS)}; got '{law}'{near(law, LAWS)}")
    if not 0 <= sparsity < 1:
        raise InputError(f"a law needs a sparsity 0 <= s < 1; got '{sparsity}'")
    layers = prunable_layers(workload)
    if law != "magnitude":
        return _shared(layers, sparsity, {x.name: SCORES[law](x) for x in layers})
    if weights is None:
        raise InputError("law magnitude needs the weights of each layer; got none")
    return _by_magnitude(layers, sparsity, weights)


def _size(layer: Layer) -> int:
    return layer.gemm.k * layer.gemm.n * layer.runs


def _shared(
    layers: tuple[Layer, ...], sparsity: float, scores: Mapping[str, float]
) -> dict[str, float]:
    """Scale scores to densities; who would exceed 1 is full, and the rest is shared anew."""
    full: set[str] = set()
    while True:
        open_layers = [x for x in layers if x.name not in full]
        budget = (1 - sparsity) * sum(map(_size, layers))
        budget -= sum(_size(x) for x in layers if x.name in full)
        wanted = math.fsum(scores[x.name] * _size(x) for x in open_layers)
        scale = budget / wanted if open_layers else 0.0
        over = {x.name for x in open_layers if scores[x.name] * scale > 1}
        if not over:
            return {x.name: 1.0 if x.name in full else scores[x.name] * scale for x in layers}
        full |= over


def _by_magnitude(layers: tuple[Layer, ...], sparsity: float, weights: Weights) -> dict[str, float]:
    """Search the threshold over float32 bit patterns, which are ordered like the sizes they write.

    Of weights equal to it, those of the first layers are kept.
    """
    ranked = [np.sort(np.abs(weights(x)).astype(np.float32).ravel()).view(np.int32) for x in layers]
    budget = round((1 - sparsity) * sum(map(_size, layers)))

    def above(bits: int) -> list[int]:
        return [x.size - int(np.searchsorted(x, bits, side="right")) for x in ranked]

    low, high = -1, 0x7F800000  # everything is above -1, nothing above infinity
    while high - low > 1:
        middle = (low + high) // 2
        held = sum(n * x.runs for n, x in zip(above(middle), layers, strict=True))
        low, high = (low, middle) if held <= budget else (middle, high)
    kept, ties = above(high), above(high - 1)
    left = budget - sum(n * x.runs for n, x in zip(kept, layers, strict=True))
    for at, layer in enumerate(layers):
        more = min(ties[at] - kept[at], left // layer.runs)
        kept[at] += more
        left -= more * layer.runs
    return {x.name: n / bits.size for x, n, bits in zip(layers, kept, ranked, strict=True)}


def kept_counts(workload: Workload, densities: Mapping[str, float]) -> dict[str, int]:
    """Return how many weights each matrix keeps: whole numbers, at least 1.

    First the nearest to its own density; then, one weight at a time, the layer in which one weight
    matters least takes or gives it, while the sum over all runs comes nearer to the densities'.
    """
    layers = prunable_layers(workload)
    exact = {x.name: densities[x.name] * x.gemm.k * x.gemm.n for x in layers}
    counts = {name: max(1, round(value)) for name, value in exact.items()}
    left = math.fsum((exact[x.name] - counts[x.name]) * x.runs for x in layers)
    while True:
        step = 1 if left > 0 else -1
        movable = [
            x
            for x in layers
            if abs(left - step * x.runs) < abs(left)
            and 1 <= counts[x.name] + step <= x.gemm.k * x.gemm.n
        ]
        if not movable:
            return counts
        least = min(movable, key=lambda x: _excess(counts[x.name] + step, exact[x.name]))
        counts[least.name] += step
        left -= step * least.runs


def _excess(count: int, exact: float) -> float:
    return abs(count - exact) / max(exact, 1.0)


def prune_by_law(
    workload: Workload,
    sparsity: float,
    law: str = "erk",
    pattern: Callable[[float], Pattern] = Unstructured,
    weights: Weights | None = None,
) -> Workload:
    """Return the workload with ``pattern(sparsity of the layer)`` on every prunable layer.

    A layer of density 1 stays dense. The sparsity handed on is the shortest number that keeps
    the layer's whole count of weights.

    >>> from accsim.spec.workload import gemm
    >>> str(prune_by_law(gemm(1, 64, 64), 0.75, "uniform").layers[0].pattern)
    'unstructured@0.75'
    """
    densities = layer_densities(workload, sparsity, law, weights)
    counts = kept_counts(workload, densities)
    for layer in prunable_layers(workload):
        size = layer.gemm.k * layer.gemm.n
        if counts[layer.name] < size:
            chosen = pattern(_shortest(counts[layer.name], size))
            workload = workload.prune(chosen, layers=[glob.escape(layer.name)])
    return workload


def _shortest(count: int, size: int) -> float:
    """Return the number of fewest digits that keeps ``count`` of ``size`` when rounded."""
    for digits in range(1, 17):
        short = round(1 - count / size, digits)
        if 0 <= short < 1 and round((1 - short) * size) == count:
            return short
    return 1 - count / size
