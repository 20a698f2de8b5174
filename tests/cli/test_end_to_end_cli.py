"""``accsim run … --end-to-end [--fused]``."""

import json

import pytest

import accsim
from accsim.cli import main

RUN = ("run", "bert-base", "--hw", "a100_pcie_80gb", "--batch", "4")


def call(*words, capsys):
    code = 0
    try:
        main(list(words))
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


@pytest.mark.parametrize("fused", [False, True])
def test_block_says_total_and_shares(capsys, fused):
    words = ("--end-to-end", *(["--fused"] if fused else []))
    code, out, err = call(*RUN, *words, capsys=capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("end to end"))
    total, gemm, other, kinds = lines[at:]
    assert total.endswith("   fused" if fused else "not fused")
    assert "dense" in gemm
    assert f"{36 if fused else 144} launches of 144" in other
    assert "layernorm" in kinds
    assert ("gelu" in kinds) is not fused
    assert max(map(len, lines[at:])) <= 100


def test_json_has_it(capsys):
    code, out, _ = call(*RUN, "--end-to-end", "--json", capsys=capsys)
    assert code == 0
    said = json.loads(out)["end_to_end"]
    network = accsim.load_workload("bert-base", batch=4)
    found = accsim.end_to_end(accsim.simulate(network, accsim.load_hardware("a100_pcie_80gb")))
    assert said["total_s"] == pytest.approx(found.total_s)
    assert said["modes"] == ["dense"]
    assert len(said["kinds"]["kind"]) == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*RUN, "--fused"), "--fused needs --end-to-end"),
        (("run", "gemm:64x64x64", "--hw", "a100_pcie_80gb", "--dtype", "fp16", "--end-to-end"),
         "end to end: 'gemm_64x64x64' lists no elementwise kernels between its layers"),
        (("run", "alexnet", "--hw", "systolic_ws_32x32", "--end-to-end"), "does not say what"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(capsys, words, message):
    code, out, err = call(*words, capsys=capsys)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
