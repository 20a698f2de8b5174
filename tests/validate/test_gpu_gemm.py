"""Measured GPU products: statistics against plain loops, folds that hold back, what is shipped."""

import csv
import hashlib
import importlib.util
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accsim.calibrate.gpu import comparable
from accsim.calibrate.measurements import read
from accsim.spec.gpu import PARAMETERS
from accsim.validate import gpu_gemm_model as model
from accsim.validate.groups import gpu_gemm as group
from accsim.validate.row import DATA

CASES = {"/".join(case.key): case for case in model.cases()}
# Whether 5 % itself is clear is a matter of rounding.
clear_or_not = st.floats(0.2, 5).filter(lambda x: abs(abs(math.log(x)) - math.log(1.05)) > 1e-9)
speed_ups = st.lists(clear_or_not, min_size=3, max_size=40)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# --- statistics


@settings(deadline=None)  # scipy is imported inside
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30))
def test_rank_correlation_is_scipys(pairs):
    stats = pytest.importorskip("scipy.stats")
    a, b = np.array(pairs, dtype=float).T
    if len(set(a)) > 1 and len(set(b)) > 1:
        expected = stats.spearmanr(a, b).statistic
        assert group.rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_knows_order_alone():
    a = np.array([1.0, 4.0, 2.0, 8.0])
    assert group.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert group.rank_correlation(a, -a) == pytest.approx(-1)


def by_loop(measured, ours):
    """Of speed-ups above 1.05 or below 1/1.05: on which side of 1 ours lies."""
    right = asked = 0
    for theirs, mine in zip(measured, ours, strict=True):
        if theirs > 1.05 or theirs < 1 / 1.05:
            asked += 1
            right += (theirs > 1) == (mine > 1)
    return 100 * right / asked if asked else math.nan


@given(speed_ups, st.integers(0, 99))
def test_sign_percent_is_a_plain_loop(measured, seed):
    ours = np.exp(np.random.default_rng(seed).normal(0, 0.4, len(measured)))
    expected = by_loop(measured, ours)
    if not math.isnan(expected):
        assert group.sign_percent(np.array(measured), ours) == pytest.approx(expected)


def test_speed_ups_near_one_have_no_sign():
    measured = np.array([1.049, 0.953, 1.051, 0.951, 2.0])
    assert group.sign_percent(measured, np.array([0.1, 9, 1.01, 0.99, 0.5])) == pytest.approx(
        200 / 3
    )


@pytest.mark.parametrize(("device", "dtype", "shapes"), [("a100-pcie-80gb", "bf16", 122),
                                                         ("gb10", "fp8", 85)])  # fmt: skip
def test_speed_ups_are_of_one_shape(device, dtype, shapes):
    """Measured times under each shape's number: dense over 2:4 as the file itself has them."""
    found = {case.key: case.rows.latency_us for case in model.cases()}
    measured, ours = group.speedups(found, device, dtype)
    assert ours.tolist() == measured.tolist(), "the same times were given as predictions"
    with (DATA / model.POINTS).open(encoding="utf-8") as file:
        lines = [x for x in csv.DictReader(file) if (x["device"], x["dtype"]) == (device, dtype)]
    kept = [x for x in lines if "suspect" not in x["flags"] and "INT32" not in x["flags"]]
    expected = [float(x["dense_us"]) / float(x["sparse24_us"]) for x in kept
                if x["dense_us"] and x["sparse24_us"]]  # fmt: skip
    assert len(measured) == shapes
    assert sorted(measured) == pytest.approx(sorted(expected))


def test_int8_has_no_speed_up():
    """Its dense products write INT32, those of 2:4 16 bits: they were left out."""
    measured, ours = group.speedups({}, "a100-pcie-80gb", "int8")
    assert len(measured) == len(ours) == 0


# --- folds and draws


def test_a_fold_holds_all_products_of_its_weights(case):
    of_weights = {}
    for weights, fold in zip(map(tuple, case.rows.groups.tolist()), case.folds, strict=True):
        of_weights.setdefault(weights, set()).add(int(fold))
    assert all(len(folds) == 1 for folds in of_weights.values())
    assert {fold for folds in of_weights.values() for fold in folds} == set(range(model.FOLDS))
    sizes = [sum(fold in folds for folds in of_weights.values()) for fold in range(model.FOLDS)]
    assert max(sizes) - min(sizes) <= 1


def test_out_of_fold_takes_each_prediction_from_its_own_fold(case, monkeypatch):
    """Each fold's numbers replaced by a mark: a product must carry the mark of its own fold."""
    asked = []

    def marked(of, role, index=0, name="gemm"):
        assert (of, role, name) == (case, "fold", "gemm")
        asked.append(index)
        return {"fold": index}

    monkeypatch.setattr(model, "values_of", marked)
    monkeypatch.setattr(
        model.Case, "predict", lambda self, values: np.full(len(self.rows), values["fold"] + 1.0)
    )
    assert (model.out_of_fold(case) - 1).tolist() == case.folds.tolist()
    assert asked == list(range(model.FOLDS))


def study_module():
    path = Path(__file__).parents[2] / "reports" / "gpu_gemm" / "fit.py"
    spec = importlib.util.spec_from_file_location("gpu_gemm_fit", path)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    return study


@pytest.mark.parametrize("name", ["a100-pcie-80gb/fp16/2:4", "gb10/int8/2:4"])
def test_kept_folds_are_fits_without_their_products(name):
    """Fitted again from the shipped file: the fold's own products made nonsense beforehand."""
    pytest.importorskip("scipy")
    study = study_module()
    case, fold = CASES[name], 2
    held = case.folds == fold
    spoiled = np.where(held, 1e6, case.rows.latency_us)
    blind = replace(case, rows=replace(case.rows, latency_us=spoiled))
    gpu = study.bare(case)
    expected = study.base_values(gpu, "nm", case.dtype)
    found = study.fitted(blind, ~held, expected, expected, gpu).values
    ours, kept = (case.predict(x)[held] for x in (found, model.values_of(case, "fold", fold)))
    assert ours == pytest.approx(kept, rel=0.02)


def test_draws_are_24_products_and_judge_the_others(case):
    drawn = [case.few(draw) for draw in range(model.DRAWS)]
    assert [chosen.sum() for chosen in drawn] == [model.FEW] * model.DRAWS
    assert len({chosen.tobytes() for chosen in drawn}) == model.DRAWS
    for chosen, (us, rest) in zip(drawn, model.few_shot(case), strict=True):
        assert not (chosen & rest).any()
        assert (chosen | rest).all()
        assert us.shape == rest.shape
        assert rest.any()


def test_rows_that_say_something_of_few_judge_the_others(case, monkeypatch):
    """The row's mean is of products not drawn: a nonsense prediction of a drawn one is not seen."""
    name = f"gpu_gemm/{case.device}/{case.dtype}/{group.WORDS[case.pattern]}/few"
    before = next(row.ours for row in group._without_fit(case) if row.id == name)
    kept = list(model.few_shot(case))
    wrong = [(np.where(rest, us, 1e9), rest) for us, rest in kept]
    monkeypatch.setattr(group, "few_shot", lambda _: iter(wrong))
    after = next(row.ours for row in group._without_fit(case) if row.id == name)
    assert after == before


def test_from_others_never_reads_the_device_itself(case, monkeypatch):
    asked = []
    whole = model.values_of
    monkeypatch.setattr(model, "values_of", lambda of, *rest: asked.append(of) or whole(of, *rest))
    found = model.from_others(case)
    assert set(found) == set(PARAMETERS)
    assert case.device not in {of.device for of in asked}
    assert {of.pattern for of in asked} == {case.pattern}


def test_the_roofline_is_its_formula():
    case = CASES["a100-pcie-80gb/fp16/2:4"]
    rows, values = case.rows, {"launch_us": 3.0, "tera_macs_per_s": 200.0, "gb_per_s": 1500.0}
    found = case.roofline(values)
    for i in range(0, len(rows), 10):
        t, k, n = int(rows.t[i]), int(rows.k[i]), int(rows.n[i])
        moved = n * k * (2 / 2 + 1 / 8) + 2 * t * k + 2 * t * n
        expected = 3e-6 + max(t * k * n / 200e12, moved / 1500e9)
        assert found[i] == pytest.approx(expected * 1e6)


# --- the files


def test_the_shipped_products_are_those_the_readme_names():
    page = (DATA / "README.md").read_text(encoding="utf-8")
    (line,) = [x for x in page.splitlines() if x.startswith("| `gpu_gemm.csv`")]
    (digest,) = re.findall(r"\b[0-9a-f]{64}\b", line)
    content = (DATA / model.POINTS).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    shapes = len(content.splitlines()) - 1
    assert f"| {shapes} shapes" in line
    for word in ("bcacdwk/vllmbench", "92a8ca49", "Apache-2.0", "warm", "not locked"):
        assert word in line


def test_flagged_dense_products_are_in_no_case():
    rows = read(DATA / model.POINTS)
    left_out = ~comparable(rows)
    assert set(rows.pattern[left_out]) == {"dense"}
    kept = sum(len(case.rows) for case in CASES.values())
    too_few = 2  # RTX 5080 in fp4: one shape
    assert kept + left_out.sum() + too_few == len(rows)


def test_every_case_has_its_fits_and_no_other_has():
    with (DATA / model.FITS).open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    asked = {
        (name, *case.key, role, str(index))
        for case in CASES.values()
        for name, role, count in (
            ("gemm", "all", 1), ("gemm", "fold", model.FOLDS), ("gemm", "few", model.DRAWS),
            ("roofline", "all", 1), ("roofline", "fold", model.FOLDS),
        )
        for index in range(count)
    }  # fmt: skip
    kept = [tuple(x[c] for c in ("model", "device", "dtype", "pattern", "role", "index"))
            for x in lines]  # fmt: skip
    assert len(kept) == len(set(kept))
    assert set(kept) == asked


def test_the_shipped_devices_have_the_fits_on_all_products(case):
    """To the four digits of the files."""
    kept, family = model.values_of(case, "all"), {"dense": "dense", "2:4": "nm"}[case.pattern]
    kernel = case.gpu.kernel(family, case.dtype)
    for name in PARAMETERS:
        assert getattr(kernel, name) == pytest.approx(kept[name], rel=1e-3), name
    assert case.gpu.domain(family, case.dtype).measurements == len(case.rows)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 60))
def test_percent_is_relative_to_what_was_measured(seed, count):
    case = CASES["gb10/fp4/dense"]
    factor = 1 + np.random.default_rng(seed).normal(0, 0.1) * np.ones(len(case.rows))
    found = group.percent(case, case.rows.latency_us * factor)
    assert found == pytest.approx(np.abs(factor - 1) * 100, abs=1e-9)
