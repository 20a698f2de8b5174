"""The GPU family: routes, causes, events against the closed form, energy, networks, intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.devices.tensorcore import TensorCoreDevice, calls_of
from accsim.devices.tensorcore_route import route
from accsim.devices.tensorcore_schedule import ONCHIP
from accsim.engine.compiled import play
from accsim.sparsity.masks import Masks
from accsim.spec.device import Family
from accsim.spec.schedule import Schedule
from accsim.spec.workload import Layer, Workload

A100 = accsim.load_hardware("a100_pcie_80gb")
GB10 = accsim.load_hardware("gb10")


def layer_of(t: int, k: int, n: int, dtype: str = "fp16", pattern: str = "dense") -> Layer:
    """Return one linear layer."""
    return accsim.gemm(t, k, n, dtype=dtype).prune(pattern).layers[0]


def without_memories(schedule: Schedule) -> Schedule:
    """Return the schedule on channels that are never waited for."""
    channels = tuple(replace(x, bytes_per_cycle=np.inf) for x in schedule.machine.channels)
    return replace(schedule, machine=replace(schedule.machine, channels=channels))


@pytest.mark.parametrize(
    ("pattern", "dtype", "hardware", "expected"),
    [
        ("dense", "fp16", A100, "dense"),
        ("2:4", "fp16", A100, "nm"),
        ("1:4", "bf16", A100, "nm"),
        ("2:8", "int8", A100, "nm"),
        ("4:8", "fp16", A100, "dense"),
        ("transposable:2:4", "fp16", A100, "nm"),
        ("2:4", "fp32", A100, "simt"),
        ("2:4", "fp16", accsim.load_hardware("v100_pcie_32gb"), "dense"),
        ("2:4", "int8", accsim.load_hardware("v100_pcie_32gb"), "simt"),
    ],
)
def test_the_pattern_and_the_format_choose_the_kernel(
    pattern: str, dtype: str, hardware: object, expected: str
) -> None:
    assert route(layer_of(256, 512, 512, dtype, pattern), hardware) == expected


def test_a_format_nothing_multiplies_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'a100_pcie_80gb' does not multiply fp8; it does"):
        accsim.simulate(accsim.gemm(64, 64, 64, dtype="fp8"), A100)


def test_activation_products_run_batched_in_one_launch() -> None:
    net = accsim.load_workload("bert-base").with_dtype("fp16")
    scores = next(x for x in net.layers if x.op.kind == "matmul")
    assert scores.repeats > 1
    assert calls_of(scores) == 1
    found = accsim.simulate(Workload(name="w", layers=(scores,)), A100)
    launch = A100.kernel("dense", "fp16").launch_us
    assert found.causes["launch"] == pytest.approx(launch * 1410, abs=1)


@pytest.mark.parametrize("seed", range(4))
def test_without_memories_events_are_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    family = TensorCoreDevice(GB10)
    for _ in range(75):
        t, k, n = (int(2 ** rng.uniform(3, 11)) for _ in range(3))
        layer = layer_of(t, k, n, "fp16", str(rng.choice(["dense", "2:4"])))
        calls = family.calls([layer], Masks())
        schedule = without_memories(family.schedule(layer, Masks()))
        slow = GB10.clock_ghz / calls.clock_ghz[0]
        chip = calls.time(*ONCHIP)[0] * GB10.clock_ghz * 1e3 * slow
        launch = schedule.machine.launch_cycles
        assert play(schedule).total_cycles - launch == round(chip), (t, k, n)


def test_a_schedule_moves_the_bytes_the_closed_form_counts() -> None:
    layer = layer_of(1000, 3000, 5000, pattern="2:4")
    family = TensorCoreDevice(A100)
    calls, tiles = family.calls([layer], Masks()), family.schedule(layer, Masks()).tiles
    for channel, name in enumerate(("dram", "l2")):
        for field, action in (("load_bytes", "read"), ("store_bytes", "write")):
            expected = calls.counts[f"{name}_{action}_bytes"][0]
            assert abs(tiles[field][:, channel].sum() - expected) <= 1


@pytest.mark.parametrize("pattern", ["dense", "2:4"])
def test_events_with_memories_stay_near_the_closed_form(pattern: str) -> None:
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(40):
        t, k, n = (int(2 ** rng.uniform(6, 12)) for _ in range(3))
        net = accsim.gemm(t, k, n, dtype="fp16").prune(pattern)
        closed = accsim.simulate(net, A100).cycles
        ratios.append(accsim.simulate(net, A100, level="events").cycles / closed)
    assert min(ratios) > 0.7
    assert max(ratios) < 1.25
    assert np.median(np.abs(np.log(ratios))) < 0.1


def test_the_engine_refuses_a_grid_too_large_for_it() -> None:
    with pytest.raises(InputError, match="level events plays at most"):
        accsim.simulate(accsim.gemm(10**6, 64, 10**6, dtype="fp16"), A100, level="events")


def test_causes_and_energy_parts_add_up() -> None:
    for name in ("resnet50", "bert-base"):
        net = accsim.load_workload(name).with_dtype("fp16").with_batch(4).prune("2:4")
        found = accsim.simulate(net, A100)
        assert sum(found.causes.values()) == found.cycles
        assert found.energy_j == pytest.approx(sum(found.energy_parts_j.values()))
        low, high = found.energy_low_j, found.energy_high_j
        assert low is not None
        assert high is not None
        assert low <= found.energy_j <= high
        assert 0 < found.utilisation < 1


def test_a_capped_board_never_draws_more_than_its_cap_for_long() -> None:
    found = accsim.simulate(accsim.gemm(16384, 16384, 16384, dtype="fp16"), A100)
    assert found.evaluation.extra["clock_ghz"][0] < A100.clock_ghz
    assert found.energy_j / found.latency_s == pytest.approx(A100.board.cap_w, rel=0.03)


def test_a_higher_cap_is_never_slower() -> None:
    times = [
        accsim.simulate(
            accsim.gemm(8192, 8192, 8192, dtype="fp16"),
            accsim.load_hardware("a100_pcie_80gb", {"board.cap_w": cap}),
        ).cycles
        for cap in (200, 250, 300, 400, 1000)
    ]
    assert times == sorted(times, reverse=True)


def test_in_a_network_weights_come_from_dram() -> None:
    layer = layer_of(256, 1024, 1024)
    alone = accsim.simulate(Workload(name="one", layers=(layer,)), A100)
    others = tuple(layer.model_copy(update={"name": f"l{i}"}) for i in range(64))
    network = accsim.simulate(Workload(name="many", layers=others), A100)
    assert alone.dram_bytes == 0
    weights = 1024 * 1024 * 2
    assert network.evaluation.counts["dram_read_bytes"][0] > 0.9 * weights


def test_2_of_4_loses_where_its_raster_outgrows_l2() -> None:
    """GB10's 16-bit 2:4 kernels read W again for every column of tokens (measured: 0.51×)."""

    def speedup(dtype: str, hardware: object) -> float:
        dense = accsim.gemm(8192, 2048, 16384, dtype=dtype)
        pruned = accsim.simulate(dense.prune("2:4"), hardware)
        return accsim.simulate(dense, hardware).cycles / pruned.cycles

    assert speedup("bf16", GB10) < 0.7
    assert speedup("fp8", GB10) > 1.1
    wide = accsim.load_hardware("gb10", {"l2.mb": 96})
    assert speedup("bf16", wide) > 1.2


def test_predictions_outside_what_was_measured_are_flagged_and_wider() -> None:
    def found(t: int) -> tuple[float, float]:
        extra = accsim.simulate(accsim.gemm(t, 4096, 4096, dtype="bf16"), A100).evaluation.extra
        wide = extra["latency_high_s"][0] / extra["latency_low_s"][0]
        return float(extra["extrapolated"][0]), wide

    inside, outside = found(1024), found(2**20)
    assert (inside[0], outside[0]) == (0.0, 1.0)
    h200 = accsim.load_hardware("h200_sxm")
    unknown = accsim.simulate(accsim.gemm(1024, 4096, 4096, dtype="bf16"), h200)
    low, high = unknown.latency_range_s or (0, 0)
    assert unknown.extrapolated == ["gemm"]
    assert high / low > inside[1]


def test_why_names_the_mechanism_and_what_helps() -> None:
    net = accsim.gemm(4096, 2048, 16384, dtype="bf16").prune("2:4")
    (line,) = accsim.simulate(net, GB10).why()
    assert "waiting for DRAM" in line
    assert "an L2 twice as large" in line


def test_the_family_is_complete() -> None:
    assert Family in TensorCoreDevice.__mro__
    peak = TensorCoreDevice.peak_macs_per_cycle
    assert peak(A100, layer_of(8, 8, 8)) == 108 * 1024
    assert peak(A100, layer_of(8, 8, 8, pattern="2:4")) == 108 * 1024
    assert peak(A100, layer_of(8, 8, 8, "fp32")) == 108 * 64
