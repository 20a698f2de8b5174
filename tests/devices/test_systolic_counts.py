"""Register traffic against plain loops over tiles, folds and cycles."""

import itertools

import numpy as np
import pytest
from devices.test_systolic_levels import fitting, network, random_changes, random_layer

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
        got = int(accsim.simulate(net, hardware).evaluation.counts["register_bits"][0])
        tiles = device.schedule(net.layers[0], Masks()).tiles
        expected = sum(
            clocked_bits(dataflow, (int(x["t"]), int(x["k"]), int(x["n"])), plan.modes[0],
                         hardware.array, 8, 32)
            for x in tiles
        )  # fmt: skip
        if dataflow == "os":  # the sums of a finished tile shift out through all rows
            expected += t * n * rows * 32 * len({int(x) for x in tiles["k0"]})
        assert got == expected, (dataflow, t, k, n, rows, cols, len(tiles))


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_actions_of_tiles_add_up_to_the_layers(dataflow):
    """Conservation, 3 × 120 devices: every action, uniform and adaptive, with and without levels.

    A tile's weights are whole bytes, a layer's too: they may differ by a byte a tile and pass.
    """
    rng = np.random.default_rng([5, *dataflow.encode()])
    adaptive = 0
    for case in range(120):
        changes = random_changes(rng) | {"dataflow": dataflow}
        layer = random_layer(rng, f"{case}")
        sizes = [int(rng.integers(60, 900)) for _ in "xwy"]
        masks, net = Masks(case), network(layer)
        hw, found = fitting(changes, sizes, lambda hw: accsim.simulate(net, hw, masks=masks))  # noqa: B023
        schedule = SystolicDevice(hw).schedule(layer, masks)
        counts, tiles = found.evaluation.counts, schedule.actions
        assert set(tiles) == set(counts)
        adaptive += found.evaluation.mode == ("adaptive",)
        for name, each in tiles.items():
            total, got = int(counts[name][0]), schedule.runs * int(each.sum())
            slack = 0
            if name.startswith(("sram_w_", "sram_x_write")):
                passes = -(-layer.gemm.t // min(hw.array.rows, hw.array.cols))
                slack = schedule.runs * len(schedule) * passes
            assert abs(total - got) <= slack, (name, layer, hw)
            assert each.min() >= 0
    assert adaptive > 3
