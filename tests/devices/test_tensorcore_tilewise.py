"""Tile-wise kernels: twins in plain loops, laws, the engine, published figures, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from devices.tilewise_twin import (
    call,
    list_makespan,
    shared_makespan,
    throughput,
    transposed_by_loop,
)

import accsim
from accsim.base.errors import InputError
from accsim.devices.tensorcore_costs import COUNTS, Costs
from accsim.devices.tensorcore_spmm import spmm_costs
from accsim.devices.tensorcore_tilewise import (
    DENSE_MODE,
    gemm_costs,
    kernel_of,
    layer_ctas,
    layer_operands,
    tilewise_costs,
    tilewise_dense_costs,
)
from accsim.devices.tensorcore_tilewise_ctas import ctas_of
from accsim.devices.tensorcore_tilewise_schedule import ctas_schedule, tilewise_schedule
from accsim.devices.tensorcore_tilewise_tiles import Residues, TileGemm, tile_gemm
from accsim.engine import attribution, compiled, events
from accsim.sparsity.masks import Masks
from accsim.spec.gpu_tilewise import TileWiseKernel
from accsim.spec.pattern import parse_pattern
from accsim.spec.schedule import COMPUTE_CAUSES
from accsim.spec.workload import Layer

V100 = accsim.load_hardware("v100_pcie_32gb")
A100 = accsim.load_hardware("a100_pcie_80gb")
RATE = 512.0


def kernel(gpu=V100, **changes):
    return gpu.model_copy(update={"tilewise": gpu.tilewise.model_copy(update=changes)})


def uncapped(gpu):
    return gpu.model_copy(update={"board": gpu.board.model_copy(update={"cap_w": 1e5})})


def layer(t, k, n, pattern, dtype="fp16", **changes):
    plain = accsim.gemm(t, k, n, dtype=dtype).layers[0]
    return plain.model_copy(update={"pattern": parse_pattern(pattern), **changes})


def tiles(t, k, columns, count=1):
    k, columns = (np.array(x, dtype=np.int64) for x in (k, columns))
    return TileGemm(t, k, columns, int(k @ columns), float(t * k.max(initial=0)), count)


def random_kernel(rng):
    """A kernel and a chip of a few SMs, so that hundreds of grids are played in seconds."""
    made = TileWiseKernel(
        tile_n=int(rng.choice([32, 64, 128])), tile_t=int(rng.choice([32, 128])),
        step_k=int(rng.choice([16, 32])), residents=int(rng.integers(1, 5)),
        stall_cycles=float(rng.uniform(0, 3000)), gather_cycles=float(rng.uniform(0, 1500)),
        dense_edge_us=float(rng.uniform(0, 4)), edge_us=float(rng.uniform(4, 12)),
        fixed_us=float(rng.uniform(0, 30)), launch_us=0, streams=32,
    )  # fmt: skip
    return V100.model_copy(update={"tilewise": made, "sms": int(rng.integers(1, 9))})


def ctas(gpu, rate=RATE):
    return ctas_of(kernel_of(gpu), gpu, rate, dense=False, sparse=False)


# --- twins


@pytest.mark.parametrize("residents", range(1, 9))
def test_an_sm_s_throughput_is_that_of_a_closed_queue(residents):
    found = ctas(kernel(residents=residents))
    wait = found.wait + found.gather
    expected = [throughput(found.mma, wait, n) for n in range(1, residents + 1)]
    assert found.rates[1:] == pytest.approx(expected)
    assert found.rates[1] == pytest.approx(1 / (found.mma + wait))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dense", [False, True])
def test_causes_and_bytes_are_those_counted_cta_by_cta(seed, dense):
    rng = np.random.default_rng(seed)
    gpu = uncapped(random_kernel(rng))
    each = 1 if dense else int(rng.integers(1, 7))
    k, columns = rng.integers(1, 700, each), rng.integers(1, 300, each)
    work = tiles(int(rng.integers(1, 900)), k, columns)
    found = gemm_costs(work, "fp16", gpu, dense=dense)
    made = gpu.tilewise
    twin = call(zip(k.tolist(), columns.tolist(), strict=True), work.t, gpu, made, rate=RATE,
                covered=made.step_k, x_bytes=2, w_bytes=2, y_bytes=2, plain=dense)  # fmt: skip
    for cause in ("work", "padding", "fill_drain", "gather"):
        us = twin[cause] / gpu.clock_ghz * 1e-3
        assert found.times_us[cause][0] == pytest.approx(us, abs=1e-6), cause
    assert found.counts["mma_macs"][0] == work.t * int(k @ columns)
    assert found.counts["shared_write_bytes"][0] == pytest.approx(twin["fetched"])
    assert found.counts["l2_read_bytes"][0] == pytest.approx(twin["fetched"] + twin["told"])
    assert found.counts["l2_write_bytes"][0] == twin["y"]
    assert found.extra["offset_bytes"][0] == (0 if dense else 4 * (k.sum() + columns.sum()))


def test_dram_moves_everything_once_where_it_fits_nowhere_and_nothing_where_it_stays():
    work = tiles(128, [512], [128])
    tiny = V100.model_copy(update={"l2": V100.l2.model_copy(update={"mb": 1e-9})})
    counts = gemm_costs(work, "fp16", tiny).counts
    w, x, y, offsets = 512 * 128 * 2, 128 * 512 * 2, 128 * 128 * 2, (512 + 128) * 4
    assert counts["dram_write_bytes"][0] == y
    assert counts["dram_read_bytes"][0] == pytest.approx(w + x + offsets)
    warm = gemm_costs(work, "fp16", V100).counts
    assert warm["dram_read_bytes"][0] == warm["dram_write_bytes"][0] == 0
    between = gemm_costs(replace(work, between_bytes=1e15), "fp16", V100).counts
    assert between["dram_read_bytes"][0] == pytest.approx(w + offsets)


def test_x_is_read_again_by_every_group_of_tiles_that_run_together():
    tiny = V100.model_copy(update={"l2": V100.l2.model_copy(update={"mb": 1e-9})})
    work = tiles(128 * 40, [512] * 32, [128] * 32)
    counts = gemm_costs(work, "fp16", tiny).counts
    groups = 32 / (2 * V100.sms / 40)  # 40 CTAs a tile: four tiles at once
    w, x, offsets = 32 * 512 * 128 * 2, 128 * 40 * 512 * 2, 32 * (512 + 128) * 4
    assert counts["dram_read_bytes"][0] == pytest.approx(w + groups * x + offsets)


# --- the engine


def equal_case(seed):
    rng = np.random.default_rng(seed)
    gpu = random_kernel(rng)
    made = gpu.tilewise
    each = int(rng.integers(1, 12))
    k = np.full(each, rng.integers(1, 900))
    work = tiles(int(rng.integers(1, 12 * made.tile_t)), k, np.full(each, made.tile_n))
    return rng, gpu, work


@pytest.mark.parametrize("seed", range(300))
def test_the_closed_form_is_what_is_played_where_tiles_are_equal(seed):
    _, gpu, work = equal_case(seed)
    mine = ctas(gpu)
    k, rows = work.grid(mine)
    schedule = ctas_schedule(work, mine, RATE, gpu)
    played = compiled.play(schedule).total_cycles - schedule.machine.launch_cycles
    assert mine.makespan(k, rows) == played
    if seed % 10 == 0:
        assert events.play(schedule).total_cycles == played + schedule.machine.launch_cycles


@pytest.mark.parametrize("seed", range(100))
def test_so_it_is_with_one_launch_after_the_other(seed):
    rng, gpu, work = equal_case(seed)
    mine = ctas(kernel(gpu, launch_us=float(rng.uniform(0.1, 5)), streams=64))
    k, rows = work.grid(mine)
    schedule = ctas_schedule(work, mine, RATE, gpu)
    played = compiled.play(schedule).total_cycles - schedule.machine.launch_cycles
    assert mine.makespan(k, rows, np.arange(len(k)) * round(mine.launch)) == played


@pytest.mark.parametrize("seed", range(60))
def test_the_schedule_is_played_as_a_list_of_jobs(seed):
    rng = np.random.default_rng(seed)
    gpu = random_kernel(rng)
    each = int(rng.integers(1, 12))
    work = tiles(int(rng.integers(1, 900)), rng.integers(1, 900, each), rng.integers(1, 300, each))
    mine = ctas(gpu)
    schedule = ctas_schedule(work, mine, RATE, gpu)
    played = compiled.play(schedule)
    jobs = schedule.tiles["compute_cycles"].tolist()
    expected = list_makespan(jobs, mine.slots) + schedule.machine.launch_cycles
    assert played.total_cycles == expected
    spent = attribution.causes(schedule, played)
    assert sum(spent.values()) == expected
    k, rows = work.grid(mine)
    assert mine.makespan(k, rows) <= played.total_cycles * 2  # lists: Graham's bound
    macs = (schedule.tiles["t"] * schedule.tiles["k"] * schedule.tiles["n"]).sum()
    assert macs == work.macs


REAL = [(t, s, k, n) for t in (512, 4096, 12800) for s in (0.25, 0.5, 0.75, 0.9)
        for k, n in ((768, 768), (3072, 768), (768, 3072))]  # fmt: skip
MASKS = Masks(0)


def real(gpu, t, s, k, n):
    """Return closed form and played cycles of a real mask, launch stagger and all."""
    pruned = layer(t, k, n, f"tw:128@{s}", name=f"{k}x{n}")
    found = tilewise_costs([pruned], MASKS, uncapped(gpu))
    schedule = tilewise_schedule(pruned, MASKS, gpu)
    return pruned, float(found.total_us[0]) * gpu.clock_ghz * 1e3, compiled.play(schedule)


def test_ragged_real_masks_are_within_5_percent_of_the_play():
    for launch_us in (0.0, V100.tilewise.launch_us):
        gpu = kernel(launch_us=launch_us)
        found = [real(gpu, *case) for case in REAL]
        errors = np.array([closed / played.total_cycles - 1 for _, closed, played in found])
        assert np.abs(errors).max() < 0.05
        assert np.abs(errors).mean() < 0.01


def test_and_within_9_percent_of_residents_that_slow_each_other_as_they_come_and_go():
    errors = []
    for case in REAL[::3]:
        pruned, closed, _ = real(V100, *case)
        mine = layer_ctas(pruned, V100)
        k, rows = tile_gemm(pruned, MASKS).grid(mine)
        shared = shared_makespan(k, rows, V100, V100.tilewise, mine.mma, mine.covered_k)
        errors.append((closed - mine.fixed) / shared - 1)
    assert np.abs(errors).max() < 0.09
    assert np.abs(errors).mean() < 0.02


def test_a_stream_runs_one_tile_after_the_other():
    work = tiles(128, [64] * 8, [128] * 8)
    one = ctas(kernel(streams=1, launch_us=1))
    schedule = ctas_schedule(work, one, RATE, V100)
    played = events.play(schedule)
    assert played.total_cycles == compiled.play(schedule).total_cycles
    each = int(one.cycles(64, 1))
    expected = 8 * each + 7 * round(one.launch) + schedule.machine.launch_cycles
    assert played.total_cycles == expected


@pytest.mark.parametrize("launch_us", [0.0, 2.5])
def test_calls_of_a_layer_do_not_overlap(launch_us):
    gpu = kernel(launch_us=launch_us, streams=2)
    one = layer(700, 768, 700, "tw:128@0.3")
    single, three = (tilewise_schedule(one.model_copy(update={"repeats": calls}), MASKS, gpu)
                     for calls in (1, 3))  # fmt: skip
    fixed = single.machine.launch_cycles
    alone, together = (compiled.play(x).total_cycles - fixed for x in (single, three))
    assert together == 3 * alone
    assert three.runs == 1
    assert events.play(three).total_cycles == together + fixed
    assert three.compute_cycles == 3 * single.compute_cycles


def test_causes_of_the_play_are_those_of_the_closed_form():
    pruned = layer(12800, 768, 3072, "tw:128@0.75")
    gpu = uncapped(kernel(launch_us=0))
    found = tilewise_costs([pruned], MASKS, gpu)
    schedule = tilewise_schedule(pruned, MASKS, gpu)
    spent = attribution.causes(schedule, compiled.play(schedule))
    total = found.total_us[0] * gpu.clock_ghz * 1e3
    for cause in ("work", "padding", "fill_drain", "gather", "launch"):
        mine = found.times_us[cause][0] * gpu.clock_ghz * 1e3
        assert spent[cause] == pytest.approx(mine, abs=0.01 * total), cause


# --- laws


CASES = [("tw:128@0.6", V100), ("tw:64@0.9", A100), ("tvw:128@0.75", A100), ("tw:256@0", A100)]


@pytest.mark.parametrize(("pattern", "gpu"), CASES)
@pytest.mark.parametrize("shape", [(1, 1, 2), (100, 300, 200), (2048, 768, 1024)])
def test_causes_are_known_never_negative_and_sum_to_the_total(pattern, gpu, shape):
    pruned = layer(*shape, pattern)
    found = tilewise_costs([pruned, pruned], MASKS, gpu)
    channels = [channel.name for channel in gpu.channels]
    assert set(found.times_us) <= {*COMPUTE_CAUSES, *channels, "launch"}
    assert all((us >= 0).all() for us in found.times_us.values())
    assert sum(found.times_us.values()) == pytest.approx(found.total_us)
    assert set(found.counts) <= set(COUNTS)
    assert all((count >= 0).all() for count in found.counts.values())
    assert len(found) == 2
    assert (found.clock_ghz <= gpu.clock_ghz).all()
    peak = pruned.gemm.t * MASKS.kept(pruned)
    rate = layer_operands(pruned, gpu, dense=False).rate * gpu.sms * gpu.clock_ghz * 1e3
    assert found.total_us[0] >= peak / rate


@pytest.mark.parametrize("gpu", [V100, A100])
def test_denser_is_never_faster_at_equal_tiles(gpu):
    for each in (1, 3, 12):
        times = [gemm_costs(tiles(3000, [k] * each, [128] * each), "fp16", gpu).total_us[0]
                 for k in range(1, 1500, 37)]  # fmt: skip
        assert (np.diff(times) >= 0).all()


def test_one_more_k_in_one_tile_is_never_faster():
    rng = np.random.default_rng(0)
    for _ in range(100):
        k = rng.integers(1, 900, 9)
        more = k.copy()
        more[rng.integers(9)] += rng.integers(1, 200)
        t = int(rng.integers(1, 9000))
        less, longer = (gemm_costs(tiles(t, x, [128] * 9), "fp16", V100).total_us[0]
                        for x in (k, more))  # fmt: skip
        assert longer >= less - 1e-9


def test_more_tiles_are_never_faster():
    times = [gemm_costs(tiles(4000, [384] * each, [128] * each), "fp16", V100).total_us[0]
             for each in range(1, 40)]  # fmt: skip
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("t", [1, 100, 128, 700, 5000, 12800])
@pytest.mark.parametrize("gpu", [V100, A100])
def test_twice_the_tokens_take_longer_but_not_twice_the_time(gpu, t):
    k = [300, 500, 410, 380]
    one, two = (gemm_costs(tiles(x, k, [128] * 4), "fp16", uncapped(gpu)).total_us[0]
                for x in (t, 2 * t))  # fmt: skip
    assert one <= two <= 2 * one + 1e-9


def test_the_order_of_tiles_changes_no_count_and_hardly_the_time():
    rng = np.random.default_rng(1)
    k = rng.integers(200, 600, 12)
    for launch_us in (0.0, 2.5):
        gpu = kernel(launch_us=launch_us)
        one, two = (gemm_costs(tiles(9000, x, [128] * 12), "fp16", gpu) for x in (k, k[::-1]))
        for name, count in one.counts.items():
            assert two.counts[name][0] == pytest.approx(count[0]), name
        assert two.total_us[0] == pytest.approx(one.total_us[0], abs=2.6 if launch_us else 1e-9)


def test_tiles_fused_cost_less_than_launched_apart():
    pruned = layer(4096, 768, 3072, "tw:128@0.75")
    fused, apart = (tilewise_costs([pruned], MASKS, kernel(A100, fused=x)).total_us[0]
                    for x in (True, False))  # fmt: skip
    assert fused < apart
    times = tilewise_costs([pruned], MASKS, kernel(A100, fused=True)).times_us
    assert times["gather"][0] == 0
    assert times["launch"][0] == A100.tilewise.fixed_us


def test_a_low_cap_slows_the_clock():
    pruned = layer(12800, 3072, 768, "tw:128@0.5")
    free = tilewise_costs([pruned], MASKS, uncapped(V100))
    board = V100.board.model_copy(update={"cap_w": 180.0})
    capped = tilewise_costs([pruned], MASKS, V100.model_copy(update={"board": board}))
    assert free.times_us["throttle"][0] == 0
    assert free.clock_ghz[0] == V100.clock_ghz
    assert capped.times_us["throttle"][0] > 0
    assert capped.clock_ghz[0] < V100.clock_ghz
    assert capped.total_us[0] > free.total_us[0]


def test_edges_of_ctas_wait_for_memory_at_any_clock():
    board = V100.board.model_copy(update={"cap_w": 70.0})
    edgy = kernel(edge_us=5000.0, stall_cycles=0.0, gather_cycles=0.0)
    capped = edgy.model_copy(update={"board": board})
    found = gemm_costs(tiles(12800, [32], [128]), "fp16", capped)
    assert found.clock_ghz[0] < 0.9 * V100.clock_ghz
    assert found.times_us["throttle"][0] < 0.001 * found.total_us[0]


def test_slow_memory_bounds_a_call():
    pruned = layer(12800, 768, 3072, "tw:128@0.75")
    slow = V100.dram.model_copy(update={"gb_per_s": 50.0})
    found = tilewise_costs([pruned], MASKS, V100.model_copy(update={"dram": slow}))
    moved = found.counts["dram_read_bytes"][0] + found.counts["dram_write_bytes"][0]
    share = V100.kernel("dense", "fp16").dram_share
    expected = moved / (50 * share) * 1e-3 + V100.tilewise.fixed_us
    assert found.total_us[0] == pytest.approx(expected, rel=1e-6)
    assert found.regime[0] == "memory"


# --- layers, patterns


def test_repeats_are_calls_and_groups_are_gemms_of_one():
    conv = {"kind": "conv2d", "in_channels": 256, "out_channels": 512, "size": 14, "kernel": 3,
            "padding": 1}  # fmt: skip
    pattern = parse_pattern("tw:128@0.5")
    one = Layer.model_validate({"name": "c", "op": conv, "dtype": "fp16", "pattern": pattern})
    more = one.model_copy(update={"repeats": 5})
    grouped = Layer.model_validate({"name": "g", "dtype": "fp16", "pattern": pattern,
                                    "op": {**conv, "groups": 2}})  # fmt: skip
    found = tilewise_costs([one, more, grouped], MASKS, V100)
    assert found.total_us[0] == found.total_us[1]
    assert found.extra["weight_tiles"][2] == 2 * len(pattern.tiles(MASKS.mask(grouped)))
    assert tile_gemm(one, MASKS).x_elements <= 256 * 14 * 14


def test_the_dense_kernel_is_one_launch_without_offsets():
    plain = layer(12800, 768, 768, "dense")
    found = tilewise_dense_costs([plain], V100)
    assert found.mode == (DENSE_MODE,)
    assert found.times_us["gather"][0] == found.extra["offset_bytes"][0] == 0
    assert found.counts["mma_macs"][0] == plain.macs
    zero = tilewise_costs([layer(12800, 768, 768, "tw:128@0")], MASKS, V100)
    assert zero.counts["mma_macs"][0] == plain.macs
    assert zero.total_us[0] > 1.2 * found.total_us[0]


def test_tile_vector_wise_multiplies_half_of_its_tiles_by_mma_sp():
    pruned = layer(4096, 1024, 1024, "tvw:128@0.75")
    found = tilewise_costs([pruned], MASKS, A100)
    stored = pruned.pattern.stored(MASKS.mask(pruned))
    assert found.counts["mma_macs"][0] == found.counts["sparse_mma_macs"][0] == 4096 * stored
    mine, made = layer_ctas(pruned, A100), A100.tilewise
    assert mine.covered_k == 2 * made.step_k
    gain = A100.tensor.gain("fp16")
    each = made.tile_n * made.tile_t * 2 * made.step_k
    sustained = A100.tensor.rate("fp16") * gain * A100.kernel("nm", "fp16").issue_share
    assert mine.mma == pytest.approx(each / sustained)
    tile_wise = layer(4096, 1024, 1024, "tw:128@0.5")
    assert found.total_us[0] < tilewise_costs([tile_wise], MASKS, A100).total_us[0]
    with pytest.raises(InputError, match=r"tvw:128@0.75 needs sparse tensor cores for fp16; "
                       "device 'v100_pcie_32gb' has none"):  # fmt: skip
        tilewise_costs([pruned], MASKS, V100)


def test_the_residue_of_tew_runs_after_the_tiles():
    pruned = layer(2048, 768, 768, "tew:128@0.76+0.01", name="a")
    other = layer(2048, 768, 768, "tew:128@0.9+0.02", name="b")
    plain = layer(2048, 768, 768, "tw:128@0.76", name="a")
    found = tilewise_costs([pruned, plain, other], MASKS, V100, residue_costs=spmm_costs)
    tiles_alone = tilewise_costs([plain], MASKS, V100)
    beside = Residues([pruned, other], MASKS)
    for one in beside.layers:
        assert beside.kept(one) == int(beside.mask(one).sum()) > 0
        assert not beside.layers[0].pattern.check(beside.mask(beside.layers[0]))
    alone = spmm_costs(beside.layers, beside, V100)
    assert found.total_us[1] == pytest.approx(tiles_alone.total_us[0])
    assert found.extra["residue_us"][[0, 2]] == pytest.approx(alone.total_us)
    assert found.total_us[0] == pytest.approx(tiles_alone.total_us[0] + alone.total_us[0])
    assert found.counts["fma_macs"][1] == 0
    assert found.mode == ("tile-element-wise", "tile-wise", "tile-element-wise")
    mask = MASKS.mask(pruned)
    both = found.counts["mma_macs"][0] + found.counts["fma_macs"][0]
    assert both == 2048 * int(mask.sum())


# --- transpositions


def unfused(gpu):
    return kernel(gpu, transposed="unfused")


def test_by_default_nothing_is_transposed_apart():
    assert V100.tilewise.transposed == A100.tilewise.transposed == "none"
    found = tilewise_costs([layer(512, 768, 768, "tw:128@0.5")], MASKS, V100)
    assert "transpose_us" not in found.extra


@pytest.mark.parametrize(("pattern", "gpu"), [*CASES, ("tew:128@0.76+0.01", V100)])
@pytest.mark.parametrize("shape", [(1, 64, 32), (700, 300, 200), (12800, 768, 768)])
def test_transpositions_are_two_kernels_that_read_and_write_x_and_y_whole(pattern, gpu, shape):
    t, k, n = shape
    pruned = layer(*shape, pattern)
    plain = tilewise_costs([pruned], MASKS, gpu, residue_costs=spmm_costs)
    found = tilewise_costs([pruned], MASKS, unfused(gpu), residue_costs=spmm_costs)
    expected, moved = transposed_by_loop([t * k * 2, t * n * 2], gpu, "fp16")
    assert found.extra["transpose_us"][0] == pytest.approx(expected)
    assert found.total_us[0] == pytest.approx(plain.total_us[0] + expected)
    for cause, us in found.times_us.items():
        more = expected if cause == "gather" else 0
        assert us[0] == pytest.approx(plain.times_us[cause][0] + more), cause
    for name, count in found.counts.items():
        level, _, what = name.rpartition("_")[0].rpartition("_")
        more = 0 if name.endswith("macs") else moved[level]
        assert count[0] == pytest.approx(plain.counts[name][0] + more), (name, what)
    slower = gpu.clock_ghz / plain.clock_ghz[0] * plain.total_us[0] + expected
    assert gpu.clock_ghz / found.clock_ghz[0] * found.total_us[0] == pytest.approx(slower)
    assert sum(found.times_us.values()) == pytest.approx(found.total_us)


def test_transpositions_are_never_faster_with_more_to_move_or_slower_memory():
    last = 0.0
    for t in range(1, 6000, 97):
        now = gemm_costs(tiles(t, [300] * 4, [128] * 4), "fp16", unfused(V100))
        assert now.extra["transpose_us"][0] >= last
        last = now.extra["transpose_us"][0]
    slow = unfused(V100).model_copy(update={"dram": V100.dram.model_copy(update={"gb_per_s": 99})})
    work = tiles(9000, [300] * 4, [128] * 4)
    fast_us, slow_us = (gemm_costs(work, "fp16", gpu).extra["transpose_us"][0]
                        for gpu in (unfused(V100), slow))  # fmt: skip
    assert slow_us > fast_us > 2 * V100.launch.kernel_us


def test_the_dense_kernel_needs_none_and_groups_share_two_launches():
    plain = layer(512, 768, 768, "dense")
    assert (tilewise_dense_costs([plain], unfused(V100)).total_us
            == tilewise_dense_costs([plain], V100).total_us).all()  # fmt: skip
    one, many = (
        gemm_costs(tiles(64, [64], [128], count), "fp16", unfused(V100)) for count in (1, 9)
    )
    rest = [x.extra["transpose_us"][0] - 2 * V100.launch.kernel_us for x in (one, many)]
    assert rest[1] == pytest.approx(9 * rest[0])


def test_a_convolution_s_map_is_transposed_not_its_lowering():
    conv = {"kind": "conv2d", "in_channels": 256, "out_channels": 512, "size": 14, "kernel": 3,
            "padding": 1}  # fmt: skip
    pruned = Layer.model_validate({"name": "c", "op": conv, "dtype": "fp16",
                                   "pattern": parse_pattern("tw:128@0.5")})  # fmt: skip
    work = tile_gemm(pruned, MASKS)
    assert work.x_whole == 256 * 14 * 14
    assert work.y_whole == 512 * 14 * 14


def test_transpositions_are_not_played():
    with pytest.raises(InputError, match=r"kernels of their own .*; level must be closed"):
        tilewise_schedule(layer(64, 256, 256, "tw:128@0.5"), MASKS, unfused(V100))


def test_a_run_has_the_column_and_whole_cycles_sum():
    network = accsim.gemm(512, 768, 768, dtype="fp16").prune("tw:128@0.5")
    plain, more = (accsim.simulate(network, gpu) for gpu in (V100, unfused(V100)))
    assert more.cycles > plain.cycles
    assert more.table["transpose_us"][0] > 0


def test_what_cannot_run_is_refused_in_a_line():
    pruned = layer(64, 256, 256, "tw:128@0.5")
    bare = V100.model_copy(update={"tilewise": None})
    with pytest.raises(InputError, match="has no tile-wise kernels"):
        tilewise_costs([pruned], MASKS, bare)
    with pytest.raises(InputError, match="2:4 has no tiles"):
        tilewise_costs([layer(64, 256, 256, "2:4")], MASKS, V100)
    with pytest.raises(InputError, match="need tensor cores for int8"):
        tilewise_costs([layer(64, 256, 256, "tw:128@0.5", dtype="int8")], MASKS, V100)
    with pytest.raises(InputError, match="no kernel for the residue"):
        tilewise_costs([layer(64, 256, 256, "tew:128@0.5+0.01")], MASKS, V100)
    huge = layer(10**7, 128, 4096, "tw:128@0")
    with pytest.raises(InputError, match="level events plays at most"):
        tilewise_schedule(huge, MASKS, V100)


def test_every_gpu_has_the_section_and_its_numbers_have_sources():
    for gpu in (V100, A100, accsim.load_hardware("h100_sxm5_80gb")):
        for name in TileWiseKernel.model_fields:
            if name not in ("fused", "transposed"):
                assert gpu.sources[f"tilewise.{name}"].source
    assert isinstance(tilewise_costs([layer(64, 256, 256, "tw:128@0.5")], MASKS, A100), Costs)
