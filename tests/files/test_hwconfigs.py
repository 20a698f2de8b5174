"""Shipped devices and energy tables: every number sourced, in order, and held to public anchors."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import accsim
from accsim.base.units import unit_of
from accsim.spec.dtype import DTYPES

CATALOGUE = Path(__file__).parents[2] / "hwconfigs"
DEVICES = sorted(path.stem for path in CATALOGUE.glob("*.yaml"))
PRICED = set(DTYPES) - {"fp4", "tf32"}  # no source gives these two at any node
TABLES = sorted(path.stem for path in (CATALOGUE / "energy").glob("*.yaml"))
FILES = sorted(CATALOGUE.rglob("*.yaml"))
BASE = "systolic_ws_32x32"
PROTOCOLS = {"ddr3", "ddr4", "lpddr4", "lpddr5", "gddr6", "hbm2", "hbm2e", "hbm3e"}
KIB = 1024


def with_table(name):
    return accsim.load_hardware(BASE, {"energy": name})


def numbers(data, path=""):
    """Return ``{dotted path: number}`` of plain data; truth values are not numbers."""
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list | tuple):
        items = enumerate(data)
    else:
        plain = isinstance(data, int | float) and not isinstance(data, bool)
        return {path: data} if plain else {}
    return {
        deeper: value
        for key, child in items
        for deeper, value in numbers(child, f"{path}.{key}" if path else str(key)).items()
    }


def unsourced(data, path="", covered=False):
    """Return the paths of raw YAML's numbers that no mapping around them gives a source."""
    if isinstance(data, dict):
        own = data.get("source")
        covered = covered or (isinstance(own, str) and own.strip() != "")
        return [p for k, v in data.items() for p in unsourced(v, f"{path}.{k}", covered)]
    if isinstance(data, list):
        return [p for i, v in enumerate(data) for p in unsourced(v, f"{path}.{i}", covered)]
    quantity = isinstance(data, str) and data[:1].isdigit() and data.endswith(("B", "Hz", "s"))
    bare = isinstance(data, int | float) and not isinstance(data, bool)
    return [path] if (bare or quantity) and not covered else []


# --- sources


@pytest.mark.parametrize("name", DEVICES)
def test_every_number_of_a_device_has_a_source_and_its_unit(name):
    device = accsim.load_hardware(name)
    given = numbers(device.model_dump(exclude={"sources"}, exclude_unset=True))
    assert given
    assert set(given) == set(device.sources)
    for path, value in given.items():
        sourced = device.sources[path]
        assert sourced.source.strip(), path
        assert sourced.unit == unit_of(path), path
        assert sourced.value == value, path


@pytest.mark.parametrize("name", TABLES)
def test_every_number_of_a_table_has_a_source_and_a_unit(name):
    sources = with_table(name).sources
    table = {path: s for path, s in sources.items() if path.startswith("energy.")}
    assert all(s.source.strip() for s in table.values())
    assert [path for path, s in table.items() if not s.unit] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_number_of_the_raw_file_lacks_a_source(path):
    assert unsourced(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


def test_the_raw_walk_sees_a_number_without_a_source():
    raw = {"a": 1, "b": {"source": "x", "c": [2]}, "d": {"value": "64 KiB"}, "f": True}
    raw["e"] = {"source": " ", "g": 0.5}
    assert unsourced(raw) == [".a", ".d.value", ".e.g"]


@pytest.mark.parametrize("name", DEVICES)
def test_ranges_hold_their_values_and_have_a_width(name):
    for path, sourced in accsim.load_hardware(name).sources.items():
        low, high = sourced.low, sourced.high
        assert (sourced.value if low is None else low) <= sourced.value, path
        assert sourced.value <= (sourced.value if high is None else high), path
        if low is not None or high is not None:
            assert low != high, path


@pytest.mark.parametrize("name", DEVICES)
def test_what_is_called_chosen_or_assumed_is_not_called_published(name):
    for path, sourced in accsim.load_hardware(name).sources.items():
        word = sourced.source.split(":")[0]
        if word in ("chosen", "assumed"):
            assert sourced.status == word, path


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_a_device_has_a_title_and_says_its_purpose_first(name):
    assert len(accsim.load_hardware(name).title) > 20
    if name != "tpu_cloud":
        assert (CATALOGUE / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


# --- energy tables against physics and public anchors


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_complete(name):
    table = with_table(name).energy
    assert table.table == name
    assert f"cmos_{table.node_nm:g}nm" == name
    assert set(table.mac) == PRICED
    assert set(table.dram_pj_per_bit) == PROTOCOLS
    sizes = [point.bytes for point in table.sram]
    assert (min(sizes), max(sizes)) == (KIB, 4 * KIB**2)
    assert {point.access_bits for point in table.sram} == {64}


@pytest.mark.parametrize("name", TABLES)
def test_a_larger_sram_costs_more_between_and_beyond_the_points(name):
    table = with_table(name).energy
    costs = [table.sram_pj_per_byte(2**e // 2 * f) for e in range(10, 27) for f in (2, 3)]
    reads, writes = zip(*costs, strict=True)
    assert list(reads) == sorted(reads)
    assert list(writes) == sorted(writes)
    assert len(set(reads)) == len(reads)


@pytest.mark.parametrize("name", TABLES)
def test_a_byte_from_dram_costs_more_than_from_sram_and_that_more_than_a_mac(name):
    table = with_table(name).energy
    dram = 8 * min(table.dram_pj_per_bit.values())
    sram = [table.sram_pj_per_byte(size)[0] for size in (64 * KIB, 4 * KIB**2)]
    mac = table.mac["int8"].mult_pj + table.mac["int8"].add_pj
    assert dram > sram[1] > sram[0] > mac
    assert table.sram_pj_per_byte(KIB)[0] > 8 * table.register_pj_per_bit


@pytest.mark.parametrize("name", TABLES)
def test_wider_multipliers_cost_more(name):
    table = with_table(name).energy
    mult = {dtype: entry.mult_pj for dtype, entry in table.mac.items()}
    assert mult["int8"] < mult["int16"]
    assert mult["fp8"] < mult["bf16"] < mult["fp16"] < mult["fp32"]
    assert {dtype for dtype in mult if mult[dtype] < mult["int8"]} == set()


def test_a_newer_node_costs_less_and_dram_the_same():
    order = sorted((with_table(name).energy for name in TABLES), key=lambda t: -t.node_nm)
    for older, newer in pairwise(order):
        for dtype in PRICED:
            assert older.mac[dtype].mult_pj > newer.mac[dtype].mult_pj
            assert older.mac[dtype].add_pj > newer.mac[dtype].add_pj
        for a, b in zip(older.sram, newer.sram, strict=True):
            assert a.bytes == b.bytes
            assert a.read_pj > b.read_pj
            assert a.write_pj > b.write_pj
        assert older.register_pj_per_bit > newer.register_pj_per_bit
        assert older.select_pj_per_bit > newer.select_pj_per_bit
        assert older.dram_pj_per_bit == newer.dram_pj_per_bit


@pytest.mark.parametrize(
    ("name", "quoted"),
    [  # pJ of one int8 multiply and 32-bit add, as facts/energy.md collects them
        ("cmos_45nm", [0.30, 0.45, 0.56, 1.15]),
        ("cmos_22nm", [0.34]),
        ("cmos_16nm", [0.20]),
        ("cmos_7nm", [0.10, 0.109]),
    ],
)
def test_int8_mac_lies_among_the_published_ones_and_its_range_holds_them(name, quoted):
    device = with_table(name)
    parts = [device.sources[f"energy.mac.int8.{part}_pj"] for part in ("mult", "add")]
    value = sum(part.value for part in parts)
    low = sum(part.value if part.low is None else part.low for part in parts)
    high = sum(part.value if part.high is None else part.high for part in parts)
    rounding = 1.02
    assert low / rounding <= min(quoted)
    assert max(quoted) <= high * rounding
    assert 0.10 / rounding <= value <= 1.15
    horowitz, jouppi = 0.30, 0.10
    share = math.log(45 / device.energy.node_nm) / math.log(45 / 7)
    assert value == pytest.approx(horowitz * (jouppi / horowitz) ** share, rel=0.02)


@pytest.mark.parametrize(
    ("name", "kib", "read", "write"),
    [  # pJ per 64-bit access: CACTI, as Sparseloop's tables and hwcomponents print it
        ("cmos_45nm", 64, 25.8695, 20),
        ("cmos_45nm", 1, 1.67, 3.49),
        ("cmos_45nm", 8, 6.1, 7.9),
        ("cmos_22nm", 256, 11.9, 8.8),
        ("cmos_16nm", 1024, 20, 15),
        ("cmos_7nm", 32, 2.1, 1.8),
        ("cmos_7nm", 4096, 25, 21),
    ],
)
def test_sram_anchors(name, kib, read, write):
    got = with_table(name).energy.sram_pj_per_byte(kib * KIB)
    two_digits = 0.03
    assert got[0] * 8 == pytest.approx(read, rel=two_digits)
    assert got[1] * 8 == pytest.approx(write, rel=two_digits)


def test_the_cacti_anchor_to_four_digits():
    assert with_table("cmos_45nm").energy.sram_pj_per_byte(64 * KIB)[0] * 8 == pytest.approx(
        25.8695, abs=5e-3
    )


@pytest.mark.parametrize("kib, published", [(8, 10), (32, 20), (1024, 100)])  # noqa: PT006
def test_the_range_of_45_nm_sram_reaches_horowitz(kib, published):
    device = with_table("cmos_45nm")
    index = [point.bytes for point in device.energy.sram].index(kib * KIB)
    assert device.sources[f"energy.sram.{index}.read_pj"].high == published


# --- refusals


def written(folder, name, text):
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path, overrides=None):
    with pytest.raises(accsim.InputError) as caught:
        accsim.load_hardware(path, overrides)
    return str(caught.value)


@pytest.fixture
def base_text():
    return (CATALOGUE / f"{BASE}.yaml").read_text(encoding="utf-8")


def test_a_number_without_a_source_is_refused_with_its_line(tmp_path, base_text):
    lines = base_text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("clock_ghz:"))
    bare = [*lines[:at], "clock_ghz: 1.5", *lines[at + 2 :]]
    path = written(tmp_path, "bare", "\n".join(bare))
    assert refused(path) == (
        f"{path}:{at + 1}: clock_ghz: a number needs a source beside it; got 1.5"
    )


def test_an_empty_source_is_refused_with_its_line(tmp_path, base_text):
    path = written(tmp_path, "empty", base_text.replace('"chosen: no host in the model"', '""'))
    line = next(i for i, x in enumerate(base_text.splitlines(), 1) if x.startswith("launch_us"))
    assert refused(path) == (
        f"{path}:{line}: launch_us: source: String should have at least 1 character; got ''"
    )


@pytest.mark.parametrize("inner", ["rows: 64", "rows: {value: 64}"])
def test_the_parents_source_does_not_cover_the_childs_number(tmp_path, inner):
    path = written(tmp_path, "child", f"extends: {BASE}\narray:\n  {inner}\n")
    assert refused(path).startswith(f"{path}:3: array.rows: ")


def test_the_childs_source_does_not_cover_the_parents_number(tmp_path):
    text = f"extends: {BASE}\narray:\n  source: mine\n  status: assumed\n  rows: 64\n"
    sources = accsim.load_hardware(written(tmp_path, "child", text)).sources
    assert (sources["array.rows"].source, sources["array.rows"].status) == ("mine", "assumed")
    assert sources["array.cols"] == accsim.load_hardware(BASE).sources["array.cols"]


def test_a_value_outside_its_range_is_refused(tmp_path, base_text):
    path = written(tmp_path, "range", base_text.replace("low: 23.9", "low: 29.5"))
    assert "must lie in its range 29.5 … 34.1; got 29.0" in refused(path)


def test_extends_in_a_circle_is_refused(tmp_path):
    first = written(tmp_path, "first", "extends: second\n")
    written(tmp_path, "second", "title: two\nextends: first\n")
    second = tmp_path / "second.yaml"
    assert refused(first) == f"{second}:2: extends runs in a circle through 'first'"
    alone = written(tmp_path, "alone", "extends: alone\n")
    assert refused(alone) == f"{alone}:1: extends runs in a circle through 'alone'"


def test_an_unknown_parent_is_refused_with_the_near_word(tmp_path):
    path = written(tmp_path, "orphan", "extends: systolic_ws_32x3\n")
    assert refused(path) == (
        f"{path}:1: extends: no hardware called 'systolic_ws_32x3', did you mean '{BASE}'?"
    )


def test_an_unknown_table_is_refused_with_the_near_word(tmp_path, base_text):
    path = written(tmp_path, "table", base_text.replace("energy: cmos_22nm", "energy: cmos_22n"))
    line = len(base_text.splitlines())
    assert refused(path) == (
        f"{path}:{line}: energy: no energy table called 'cmos_22n', did you mean 'cmos_22nm'?"
    )


def test_a_wrong_unit_is_refused_with_the_near_word(tmp_path, base_text):
    path = written(tmp_path, "unit", base_text.replace("x: {bytes: 512 KiB}", "x: {bytes: 5 KiZ}"))
    assert "memory.sram.x.bytes: must be in B, KB, MB" in refused(path)
    assert "got '5 KiZ', did you mean 'KiB'?" in refused(path)


# --- extends and overrides


@pytest.mark.parametrize(
    ("name", "dataflow"), [("systolic_os_32x32", "os"), ("systolic_is_32x32", "is")]
)
def test_other_dataflows_differ_in_nothing_else(name, dataflow):
    skip = {"name", "title", "dataflow", "sources"}
    device, base = accsim.load_hardware(name), accsim.load_hardware(BASE)
    assert device.dataflow == dataflow
    assert device.model_dump(exclude=skip) == base.model_dump(exclude=skip)
    assert device.sources == base.sources


def test_tensor_arrays_differ_in_the_array_only():
    base = accsim.load_hardware(BASE)
    for name, shape in (
        ("systolic_nm_32x32", (32, 32, 2, 4)),
        ("systolic_nm_16x16", (16, 16, 2, 4)),
        ("systolic_nm8_32x32", (32, 32, 4, 8)),
    ):
        device = accsim.load_hardware(name)
        array = device.array
        assert (array.rows, array.cols, array.multipliers, array.lanes) == shape
        assert array.adaptive
        assert (device.memory, device.energy, device.dataflow) == (base.memory, base.energy, "ws")


def test_overrides_of_a_run_are_recorded_as_such():
    given = {"array.rows": 16, "dataflow": "os", "timing": "scalesim_v3", "clock_ghz": "800 MHz"}
    device = accsim.load_hardware(BASE, given)
    assert (device.array.rows, device.array.cols, device.clock_ghz) == (16, 32, 0.8)
    assert (device.dataflow, device.timing) == ("os", "scalesim_v3")
    for path in ("array.rows", "clock_ghz"):
        sourced = device.sources[path]
        assert (sourced.source, sourced.status) == ("override of this run", "chosen")
    assert device.sources["clock_ghz"].unit == "GHz"
    assert device.sources["array.cols"].source != "override of this run"


def test_an_override_may_bring_its_own_source():
    quantity = {"value": 16, "low": 8, "high": 32, "source": "a paper", "status": "measured"}
    sourced = accsim.load_hardware(BASE, {"array.rows": quantity}).sources["array.rows"]
    assert sourced.model_dump() == quantity | {"unit": ""}


def test_an_override_reaches_into_the_named_table():
    given = {"energy.dram_pj_per_bit.lpddr4": "4 pJ/bit", "energy": "cmos_7nm"}
    device = accsim.load_hardware(BASE, given)
    assert device.energy.table == "cmos_7nm"
    assert device.energy.dram_pj_per_bit["lpddr4"] == 4
    assert device.sources["energy.dram_pj_per_bit.lpddr4"].source == "override of this run"
    assert device.energy.mac == with_table("cmos_7nm").energy.mac


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("array.rowz", 16, "unknown key 'rowz' in 'array', did you mean 'rows'?"),
        ("array.rows", -4, "array.rows: must be greater than or equal to 1; got -4"),
        ("dataflow", "WS", "dataflow: must be one of ws, os, is; got 'WS', did you mean 'ws'?"),
        ("dataflow", "rs", "dataflow: must be one of ws, os, is; got 'rs'"),
        ("clock_ghz", "2 kg", "clock_ghz: must be in MHz, GHz; got '2 kg'"),
        ("clock_ghz", 0, "clock_ghz: must be greater than 0; got 0"),
        (
            "energy",
            "cmos_22n",
            "energy: no energy table called 'cmos_22n', did you mean 'cmos_22nm'?",
        ),
    ],
)
def test_a_bad_override_is_one_line_that_names_key_rule_value_and_near_word(key, value, message):
    text = refused(BASE, {key: value})
    assert text == f"override: {message}"
    assert "\n" not in text


def test_an_unknown_kind_is_refused_with_the_near_word():
    message = refused(BASE, {"kind": "systolc"})
    assert message.startswith("override: kind must be one of ")
    assert message.endswith("; got 'systolc', did you mean 'systolic'?")


# --- the tiny array and the whole


@pytest.mark.parametrize("n", [1, 4])
def test_the_tiny_array_needs_3n_minus_2_cycles_to_its_last_mac(n):
    """ISPASS 2020: 10 cycles for 4×4×4 in RTL; its memory adds nothing."""
    device = accsim.load_hardware("systolic_os_4x4", {"array.rows": n, "array.cols": n})
    row = accsim.simulate(accsim.gemm(n, n, n), device).table.iloc[0]
    drain = n
    assert (row.work_cycles + row.fill_drain_cycles - drain, row.dram_cycles) == (3 * n - 2, 0)


@pytest.mark.parametrize("name", [BASE, "systolic_os_32x32", "systolic_nm_32x32"])
def test_resnet50_costs_between_a_fifth_and_two_pj_per_mac(name):
    """int8 systolic designs at 16–28 nm (facts/energy.md), off-chip traffic included."""
    workload = accsim.load_workload("resnet50")
    if "nm" in name:
        workload = workload.prune("2:4")
    table = accsim.simulate(workload, accsim.load_hardware(name)).table
    per_mac = table.energy_j.sum() / table.effective_macs.sum() * 1e12
    assert 0.2 < per_mac < 2
    share = {part: table[f"energy_{part}_j"].sum() / table.energy_j.sum()
             for part in ("mac", "select", "register", "sram", "dram", "static")}  # fmt: skip
    assert sum(share.values()) == pytest.approx(1)
    assert share["dram"] > share["sram"] > share["mac"] > share["register"] > share["static"]
