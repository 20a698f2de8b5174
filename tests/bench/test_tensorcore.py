"""Shapes and CTAs a second of the GPU family. Run with: pytest tests/bench --benchmark-enable"""

from time import perf_counter

import numpy as np
import pytest

import accsim
from accsim.devices.tensorcore import TensorCoreDevice
from accsim.devices.tensorcore_gemm import Gemms, costs
from accsim.devices.tensorcore_operands import operands_of
from accsim.engine import compiled, events
from accsim.sparsity.masks import Masks

SHAPES, BY_HAND = 4096, 40
GPUS = ("a100_pcie_80gb", "h100_pcie_80gb", "rtx5080")
PLAYERS = {"compiled": compiled.play, "events": events.play}


def shapes(count):
    """Tokens from 16 to 16 384, k and n in steps of 64 up to 16 384."""
    draws = np.random.default_rng(0)
    t = np.floor(2 ** draws.uniform(4, 14, count))
    return t, 64.0 * draws.integers(1, 257, count), 64.0 * draws.integers(1, 257, count)


@pytest.mark.parametrize("family", ["dense", "nm"])
@pytest.mark.parametrize("name", GPUS)
def test_closed_form_with_its_search(benchmark, name, family):
    """Target: 20 000 shapes a second on one core. The twin searches the same tiles one by one."""
    gpu = accsim.load_hardware(name)
    kernel, operands = gpu.kernel(family, "bf16"), operands_of("bf16", family, gpu)
    count = SHAPES if benchmark.enabled else BY_HAND
    t, k, n = shapes(count)
    gemms = Gemms.of(t, k, n, operands)
    found = benchmark(costs, gemms, gpu, kernel, operands, family).total_us
    assert len(found) == count

    by_hand, seconds = by_twin(gpu, kernel, operands, t[:BY_HAND], k[:BY_HAND], n[:BY_HAND])
    assert found[:BY_HAND] == pytest.approx(by_hand, rel=1e-4)
    if benchmark.stats:
        rate = count / benchmark.stats.stats.min
        benchmark.extra_info["shapes_per_s"] = round(rate)
        benchmark.extra_info["times_the_twin"] = round(rate * seconds / BY_HAND, 1)


def by_twin(gpu, kernel, operands, t, k, n):
    """Return µs of the slow twin, and the seconds it took for all of them."""
    from devices.gpu_twin import Ops, twin

    ops = Ops(operands.w_bytes, operands.index_bytes, operands.x_bytes, operands.y_bytes,
              operands.rate, operands.kept, operands.mac_pj)  # fmt: skip
    begun = perf_counter()
    found = [twin(gpu, kernel, ops, *map(int, shape)).total for shape in zip(t, k, n, strict=True)]
    return found, perf_counter() - begun


@pytest.mark.parametrize("pattern", ["dense", "2:4"])
def test_a_network_of_gemms(benchmark, pattern):
    """The face: layers in, a result out, nothing remembered between rounds."""
    gpu = accsim.load_hardware("a100_pcie_80gb")
    network = accsim.load_workload("llama-3-8b-prefill", dtype="bf16").prune(pattern)
    result = benchmark(accsim.simulate, network, gpu)
    assert result.cycles > 0
    if benchmark.stats:
        layers = len(result.columns["layer"])
        benchmark.extra_info["layers_per_s"] = round(layers / benchmark.stats.stats.min)


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("pattern", ["dense", "2:4"])
def test_event_level_of_one_gemm(benchmark, pattern, player):
    """Tiles (slices of CTAs) a second, their making not counted."""
    gpu = accsim.load_hardware("a100_pcie_80gb")
    side = 8192 if benchmark.enabled else 2048
    (layer,) = accsim.gemm(side, side, side, dtype="bf16").prune(pattern).layers
    schedule = TensorCoreDevice(gpu).schedule(layer, Masks())
    PLAYERS[player](schedule)  # compiles
    played = benchmark.pedantic(PLAYERS[player], [schedule], rounds=3)
    assert played.total_cycles > 0
    if benchmark.stats:
        benchmark.extra_info["tiles"] = len(schedule.tiles)
        rate = len(schedule.tiles) / benchmark.stats.stats.min
        benchmark.extra_info["tiles_per_s"] = round(rate)
