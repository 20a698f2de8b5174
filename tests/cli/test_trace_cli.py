"""`accsim trace`: a matrix to a trace, what it holds, a run of it; what is wrong in one line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import accsim
from accsim.cli import app, main


@pytest.fixture
def ok():
    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_a_matrix_becomes_a_trace_that_runs(ok, tmp_path):
    weights = accsim.synthetic_weights(96, 40)
    mask = accsim.pattern("unstructured@0.9").mask(weights)
    np.save(tmp_path / "layer.npy", np.where(mask, weights, 0))
    out = tmp_path / "layer.trace"
    words = ("trace", "matrix", tmp_path / "layer.npy", "--tokens", 64, "--out", out)
    assert "1 layers, 245,760 MACs" in ok(*words)
    first = out.read_bytes()
    ok(*words)
    assert out.read_bytes() == first
    text = ok("trace", "show", out, "--verify")
    assert "64x96x40 int8 traced, 10.0% kept" in text
    assert "verified" in text
    found = json.loads(ok("run", out, "--hw", "systolic_nm_32x32", "--json"))
    assert found["layers"]["effective_macs"] == [64 * int(mask.sum())]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["matrix", "no.smtx", "--out", "a.trace"], "no.smtx: no such file"),
        (["matrix", "no.smtx", "--out", "a.zip"], "--out must end in .trace; got 'a.zip'"),
        (["matrix", "no.smtx", "--out", "no/where/a.trace"], "--out: no folder 'no/where'"),
        (["show", "no.trace"], "no.trace: no such file"),
        (["torhc", "x:y"], "no such command 'torhc', did you mean 'torch'"),
        (["matrix", "no.smtx"], "Missing option '--out'"),
    ],
)
def test_what_is_wrong_is_one_line(words, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["trace", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error


@pytest.mark.parametrize("name", ["w.safetensors", "config.json", "model.py"])
def test_files_that_do_not_say_enough_name_the_command(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(accsim.InputError, match="make a trace of it, `accsim trace --help`"):
        accsim.load_workload(tmp_path / name)


def test_a_shipped_trace_runs_by_its_name(ok):
    found = json.loads(ok("run", "digits-cnn-2of4", "--hw", "systolic_nm_32x32", "--json"))
    assert found["layers"]["mode"][1:4] == ["2:4"] * 3
    assert "digits-cnn-2of4" in ok("show", "workloads")


def test_a_slip_in_the_name_of_a_shipped_trace_is_seen():
    with pytest.raises(accsim.InputError, match="did you mean 'digits-cnn-2of4'"):
        accsim.load_workload("digits-cnn-2of5")
