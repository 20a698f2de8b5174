"""Kernels between GEMMs on a GPU, and networks end to end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accsim
from accsim.base.errors import InputError
from accsim.devices.tensorcore_elementwise import costs
from accsim.spec.elementwise import Elementwise

GPUS = ("a100_pcie_80gb", "v100_pcie_32gb", "h100_pcie_80gb")
A100 = accsim.load_hardware("a100_pcie_80gb")
NETWORKS = ("bert-base", "resnet50", "vgg16", "llama-3-8b-prefill", "llama-3-8b-decode")


def kernel(**changes):
    fields = {"name": "x", "kind": "relu", "shape": (1000,), "dtype": "fp16"}
    return Elementwise(**(fields | changes))


kernels = st.builds(
    kernel, shape=st.tuples(st.integers(1, 10**6), st.integers(1, 64)), batch=st.integers(1, 64),
    reads=st.floats(0, 9), writes=st.floats(0.25, 2), repeats=st.integers(1, 5),
    fusable=st.booleans(), dtype=st.sampled_from(["fp16", "int8", "bf16", "fp32"]),
)  # fmt: skip


def twin_s(x, gpu, fused):
    """One kernel in plain words: bytes that miss go at DRAM's rate, all of them at L2's."""
    reads, writes = x.reads, x.writes
    gone = fused and x.fusable
    if gone:
        reads, writes = max(reads - 1, 0), max(writes - 1, 0)
    total = (reads + writes) * np.prod([float(s) for s in x.shape]) * x.batch
    total *= 4 if x.dtype == "fp32" else 2
    kept = 1e6 * gpu.l2.mb * gpu.l2.knee
    missing = 0.0 if total <= kept else total * (1 - (kept / total) ** 2.5)
    rate = 1e9 * gpu.dram.gb_per_s * gpu.kernel("dense", x.dtype).dram_share
    from_dram, from_l2 = missing / rate, total / (1e9 * gpu.l2.bytes_per_clock * gpu.clock_ghz)
    launch = 0 if gone else 1e-6 * gpu.launch.kernel_us
    return x.repeats * (launch + max(from_dram, from_l2))


@given(x=kernels, fused=st.booleans())
def test_agrees_with_a_plain_twin(x, fused):
    found = costs([x], A100, fused=fused)
    assert found.time_s[0] == pytest.approx(twin_s(x, A100, fused), rel=1e-9)


@given(x=kernels)
def test_fused_never_costs_more(x):
    fused, apart = (costs([x], A100, fused=how) for how in (True, False))
    for name in ("launches", "time_s", "energy_pj", "l2_bytes", "dram_bytes"):
        assert getattr(fused, name)[0] <= getattr(apart, name)[0]
    if not x.fusable:
        assert fused.time_s[0] == apart.time_s[0]


@given(x=kernels)
def test_larger_batches_cost_more_but_no_more_than_their_items(x):
    twice = x.model_copy(update={"batch": 2 * x.batch})
    one, two = (costs([k], A100, fused=False) for k in (x, twice))
    assert two.l2_bytes[0] == pytest.approx(2 * one.l2_bytes[0])
    assert one.time_s[0] < two.time_s[0]
    assert one.energy_pj[0] < two.energy_pj[0]
    assert one.dram_bytes[0] <= two.dram_bytes[0] <= two.l2_bytes[0]


def test_more_bandwidth_is_never_slower():
    faster = accsim.load_hardware("a100_pcie_80gb", {"dram.gb_per_s": 4000})
    for size in (10, 10**5, 10**7, 10**8):
        x = [kernel(shape=(size,), reads=2)]
        assert costs(x, faster, fused=False).time_s[0] <= costs(x, A100, fused=False).time_s[0]


def test_alike_kernels_are_repeats():
    many, one = kernel(repeats=5, shape=(10**7,)), kernel(shape=(10**7,))
    a, b = costs([many], A100, fused=False), costs([one] * 5, A100, fused=False)
    assert a.time_s.sum() == pytest.approx(b.time_s.sum())
    assert a.energy_pj.sum() == pytest.approx(b.energy_pj.sum())


# --- networks


def whole(name, pattern="dense", *, fused=False, batch=4, gpu="a100_pcie_80gb"):
    network = accsim.load_workload(name, batch=batch, dtype="fp16").prune(pattern)
    return accsim.end_to_end(accsim.simulate(network, accsim.load_hardware(gpu)), fused)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("gpu", GPUS)
def test_parts_sum(name, gpu):
    found = whole(name, gpu=gpu)
    assert found.total_s == found.gemm_s + found.other_s
    assert found.gemm_s == found.result.latency_s
    assert found.gemm_energy_j == found.result.energy_j
    assert found.share_other == pytest.approx(found.other_s / found.total_s)
    table = found.table
    assert list(table.columns) == ["kind", "kernels", "launches", "time_s", "share", "energy_j",
                                   "l2_bytes", "dram_bytes"]  # fmt: skip
    assert table.time_s.sum() == pytest.approx(found.other_s)
    assert table.energy_j.sum() == pytest.approx(found.other_energy_j)
    assert table.share.sum() == pytest.approx(found.share_other)
    assert table.time_s.is_monotonic_decreasing
    assert table.kernels.sum() == sum(x.repeats for x in found.kernels) == table.launches.sum()


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_networks_are_faster(name):
    fused, apart = whole(name, fused=True), whole(name)
    assert fused.gemm_s == apart.gemm_s
    assert fused.other_s < apart.other_s
    assert fused.energy_j < apart.energy_j
    assert fused.table.launches.sum() == sum(not x.fusable for x in fused.kernels)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fused", [False, True])
def test_amdahl_bounds_the_speed_up(name, fused):
    dense, sparse = whole(name, fused=fused), whole(name, "2:4", fused=fused)
    gemm, end = dense.gemm_s / sparse.gemm_s, dense.total_s / sparse.total_s
    assert sparse.other_s == dense.other_s
    assert min(gemm, 1) <= end <= max(gemm, 1)
    share = dense.share_other
    assert end == pytest.approx(1 / (share + (1 - share) / gemm))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_takes_longer(name):
    one, many = whole(name, batch=1), whole(name, batch=8)
    assert one.other_s < many.other_s
    assert one.total_s < many.total_s


def test_modes_are_those_of_layers_with_weights():
    assert whole("bert-base").modes == ("dense",)
    assert whole("bert-base", "2:4").modes == ("2:4",)
    mixed = accsim.load_workload("bert-base", dtype="fp16").prune("2:4", skip=["*.query"])
    assert accsim.end_to_end(accsim.simulate(mixed, A100)).modes == ("dense", "2:4")


def test_refusals():
    with pytest.raises(InputError, match="needs what simulate returns; got str"):
        accsim.end_to_end("bert-base")
    bare = accsim.simulate(accsim.gemm(64, 64, 64, dtype="fp16"), A100)
    with pytest.raises(InputError, match="lists no elementwise kernels"):
        accsim.end_to_end(bare)
    array = accsim.load_hardware("systolic_ws_32x32")
    run = accsim.simulate(accsim.load_workload("alexnet"), array)
    with pytest.raises(InputError, match="systolic 'systolic_ws_32x32' does not say"):
        accsim.end_to_end(run)
