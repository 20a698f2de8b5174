"""The products of a training step: every layer's forward, backward-data and weight gradient.

A product is Y[t×n] = X[t×k]·W[k×n]; the batch lies in t, of the weight gradient in k. A convolution
lowers without copies of its inputs: address generators read the map.

Backward-data of a convolution with stride s is s² products, one for each phase of input positions
(position mod s): a position of a phase is reached by the taps of that phase alone, so no product
meets an inserted zero. k is (tap, output channel), the channel fastest: an n:m group lies along
output channels at one kernel position, as BDWP prunes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from accsim.sparsity.nm import NM
from accsim.spec.workload import Conv2d, Layer, Workload
from accsim.training.methods import Method, group_of, method_of, written

PASSES = ("ff", "bp", "wu")


@dataclass(frozen=True)
class Product:
    """One GEMM of one pass, run ``count`` times.

    ``x_unique``: elements of X in memory a run, fewer than t·k where a convolution reads an input
    for several taps. ``level``: ``dense`` or n:m, what W is packed to.
    """

    layer: int  # its place in the workload
    name: str
    which: str  # ff, bp, wu
    t: int
    k: int
    n: int
    count: int
    x_unique: int
    level: str = "dense"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, all runs, as if dense."""
        return self.t * self.k * self.n * self.count


def passes(
    workload: Workload, method: str | Method, pattern: str | NM, *, batch: int | None = None
) -> list[Product]:
    """Return the products of one step in order of layers: ff, bp, wu of each.

    The first layer has no bp and stays dense, as do layers that cannot be pruned. A network that
    begins with an embedding has no such first layer: its gradient is needed. A product of two
    activations has two gradients and both are bp.

    Raises:
        InputError: an unknown method, a pattern that is not n:m.
    """
    chosen = method_of(method)
    group = group_of(pattern, chosen)
    network = workload if batch is None else workload.with_batch(batch)
    first = first_layer(network)
    found = []
    for at, layer in enumerate(network.layers):
        level = written(group if prunable(network, at) else None)
        for product in _products(at, layer):
            if product.which == "bp" and at == first:
                continue
            level_here = level if chosen.sparse(product.which) else "dense"
            found.append(Product(**{**vars(product), "level": level_here}))
    return found


def first_layer(workload: Workload) -> int | None:
    """Return the place of the layer that reads the data; None after an embedding."""
    if any(x.kind == "embedding" and not x.after for x in workload.elementwise):
        return None
    return 0


def prunable(workload: Workload, at: int) -> bool:
    """Say whether a sparse method prunes the layer at this place."""
    layer = workload.layers[at]
    return layer.prunable and layer.has_weights and at != first_layer(workload)


def _products(at: int, layer: Layer) -> list[Product]:
    t, k, n, runs = layer.gemm.t, layer.gemm.k, layer.gemm.n, layer.runs
    x, y = _maps(layer)

    def one(which: str, t: int, k: int, n: int, x: int, count: int = runs) -> Product:
        return Product(at, layer.name, which, t, k, n, count, min(x, t * k))

    forward = one("ff", t, k, n, x)
    if not layer.has_weights:
        return [forward, one("bp", t, n, k, y), one("bp", k, t, n, x)]
    gradient = one("wu", k, t, n, x)
    if isinstance(layer.op, Conv2d):
        inputs = layer.op.in_channels // layer.op.groups
        back = [
            one("bp", pixels * layer.batch, taps * n, inputs, y, runs * times)
            for (pixels, taps), times in _phases(layer.op).items()
        ]
        return [forward, *back, gradient]
    return [forward, one("bp", t, n, k, y), gradient]


def _maps(layer: Layer) -> tuple[int, int]:
    """Return the elements of X and of Y in memory, of one run."""
    gemm, op = layer.gemm, layer.op
    if not isinstance(op, Conv2d):
        return gemm.t * gemm.k, gemm.t * gemm.n
    rows, cols = (max(1, used) for used in op.touched)
    return layer.batch * rows * cols * (op.in_channels // op.groups), gemm.t * gemm.n


def _phases(op: Conv2d) -> Counter[tuple[int, int]]:
    """Return (input positions, taps that reach them) → phases of that shape.

    Along an axis an output o and a tap j reach the input o·s + j·d − p. Inputs of equal position
    mod s are reached by the same taps. Padding of the gradient is computed as zeros, as is that of
    the forward pass.
    """
    rows, cols = (_axis_phases(op, axis) for axis in (0, 1))
    return Counter((a * b, u * v) for a, u in rows for b, v in cols)


def _axis_phases(op: Conv2d, axis: int) -> list[tuple[int, int]]:
    stride, pad, step = op.stride[axis], op.padding[axis], op.dilation[axis]
    taps = Counter((tap * step - pad) % stride for tap in range(op.kernel[axis]))
    found = []
    for phase, number in taps.items():
        reached = sum(_reached(op, axis, at) for at in range(phase, op.size[axis], stride))
        if reached:
            found.append((reached, number))
    return found


def _reached(op: Conv2d, axis: int, at: int) -> bool:
    """Say whether any output reads the input position."""
    stride, outputs = op.stride[axis], op.output(axis)
    for tap in range(op.kernel[axis]):
        out, rest = divmod(at + op.padding[axis] - tap * op.dilation[axis], stride)
        if rest == 0 and 0 <= out < outputs:
            return True
    return False
