"""The DRAM noun refuses nonsense; its clocks and its peak are those of the data sheets."""

import numpy as np
import pytest
from pydantic import ValidationError

from accsim.files.dram import dram_parts, load_dram
from accsim.kernels import dram
from accsim.spec.dram import DramPart

DDR4 = load_dram("ddr4_3200")

# GB/s of a DIMM, a package, a chip or a stack, as they are sold.
PEAKS = {
    "ddr4_2400": 19.2, "ddr4_3200": 25.6, "lpddr4_4266": 17.06, "lpddr5_6400": 25.6,
    "gddr6_16": 64, "hbm2_2gbps": 256, "hbm2e": 409.6, "hbm3": 819.2,
}  # fmt: skip


@pytest.mark.parametrize("name", dram_parts())
def test_peak_is_the_advertised_one(name):
    assert load_dram(name).peak_gb_per_s == pytest.approx(PEAKS[name], rel=1e-3)


def test_clocks_are_those_of_the_speed_bin():
    times = DDR4.timings  # DDR4-3200AA: 22-22-22, four clocks a burst, tCCD_L 8, tRAS 52
    found = [DDR4.clocks(t) for t in (times.tcl_ns, times.trcd_ns, times.trp_ns, times.tras_ns)]
    assert found == [22, 22, 22, 52]
    assert (DDR4.burst_clocks, DDR4.clocks(times.tccd_l_ns), DDR4.burst_bytes) == (4, 8, 64)
    slower = load_dram("ddr4_2400")  # DDR4-2400R: 16-16-16
    assert [slower.clocks(t) for t in (slower.timings.tcl_ns, slower.timings.trcd_ns)] == [16, 16]


def test_a_time_just_over_whole_clocks_is_rounded_as_jedec_does():
    assert DDR4.clocks(13.75) == 22
    assert DDR4.clocks(13.76) == 22  # 2 % of a clock over
    assert DDR4.clocks(13.78) == 23
    assert DDR4.clocks(0) == 0


def test_the_parameter_table_is_in_the_kernels_order():
    table = load_dram("hbm2_2gbps", {"ranks": 2}).parameters()
    assert table.dtype == np.int64
    assert len(table) == dram.PARAMETERS
    named = {dram.RCD: 14, dram.RAS: 33, dram.CCD_L: 4, dram.FAW: 16, dram.WTR_L: 8, dram.RTP: 5,
             dram.RFC: 160, dram.REFI: 244, dram.TURN: 1, dram.BURST: 2, dram.ROW_BUS: 1,
             dram.RANKS: 2, dram.GROUPS: 4, dram.BANKS: 4, dram.PER_BANK: 1,
             dram.WINDOW: 64}  # fmt: skip
    assert {entry: table[entry] for entry in named} == named


@pytest.mark.parametrize(
    ("times", "groups", "lanes"),
    [((2.5, 5), 4, 2), ((2.5, 2.5), 4, 1), ((2.5, 6), 4, 4), ((2.5, 5), 1, 1), ((2.5, 5), 3, 3)],
)
def test_lanes_are_as_few_groups_as_hide_the_long_ccd(times, groups, lanes):
    given = {"tccd_s_ns": times[0], "tccd_l_ns": times[1]}
    part = changed(DDR4, bank_groups=groups, timings=given)
    assert part.lanes == lanes


def changed(part, **fields):
    data = part.model_dump()
    for key, value in fields.items():
        data[key] = data[key] | value if isinstance(value, dict) else value
    return DramPart.model_validate(data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"row_bytes": 100}, "row_bytes must be a multiple of the burst of 64 bytes; got 100"),
        ({"controller": {"interleave_bytes": 96}}, "interleave_bytes must be a multiple of the bu"),
        ({"burst_length": 7}, "must be a multiple of"),
        ({"timings": {"tccd_s_ns": 1.0}}, "tccd_s_ns must cover the burst of 4 clocks; got 1"),
        ({"timings": {"tccd_l_ns": 2.0}}, "tccd_l_ns must be at least tccd_s_ns; got 2 < 2.5"),
        ({"timings": {"trfc_ns": 5000}}, "trfc_ns must be at most half of trefi_ns; got 5000"),
        ({"timings": {"trfc_pb_ns": 500}}, "trfc_pb_ns x 16 banks must be at most trefi_ns"),
        ({"timings": {"trcd_ns": -1}}, "greater than 0"),
        ({"channels": 0}, "greater than or equal to 1"),
        ({"bank_groups": True}, "got a boolean"),
    ],
)
def test_nonsense_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        changed(DDR4, **fields)
