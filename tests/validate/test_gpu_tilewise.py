"""Tile-wise rows: within what was aimed at, and the report's curve is the ledger's."""

import csv
from pathlib import Path

import pytest

import accsim
from accsim.validate.groups.gpu_tilewise import (
    GPU,
    amdahl,
    kernel_times_us,
    measured_us,
    rows,
    transposition_share,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    return {row.id.removeprefix("gpu_tilewise/"): row for row in rows()}


def test_timings_and_curve_are_within_what_was_aimed_at(found):
    errors = kernel_times_us(accsim.load_hardware(GPU)) / measured_us() - 1
    assert abs(errors).max() < 0.05
    assert abs(found["v100/headline"].error) < 0.03
    for percent in (0, 25, 50, 75, 90):
        row = found[f"v100/curve/{percent}"]
        assert row.status == "predicted"
        assert abs(row.error) < 0.08


def test_the_curve_is_that_of_the_report(found):
    with (ROOT / "reports/gpu_tilewise/curve.csv").open(encoding="utf-8") as handle:
        lines = {x["sparsity_percent"]: x for x in csv.DictReader(handle)}
    for percent in (0, 25, 50, 75, 90):
        ends = [float(lines[str(percent)][name]) for name in ("least_of_seeds", "most_of_seeds")]
        assert ends[0] - 1e-3 <= found[f"v100/curve/{percent}"].ours <= ends[1] + 1e-3


def test_transposition_is_told_as_it_is(found):
    for percent in (0, 75):
        row = found[f"v100/transposition/{percent}"]
        assert row.status == "predicted"
        assert 0 < row.ours < 100
    gpu = accsim.load_hardware(GPU)
    assert transposition_share(gpu, 0.75, 128) < transposition_share(gpu, 0.75, 4096)


def test_amdahl():
    assert amdahl(2.0, 0.0) == 2
    assert amdahl(2.0, 1.0) == 1
    assert amdahl(4.0, 0.5) == pytest.approx(1 / (0.5 + 0.125))
