"""FPGA boards: power by resource against plain arithmetic, laws, and physical anchors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.cost.board import at_corner
from accsim.cost.fpga_power import (
    LOGIC,
    PARTS,
    Used,
    energy_j,
    energy_range_j,
    power,
    power_range,
)
from accsim.files.board import load_board_of
from accsim.spec.fpga_power import FpgaBoard

BOARDS = ["xcvu9p", "u250", "u280", "zcu102"]


def board(name="xcvu9p", overrides=None):
    return load_board_of(FpgaBoard, name, overrides)


VU9P = board()
DESIGN = Used(dsp=2048, lut=300_000, ff=500_000, bram36=800, uram=100, channels=2)

shares = st.fixed_dictionaries({name: st.floats(0, 1) for name in (*LOGIC, "channels")})


def design(b, share):
    return Used(**{name: int(share[name] * getattr(b.available, name)) for name in share})


def twin_w(b, used, clock, activity, gb_per_s):
    """Power of one design by plain arithmetic, uW = pJ x MHz."""
    chip = b.static_w + b.channel_w * float(used.channels)
    chip += b.clock_tree_pj * clock * 1000 * 1e-6
    chip += gb_per_s * 1e9 * b.dram_pj_per_byte * 1e-12
    for name in LOGIC:
        ratio = activity / b.toggle_rate
        moving = b.still_share * (1 - ratio) + ratio if ratio < 1 else ratio
        per_mhz = getattr(b.pj_per_clock, name) * moving
        chip += per_mhz * clock * 1000 * 1e-6 * float(getattr(used, name))
    return b.card_w + chip * (1 + b.supply_loss)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(BOARDS), share=shares, clock=st.floats(0, 0.8),
    activity=st.floats(0, 1), gb_per_s=st.floats(0, 100),
)  # fmt: skip
def test_power_is_that_of_plain_arithmetic_in_its_range_and_sums(
    name, share, clock, activity, gb_per_s
):
    b = board(name)
    used, more = design(b, share), {"activity": activity, "dram_gb_per_s": gb_per_s}
    found = power(b, used, clock, **more)
    assert set(found.parts_w) == set(PARTS)
    assert found.power_w == pytest.approx(sum(float(w) for w in found.parts_w.values()))
    assert found.power_w == pytest.approx(twin_w(b, used, clock, activity, gb_per_s))
    low, high = power_range(b, used, clock, **more)
    for part in PARTS:
        assert low.parts_w[part] <= found.parts_w[part] <= high.parts_w[part], part


@settings(max_examples=40, deadline=None)
@given(share=shares, more=shares, clock=st.floats(0.05, 0.5), faster=st.floats(1, 1.6),
       activity=st.floats(0, 0.5), busier=st.floats(0, 0.5))  # fmt: skip
def test_more_resources_clock_or_toggles_never_draw_less(
    share, more, clock, faster, activity, busier
):
    larger = {name: max(share[name], more[name]) for name in share}
    base = power(VU9P, design(VU9P, share), clock, activity=activity).power_w
    for used, ghz, toggles in (
        (larger, clock, activity),
        (share, clock * faster, activity),
        (share, clock, activity + busier),
    ):
        found = power(VU9P, design(VU9P, used), ghz, activity=toggles).power_w
        assert found >= base * (1 - 1e-12)


@settings(max_examples=30, deadline=None)
@given(busy=st.integers(0, 10**9), idle=st.integers(0, 10**9), moved=st.floats(0, 1e12))
def test_energy_is_power_times_time_and_adds(busy, idle, moved):
    clock = 0.2
    parts = energy_j(
        VU9P, DESIGN, clock, busy_cycles=busy, idle_cycles=idle, dram_bytes=moved
    )  # fmt: skip
    working = float(power(VU9P, DESIGN, clock).power_w) * busy / clock * 1e-9
    waiting = float(power(VU9P, DESIGN, clock, activity=0).power_w) * idle / clock * 1e-9
    dram = moved * VU9P.dram_pj_per_byte * 1e-12 * (1 + VU9P.supply_loss)
    assert sum(parts.values()) == pytest.approx(working + waiting + dram)
    ranges = energy_range_j(
        VU9P, DESIGN, clock, busy_cycles=busy, idle_cycles=idle, dram_bytes=moved
    )  # fmt: skip
    for part, (low, high) in ranges.items():
        assert low <= parts[part] <= high


def test_bytes_in_an_hour_cost_what_a_rate_costs():
    """A joule of traffic is the same, given as GB/s or as bytes."""
    watts = power(VU9P, DESIGN, 0.25, dram_gb_per_s=40).power_w
    parts = energy_j(VU9P, DESIGN, 0.25, busy_cycles=0.25e9 * 3600, dram_bytes=40e9 * 3600)
    assert sum(parts.values()) == pytest.approx(watts * 3600)


def test_a_sweep_of_designs_is_priced_in_one_call():
    dsp, clocks = np.array([[1000], [2000]]), np.array([0.1, 0.2, 0.3])
    found = power(VU9P, Used(dsp=dsp), clocks)
    assert found.power_w.shape == found.over_limit.shape == (2, 3)
    one = power(VU9P, Used(dsp=2000), 0.3)
    assert found.power_w[1, 2] == pytest.approx(float(one.power_w))


def test_activity_by_resource_leaves_the_others_at_the_tables_rate():
    usual = power(VU9P, DESIGN, 0.2).parts_w
    still = power(VU9P, DESIGN, 0.2, activity={"dsp": 0.0}).parts_w
    assert still["dsp"] == pytest.approx(usual["dsp"] * VU9P.still_share)
    assert {n: float(still[n]) for n in LOGIC if n != "dsp"} == {
        n: float(usual[n]) for n in LOGIC if n != "dsp"
    }


def test_more_than_the_card_can_get_is_flagged():
    tight = board(overrides={"limit_w": 20})
    assert power(tight, DESIGN, 0.3).over_limit
    assert not power(VU9P, DESIGN, 0.3).over_limit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power(VU9P, Used(dsp=6834), 0.2), "'xcvu9p' has 6,833 dsp; got 6,834"),
        (lambda: power(board("zcu102"), Used(uram=1), 0.2), "'zcu102' has 0 uram; got 1"),
        (lambda: Used(lut=-1), "used.lut must be finite and at least 0; got -1"),
        (lambda: power(VU9P, DESIGN, np.nan), "clock_ghz must be finite and at least 0"),
        (lambda: power(VU9P, DESIGN, 0.2, activity=1.5), "activity.dsp must be at most 1"),
        (lambda: power(VU9P, DESIGN, 0.2, activity={"bram": 0.5}), "did you mean 'bram36'"),
        (lambda: energy_j(VU9P, DESIGN, 0, busy_cycles=1), "clock_ghz must be greater than 0"),
        (lambda: energy_j(VU9P, DESIGN, 0.2, busy_cycles=-1), "busy_cycles must be finite"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        call()


# --- anchors. No vendor estimator and no published wattage was at hand (facts: [?]).


def test_no_resource_is_cheaper_than_the_same_action_in_a_16_nm_asic():
    """facts/energy.md, hwcomponents at 16 nm: 16-bit multiply 0.68 pJ; SRAM reads of 64 bits:
    1 KB 0.32 pJ (a BRAM36 has 4.5), 32 KB 3.2 pJ (a URAM has 36)."""
    low, high = (at_corner(VU9P, side).pj_per_clock for side in ("low", "high"))
    assert low.dsp > 0.68
    assert 0.32 < low.bram36 < 1.4
    assert low.uram > 3.2
    for name in LOGIC:
        assert getattr(high, name) == pytest.approx(14 * getattr(low, name), rel=0.02)
        value = getattr(VU9P.pj_per_clock, name)
        geometric = (getattr(low, name) * getattr(high, name)) ** 0.5
        assert value == pytest.approx(geometric, rel=0.02)


@pytest.mark.parametrize("name", BOARDS)
def test_a_full_device_at_200_mhz_stays_within_its_supply(name):
    """A plausibility, not a validation: cards of this class ship with designs that fill them."""
    b = board(name)
    full = design(b, dict.fromkeys((*LOGIC, "channels"), 1.0))
    found = power(b, full, 0.2)
    assert not found.over_limit
    assert b.card_w + b.static_w < found.power_w


def test_sparse_training_saves_at_most_what_it_saves_in_time():
    """BDWP 2:8 runs 1.75 times faster on the same array (arXiv 2309.13015, facts): with the same
    resources busy, energy falls by that factor at most, and by less where traffic stays."""
    dense, fast = 1e9, 1e9 / 1.75
    moved = 5e9
    before, after = (
        sum(energy_j(VU9P, DESIGN, 0.2, busy_cycles=cycles, dram_bytes=moved).values())
        for cycles in (dense, fast)
    )
    assert 1 < before / after < 1.75
