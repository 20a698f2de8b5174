"""`accsim train`: output and one-line refusals."""

import json

import pytest

from accsim.cli import main

BASE = ["train", "resnet18", "--hw", "vcu1525_sat", "--batch", "16"]


def run(capsys, *words):
    code = 0
    try:
        main([*BASE, *words])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_the_table_names_every_part(capsys):
    code, out, _ = run(capsys, "--pattern", "2:8", "--schedule", "0-10:dense,10-90:2:8")
    assert code == 0
    for word in ("0-10", "10-90", "ff", "bp", "wu", "optimiser", "batch norm", "first layer dense",
                 "bound"):  # fmt: skip
        assert word in out


def test_json_and_files(capsys, tmp_path):
    code, out, _ = run(capsys, "--pattern", "2:8", "--json", "--out", str(tmp_path))
    assert code == 0
    data = json.loads(out)
    assert data["totals"]["pattern"] == "2:8"
    assert sum(data["step"]["decomposition"].values()) == pytest.approx(
        data["totals"]["step_cycles"]
    )
    assert (tmp_path / "training.png").stat().st_size > 10_000


@pytest.mark.parametrize("method", ["sr_ste", "sdgf", "mdgf", "bdwp", "bimask", "transposable"])
def test_every_method_runs(capsys, method):
    assert run(capsys, "--method", method, "--pattern", "2:8", "-q") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hw", "a100_pcie_80gb", "--pattern", "2:8"], "hw must be of kind fpga"),
        (["--hw", "vcu1525_sta", "--pattern", "2:8"], "did you mean 'vcu1525_sat'"),
        (["--method", "bdpw", "--pattern", "2:8"], "--method must be one of"),
        (["--pattern", "unstructured@0.5"], "--pattern must be n:m"),
        (["--pattern", "3:8"], "--pattern must be a level of the array"),
        (["--pattern", "2to8"], "2to8"),
        ([], "--method bdwp needs --pattern N:M or --schedule"),
        (["--schedule", "0-10:dense,12-90:2:8"], "leaves a gap before"),
        (["--schedule", "0-10:dense,5-90:2:8"], "overlaps before"),
        (["--schedule", "ten"], "schedule must be written"),
        (["--schedule", "0-9:dense", "--pattern", "2:8"], "is in no phase of --schedule"),
        (["--pattern", "2:8", "--samples", "0"], "--samples must be a whole number"),
        (["--pattern", "2:8", "--samples", "9", "--steps-per-epoch", "9"], "give one of them"),
        (["--pattern", "2:8", "--batch", "0"], "batch must be a whole number"),
        (["--pattern", "2:8", "--churn", "2"], "--churn must be in"),
        (["--pattern", "2:8", "--skip", "nothing*"], "no layer of 'resnet18' matches"),
        (["--pattern", "2:8", "--timeline", "step.txt"], "step.txt"),
        (["--pattern", "2:8", "--out", " "], "--out needs the name of a folder"),
    ],
)
def test_bad_input_is_one_line(capsys, words, message):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_timeline_and_skip(capsys, tmp_path):
    file = tmp_path / "step.pftrace"
    code, out, _ = run(capsys, "--pattern", "2:8", "--skip", "layer1*", "--timeline", str(file))
    assert code == 0
    assert "layers not pruned" in out
    assert f"wrote {file}" in out
    assert file.stat().st_size > 1000


def test_a_design_too_large_for_its_card_is_refused(capsys):
    code, _, err = run(capsys, "--pattern", "2:8", "--set", "array.rows=64")
    assert code == 2
    assert "fpga 'vcu1525_sat' needs" in err
    assert err.count("\n") == 1
