"""Area tables: every number sourced, in order between nodes, held to their sources; refusals."""

from itertools import pairwise
from pathlib import Path

import pytest

import accsim
from accsim.files.area import load_area
from accsim.spec.area import SECTIONS, AreaTable, power_law

CATALOGUE = Path(__file__).parents[2] / "hwconfigs" / "area"
TABLES = sorted(path.stem for path in CATALOGUE.glob("*.yaml"))
KIB = 1024
NOT_AREA = ("node_nm", "bits", "bytes")


def refused(*given):
    with pytest.raises(accsim.InputError) as caught:
        load_area(*given)
    return str(caught.value)


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_a_source_a_unit_and_every_area_a_range(name):
    table = load_area(name)
    assert table.table == name == f"cmos_{table.node_nm:g}nm"
    assert len(table.sources) == 34
    for path, source in table.sources.items():
        assert source.source.strip(), path
        assert source.unit or path == "placed_per_cell", path
        if not path.endswith(NOT_AREA):
            published = name == "cmos_45nm" and source.status == "published"
            assert source.high is not None or path == "compare_um2_per_bit", path
            assert source.low is not None or published or path.startswith("sram"), path


@pytest.mark.parametrize("name", TABLES)
def test_a_name_means_the_node_its_energy_table_has(name):
    energy = accsim.load_hardware("systolic_ws_32x32", {"energy": name}).energy
    assert load_area(name).node_nm == energy.node_nm


def test_a_newer_node_takes_less():
    order = sorted((load_area(name) for name in TABLES), key=lambda table: -table.node_nm)
    for older, newer in pairwise(order):
        for path, source in newer.sources.items():
            if not path.endswith((*NOT_AREA, "placed_per_cell")):
                assert source.value < older.sources[path].value, path


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("side", ["low", "high"])
def test_wider_and_larger_takes_more_at_every_corner(name, side):
    for table in (load_area(name), load_area(name).corner(side)):
        adders = [table.adder_um2(bits) for bits in range(1, 65)]
        square = [table.multiplier_um2(bits, bits) for bits in range(1, 65)]
        srams = [table.sram_mm2(2**e // 2 * f) for e in range(9, 27) for f in (2, 3)]
        for areas in (adders, square, srams):
            assert areas == sorted(set(areas))
        assert table.multiplier_um2(8, 13) == table.multiplier_um2(13, 8)
        floats = [table.float_um2(dtype) for dtype in ("fp8", "bf16", "fp16", "fp32")]
        assert floats == sorted(set(floats))


@pytest.mark.parametrize("name", TABLES)
def test_a_corner_moves_its_sections_only(name):
    table = load_area(name)
    for section, fields in SECTIONS.items():
        moved = table.corner("high", [section])
        changed = {
            field
            for field in AreaTable.model_fields
            if field != "sources" and getattr(moved, field) != getattr(table, field)
        }
        assert changed <= set(fields)
        assert changed or section == "compare"


def test_horowitz_anchors_at_45_nm():
    table = load_area("cmos_45nm")
    assert [table.multiplier_um2(b, b) for b in (8, 32)] == pytest.approx([282, 3495])
    assert [table.adder_um2(b) for b in (8, 16, 32)] == pytest.approx([36, 67, 137])
    assert [table.float_um2(d) for d in ("fp16", "fp32")] == [1640, 7700]


def test_older_arithmetic_is_scaled_as_stillmaker_and_baas_do():
    """Area from 45 nm: 0.46 at 32, 0.21 at 20, 0.19 at 16, 0.059 at 7 nm (their table)."""
    old = load_area("cmos_45nm")
    for name, shrink in (("cmos_22nm", 0.21 + (0.46 - 0.21) * 2 / 12), ("cmos_16nm", 0.19),
                         ("cmos_7nm", 0.059)):  # fmt: skip
        table = load_area(name)
        assert table.multiplier_um2(8, 8) / 282 == pytest.approx(shrink, rel=0.01)
        assert table.adder_um2(32) / 137 == pytest.approx(shrink, rel=0.01)
        ratio = table.register_um2_per_bit / old.register_um2_per_bit
        assert ratio == pytest.approx(shrink, rel=0.01)


@pytest.mark.parametrize(
    ("name", "kib", "mm2"),
    [  # facts/energy.md, from hwcomponents
        ("cmos_45nm", 64, 0.21),
        ("cmos_45nm", 4096, 12),
        ("cmos_22nm", 1024, 0.78),
        ("cmos_16nm", 32, 0.019),
        ("cmos_7nm", 256, 0.072),
    ],
)
def test_sram_anchors(name, kib, mm2):
    assert load_area(name).sram_mm2(kib * KIB) == pytest.approx(mm2, rel=0.03)


def test_power_law_between_and_beyond():
    points = [(2, 4), (4, 16), (8, 32)]
    assert power_law(points, 3) == pytest.approx(9)
    assert power_law(points, 1) == pytest.approx(1)
    assert power_law(points, 64) == pytest.approx(256)
    assert power_law([(8, 40)], 4) == 20


def test_an_override_and_a_child_keep_their_sources(tmp_path):
    table = load_area("cmos_22nm", {"register_um2_per_bit": 2})
    assert table.register_um2_per_bit == 2
    assert table.sources["register_um2_per_bit"].source == "override of this run"
    changed = table.model_copy(update={"fp32_adder_um2": 5000.0})
    assert changed.corner("low").fp32_adder_um2 == 5000  # its source speaks of another value
    own = {"value": 2, "low": 1, "high": 3, "source": "a paper"}
    sourced = load_area("cmos_22nm", {"register_um2_per_bit": own})
    assert sourced.corner("low").register_um2_per_bit == 1
    path = tmp_path / "mine.yaml"
    path.write_text("extends: cmos_22nm\nplaced_per_cell: {value: 1.2, source: a layout}\n")
    base = (CATALOGUE / "cmos_22nm.yaml").read_text(encoding="utf-8")
    (tmp_path / "cmos_22nm.yaml").write_text(base, encoding="utf-8")
    mine = load_area(path)
    assert (mine.table, mine.placed_per_cell) == ("mine", 1.2)
    assert mine.sources["placed_per_cell"].source == "a layout"
    assert mine.sram == load_area("cmos_22nm").sram


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("regster_um2_per_bit", 1, "unknown key 'regster_um2_per_bit', did you mean 'register_"),
        ("placed_per_cell", 0.9, "placed_per_cell: must be greater than or equal to 1; got 0.9"),
        ("fp32_adder_um2", -4, "fp32_adder_um2: must be greater than 0; got -4"),
        ("fp32_adder_um2", "4 kg", "fp32_adder_um2: "),
    ],
)
def test_a_bad_override_is_one_line(key, value, message):
    text = refused("cmos_22nm", {key: value})
    assert text.startswith(f"override: {message}")
    assert "\n" not in text


def test_a_larger_part_that_is_smaller_is_refused(tmp_path):
    base = (CATALOGUE / "cmos_45nm.yaml").read_text(encoding="utf-8")
    path = tmp_path / "bad.yaml"
    path.write_text(base.replace("{value: 36, high: 102}", "{value: 90}"), encoding="utf-8")
    assert "adder must give each size once, and a larger one no less area; got 90 for 8" in (
        refused(path)
    )


def test_refusals_of_names_and_sources(tmp_path):
    assert "called 'cmos_22n', did you mean 'cmos_22nm'?" in refused("cmos_22n")
    assert "overrides must be a dict" in refused("cmos_22nm", [1])
    path = tmp_path / "bare.yaml"
    path.write_text("node_nm: 22\n")
    assert refused(path) == f"{path}:1: node_nm: a number needs a source beside it; got 22"
    with pytest.raises(accsim.InputError, match=r"has no float_multiplier_um2\.int8; it has fp8"):
        load_area("cmos_22nm").float_um2("int8")
