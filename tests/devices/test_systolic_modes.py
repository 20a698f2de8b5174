"""Which mode a layer runs in, what it packs, and that the cycles follow from it."""

import numpy as np
import pytest
from devices.test_systolic_levels import DATAFLOWS, PATTERNS, PES, device

import accsim
from accsim.devices.systolic_clock import filled
from accsim.devices.systolic_modes import Mode, modes
from accsim.devices.systolic_ops import make_ops
from accsim.devices.systolic_tiling import tile_cycles

TWO_OF_FOUR = (2, 4, ("1:4", "2:4", "dense"))


def tensor_array(multipliers=2, lanes=4, levels=TWO_OF_FOUR[2], **more):
    return device(array__multipliers=multipliers, array__lanes=lanes, array__levels=levels, **more)


def mode_of(pattern, *pe, **more):
    return modes(accsim.pattern(pattern), tensor_array(*pe, **more).array)[0]


def cycles_of(pattern, hw, t=24, k=128, n=20):
    """(mode, array cycles) of a layer whose bytes cost nothing."""
    columns = accsim.simulate(accsim.gemm(t, k, n).prune(pattern), hw).columns
    return columns["mode"][0], columns["cycles"][0] - columns["dram_cycles"][0]


def test_2_4_on_a_2_of_4_pe_takes_one_pass_over_four_lanes():
    assert mode_of("2:4", *TWO_OF_FOUR) == Mode("2:4", 4, 4, 2, 2, 1)


def test_dense_uses_as_many_lanes_as_multipliers():
    assert mode_of("dense", *TWO_OF_FOUR) == Mode("dense", 2, 1, 1, 0, 1)
    assert mode_of("4:4", *TWO_OF_FOUR) == Mode("dense", 2, 1, 1, 0, 1)


def test_1_4_with_eight_lanes_packs_two_blocks():
    assert mode_of("1:4", 2, 8, ("1:4", "2:4", "dense")) == Mode("1:4", 8, 4, 1, 2, 1)


def test_1_4_with_four_lanes_leaves_a_multiplier_idle():
    """Four lanes cannot feed two blocks: as fast as 2:4, half the slots."""
    assert mode_of("1:4", *TWO_OF_FOUR) == Mode("1:4", 4, 4, 1, 2, 1)


def test_1_4_on_a_2_4_only_pe_stores_one_slot():
    assert mode_of("1:4", 2, 4, ("2:4", "dense")) == Mode("2:4", 4, 4, 1, 2, 1)


def test_2_8_fits_the_2_4_mode():
    """Any aligned 4 rows of 2:8 hold at most 2."""
    assert mode_of("2:8", *TWO_OF_FOUR) == Mode("2:4", 4, 4, 2, 2, 1)


def test_3_8_does_not_fit_2_4():
    """Three may fall in 4 rows: dense, unless the indices reach over 8 rows, in two passes."""
    assert mode_of("3:8", *TWO_OF_FOUR).level == "dense"
    assert mode_of("3:8", 2, 8, ("2:4", "3:8", "dense")) == Mode("3:8", 8, 8, 3, 3, 2)
    assert mode_of("3:8", 3, 8, ("2:4", "3:8", "dense")) == Mode("3:8", 8, 8, 3, 3, 1)


def test_groups_across_blocks_are_bounded_by_both():
    """2:6 puts 2 + 2 in rows 4 … 7: no 2:4."""
    assert mode_of("2:6", *TWO_OF_FOUR).level == "dense"


def test_a_level_without_use_of_its_zeros_is_left():
    """Two passes over 4 lanes are no faster than dense over 2, and store indices: dense."""
    assert mode_of("4:4", 2, 4, ("2:4", "4:4", "dense")).level == "dense"


@pytest.mark.parametrize("pattern", [*PATTERNS, "unstructured@0.9"])
def test_a_plain_pe_ignores_patterns(pattern):
    plain = device()
    assert modes(accsim.pattern(pattern), plain.array) == (Mode("dense", 1, 1, 1, 0, 1),)
    dense, sparse = (
        accsim.simulate(accsim.gemm(9, 17, 11).prune(p), plain).columns for p in ("dense", pattern)
    )
    for name in ("cycles", "dram_read_bytes", "sram_read_bytes"):
        assert dense[name] == sparse[name]
    assert sparse["metadata_bits"] == [0]


def test_unstructured_without_adaptive_runs_dense():
    assert mode_of("unstructured@0.9", *TWO_OF_FOUR).level == "dense"
    fixed, dense = (
        accsim.simulate(accsim.gemm(9, 32, 11).prune(p), tensor_array()).cycles
        for p in ("unstructured@0.9", "dense")
    )
    assert fixed == dense


def test_unstructured_with_adaptive_follows_the_mask():
    hw = tensor_array(array__adaptive=True)
    assert modes(accsim.pattern("unstructured@0.9"), hw.array)[-1] == Mode(
        "adaptive", 4, 4, 0, 2, 0, driven=True
    )
    assert accsim.simulate(accsim.gemm(32, 64, 16).prune("unstructured@0.95"), hw).columns[
        "mode"
    ] == ["adaptive"]


def test_a_nearly_dense_mask_runs_dense_on_adaptive_hardware():
    """The fullest PE of nearly every fold takes 2 passes over 4 lanes, as dense, plus indices."""
    net = accsim.gemm(32, 64, 16).prune("unstructured@0.01")
    assert accsim.simulate(net, tensor_array(array__adaptive=True)).columns["mode"] == ["dense"]


@pytest.mark.parametrize("pattern", ["dense", "2:4", "unstructured@0"])
def test_a_bounded_pattern_is_never_adaptive(pattern):
    """Every block may be full: the mask has nothing to add."""
    found = modes(accsim.pattern(pattern), tensor_array(array__adaptive=True).array)
    assert not any(mode.driven for mode in found)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("double_buffering", [True, False])
def test_two_passes_over_four_lanes_equal_dense_over_two(dataflow, double_buffering):
    """⌈4/2⌉ passes of 4:4 or twice the folds of dense: the same cycles for whole folds of k."""
    hw = tensor_array(
        dataflow=dataflow, array__rows=4, array__cols=3, array__double_buffering=double_buffering
    )
    layer = accsim.gemm(10, 4 * 4 * 3, 7).layers[0]
    two_passes, dense = (
        tile_cycles(ops, ops.t, ops.k, ops.n, hw)
        for ops in (
            make_ops([layer], [mode], hw)
            for mode in (Mode("4:4", 4, 4, 4, 2, 2), Mode("dense", 2, 1, 1, 0, 1))
        )
    )
    if dataflow == "is" and not double_buffering:  # its passes stream on: half the fills to pay
        assert two_passes[0] < dense[0]
    else:
        assert two_passes[0] == dense[0]
        assert two_passes[1] == dense[1]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_passes_multiply_the_streaming(dataflow):
    """Large layers cost passes per row: dense 1/2, 2:4 1/4, 1:4 1/8, 3:8 2/8, 1:8 1/16."""
    hw = tensor_array(
        2, 16, ("1:4", "2:4", "1:8", "3:8", "dense"), dataflow=dataflow, array__rows=2,
        array__cols=2, memory__dram__bandwidth_gb_per_s=1e9,
    )  # fmt: skip
    cycles = {
        p: cycles_of(p, hw, t=256, k=512, n=64) for p in ("dense", "2:4", "1:4", "3:8", "1:8")
    }
    assert [mode for mode, _ in cycles.values()] == ["dense", "2:4", "1:4", "3:8", "1:8"]
    rates = {"dense": 2, "2:4": 4, "1:4": 8, "3:8": 4, "1:8": 16}
    macs = 256 * 512 * 64 // 4  # a PE, of 4
    for pattern, (_, taken) in cycles.items():
        assert macs / rates[pattern] <= taken < 1.2 * macs / rates[pattern]


def test_every_mode_of_every_pe_can_hold_its_pattern():
    """Law: passes × multipliers hold the fullest block of the lanes; what is stored fits too."""
    rng = np.random.default_rng(2)
    for multipliers, lanes, levels in PES:
        array = tensor_array(multipliers, lanes, levels).array
        for text in PATTERNS:
            pattern = accsim.pattern(text)
            mask = pattern.mask(rng.standard_normal((240, 30)).astype(np.float32))
            for mode in modes(pattern, array):
                blocks = mask.reshape(240 // mode.lanes, mode.lanes, 30).sum(axis=1)
                assert blocks.max() <= mode.passes * multipliers, (text, mode)
                groups = mask.reshape(240 // mode.group, mode.group, 30).sum(axis=1)
                assert groups.max() <= mode.slots
                assert mode.lanes <= lanes
                assert mode.lanes % mode.group == 0
                assert mode.slots * (mode.lanes // mode.group) <= mode.passes * multipliers
                assert 2**mode.index_bits >= mode.group


def test_the_fastest_mode_comes_first():
    for pe in PES:
        for text in PATTERNS:
            found = modes(accsim.pattern(text), tensor_array(*pe).array)
            rates = [mode.passes / mode.lanes for mode in found]
            assert rates == sorted(rates)


# --- the packed format


def slow_fill(mask, group, slots):
    """Each group keeps what the mask keeps, then takes free rows from the top."""
    k, n = mask.shape
    result = np.zeros((k, n), bool)
    for column in range(n):
        for first in range(0, k, group):
            rows = range(first, first + group)
            kept = [row for row in rows if mask[row, column]]
            free = [row for row in rows if not mask[row, column]]
            result[(kept + free)[:slots], column] = True
    return result


def test_filled_equals_the_slow_fill():
    rng = np.random.default_rng(3)
    for _ in range(300):
        group = int(rng.integers(1, 9))
        slots = int(rng.integers(1, group + 1))
        k, n = group * int(rng.integers(1, 6)), int(rng.integers(1, 6))
        mode = Mode("n:m", group, group, slots, 3, 1)
        mask = accsim.pattern(f"{slots}:{group}").mask(
            rng.standard_normal((k, n)).astype(np.float32)
        )
        mask &= rng.random((k, n)) < rng.random()
        got = filled(mask, mode)
        assert np.array_equal(got, slow_fill(mask, group, slots))
        assert not np.any(mask & ~got), "a kept weight lost its slot"
        assert got.sum() == n * mode.stored(k)
        assert np.array_equal(filled(got, mode), got)


def test_stored_counts_short_groups():
    mode = Mode("2:4", 4, 4, 2, 2, 1)
    assert [mode.stored(k) for k in range(1, 10)] == [1, 2, 2, 2, 3, 4, 4, 4, 5]
