"""V:N:M, sparse × dense and block kernels: plain-Python twins, laws, what published results say."""

import numpy as np
import pytest
from devices.sparse_gpu_twin import block_us, spmm_us, vnm_us
from hypothesis import given, settings
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.devices import tensorcore_block, tensorcore_spmm, tensorcore_vnm
from accsim.devices.tensorcore_costs import COUNTS
from accsim.devices.tensorcore_ctas import SCHEDULES, vnm_schedule
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_ragged import ladder
from accsim.devices.tensorcore_tiles import STAGE_BYTES, fragment_bytes, resident_ctas
from accsim.engine import closed, compiled, events
from accsim.files.hardware import load_hardware
from accsim.sparsity.masks import Masks
from accsim.spec.schedule import COMPUTE_CAUSES
from accsim.spec.workload import Layer, gemm

A100 = load_hardware("a100_pcie_80gb")
RTX3090 = load_hardware("rtx3090")
GPUS = (A100, RTX3090, load_hardware("h100_pcie_80gb"))
COSTS = {
    "vnm": tensorcore_vnm.vnm_costs,
    "unstructured": tensorcore_spmm.spmm_costs,
    "column_vector": tensorcore_spmm.spmm_costs,
    "block": tensorcore_block.block_costs,
}
PATTERNS = ("64:2:8", "8:1:16", "128:2:4", "unstructured@0.8", "cv:4@0.7", "cv:8@0.95",
            "cv:32@0.5", "bsr:4@0.5", "bsr:8@0.8", "bsr:32@0.6", "bsr:64@0.9:row")  # fmt: skip
SMALL = st.sampled_from((1, 7, 16, 64, 100, 130, 257))
SMS = st.sampled_from((1, 3, 8, 108))
gpus = st.integers(0, 2).map(GPUS.__getitem__)


def layer_of(pattern, t, k, n, dtype="fp16"):
    return gemm(t, k, n, dtype=dtype).prune(pattern).layers[0]


def unlimited(gpu, **changed):
    """A GPU whose DRAM and power never count, with some of its fields changed."""
    board = gpu.board.model_copy(update={"cap_w": 1e5})
    dram = gpu.dram.model_copy(update={"gb_per_s": 1e12})
    return gpu.model_copy(update={"board": board, "dram": dram, **changed})


def chip_us(layer, gpu):
    """What a call takes but for L2 and DRAM, which the twins leave out."""
    found = COSTS[layer.pattern.family]([layer], Masks(), gpu)
    return float((found.total_us - found.time("l2", "dram"))[0])


def total_us(layer, gpu, masks=None):
    return float(COSTS[layer.pattern.family]([layer], masks or Masks(), gpu).total_us[0])


class Given:
    """A mask that is given, in place of ``Masks``."""

    def __init__(self, mask):
        self.given = mask

    def mask(self, layer):
        return self.given


# --- twins


@settings(max_examples=60, deadline=None)
@given(gpus, SMALL, SMALL, SMALL, st.sampled_from((1, 8, 16, 64, 128, 256)),
       st.sampled_from((4, 7, 8, 20)), SMS)  # fmt: skip
def test_vnm_is_its_twin(gpu, t, k, n, v, m, sms):
    gpu = unlimited(gpu, sms=sms)
    ours = chip_us(layer_of(f"{v}:2:{m}", t, k, n), gpu)
    twin = vnm_us(t, k, n, 1, v, m, gpu, gpu.vnm)
    assert ours == pytest.approx(twin, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(gpus, SMALL, SMALL, SMALL, st.sampled_from(("unstructured@0.8", "cv:2@0.7", "cv:8@0.9",
       "cv:32@0.5", "bsr:2@0.5", "bsr:8@0.7")), SMS)  # fmt: skip
def test_spmm_is_its_twin(gpu, t, k, n, pattern, sms):
    gpu, layer = unlimited(gpu, sms=sms), layer_of(pattern, t, k, n)
    name = tensorcore_spmm.kernel_name(layer, gpu)
    vector = min(tensorcore_spmm.vector_of(layer.pattern), 8)
    twin = spmm_us(Masks().mask(layer), t, 1, vector, gpu, gpu.spmm[name])
    assert chip_us(layer, gpu) == pytest.approx(twin, rel=1e-9)


def test_int8_runs_as_magicube():
    gpu, layer = unlimited(A100, sms=2), layer_of("cv:8@0.8", 100, 250, 100, "int8")
    assert tensorcore_spmm.kernel_name(layer, gpu) == "magicube_r8"
    twin = spmm_us(Masks().mask(layer), 100, 1, 8, gpu, gpu.spmm["magicube_r8"])
    assert chip_us(layer, gpu) == pytest.approx(twin, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(gpus, SMALL, SMALL, SMALL, st.sampled_from((16, 24, 32, 40, 64, 128)), st.integers(0, 9),
       SMS, st.sampled_from((1, 2, 4)))  # fmt: skip
def test_blocks_are_their_twin(gpu, t, k, n, size, tenths, sms, most):
    gpu = unlimited(gpu, sms=sms, sm=gpu.sm.model_copy(update={"most_ctas": most}))
    layer = layer_of(f"bsr:{size}@{tenths / 10}", t, k, n)
    kernel, operands = gpu.kernel("dense", "fp16"), operands_of("fp16", "dense", gpu)
    tile_n, tile_t = 16.0 * -(-size // 16), float(min(gpu.block.tile_t, 16 * -(-t // 16)))
    stage = np.array([2 * (tile_n + tile_t) * STAGE_BYTES / 2])
    resident = max(1.0, resident_ctas(gpu, np.array([tile_n]), np.array([tile_t]), stage)[0])
    read = fragment_bytes(gpu.tensor.fetch, np.array([tile_n]), np.array([tile_t]), operands)
    twin = block_us(Masks().mask(layer), size, t, 1, gpu, gpu.block, kernel, resident, read[0])
    assert chip_us(layer, gpu) == pytest.approx(twin, rel=1e-9)


# --- laws


@settings(max_examples=60, deadline=None)
@given(gpus, st.sampled_from(PATTERNS), SMALL, SMALL, SMALL, st.floats(0, 1e9))
def test_causes_are_known_and_never_negative(gpu, pattern, t, k, n, between):
    layer = layer_of(pattern, t, k, n)
    found = COSTS[layer.pattern.family]([layer, layer], Masks(), gpu, between)
    assert set(found.times_us) <= {*COMPUTE_CAUSES, "shared", "l2", "dram", "launch"}
    assert all((times >= 0).all() for times in found.times_us.values())
    assert set(found.counts) == set(COUNTS)
    assert all((counts >= 0).all() for counts in found.counts.values())
    assert (found.counts["sparse_mma_macs"] <= found.counts["mma_macs"]).all()
    assert (found.counts["l2_read_bytes"] >= found.counts["dram_read_bytes"] * 0.999).all()
    assert found.total_us[0] == found.total_us[1] == pytest.approx(float(np.sum(
        [times[0] for times in found.times_us.values()])))  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(gpus, st.sampled_from(("unstructured@0.8", "cv:4@0.7", "bsr:8@0.8", "bsr:32@0.6")), SMALL,
       st.integers(0, 10**6))  # fmt: skip
def test_more_kept_vectors_are_never_faster(gpu, pattern, t, seed):
    layer, rng = layer_of(pattern, t, 256, 128), np.random.default_rng(seed)
    mask = Masks().mask(layer).copy()
    before = total_us(layer, gpu, Given(mask))
    size = tensorcore_spmm.vector_of(layer.pattern)
    side = size if layer.pattern.family == "block" else 1
    for _ in range(5):
        k, n = rng.integers(256 // side) * side, rng.integers(128 // size) * size
        mask[k : k + side, n : n + size] = True
    assert total_us(layer, gpu, Given(mask)) >= before * (1 - 1e-12)


@settings(max_examples=30, deadline=None)
@given(gpus, SMALL, SMALL, SMALL)
def test_a_larger_m_is_never_slower(gpu, t, k, n):
    layers = [layer_of(f"64:2:{m}", t, k, n) for m in (4, 8, 16, 32)]
    times = tensorcore_vnm.vnm_costs(layers, Masks(), unlimited(gpu)).total_us
    assert (np.diff(times) <= 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(("unstructured@0.8", "cv:4@0.7", "bsr:8@0.8")), SMALL, SMALL, SMALL)
def test_more_sms_are_never_slower(pattern, t, k, n):
    layer, masks = layer_of(pattern, t, k, n), Masks()
    times = [total_us(layer, unlimited(A100).model_copy(update={"sms": sms}), masks)
             for sms in (20, 54, 108, 200)]  # fmt: skip
    assert (np.diff(times) <= 1e-12 * times[0]).all()  # but for rounding


@settings(max_examples=30, deadline=None)
@given(gpus, st.sampled_from(("unstructured@0.8", "cv:4@0.7", "bsr:8@0.8", "bsr:32@0.6")), SMALL,
       st.integers(0, 10**6))  # fmt: skip
def test_order_of_panels_does_not_matter(gpu, pattern, t, seed):
    layer = layer_of(pattern, t, 256, 128)
    size = tensorcore_spmm.vector_of(layer.pattern)
    mask = Masks().mask(layer)
    panels = mask.reshape(256, 128 // size, size)
    mixed = np.random.default_rng(seed).permutation(panels, axis=1).reshape(256, 128)
    assert total_us(layer, gpu, Given(mixed)) == total_us(layer, gpu, Given(mask))


def test_equal_masks_tails_only_when_ragged():
    layer = layer_of("cv:4@0.5", 64, 64, 64)
    even = np.zeros((64, 64), bool)
    even[::2] = True
    ragged = np.zeros((64, 64), bool)
    ragged[:, :4] = True
    ragged[:28, 4:] = True
    ragged[28:32, 4:56] = True
    a, b = (tensorcore_spmm.spmm_costs([layer], Given(mask), A100) for mask in (even, ragged))
    assert a.time("imbalance")[0] == 0 < b.time("imbalance")[0]


def test_a_cold_w_is_read_from_dram():
    layer = layer_of("64:2:8", 64, 4096, 4096)
    warm, cold = (tensorcore_vnm.vnm_costs([layer], Masks(), A100, x) for x in (0.0, 1e9))
    packed = 4096 * 2048 * 1.125 + 64 * 2048 * 4
    read = cold.counts["dram_read_bytes"][0]
    assert warm.counts["dram_read_bytes"][0] < 1
    assert packed * 0.99 < read <= packed + 1


def test_a_hot_kernel_is_throttled():
    board = A100.board.model_copy(update={"cap_w": 140.0})
    hot = A100.model_copy(update={"board": board})
    layer = layer_of("128:2:4", 4096, 4096, 4096)
    free, capped = (tensorcore_vnm.vnm_costs([layer], Masks(), gpu) for gpu in (A100, hot))
    assert capped.clock_ghz[0] < free.clock_ghz[0]
    assert capped.time("throttle")[0] > free.time("throttle")[0]


def test_ladder_never_steps_down():
    rungs = [(name, np.array([height])) for name, height in zip("abcd", (1.0, 3.0, 2.0, 5.0),
                                                                strict=True)]  # fmt: skip
    assert [float(own[0]) for _, own in ladder(rungs)] == [1.0, 2.0, 0.0, 2.0]


# --- which kernel


def test_no_kernel_is_refused_by_name():
    layer = layer_of("unstructured@0.9", 8, 64, 64, "int8")
    assert not tensorcore_spmm.supports(layer, A100)
    with pytest.raises(InputError, match=r"a100_pcie_80gb.*no sparse kernel.*unstructured.*int8"):
        tensorcore_spmm.spmm_costs([layer], Masks(), A100)


def test_what_each_gpu_supports():
    v100 = load_hardware("v100_pcie_32gb")
    assert not tensorcore_vnm.supports(layer_of("64:2:8", 8, 64, 64), v100)
    assert tensorcore_vnm.supports(layer_of("64:2:8", 8, 64, 64), A100)
    assert tensorcore_block.supports(layer_of("bsr:64@0.5", 8, 64, 64), v100)
    assert tensorcore_block.supports(layer_of("bsr:4@0.5", 8, 64, 64), A100)
    assert not tensorcore_spmm.supports(layer_of("64:2:8", 8, 64, 64), A100)


# --- played


def without_bytes(schedule):
    for field in ("load_bytes", "store_bytes"):
        schedule.tiles[field] = 0
    return schedule


def onchip_cycles(layer, gpu):
    found = COSTS[layer.pattern.family]([layer], Masks(), gpu)
    return float(found.time(*COMPUTE_CAUSES, "shared")[0]) * gpu.clock_ghz * 1e3


@pytest.mark.parametrize("pattern", ["64:2:8", "128:2:20", "16:2:8"])
@pytest.mark.parametrize("t", [64, 1000, 4096])
def test_equal_ctas_play_as_the_closed_form(pattern, t):
    gpu, layer = unlimited(RTX3090), layer_of(pattern, t, 512, 768)
    schedule = without_bytes(vnm_schedule(layer, Masks(), gpu))
    played = compiled.play(schedule)
    busy = played.total_cycles - schedule.machine.launch_cycles
    assert busy == pytest.approx(onchip_cycles(layer, gpu), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(("unstructured@0.8", "cv:4@0.7", "cv:8@0.9", "bsr:8@0.8", "bsr:32@0.6",
       "bsr:64@0.7")), SMALL, st.sampled_from((64, 128, 1000)))  # fmt: skip
def test_ragged_ctas_play_within_the_longest_of_the_closed_form(pattern, t, n):
    gpu, layer = unlimited(A100).model_copy(update={"sms": 7}), layer_of(pattern, t, 250, n)
    schedule = without_bytes(SCHEDULES[layer.pattern.family](layer, Masks(), gpu))
    busy = compiled.total_cycles(schedule) - schedule.machine.launch_cycles
    ours = onchip_cycles(layer, gpu)
    assert busy >= closed.lower_bound_cycles(schedule) - schedule.machine.launch_cycles
    assert abs(busy - ours) <= schedule.tiles["compute_cycles"].max() + 2 * len(schedule)


@pytest.mark.parametrize("pattern", ["unstructured@0.8", "cv:8@0.9", "bsr:8@0.8", "bsr:32@0.5"])
def test_ctas_that_all_fit_play_as_the_closed_form(pattern):
    gpu, layer = unlimited(A100), layer_of(pattern, 64, 250, 64)
    schedule = without_bytes(SCHEDULES[layer.pattern.family](layer, Masks(), gpu))
    busy = compiled.total_cycles(schedule) - schedule.machine.launch_cycles
    assert busy == pytest.approx(onchip_cycles(layer, gpu), abs=2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_both_players_agree_and_all_bytes_move(pattern):
    gpu = A100.model_copy(update={"l2": A100.l2.model_copy(update={"mb": 0.05})})
    layer = layer_of(pattern, 100, 256, 128)
    schedule = SCHEDULES[layer.pattern.family](layer, Masks(), gpu)
    found = COSTS[layer.pattern.family]([layer], Masks(), gpu)
    assert found.counts["dram_write_bytes"][0] > 0
    assert compiled.play(schedule).total_cycles == events.play(schedule).total_cycles
    for field, name in (("load_bytes", "dram_read_bytes"), ("store_bytes", "dram_write_bytes")):
        assert schedule.tiles[field][:, 0].sum() == round(float(found.counts[name][0]))


def test_too_many_ctas_are_refused():
    layer = layer_of("cv:2@0.5", 10**6, 64, 1024)
    with pytest.raises(InputError, match="CTAs: level events plays at most 2000000"):
        SCHEDULES["column_vector"](layer, Masks(), A100)


@pytest.mark.parametrize("pattern", ["cv:8@0.5", "16:2:8"])
def test_groups_of_a_convolution_run_in_one_call(pattern):
    op = {"kind": "conv2d", "in_channels": 128, "out_channels": 128, "size": 14, "kernel": 3,
          "padding": 1, "groups": 4}  # fmt: skip
    layer = Layer(name="conv", op=op, dtype="fp16", repeats=3, pattern=pattern)
    gpu = unlimited(A100, sms=3)
    mask = Masks().mask(layer)
    if pattern.startswith("cv"):
        twin = spmm_us(mask, 196, 4, 8, gpu, gpu.spmm["vector"])
    else:
        twin = vnm_us(196, 288, 32, 4, 16, 8, gpu, gpu.vnm)
    assert chip_us(layer, gpu) == pytest.approx(twin, rel=1e-9)
    schedule = SCHEDULES[layer.pattern.family](layer, Masks(), gpu)
    assert schedule.runs == 3
