"""FPGA resources against a PE-by-PE twin and arithmetic by hand; refusals; energy of a design."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.cost import fpga_power
from accsim.devices.fpga_energy import (
    PARTS,
    Done,
    busy_shares,
    design_energy_pj,
    energy_by_part,
    energy_ends,
)
from accsim.devices.fpga_resources import Resources, check, cornered, resources, total
from accsim.files.board import load_board_of
from accsim.spec.counts import Counts
from accsim.spec.fpga import Fpga
from accsim.spec.fpga_power import DRAW_PARTS, RESOURCES, FpgaBoard
from accsim.spec.schedule import Evaluation

BOARDS = ["xcvu9p", "zcu102", "u250", "u280"]
BITS = {"int8": 8, "int16": 16, "bf16": 16, "fp16": 16, "fp32": 32}
SAT = {"rows": 32, "cols": 32, "multipliers": 2, "lanes": 8, "levels": ("dense", "2:8"),
       "adder_latency": 8}  # fmt: skip
SMALL = {"rows": 4, "cols": 4, "multipliers": 2, "lanes": 8, "levels": ("dense", "2:4"),
         "adder_latency": 8}  # fmt: skip


@cache
def board(name):
    return load_board_of(FpgaBoard, name)


def design(card="xcvu9p", array=SAT, change=None, **fields):
    kib = {name: {"kib": 1024} for name in "xwy"}
    data = {
        "name": "mine", "clock_ghz": 0.2, "format": "fp16", "buffers": kib,
        "ddr": {"channels": 2, "gb_per_s": 16}, "vector": {"lanes": 16},
        "selection": {"when": "pregenerated", "groups_per_cycle": 4},
        "board": board(card), "array": array | (change or {}),
    }  # fmt: skip
    return Fpga(**(data | fields))


def refused(device):
    with pytest.raises(InputError) as error:
        check(device)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- a twin that walks over PEs


def twin(device):
    """Count a design PE by PE, with the numbers of the board's table."""
    array, table, bits = device.array, device.board.parts, BITS[device.format]
    used = dict.fromkeys(RESOURCES, 0.0)

    def take(part, times=1):
        for name in ("dsp", "lut", "ff"):
            used[name] += times * getattr(part, name)
        used["bram36"] += times * getattr(part, "bram36", 0)

    levels = [tuple(map(int, level.split(":"))) for level in array.levels if level != "dense"]
    index = {level: next(b for b in range(9) if 2**b >= level[1]) for level in levels}
    widest = bits + max(index.values(), default=0)
    floats = device.format.startswith(("fp", "bf"))
    for row in range(array.rows):
        for col in range(array.cols):
            for each in range(array.multipliers):
                take(getattr(table.multiplier, device.format))
                fast = array.dsp_adders is None or each < array.dsp_adders
                take(table.int32_adder if not floats
                     else table.fp32_adder if fast else table.fp32_adder_lut)  # fmt: skip
                inputs = array.lanes if levels else -(-array.lanes // array.multipliers)
                if inputs > 1:
                    used["lut"] += bits * -(-inputs // 4)
            take(table.pe_control)
            used["ff"] += 32 + array.lanes * bits
            if "os" in array.flows and array.interleave:
                used["lut"] += 32 * -(-array.adder_latency // 32)
            held = [array.multipliers * widest]
            if "ws" in array.flows:
                held = [2 * array.lanes * bits]
                for n, m in levels:
                    held.append(2 * n * (array.lanes // m) * (bits + index[n, m]))
            used["ff"] += max(held)
            for place, width, enters in (
                (row, array.lanes * bits, col == 0),
                (col, array.multipliers * widest, row == 0 and "os" in array.flows),
            ):
                if enters and place:
                    used["lut"] += width * -(-place // 32)
                    used["ff"] += width
    if levels:
        lut = ff = 0
        for n, m in levels:
            pairs = sum(1 for a in range(m) for b in range(m) if a < b)
            out = n * (bits + index[n, m])
            choice = 0 if m == 1 else -(-m // 4)
            lut = max(lut, pairs * -(-bits // 2) + m * (m - 1) + out * choice)
            ff = max(ff, m * bits + pairs + out)
        engines = -int(-device.selection.groups_per_cycle // 1)
        used["lut"] += engines * lut
        used["ff"] += engines * ff
    # batch norm: 2 products, 2 sums; Adam: m, v, root, quotient, step
    kinds = {"sgd": (3, 3, 0), "momentum": (4, 4, 0), "adam": (8, 6, 1)}
    products, sums, hard = kinds[device.vector.optimiser]
    for _ in range(device.vector.lanes):
        take(table.multiplier.fp32, products)
        take(table.fp32_adder, sums)
        take(table.fp32_divider, hard)
        take(table.fp32_root, hard)
    widths = {"x": array.rows * array.lanes * bits, "w": array.cols * array.multipliers * widest,
              "y": array.cols * 32}  # fmt: skip
    for name, width in widths.items():
        buffer = getattr(device.buffers, name)
        kibit = 288 if buffer.memory == "uram" else 36
        key = "uram" if buffer.memory == "uram" else "bram36"
        for _half in range(2):
            used[key] += max(-(-width // 72), -(-(buffer.kib / 2 * 8) // kibit))
    take(table.controller, device.ddr.channels)
    take(table.control)
    return used


formats = st.sampled_from(sorted(BITS))
level_sets = st.sampled_from([
    ("dense",), ("dense", "1:1"), ("dense", "2:4"), ("dense", "2:8", "1:4"), ("dense", "4:8"),
])  # fmt: skip


@st.composite
def arrays(draw):
    multipliers = draw(st.sampled_from([1, 2, 3, 4, 8]))
    levels = draw(level_sets)
    least = max([multipliers, *(int(x.split(":")[1]) for x in levels[1:])])
    return {
        "rows": draw(st.integers(1, 40)), "cols": draw(st.integers(1, 40)),
        "multipliers": multipliers, "lanes": draw(st.integers(least, 64)),
        "levels": levels, "adder_latency": draw(st.integers(1, 64)),
        "interleave": draw(st.booleans()),
        "flows": draw(st.sampled_from([("ws",), ("os",), ("ws", "os")])),
        "dsp_adders": draw(st.none() | st.integers(0, multipliers)),
    }  # fmt: skip


def buffers(draw_kib, memory):
    return {name: {"kib": kib, "memory": memory} for name, kib in zip("xwy", draw_kib, strict=True)}


sizes = st.tuples(*[st.sampled_from([0.5, 4.5, 64, 100, 2048])] * 3)
memories = st.sampled_from(["bram", "uram"])
vectors = st.fixed_dictionaries({
    "lanes": st.integers(1, 64), "optimiser": st.sampled_from(["sgd", "momentum", "adam"]),
})  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(arrays(), formats, sizes, memories, vectors, st.floats(0.1, 30), st.sampled_from(BOARDS))
def test_a_bill_is_what_is_counted_pe_by_pe(array, number, kib, memory, vector, groups, card):
    device = design(
        card, array, format=number, buffers=buffers(kib, memory), vector=vector,
        selection={"when": "critical", "groups_per_cycle": groups},
    )  # fmt: skip
    found = total(resources(device))
    for name, value in twin(device).items():
        assert getattr(found, name) == value, name


def test_a_small_design_by_hand():
    """4 × 4 PEs of two fp16 multipliers choosing from 8 lanes, 2:4 (2 of 4, two blocks at once)."""
    bill = resources(design(array=SMALL, ddr={"channels": 1, "gb_per_s": 16}))
    assert bill["pe_multipliers"] == Resources(dsp=32, lut=32 * 60, ff=32 * 80)
    assert bill["pe_adders"] == Resources(dsp=64, lut=32 * 214, ff=32 * 227)
    assert bill["pe_select"].lut == 32 * 16 * 2  # 8 to 1: two LUTs a bit
    assert bill["pe_sums"] == Resources(lut=16 * 32, ff=16 * 32)
    # X: 8 × 16; W, two groups: dense 8 × 16, 2:4 4 × 18
    assert bill["pe_operands"].ff == 16 * (128 + 2 * max(128, 72))
    # rows 1 … 3 of 128 bits, columns 1 … 3 of 2 × 18
    assert bill["skew"] == Resources(lut=3 * 128 + 3 * 36, ff=3 * 128 + 3 * 36)
    # six pairs of 16 bits, four ranks of three, two values and positions out of four
    assert bill["selection"] == Resources(lut=4 * (48 + 12 + 36), ff=4 * (64 + 6 + 36))
    assert bill["vector"].dsp == 16 * (4 * 3 + 4 * 2)
    # 512 KiB a half = 4096 Kibit in blocks of 36; no width comes near
    assert bill["buffer_x"] == Resources(bram36=2 * 114)


def test_width_binds_a_wide_buffer_and_capacity_a_deep_one():
    small = {name: {"kib": 16} for name in "xwy"}
    bill = resources(design(buffers=small))
    assert bill["buffer_x"].bram36 == 2 * 57  # 32 rows × 8 lanes × 16 bits = 4096, in 72
    assert bill["buffer_w"].bram36 == 2 * 17  # 32 columns × 2 × (16 + 3) = 1216
    deep = buffers((1024, 1024, 9000), "uram")
    assert resources(design(buffers=deep))["buffer_y"] == Resources(uram=2 * 125)


# --- laws


def covers(more, less):
    return all(getattr(more, name) >= getattr(less, name) for name in RESOURCES)


@settings(max_examples=60, deadline=None)
@given(arrays(), formats, st.data())
def test_more_of_anything_never_takes_less(array, number, data):
    base = total(resources(design(array=array, format=number)))
    more = {
        key: data.draw(st.integers(array[key], most))
        for key, most in (("rows", 60), ("cols", 60), ("lanes", 64), ("adder_latency", 64))
    }
    for key, value in more.items():
        assert covers(total(resources(design(array=array | {key: value}, format=number))), base)
    larger = [
        {"vector": {"lanes": data.draw(st.integers(16, 99)), "optimiser": "adam"}},
        {"selection": {"when": "critical", "groups_per_cycle": data.draw(st.floats(4, 99))}},
        {"ddr": {"channels": 4, "gb_per_s": 16}},
        {"buffers": buffers([1024 * data.draw(st.floats(1, 9))] * 3, "bram")},
    ]
    for change in larger:
        assert covers(total(resources(design(array=array, format=number, **change))), base)


@settings(max_examples=40, deadline=None)
@given(arrays())
def test_a_wider_format_never_takes_less(array):
    found = [total(resources(design(array=array, format=number))) for number in
             ("int8", "int16", "bf16", "fp16", "fp32")]  # fmt: skip
    assert all(covers(b, a) for a, b in pairwise(found))


@settings(max_examples=40, deadline=None)
@given(arrays(), formats, st.sampled_from(BOARDS))
def test_the_ends_of_the_table_bracket_a_bill(array, number, card):
    device = design(card, array, format=number)
    low, high = (total(resources(cornered(device, side))) for side in ("low", "high"))
    value = total(resources(device))
    assert covers(value, low)
    assert covers(high, value)
    assert low != high


def test_dsps_of_adders_are_traded_for_luts():
    found = [total(resources(design(change={"dsp_adders": n}))) for n in (0, 1, 2)]
    assert [f.dsp for f in found] == [2380 - 6, 2380 - 6 + 2048, 2380 - 6 + 4096]
    assert found[0].lut > found[1].lut > found[2].lut
    assert total(resources(design())) == found[2]
    with pytest.raises(ValueError, match="dsp_adders must be at most multipliers; got 3"):
        design(change={"dsp_adders": 3})


# --- what a card has no room for


@pytest.mark.parametrize("card", BOARDS)
def test_a_large_array_is_refused_on_every_card_and_a_small_one_fits(card):
    large = design(card, change={"rows": 128, "cols": 128}, format="fp32")
    needed = f"{total(resources(large)).dsp:,} DSPs"
    text = refused(large)
    assert text.startswith(f"fpga 'mine' needs {needed}, board '{card}' has ")
    assert "pe_multipliers takes most of them (98,304)" in text
    check(design(card, array=SMALL))


def test_the_refusal_names_what_lacks_most():
    assert refused(design()) == (
        "fpga 'mine' needs 6,470 DSPs, board 'xcvu9p' has 5,847 in its SLRs; "
        "pe_adders takes most of them (4,096)"
    )
    assert "LUTs, board 'xcvu9p' has 1,047,139; pe_adders" in refused(
        design(change={"dsp_adders": 0})
    )
    deep = {name: {"kib": 9000} for name in "xwy"}
    assert "BRAM36, board 'xcvu9p' has 1,896; buffer_x" in refused(
        design(array=SMALL, buffers=deep)
    )
    check(design(array=SMALL, buffers=buffers((9000, 9000, 9000), "uram")))
    assert "URAM, board 'zcu102' has 0; buffer_x" in refused(
        design("zcu102", array=SMALL, buffers=buffers((64, 64, 64), "uram"))
    )
    assert "needs 5 memory channels, board 'xcvu9p' has 4" in refused(
        design(array=SMALL, ddr={"channels": 5, "gb_per_s": 16})
    )


def test_a_pe_lies_within_one_region():
    """DSPs in all would do: 29 PEs of 192 and 326 more; but 11 + 6 + 11 PEs fit, not 29."""
    wide = {"rows": 1, "cols": 29, "multipliers": 64, "lanes": 64, "levels": ("dense",)}
    assert total(resources(design(change=wide))).dsp == 29 * 192 + 320 + 6 > 5847
    thin = {"vector": {"lanes": 1}, "ddr": {"channels": 1, "gb_per_s": 16}}
    text = refused(design(change=wide, **thin))
    assert text == (
        "fpga 'mine' needs 29 PEs of 192 DSPs, board 'xcvu9p' has room for 28: its 3 SLRs have "
        "2,265, 1,317, 2,265 DSPs, and a PE lies within one"
    )
    check(design(change=wide | {"cols": 28}, **thin))
    check(design("u280", change=wide, **thin))


# --- energy


def evaluation(cycles, macs, read, write, **more):
    counts = {"macs": macs, "dram_read_bytes": read, "dram_write_bytes": write, **more}
    arrays = {name: np.array(value, dtype=np.int64) for name, value in counts.items()}
    cycles = np.array(cycles, dtype=np.int64)
    return Evaluation(cycles, {}, Counts(arrays), cycles * 0, arrays["macs"], ("",) * len(cycles))


def energy_twin(device, cycles, macs, moved, groups=0, elements=0):
    """Energy of one entry part by part of the bill, in pJ, without the shared equation."""
    b, bill = device.board, resources(device)
    blocks = {name: max(bill[f"buffer_{name}"].bram36, bill[f"buffer_{name}"].uram)
              for name in "xwy"}  # fmt: skip
    array = device.array
    busy = macs / (array.rows * array.cols * array.multipliers)
    streamed = array.cols * array.multipliers * (16 + 3)
    wide = {"x": -(-array.rows * array.lanes * 16 // 72), "w": -(-streamed // 72),
            "y": -(-array.cols * 32 // 72)}  # fmt: skip
    parts = dict.fromkeys(DRAW_PARTS, 0.0)
    for part, one in bill.items():
        if part.startswith("buffer_"):
            name = part[-1]
            active = busy * wide[name] / blocks[name] + moved * 8 / 72 / sum(blocks.values())
        else:
            active = {
                "selection": groups / 4, "vector": elements / 16, "control": cycles,
                "controllers": moved / (2 * 16 / 0.2),
            }.get(part, busy)  # fmt: skip
        for name in RESOURCES:
            clocked = active + b.still_share * (cycles - active)
            parts[name] += getattr(one, name) * getattr(b.pj_per_clock, name) * clocked
    ns = cycles / device.clock_ghz
    parts["clock_tree"] = b.clock_tree_pj * cycles
    parts["channels"] = b.channel_w * 2 * ns * 1000
    parts["dram"] = b.dram_pj_per_byte * moved
    parts["static"] = b.static_w * ns * 1000
    parts["supply"] = b.supply_loss * sum(parts.values())
    parts["card"] = b.card_w * ns * 1000
    return parts


@settings(max_examples=60, deadline=None)
@given(
    cycles=st.integers(1, 10**9), working=st.floats(0, 1), moving=st.floats(0, 1),
    selecting=st.floats(0, 1), updating=st.floats(0, 1), card=st.sampled_from(BOARDS),
)  # fmt: skip
def test_energy_is_that_of_each_part_of_the_bill(
    cycles, working, moving, selecting, updating, card
):
    device = design(card)
    macs, moved = int(2048 * cycles * working), int(160 * cycles * moving)
    groups, elements = int(4 * cycles * selecting), int(16 * cycles * updating)
    done = Done(cycles=cycles, macs=macs, dram_bytes=moved, selected_groups=groups,
                vector_elements=elements)  # fmt: skip
    found = design_energy_pj(device, done)
    assert tuple(found) == DRAW_PARTS == tuple(PARTS)
    for part, pj in energy_twin(device, cycles, macs, moved, groups, elements).items():
        assert found[part] == pytest.approx(pj), part
    assert all(0 <= share <= 1 for share in busy_shares(device, done, resources(device)).values())


def test_one_part_by_hand():
    """A million cycles at 200 MHz are 5 ms: 3 W of leakage are 15 mJ; half the array is at work.

    6 470 DSPs of 4.6 pJ: 6 144 in the array; those at work half the time draw 0.5 + 0.3 · 0.5,
    the others 0.3 of it.
    """
    found = energy_by_part(evaluation([10**6], [1024 * 10**6], [0], [0]), [], design())
    assert found["static"][0] == pytest.approx(15e9)
    assert found["dsp"][0] == pytest.approx((6144 * 0.65 + 326 * 0.3) * 4.6e6)
    assert found["dram"][0] == 0


def test_counts_of_engines_reach_them():
    device, work = design(), {"selected_groups": [400], "vector_elements": [1600]}
    found = energy_by_part(evaluation([10**4], [10**6], [3000], [500], **work), [], device)
    for part, pj in energy_twin(device, 10**4, 10**6, 3500, 400, 1600).items():
        assert found[part][0] == pytest.approx(pj), part


def test_entries_are_priced_alike_together_and_alone():
    cycles, macs, read, write = [10, 10**6, 0], [10, 10**9, 0], [64, 10**7, 0], [0, 10**6, 0]
    both = energy_by_part(evaluation(cycles, macs, read, write), [], design())
    for i in range(3):
        one = energy_by_part(
            evaluation(*([x[i]] for x in (cycles, macs, read, write))), [], design()
        )  # fmt: skip
        for part, pj in one.items():
            assert both[part].shape == (3,)
            assert both[part][i] == pytest.approx(pj[0])
            assert np.isfinite(pj).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**8), st.floats(0, 1), st.integers(0, 10**9), st.sampled_from(BOARDS))
def test_the_ends_bracket_the_energy(cycles, working, moved, card):
    device = design(card)
    moved = min(moved, 160 * cycles)
    found = evaluation([cycles], [int(2048 * cycles * working)], [moved], [0])
    value, ends = energy_by_part(found, [], device), energy_ends(found, [], device)
    for part, (low, high) in ends.items():
        assert low <= value[part] * (1 + 1e-12), part
        assert value[part] <= high * (1 + 1e-12), part
    assert sum(low for low, _ in ends.values()) < sum(high for _, high in ends.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**8), st.integers(1, 10**8), st.floats(0, 1), st.floats(0, 1))
def test_longer_or_busier_never_costs_less_and_work_adds(first, second, working, moving):
    device = design()

    def joules(cycles, macs, moved):
        return sum(design_energy_pj(device, Done(cycles=cycles, macs=macs, dram_bytes=moved))
                   .values())  # fmt: skip

    macs, moved = 2048 * first * working, 160 * first * moving
    base = joules(first, macs, moved)
    assert joules(first + second, macs, moved) > base
    assert joules(first, 2048 * first, moved) >= base * (1 - 1e-12)
    assert joules(first, macs, 160 * first) >= base * (1 - 1e-12)
    assert joules(first + second, macs, moved) == pytest.approx(base + joules(second, 0, 0))


def test_a_design_at_work_draws_what_the_board_model_says():
    """All at one toggle rate: the same watts as cost/fpga_power, which knows no parts."""
    device = design("u250")
    bill, cycles = resources(device), 10**6
    done = Done(cycles=cycles, macs=2048 * cycles * 0.4, dram_bytes=160 * cycles * 0.25)
    shares = busy_shares(device, done, bill)
    used = total(bill)
    activity = {}
    for name in RESOURCES:
        busy = sum(float(shares[part]) * getattr(one, name) for part, one in bill.items())
        activity[name] = 0.5 * busy / max(1, getattr(used, name))
    watts = fpga_power.power(
        device.board, fpga_power.Used(**vars(used), channels=2), 0.2, activity=activity,
        dram_gb_per_s=0.25 * 32,
    )  # fmt: skip
    joules = sum(design_energy_pj(device, done).values()) * 1e-12
    assert joules == pytest.approx(float(watts.power_w) * cycles / 0.2e9)


def test_a_device_of_a_file_keeps_its_boards_ranges():
    """A loaded device has its sources at the top, the board's by their path."""
    card = board("xcvu9p")
    sources = {f"board.{path}": source for path, source in card.sources.items()}
    bare = design(board=card.model_copy(update={"sources": {}}), sources=sources)
    for side in ("low", "high"):
        assert resources(cornered(bare, side)) == resources(cornered(design(), side))
