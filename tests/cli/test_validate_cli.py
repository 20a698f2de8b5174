"""`accsim validate`: what is printed, what is written, and when it turns red."""

import csv
import json

import pytest

from accsim.cli import main
from accsim.validate import ledger

SMALL = ("--group", "rtl", "--group", "area")


@pytest.fixture
def call(capsys):
    def run(*words, expect=0):
        code = 0
        try:
            main(["validate", *map(str, words)])
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        assert code == expect, (code, out, err)
        return out, err

    return run


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A copy of the record that a test may change."""
    path = tmp_path / "expected.csv"
    path.write_bytes(ledger.EXPECTED.read_bytes())
    monkeypatch.setattr(ledger, "EXPECTED", path)
    return path


def test_failures_are_shown_with_exit_code_0(call):
    out, err = call(*SMALL)
    assert err == ""
    assert "6 predictions fail, 0 new:" in out
    assert "area/extra_column_of_multipliers_16x16_int8" in out
    assert "rtl/os/4:" not in out


def test_verbose_shows_every_row(call):
    out, _ = call(*SMALL, "-v")
    assert "rtl/os/4:" in out
    assert "rtl/os/90:" in out


def test_drift_turns_it_red_and_names_the_row(call, record):
    lines = record.read_text(encoding="utf-8").replace("rtl/os/4,predicted,pass,10",
                                                       "rtl/os/4,predicted,pass,9")  # fmt: skip
    record.write_text(lines, encoding="utf-8")
    out, err = call(*SMALL, expect=1)
    assert err == "accsim: drift: rtl/os/4: ours was 9, is 10 cycles\n"
    assert "1 rows are not what is recorded" in out
    call("--group", "area")  # other groups are not red


def test_update_records_what_is_found(call, record):
    before = record.read_text(encoding="utf-8")
    record.write_text(before.replace("rtl/os/4,predicted,pass,10", "rtl/os/5,predicted,fail,9"))
    _, err = call("--update", *SMALL)
    assert "rtl/os/5: is recorded, but no group has it" in err
    assert "recorded 26 rows in" in err
    assert record.read_text(encoding="utf-8") == before
    call(*SMALL)


def test_json(call):
    out, err = call(*SMALL, "--json")
    found = json.loads(out)
    assert err == ""
    assert set(found) == {"rows", "groups", "drift"}
    assert found["groups"]["rtl"]["passed"] == len(
        [r for r in found["rows"] if r["group"] == "rtl"]
    )
    assert {"id", "ours", "low", "high", "source", "verdict", "status"} <= set(found["rows"][0])


def test_json_goes_red_too(call, record):
    record.write_text("id,status,verdict,ours\n")
    out, err = call("--group", "rtl", "--json", expect=1)
    assert len(json.loads(out)["drift"]) == len(err.splitlines()) == 11


def test_out_writes_the_ledger(call, tmp_path):
    out, _ = call(*SMALL, "--out", tmp_path / "deep" / "er")
    assert out.rstrip().endswith(f"wrote ledger.csv, ledger.md to {tmp_path / 'deep' / 'er'}")
    with (tmp_path / "deep" / "er" / "ledger.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 26
    assert all(line["source"] for line in rows)
    page = (tmp_path / "deep" / "er" / "ledger.md").read_text(encoding="utf-8")
    assert "## rtl" in page


def test_summary_is_markdown_alone(call):
    out, _ = call(*SMALL, "--summary")
    assert out.startswith("| held against |")
    assert "| **all** | 26 |" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--group", "areas"], "did you mean 'area'?"),
        (["--out", " "], "--out needs the name of a folder"),
        (["--out", "/dev/null/x"], "cannot write results"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_mistakes_are_one_line(call, words, complaint):
    out, err = call(*words, expect=2)
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert complaint in err
