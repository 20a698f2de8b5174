"""Ranges of energy: corners of the table, and comparisons that share a table."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accsim
from accsim.cost.energy import energy_pj
from accsim.cost.ranges import Priced, at_corner, compare, energy_range_pj, groups, ranking
from accsim.spec.energy import Energy
from accsim.spec.sourced import Sourced

DEVICES = ["systolic_nm_32x32", "systolic_os_4x4", "tpu_cloud", "systolic_ws_128x128"]


def run(
    device="systolic_nm_32x32", t=200, k=300, n=100, pattern="2:4", overrides=None, dtype="int8"
):
    hardware = accsim.load_hardware(device, overrides)
    return accsim.simulate(accsim.gemm(t, k, n, dtype=dtype).prune(pattern), hardware)


def priced(result, device=None):
    return Priced(result.evaluation, result.workload.layers, device or result.hardware)


def ranged(result, device=None):
    p = priced(result, device)
    return energy_range_pj(p.found, p.layers, p.device)


def with_source(device, path, **bounds):
    """Return the device with other bounds on one number of its table."""
    source = device.sources[path]
    fields = {name: getattr(source, name) for name in Sourced.model_fields}
    changed = Sourced(**{**fields, "low": None, "high": None, **bounds})
    return device.model_copy(update={"sources": device.sources | {path: changed}})


def without_ranges(device):
    for path in device.sources:
        device = with_source(device, path)
    return device


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_lies_in_its_range(device):
    result = run(device)
    for part, (low, high) in ranged(result).items():
        value = result.energy_parts_pj[part]
        assert (low <= value).all(), part
        assert (value <= high).all(), part
    assert any((high > low).any() for low, high in ranged(result).values())


@pytest.mark.parametrize("device", DEVICES)
def test_without_ranges_both_ends_are_the_value(device):
    result = run(device)
    for part, (low, high) in ranged(result, without_ranges(result.hardware)).items():
        value = result.energy_parts_pj[part]
        assert np.array_equal(low, value), part
        assert np.array_equal(high, value), part


BY_HAND = [
    ("low", 0.0588, 0.0294, 0.00255, 0.000472, 8, 0.0093, 0.138, 0),
    ("high", 0.268, 0.0936, 0.00609, 0.00404, 14, 7.58, 195, 200),
]


@pytest.mark.parametrize(
    ("side", "mult", "add", "register", "select", "dram", "pe", "sram", "dmw"), BY_HAND
)
def test_a_corner_is_the_formula_by_hand(side, mult, add, register, select, dram, pe, sram, dmw):
    """The 22 nm table's bounds, typed in from hwconfigs/energy/cmos_22nm.yaml."""
    result = run("systolic_nm_32x32")
    counts, cycles = result.evaluation.counts, result.evaluation.cycles
    found = {part: ends[side == "high"] for part, ends in ranged(result).items()}
    assert found["mac"] == pytest.approx(counts["macs"] * (mult + add))
    assert found["register"] == pytest.approx(counts["register_bits"] * register)
    assert found["select"] == pytest.approx(counts["select_bits"] * select)
    moved = counts["dram_read_bytes"] + counts["dram_write_bytes"]
    assert found["dram"] == pytest.approx(moved * 8 * dram)
    milliwatts = 32 * 32 * 2 * pe * 1e-3 + 1.5 * sram + dmw  # three buffers of 512 KiB
    assert found["static"] == pytest.approx(milliwatts * cycles)  # at 1 GHz
    # 512 KiB lies midway between 256 KiB and 1 MiB on a log axis: the geometric mean
    read, write = {
        "low": (math.sqrt(11.86 * 23.47), math.sqrt(8.825 * 17.5)),
        "high": (math.sqrt(29.3 * 46.9),) * 2,
    }[side]
    moved = [counts.of("sram_", f"_{way}_bytes") for way in ("read", "write")]
    by_hand = (moved[0] * read + moved[1] * write) / 8
    assert found["sram"] == pytest.approx(by_hand)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_no_table_within_the_bounds_leaves_the_range(data):
    """Any choice of numbers inside their bounds, not only the corners."""
    result = RESULT
    table = result.hardware.energy.model_dump()
    for path, source in result.hardware.sources.items():
        head, _, rest = path.partition(".")
        if head == "energy" and (source.low is not None or source.high is not None):
            low = source.value if source.low is None else source.low
            high = source.value if source.high is None else source.high
            spot, keys = table, rest.split(".")
            for key in keys[:-1]:
                spot = spot[int(key) if key.isdigit() else key]
            spot[keys[-1]] = low + (high - low) * data.draw(st.floats(0, 1))
    device = result.hardware.model_copy(update={"energy": Energy.model_validate(table)})
    found = energy_pj(result.evaluation, result.workload.layers, device)
    for part, (low, high) in ranged(result).items():
        assert (low <= found[part] * (1 + 1e-12)).all(), part
        assert (found[part] <= high * (1 + 1e-12)).all(), part


RESULT = run()


@pytest.mark.parametrize("nbytes", [300, 1024, 5000, 2**19, 2**22, 2**26])
def test_a_buffer_beyond_the_tables_sizes_keeps_the_relative_range_of_the_nearest(nbytes):
    device = accsim.load_hardware("systolic_ws_32x32")
    device = with_source(device, "energy.sram.0.read_pj", low=0.1901, high=1.1406)  # × 0.5 … 3
    device = with_source(device, "energy.sram.6.read_pj", low=21.93, high=131.58)
    buffers = device.memory.sram
    sram = buffers.model_copy(update={"w": buffers.w.model_copy(update={"bytes": nbytes})})
    memory = device.memory.model_copy(update={"sram": sram})
    device = device.model_copy(update={"memory": memory})
    value, _ = device.energy.sram_pj_per_byte(nbytes)
    low, _ = at_corner(device, "low").energy.sram_pj_per_byte(nbytes)
    high, _ = at_corner(device, "high").energy.sram_pj_per_byte(nbytes)
    assert low <= value <= high
    if not 1024 < nbytes < 2**22:
        assert (low / value, high / value) == pytest.approx((0.5, 3))


def test_a_number_changed_after_its_source_was_written_has_no_range():
    result = run()
    table = result.hardware.energy.model_copy(update={"register_pj_per_bit": 1.0})
    device = result.hardware.model_copy(update={"energy": table})
    low, high = ranged(result, device)["register"]
    assert low == high == result.evaluation.counts["register_bits"]


def test_an_override_has_no_range_and_the_rest_keep_theirs():
    result = run(overrides={"energy.dram_pj_per_bit.lpddr4": 5})
    found = ranged(result)
    assert found["dram"][0] == found["dram"][1] == result.energy_parts_pj["dram"]
    assert found["mac"][0] < found["mac"][1]


# --- comparisons ---------------------------------------------------------------------------------


def test_a_design_equals_itself():
    found = compare(priced(RESULT), priced(RESULT))
    assert (found.low_j, found.difference_j, found.high_j) == (0, 0, 0)
    assert found.ranking == found.independent == "inside the range"


def test_a_shared_table_tells_apart_what_two_tables_could_not():
    """Half of every action costs less whatever an action costs, though the two ranges overlap."""
    small, large = run(t=200), run(t=400)
    found = compare(priced(small), priced(large))
    assert found.ranking == "a"
    assert found.independent == "inside the range"
    assert ranking(priced(large), priced(small)) == "b"
    assert found.low_j < found.difference_j < found.high_j < 0


def test_trading_one_uncertain_part_for_another_is_inside_the_range():
    """More DRAM and less buffer traffic: which is cheaper depends on the numbers."""
    device = accsim.load_hardware("systolic_ws_32x32")
    a, b = run("systolic_ws_32x32", pattern="dense"), run("systolic_ws_32x32", pattern="dense")
    counts = a.evaluation.counts
    zero = np.zeros_like(counts["macs"])
    bare = dict.fromkeys(counts, zero)

    def only(**actions):
        from dataclasses import replace

        found = replace(a.evaluation, cycles=zero, counts=type(counts)(bare | actions))
        return Priced(found, a.workload.layers, device)

    macs, moved = np.array([1000]), np.array([2])  # 88 … 362 pJ of MACs, 128 … 224 pJ of DRAM
    found = compare(only(macs=macs), only(dram_read_bytes=moved))
    assert found.difference_j * 1e12 == pytest.approx(196.9 - 128)
    assert found.low_j * 1e12 == pytest.approx(88.2 - 224)
    assert found.high_j * 1e12 == pytest.approx(361.6 - 128)
    assert found.ranking == "inside the range"
    assert ranking(only(macs=10 * macs), only(dram_read_bytes=moved)) == "b"
    assert ranking(only(macs=macs), only(dram_read_bytes=10 * moved)) == "a"
    assert b.energy_j == a.energy_j


def test_the_difference_is_extreme_at_a_corner_of_the_groups():
    """Brute force over every corner of the groups that matter, both designs at the same one."""
    a, b = priced(run(t=300, k=64, n=64)), priced(run(t=64, k=300, n=80))
    matter = ("mac.int8.mult_pj", "mac.int8.add_pj", "register_pj_per_bit", "select_pj_per_bit",
              "sram", "dram_pj_per_bit.lpddr4", "dram_static_mw")  # fmt: skip
    here = a.energy_j() - b.energy_j()
    shifts = [
        [a.energy_j(side, f"energy.{g}") - b.energy_j(side, f"energy.{g}") - here for g in matter]
        for side in ("low", "high")
    ]
    static = a.device.model_copy(update={"sources": {
        path: source for path, source in a.device.sources.items()
        if "pe_static" not in path and "sram_static" not in path
    }})  # fmt: skip
    found = compare(Priced(a.found, a.layers, static), Priced(b.found, b.layers, static))
    ends = [
        here + sum(shifts[side][i] for i, side in enumerate(sides))
        for sides in itertools.product((0, 1), repeat=len(matter))
    ]
    assert found.low_j == pytest.approx(min(ends), rel=1e-9)
    assert found.high_j == pytest.approx(max(ends), rel=1e-9)


def test_different_tables_share_only_what_comes_from_the_same_source():
    """DRAM stands in every table with the same source; arithmetic does not."""
    a, b = run(), run(overrides={"energy": "cmos_7nm"})
    mine, other = groups(a.hardware), groups(b.hardware)
    assert mine["energy.dram_pj_per_bit.lpddr4"] == other["energy.dram_pj_per_bit.lpddr4"]
    assert mine["energy.mac.int8.mult_pj"] != other["energy.mac.int8.mult_pj"]
    found = compare(priced(a), priced(b))
    assert found.difference_j > 0  # 22 nm takes more, but by less than the tables are sure of
    assert found.low_j < found.difference_j < found.high_j
    high, low = (
        sum(ends[side].sum() for part, ends in ranged(x).items() if part != "dram")
        for x, side in ((a, 1), (b, 0))
    )
    standby = 200 * a.cycles  # mW · ns: the bound of dram_static_mw, the same for both
    assert found.high_j == pytest.approx(1e-12 * (high - standby - low))
