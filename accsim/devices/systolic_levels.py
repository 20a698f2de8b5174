"""What the memories between the buffers and DRAM keep of a tiled GEMM.

A memory keeps nothing of the outer loop's operand, its panel over all of k while the inner loop
passes, or all of it; of the inner loop's operand nothing or all. What fits is decided by capacity
alone; a choice that keeps less than another that fits is left out, the search takes the best of the
others. What is replaced while in use takes its room twice.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from accsim.devices.systolic_ops import Ops
from accsim.devices.systolic_tiling import Tilings
from accsim.spec.hardware import Systolic

Ints = npt.NDArray[np.int64]
NOTHING, PANEL, WHOLE = range(3)


def beyond_buffers(
    ops: Ops, found: Tilings, w_bytes: Ints, device: Systolic, *, w_panels: bool = True
) -> Tilings:
    """Return the candidates with every choice worth trying for each memory.

    Args:
        ops: the operations.
        found: their candidates.
        w_bytes: of all of W, one entry an operation.
        device: with its memories ``memory.onchip``.
        w_panels: whether panels of W may stay: then they must be of the size that ``ops`` says.
    """
    for level, memory in enumerate(device.memory.onchip):
        outer, inner = _rooms(ops.take(found.op), found, w_bytes[found.op])
        fits: npt.NDArray[np.bool_] = np.stack(
            [[a + b <= memory.bytes for b in inner] for a in outer]
        )
        if not w_panels:
            fits[PANEL] &= found.keep_x
        parts = [
            _keeping(found.take(np.flatnonzero(fits[a, b] & ~_beaten(fits, a, b))), a, b, level)
            for a in (NOTHING, PANEL, WHOLE)
            for b in (0, 1)
        ]
        columns = ([getattr(part, f.name) for part in parts] for f in fields(Tilings))
        found = Tilings(*(np.concatenate(column) for column in columns))
    return found


def _rooms(one: Ops, found: Tilings, w_bytes: Ints) -> tuple[list[Ints], list[Ints]]:
    """Return the room of nothing, a panel, all of the outer operand; of nothing or the inner."""
    once = one.runs == 1
    x = np.where(once, 1, 2) * one.x_bytes(one.t, one.k)
    w = np.where(once, 1, 2) * w_bytes
    x_panel = one.x_bytes_over(found.pixels, found.t, one.k)
    x_panel = np.where(once & (found.t == one.t), 1, 2) * x_panel
    w_panel = np.where(once & (found.n == one.n), 1, 2) * one.weight_bytes(one.k, found.n)
    none, keep = np.zeros_like(x), found.keep_x
    outer = [none, np.where(keep, x_panel, w_panel), np.where(keep, x, w)]
    return outer, [none, np.where(keep, w, x)]


def _beaten(fits: npt.NDArray[np.bool_], outer: int, inner: int) -> npt.NDArray[np.bool_]:
    """Say for which candidates another choice that fits keeps all this one does, and more."""
    beaten = np.zeros(fits.shape[2], dtype=np.bool_)
    for a, b in product(range(outer, fits.shape[0]), range(inner, fits.shape[1])):
        if (a, b) != (outer, inner):
            beaten |= fits[a, b]
    return beaten


def _keeping(found: Tilings, outer: int, inner: int, level: int) -> Tilings:
    """Return candidates with what a memory keeps written into its bit of the masks."""
    bit = 1 << level
    outer_whole, inner_whole = bit * (outer == WHOLE), bit * inner
    x, w = (outer_whole, inner_whole), (inner_whole, outer_whole)
    return replace(
        found,
        x_levels=found.x_levels | np.where(found.keep_x, *x),
        w_levels=found.w_levels | np.where(found.keep_x, *w),
        panel_levels=found.panel_levels | bit * (outer == PANEL),
    )
