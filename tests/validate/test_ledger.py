"""The ledger: verdicts, drift, the record, and that its data are those of the studies."""

import csv
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.validate import ledger, text
from accsim.validate.groups import GROUPS
from accsim.validate.row import DATA, Row, read

ROOT = Path(__file__).parents[2]


def row(**changes):
    given = {"id": "g/a", "quantity": "q", "unit": "J", "source": "s", "low": 2, "high": 4}
    return Row(**(given | {"ours": 3} | changes))


@pytest.fixture(scope="module")
def whole():
    return ledger.validate()


# --- one row


@pytest.mark.parametrize(
    ("ours", "ends", "tolerance", "verdict", "error"),
    [
        (2, (None, None), 0, "pass", 0),
        (4, (None, None), 0, "pass", 0),
        (4.01, (None, None), 0, "fail", 0.0025),
        (4.4, (None, None), 0.1, "pass", 0.1),
        (4.4, (None, None), 0.0999, "fail", 0.1),
        (1.8, (None, None), 0.1, "pass", -0.1),
        (1, (None, None), 0.1, "fail", -0.5),
        (8, (4, 9), 0, "range", 1),
        (8, (4.05, 9), 0, "fail", 1),
        (8, (4.05, 9), 0.5, "range", 1),  # a range may fall short by rounding,
        (8, (4.2, 9), 0.5, "fail", 1),  # not by the whole tolerance
        (1, (0.5, 2), 0, "range", -0.5),
    ],
)
def test_verdict_and_error(ours, ends, tolerance, verdict, error):
    found = row(ours=ours, ours_low=ends[0], ours_high=ends[1], tolerance=tolerance)
    assert found.verdict == verdict
    assert found.error == pytest.approx(error)


def test_open_ends():
    assert row(low=None, ours=-7).verdict == row(high=None, ours=1e9).verdict == "pass"
    assert row(low=None, ours=5).verdict == row(high=None, ours=1).verdict == "fail"
    assert row(low=0, high=0, ours=0).verdict == "pass"
    assert row(low=0, high=0, ours=1e-3).error == math.inf


def test_out_of_scope_is_never_judged():
    found = row(status="out_of_scope", ours=9, remark="no such device")
    assert (found.verdict, found.error) == ("out_of_scope", None)
    assert row(status="out_of_scope", ours=None, remark="why").verdict == "out_of_scope"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": " "}, "source must not be empty"),
        ({"unit": ""}, "unit must not be empty"),
        ({"status": "measured"}, "no status 'measured'"),
        ({"status": "out_of_scope"}, "needs a remark"),
        ({"ours": None}, "ours must be a number"),
        ({"ours": math.nan}, "ours must be a number"),
        ({"low": None, "high": None}, "needs low or high"),
        ({"low": 5}, "needs low <= high"),
        ({"ours_low": 3.5}, "needs low <= high"),
        ({"ours_high": 2.5}, "needs low <= high"),
    ],
)
def test_a_senseless_row_cannot_be_made(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        row(**changes)


# --- the whole ledger


def test_nothing_drifts(whole):
    assert whole.drifts == ()


def test_every_row_says_where_it_comes_from(whole):
    for found in whole.rows:
        assert found.source.strip()
        assert found.group in GROUPS
        assert not set(found.id) & set(" ,\t\n"), found.id
    assert list(whole.groups) == list(GROUPS)


def test_every_predicted_failure_with_a_known_cause_says_it(whole):
    assert [x.id for x in whole.failures if not x.remark] == []


def test_failures_are_shown_and_kept(whole):
    """A ledger in which nothing fails would not be believed; these are known to."""
    failing = {found.id for found in whole.failures}
    assert "energy/22nm/alexnet/batch1/fc6" in failing
    assert "area/extra_column_of_multipliers_16x16_int8" in failing
    assert not any(name.startswith(("scalesim/", "rtl/", "tpu/")) for name in failing)


def test_two_runs_say_the_same(whole):
    again = ledger.validate(["tpu", "patterns", "energy", "boards"])
    assert again.rows == tuple(x for x in whole.rows if x.group in again.groups)


def test_ids_are_unique():
    with pytest.raises(InputError, match="two rows are called 'g/a'"):
        ledger.Ledger((row(), row(ours=4)))


def test_counts_add_up(whole):
    for rows in (*whole.groups.values(), whole.rows):
        found = ledger.summary(rows)
        judged = found.passed + found.in_range + found.failed
        assert found.rows == len(rows) == judged + found.fitted + found.out_of_scope
        assert found.fitted_off <= found.fitted
    assert ledger.summary(whole.rows).failed == len(whole.failures)


def test_fitted_rows_count_for_nothing():
    rows = [row(status="fitted"), row(id="g/b", ours=9, status="fitted"), row(id="g/c", ours=5)]
    found = ledger.summary(rows)
    assert (found.passed, found.failed, found.fitted, found.fitted_off) == (0, 1, 2, 1)
    assert found.worst is rows[2]


# --- drift


def recorded(*rows):
    return {x.id: ledger.Recorded(x.status, x.verdict, x.ours) for x in rows}


def drifted(now, known):
    return [tuple(drift) for drift in ledger.drifts(now, known)]


def test_a_known_failure_is_no_drift():
    assert drifted([row(ours=9)], recorded(row(ours=9))) == []


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        (row(), row(ours=3.00001), "ours was 3, is 3.00001 J"),
        (row(), row(ours=9), "worse: was pass, is fail; ours was 3, is 9 J"),
        (row(ours=9), row(), "better: was fail, is pass; ours was 9, is 3 J"),
        (row(ours=5), row(ours=5, tolerance=0.5), "better: was fail, is pass; ours was 5, is 5 J"),
        (row(), row(high=2.5), "worse: was pass, is fail; ours was 3, is 3 J"),
        (row(), row(status="fitted"), "was predicted, is fitted"),
        (row(ours=9), row(ours=9, status="out_of_scope", remark="x"),
         "was predicted, is out_of_scope"),
    ],
)  # fmt: skip
def test_what_drifts_is_named(before, now, what):
    assert drifted([now], recorded(before)) == [("g/a", what)]


def test_new_and_missing_rows_drift():
    assert drifted([row()], {}) == [("g/a", "is not recorded")]
    assert drifted([], recorded(row())) == [("g/a", "is recorded, but no group has it")]


def test_rounding_is_no_drift():
    assert drifted([row(ours=3 * (1 + 1e-8))], recorded(row())) == []


def test_a_changed_number_is_found_in_the_record(tmp_path):
    """One digit of one recorded number, or one verdict: exactly that row is named."""
    lines = ledger.EXPECTED.read_text(encoding="utf-8").splitlines()
    mine = [i for i, line in enumerate(lines) if line.startswith("patterns/")]
    changed = random.Random(1).choice([i for i in mine if "metadata" not in lines[i]])
    name, status, verdict, ours = lines[changed].rsplit(",", 3)
    for new in ((status, verdict, float(ours) * 1.0001), (status, "fail", ours)):
        path = tmp_path / "expected.csv"
        with_change = [*lines]
        with_change[changed] = ",".join(map(str, (name, *new)))
        path.write_text("\n".join(with_change), encoding="utf-8")
        found = ledger.validate(["patterns"], expected=path)
        assert [drift.id for drift in found.drifts] == [name]


def test_the_tables_behind_a_row_make_it_drift(monkeypatch):
    """A number of an energy table that moves turns rows of energy and energy_tables."""
    from accsim.files import hardware
    from accsim.validate.groups import energy, energy_tables

    def dearer(name, overrides=None):
        return hardware.load_hardware(
            name, (overrides or {}) | {"energy.register_pj_per_bit": "0.0123"}
        )

    for module in (energy, energy_tables):
        monkeypatch.setattr(module, "load_hardware", dearer)
    found = ledger.validate(["energy"])
    assert len(found.drifts) > 100
    assert {drift.id.partition("/")[0] for drift in found.drifts} == {"energy"}


# --- the record


def test_record_and_read_again(tmp_path, whole):
    path = tmp_path / "expected.csv"
    ledger.record(whole, path=path)
    assert path.read_text(encoding="utf-8") == ledger.EXPECTED.read_text(encoding="utf-8")
    assert list(ledger.drifts(whole.rows, ledger.read_expected(path))) == []


def test_recording_one_group_keeps_the_others(tmp_path, whole):
    path = tmp_path / "expected.csv"
    ledger.record(whole, path=path)
    one = ledger.validate(["rtl"], expected=path)
    fewer = ledger.Ledger(tuple(replace(x, ours=x.ours + 1) for x in one.rows[:2]))
    ledger.record(fewer, ["rtl"], path=path)
    found = ledger.read_expected(path)
    assert sum(name.startswith("rtl/") for name in found) == 2
    assert len(found) == len(whole.rows) - len(one.rows) + 2
    assert ledger.validate(["tpu"], expected=path).drifts == ()


def test_rows_of_a_group_that_is_no_more_drift_until_recorded_anew(tmp_path):
    path = tmp_path / "expected.csv"
    lines = ledger.EXPECTED.read_text(encoding="utf-8")
    path.write_text(lines + "gone/a,predicted,pass,1\n", encoding="utf-8")
    found = ledger.validate(["rtl"], expected=path)
    assert [drift.id for drift in found.drifts] == ["gone/a"]
    ledger.record(found, ["rtl"], path)
    assert path.read_text(encoding="utf-8") == lines


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("id,status,verdict,ours\na/b,predicted,pass,x\n", ":2: needs id, status, verdict, ours"),
        ("id,status,verdict\na/b,predicted,pass\n", ":2: needs id, status, verdict, ours"),
        ("id,status,verdict,ours\na/b,predicted,good,1\n", ":2: no verdict 'good'"),
    ],
)
def test_a_bad_record_is_refused(tmp_path, content, complaint):
    path = tmp_path / "expected.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        ledger.read_expected(path)


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        ledger.validate(["rtl"], expected=tmp_path / "none.csv")


def test_unknown_group():
    with pytest.raises(InputError, match="did you mean 'energy'"):
        ledger.validate(["enrgy"])


# --- the packaged data are those of the studies


@pytest.mark.parametrize(
    ("name", "origin", "key"),
    [
        ("scalesim_v3.csv", "tests/devices/data/scalesim_v3_goldens.csv", None),
        ("tpu_matmul.csv", "tests/data/tpu/tpu_matmul.csv", None),
        ("energy_tables.csv", "reports/energy_tables/compare.csv", None),
        ("area.csv", "reports/area/published.csv", None),
        ("boards_gemms.csv", "reports/board_power/gemms.csv", None),
        ("boards.csv", "reports/board_power/published.csv", "key"),
    ],
)
def test_packaged_data_equal_their_origin(name, origin, key):
    lines = (ROOT / origin).read_text(encoding="utf-8").splitlines()
    theirs = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    mine = read(name)
    if key:
        kept = {line[key] for line in mine}
        theirs = [line for line in theirs if line[key] in kept]
    shared = [column for column in mine[0] if column in theirs[0]]
    assert len(shared) >= 5
    assert [[x[c] for c in shared] for x in mine] == [[x[c] for c in shared] for x in theirs]


def test_every_file_of_data_is_in_its_readme():
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for path in DATA.glob("*.csv"):
        assert f"`{path.name}`" in page


# --- ours are those of the studies: their files were computed by other code


def test_boards_are_those_of_the_study(whole):
    rows = {x.quantity: x for x in whole.groups["boards"]}
    with (ROOT / "reports/board_power/check.csv").open(encoding="utf-8") as handle:
        study = list(csv.DictReader(handle))
    met = 0
    for line in study:
        found = rows.get(f"{line['quantity']}, {line['condition']}")
        if found is not None:
            assert found.ours == pytest.approx(float(line["model"]), abs=1e-3), found.id
            assert found.ours_low == pytest.approx(float(line["low"]), abs=1e-3), found.id
            assert found.ours_high == pytest.approx(float(line["high"]), abs=1e-3), found.id
            wanted = {"not checked": "out_of_scope"}.get(line["role"], line["role"])
            assert found.status == wanted, found.id
            met += 1
    assert met == len(study)


def test_areas_are_those_of_the_study(whole):
    rows = {x.quantity: x for x in whole.groups["area"]}
    words = {"inside": ("pass", "range"), "range touches": ("range",), "outside": ("fail",)}
    with (ROOT / "reports/area/overheads.csv").open(encoding="utf-8") as handle:
        for line in csv.DictReader(handle):
            found = rows[f"{line['quantity']}: {line['figure']}"]
            if line["ours"]:
                assert found.ours == pytest.approx(float(line["ours"]), rel=1e-3)
            if found.status == "predicted":
                assert found.verdict in words[line["verdict"]], found.id


def test_energy_tables_are_those_of_the_study(whole):
    with (ROOT / "reports/energy_tables/compare.csv").open(encoding="utf-8") as handle:
        study = list(csv.DictReader(handle))
    for found, line in zip(whole.groups["energy_tables"], study, strict=True):
        ours = [found.ours_low, found.ours, found.ours_high]
        assert ours == pytest.approx([float(line[x]) for x in ("low", "value", "high")], rel=1e-3)
        assert (found.verdict != "fail") == (line["inside_our_range"] == "True"), found.id
        assert (found.status == "predicted") == (line["relation"] == "independent")


def test_tpu_is_that_of_the_study(whole):
    rows = {x.id: x for x in whole.rows}
    with (ROOT / "reports/tpu_matmul/errors.csv").open(encoding="utf-8") as handle:
        for line in csv.DictReader(handle):
            if line["model"] == "accsim_us":
                name = "scalesim_line" if line["half"] == "test" else "fitted_half"
                found = rows[f"tpu/{line['group']}/{name}"]
                assert found.ours == pytest.approx(float(line["mean_percent"]), rel=0.01)


def test_every_layer_of_both_networks_is_there(whole):
    rows = {x.id: x for x in whole.rows}
    for node in (22, 16):
        device = accsim.load_hardware("systolic_ws_32x32", {"energy": f"cmos_{node}nm"})
        for name in ("alexnet", "resnet50"):
            result = accsim.simulate(accsim.load_workload(name), device)
            place = f"energy/{node}nm/{name}/batch1"
            for layer, joules, macs in zip(
                *(result.columns[c] for c in ("layer", "energy_j", "macs")), strict=True
            ):
                assert rows[f"{place}/{layer}"].ours == pytest.approx(joules / macs * 1e12)
            total = result.energy_j / sum(result.columns["macs"]) * 1e12
            assert rows[f"{place}/total"].ours == pytest.approx(total)
            chip = (result.energy_j - result.energy_parts_j["dram"]) / result.workload.macs * 1e12
            assert rows[f"{place}/total_on_chip"].ours == pytest.approx(chip)


# --- words


def test_lines_fit_the_terminal_and_name_every_failure(whole):
    for width in (60, 100):
        lines = list(text.ledger_lines(whole, width))
        said = "\n".join(lines)
        longest = max(len(found.id) for found in whole.rows) + 8
        assert all(len(line) <= max(width, longest) for line in lines)
        for found in whole.failures:
            assert found.id in said.replace("\n      ", "")
    everything = "\n".join(text.ledger_lines(whole, 200, verbose=True))
    assert all(found.id in everything for found in whole.rows)


def test_drift_is_said():
    drift = (ledger.Drift("g/a", "moved"),)
    assert "1 rows are not what is recorded" in list(
        text.ledger_lines(ledger.Ledger((row(),), drift))
    )


def test_pages_are_tables(whole):
    page = text.ledger_md(whole)
    for line in (*page.splitlines(), *text.summary_md(whole).splitlines()):
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (9, 10), line
    assert all(f"| {found.id} |" in page for found in whole.rows)


def test_numbers_in_words():
    assert text.error_text(row(ours=4.5)) == "+12.5 %"
    assert text.error_text(row(ours=12)) == "x3"
    assert text.reference_text(row(low=None)) == "at most 4"
    assert text.value_text(row(ours_high=np.float64(5.25))) == "3 (3 … 5.25) J"
