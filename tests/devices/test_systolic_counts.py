"""Register traffic against plain loops over tiles, folds and cycles."""

import itertools

import numpy as np
import pytest

import accsim
from accsim.devices.systolic import SystolicDevice
from accsim.sparsity.masks import Masks


def parts(extent, size):
    return [min(size, extent - first) for first in range(0, extent, size)]


def clocked_bits(dataflow, tile, mode, array, bits, sum_bits):
    """Bits clocked in one t × k × n tile: what streams, what is shifted in, what is shifted out."""
    t, k, n = tile
    blocks = -(-k // mode.lanes)
    weight = array.multipliers * (bits + mode.index_bits)
    lanes = mode.lanes * bits
    total = 0
    if dataflow == "os":
        for r, c in itertools.product(parts(t, array.rows), parts(n, array.cols)):
            for _ in range(blocks * mode.passes):
                total += r * c * (lanes + weight + sum_bits)
        return total
    along = n if dataflow == "ws" else t
    streamed = t if dataflow == "ws" else n
    passing, held = (lanes, weight) if dataflow == "ws" else (weight, lanes)
    for r, c in itertools.product(parts(blocks, array.rows), parts(along, array.cols)):
        for _ in range(mode.passes):
            total += streamed * r * c * (passing + sum_bits)
            total += streamed * (array.rows - r) * c * sum_bits  # sums pass the idle rows
        loads = mode.passes if dataflow == "ws" else 1
        for _ in range(loads):
            for cycle in range(r):  # the front goes down one row a cycle
                total += (cycle + 1) * c * held
            if array.double_buffering:  # each row copies its tile from the second register
                total += r * c * held
    return total


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize("pattern", ["dense", "2:4", "1:4"])
def test_register_bits_equal_the_loops(dataflow, pattern):
    rng = np.random.default_rng(3)
    for _ in range(60):
        rows, cols = (int(x) for x in rng.integers(1, 6, 2))
        hardware = accsim.load_hardware(
            "systolic_nm_32x32",
            {"dataflow": dataflow, "array.rows": rows, "array.cols": cols,
             "memory.sram.x.bytes": int(rng.integers(200, 4000)),
             "memory.sram.w.bytes": int(rng.integers(200, 4000)),
             "memory.sram.y.bytes": int(rng.integers(400, 4000))},
        )  # fmt: skip
        t, k, n = (int(x) for x in rng.integers(1, 40, 3))
        net = accsim.gemm(t, k, n).prune(pattern)
        device = SystolicDevice(hardware)
        plan = device._plans(list(net.layers))
        got = int(accsim.simulate(net, hardware).evaluation.counts.register_bits[0])
        tiles = device.schedule(net.layers[0], Masks()).tiles
        expected = sum(
            clocked_bits(dataflow, (int(x["t"]), int(x["k"]), int(x["n"])), plan.modes[0],
                         hardware.array, 8, 32)
            for x in tiles
        )  # fmt: skip
        if dataflow == "os":  # the sums of a finished tile shift out through all rows
            expected += t * n * rows * 32 * len({int(x) for x in tiles["k0"]})
        assert got == expected, (dataflow, t, k, n, rows, cols, len(tiles))
