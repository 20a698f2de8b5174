"""A GPU's kernels from measurements: known numbers found again, the file that is written, refusals.

The measurements are the model's own, of kernels with other numbers, under noise.
"""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accsim
from accsim.base.errors import InputError
from accsim.base.rng import stream
from accsim.calibrate import script
from accsim.calibrate.fit import fit
from accsim.calibrate.gpu import (
    FAMILIES,
    FOLDS,
    RANGES,
    base_values,
    calibrate,
    comparable,
    described,
    fit_kernel,
    model_of,
    parameters,
)
from accsim.calibrate.held_out import fold_of
from accsim.calibrate.measurements import LONG, Measurements
from accsim.calibrate.write import device_text
from accsim.cli import main
from accsim.devices.tensorcore_domain import UNCALIBRATED
from accsim.spec.gpu import PARAMETERS

pytest.importorskip("scipy")

BASE, NOISE = "rtx4090", 0.02
# Factors from the base's numbers to the device's: about as far as devices differ.
FACTORS = {
    "launch_us": 1.4, "issue_share": 0.9, "tile_cycles": 1.5, "step_ns": 0.8, "dram_share": 1.08,
    "mac_pj": 1.2, "burst_us": 1.0, "overlap": 0.8,
}  # fmt: skip


def products(count, pattern="dense", dtype="bf16", device="mine", seed=0):
    """Shapes without latencies yet."""
    draws = stream(seed, "test_gpu", "shapes")
    none, one = np.full(count, np.nan), np.ones(count)
    return Measurements(
        device=np.array([device] * count), dtype=np.array([dtype] * count),
        pattern=np.array([pattern] * count),
        t=np.floor(2 ** draws.uniform(4, 13, count)).astype(int),
        k=64 * draws.integers(8, 200, count), n=64 * draws.integers(8, 200, count),
        latency_us=one * 10, p5_us=none, p95_us=none, repeats=none, sm_clock_mhz=none, power_w=none,
        host_us=none, weight=one, flags=np.array([""] * count),
    )  # fmt: skip


def truth_of(gpu, family, dtype="bf16", factors=FACTORS):
    expected = base_values(gpu, family, dtype)
    within = {name: RANGES[name][:2] for name in PARAMETERS}
    return {
        name: float(np.clip(expected[name] * factors[name], *within[name])) for name in PARAMETERS
    }


def measured(gpu, rows, values, noise=NOISE, seed=0):
    """Return the rows with the model's latencies under lognormal noise, and those without it."""
    family, dtype = FAMILIES[str(rows.pattern[0])], str(rows.dtype[0])
    exact = model_of(gpu, family, dtype, rows)(values).total_us
    error = stream(seed, "test_gpu", "noise").standard_normal(len(rows))
    return replace(rows, latency_us=exact * np.exp(noise * error)), exact


def joined(*parts):
    names = [name for name in vars(parts[0]) if name not in ("about", "notices")]
    return Measurements(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


@pytest.fixture(scope="module")
def gpu():
    return accsim.load_hardware(BASE)


@pytest.fixture(scope="module")
def known(gpu):
    """Pattern → true numbers, rows, latencies without noise."""
    found = {}
    for pattern, family in FAMILIES.items():
        values = truth_of(gpu, family)
        found[pattern] = values, *measured(gpu, products(48, pattern), values)
    return found


@pytest.fixture(scope="module")
def fits(gpu, known):
    return calibrate(gpu, joined(*(rows for _, rows, _ in known.values())))


@pytest.fixture(scope="module")
def loaded(fits, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "mine.yaml"
    path.write_text(device_text(fits, BASE, "a test: mine", {"gpu": "none"}, "mine"))
    return accsim.load_hardware(path)


# --- the numbers


def test_latencies_are_found_within_the_noise(gpu, known, fits):
    for found, (_, rows, exact) in zip(fits, known.values(), strict=True):
        fitted = model_of(gpu, found.family, "bf16", rows)(found.fit.values).total_us
        assert np.abs(fitted / exact - 1).mean() < NOISE / 2
        assert np.abs(fitted / exact - 1).max() < 2.5 * NOISE
        assert np.abs(found.after_us / exact - 1).mean() < NOISE / 2, "out of fold"
        assert np.abs(found.before_us / exact - 1).mean() > 3 * NOISE, "there was a way to go"


def test_parameters_are_found_within_three_standard_errors(known, fits):
    within = []
    for found, (values, _, _) in zip(fits, known.values(), strict=True):
        error = found.fit.standard_errors
        within += [abs(found.fit.values[x] - values[x]) < 3 * error[x] for x in PARAMETERS]
    assert len(within) == 16
    assert sum(within) >= 15


def test_what_the_measurements_tell_is_told_closely(known, fits):
    for found, (values, _, _) in zip(fits, known.values(), strict=True):
        for name, share in (("launch_us", 0.12), ("issue_share", 0.03), ("dram_share", 0.06)):
            assert found.fit.values[name] == pytest.approx(values[name], rel=share)


def loss(us, rows):
    """What a fit makes least on its rows: the mean of √(1 + (ln ratio / 5 %)²)."""
    return np.sqrt(1 + (np.log(us / rows.latency_us) / 0.05) ** 2).mean()


def test_no_error_grows_by_calibrating(gpu, fits):
    for found in fits:
        fitted = model_of(gpu, found.family, "bf16", found.rows)(found.fit.values).total_us
        assert loss(fitted, found.rows) <= loss(found.before_us, found.rows)


@settings(max_examples=8, deadline=None)
@given(
    factors=st.fixed_dictionaries({name: st.floats(0.7, 1.4) for name in PARAMETERS}),
    noise=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)
def test_no_error_grows_by_fitting(gpu, factors, noise, seed):
    """Whatever was measured: a fit begins at what is expected, and that costs it nothing."""
    truth = truth_of(gpu, "nm", factors=factors)
    rows, _ = measured(gpu, products(16, "2:4", seed=seed), truth, noise, seed)
    model, expected = model_of(gpu, "nm", "bf16", rows), base_values(gpu, "nm", "bf16")
    found = fit(lambda values: model(values).total_us, rows.latency_us,
                parameters(expected, expected), starts=1)  # fmt: skip
    before, after = (loss(model(x).total_us, rows) for x in (expected, found.values))
    assert after <= before * (1 + 1e-9)


def test_a_fold_is_predicted_by_a_fit_that_did_not_see_it(gpu, known, fits):
    """A fold measured 30 % slower moves the fit and every other fold's prediction, not its own."""
    _, rows, _ = known["2:4"]
    fold = fold_of(rows.groups, FOLDS)
    slower = replace(rows, latency_us=rows.latency_us * np.where(fold == 2, 1.3, 1.0))
    moved = fit_kernel(gpu, "nm", "bf16", slower).after_us / fits[1].after_us
    assert moved[fold == 2] == pytest.approx(1, abs=0.005)
    assert moved[fold != 2].mean() > 1.02


# --- the file


def test_the_file_predicts_what_the_fit_does(gpu, known, fits, loaded):
    for found, (pattern, (_, rows, _)) in zip(fits, known.items(), strict=True):
        fitted = model_of(gpu, found.family, "bf16", rows)(found.fit.values).total_us
        for i in range(0, len(rows), 6):
            result = run(loaded, rows.t[i], rows.k[i], rows.n[i], pattern)
            assert result.latency_s * 1e6 == pytest.approx(fitted[i], rel=2e-3)


def run(device, t, k, n, pattern="dense", dtype="bf16"):
    network = accsim.gemm(int(t), int(k), int(n), dtype=dtype)
    return accsim.simulate(network.prune(pattern), device)


def test_the_file_keeps_the_chip_and_says_what_it_is(gpu, fits, loaded):
    assert (loaded.title, loaded.sms, loaded.dram, loaded.l2) == ("mine", gpu.sms, gpu.dram, gpu.l2)
    for found in fits:
        kernel = loaded.kernel(found.family, "bf16")
        for name in PARAMETERS:
            assert getattr(kernel, name) == pytest.approx(found.fit.values[name], rel=1e-3)
        box = loaded.domain(found.family, "bf16")
        assert box.measurements == 48
        assert box.t == (found.rows.t.min(), found.rows.t.max())
        assert dict(box.error) == pytest.approx(dict(found.intervals.quantiles), rel=0.01)
    source = loaded.sources["kernels.dense.bf16.launch_us"]
    assert source.status == "fitted"
    assert "48 measurements of a test: mine" in source.source
    assert source.low <= source.value <= source.high


@pytest.mark.parametrize("pattern", FAMILIES)
def test_inside_is_not_flagged_and_outside_is_wider(known, loaded, pattern):
    _, rows, _ = known[pattern]
    box = loaded.domain(FAMILIES[pattern], "bf16")
    inside = run(loaded, rows.t[0], rows.k[0], rows.n[0], pattern)
    assert inside.extrapolated == []
    low, high = inside.latency_range_s
    near = np.log(high / inside.latency_s)
    assert any(near == pytest.approx(x, rel=0.02) for x in box.error.values())
    assert low < inside.latency_s < high
    for t, k, n in ((4 * box.t[1], box.k[1], box.n[1]), (box.t[1], 64, box.n[1])):
        outside = run(loaded, t, k, n, pattern)
        assert len(outside.extrapolated) == 1
        far = np.log(outside.latency_range_s[1] / outside.latency_s)
        # 15 % an octave; two octaves or more here, whichever regime's error it starts from
        assert far > 1.25 * min(box.error.values())


def test_four_times_the_tokens_widen_by_two_octaves(known, loaded):
    """t, and with it hardly the intensity: the same regime a quarter as far apart."""
    box = loaded.domain("dense", "bf16")
    edge, far = (run(loaded, x * box.t[1], box.k[1], box.n[1]) for x in (1, 4))
    wide = [np.log(x.latency_range_s[1] / x.latency_s) for x in (edge, far)]
    error = box.error["compute"]
    octaves = [max(0.0, *(np.log2(y / z) for y, z in pairs)) for pairs in (
        [(intensity(x * box.t[1], box.k[1], box.n[1]), box.intensity[1]), (x, 1)] for x in (1, 4)
    )]  # fmt: skip
    assert octaves[1] == 2
    assert wide == pytest.approx([error * (1 + 0.15 * octave) for octave in octaves], rel=1e-3)


def intensity(t, k, n):
    return t * k * n / (t * k + k * n + t * n)


def test_a_format_that_was_not_measured_is_flagged(loaded):
    found = run(loaded, 512, 4096, 4096, dtype="fp8")
    assert len(found.extrapolated) == 1
    wide = np.log(found.latency_range_s[1] / found.latency_s)
    assert wide == pytest.approx(UNCALIBRATED, rel=1e-3)


def test_described_gives_a_line_a_regime(fits):
    lines = list(described(fits))
    assert len(lines) == 1 + sum(len(found.after) for found in fits)
    assert lines[-1].split()[:3] == ["bf16", "2:4", "all"]
    assert f"{fits[1].after[-1].mean:.1%}" in lines[-1]


# --- refusals


def test_several_devices_are_refused(gpu):
    rows = joined(products(12), products(12, device="other"))
    with pytest.raises(InputError, match="measurements are of 2 devices: mine, other; choose one"):
        calibrate(gpu, rows)


def test_too_few_rows_are_refused(gpu):
    with pytest.raises(InputError, match="bf16 dense must have at least 12 measurements; got 11"):
        calibrate(gpu, products(11))


def test_a_format_the_gpu_has_not_is_refused(gpu):
    with pytest.raises(InputError, match="base 'rtx4090' has no dense kernels in fp4; it has bf16"):
        calibrate(gpu, products(12, dtype="fp4"))


def test_sparse_measurements_of_a_gpu_without_are_refused():
    v100 = accsim.load_hardware("v100_pcie_32gb")
    with pytest.raises(InputError, match="base 'v100_pcie_32gb' has no 2:4 kernels in fp16"):
        calibrate(v100, products(12, "2:4", dtype="fp16"))


def test_an_unknown_pattern_is_refused(gpu):
    with pytest.raises(InputError, match=r"pattern must be one of dense, 2:4 .*got '1:4'"):
        calibrate(gpu, products(12, "1:4"))


@pytest.mark.parametrize("flag", ["dense writes INT32", "speedup>2.1: dense baseline suspect"])
def test_flagged_dense_rows_are_not_fitted_to(gpu, flag):
    rows = replace(products(12), flags=np.array([flag] * 12))
    with pytest.raises(InputError, match=r"no measurement is left .* flagged as not comparable"):
        calibrate(gpu, rows)
    both = replace(joined(rows, products(12, "2:4")), flags=np.array([flag] * 24))
    assert comparable(both).tolist() == [False] * 12 + [True] * 12, "2:4 itself is as measured"


# --- the command


@pytest.fixture
def call(capsys):
    def command(*words, expect=0):
        code = 0
        try:
            main(["calibrate", *map(str, words)])
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        assert code == expect, (code, out, err)
        return out, err

    return command


def written(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write("# date: 2026-11-21\n")
        lines = csv.writer(file)
        lines.writerow(LONG)
        lines.writerows(zip(*(getattr(rows, name).tolist() for name in LONG), strict=True))
    return path


def test_the_command_writes_a_gpu(call, gpu, tmp_path):
    rows, exact = measured(gpu, products(24, "2:4"), truth_of(gpu, "nm"), 0.0)
    path = written(tmp_path / "m.csv", rows)
    out, err = call("--base", BASE, "--measurements", path, "--out", tmp_path / "new/mine.yaml")
    assert "fitting bf16 2:4: 24 measurements" in err
    assert f"written to {tmp_path}/new/mine.yaml" in out
    mine = accsim.load_hardware(tmp_path / "new/mine.yaml")
    found = run(mine, rows.t[3], rows.k[3], rows.n[3], "2:4")
    assert found.latency_s * 1e6 == pytest.approx(exact[3], rel=0.01)
    source = mine.sources["kernels.nm.bf16.launch_us"].source
    assert "m.csv: mine, 2026-11-21" in source


def test_the_command_chooses_a_device_and_keeps_quiet(call, gpu, tmp_path):
    rows, _ = measured(gpu, products(12, "2:4"), truth_of(gpu, "nm"), 0.0)
    path = written(tmp_path / "m.csv", joined(rows, products(12, device="other")))
    words = ("--base", BASE, "--measurements", path, "--out", tmp_path / "y.yaml")
    assert call(*words, "--device", "mine", "-q") == ("", "")
    assert accsim.load_hardware(tmp_path / "y.yaml").calibrated[0].measurements == 12


def test_the_script_is_the_packaged_one(call):
    out, err = call("--print-script")
    assert out == script.text()
    assert err == ""


BAD = {
    "no out": (["--base", BASE, "--measurements", "m.csv"], "calibrate needs --out"),
    "no such gpu": (
        ["--base", "rtx4091", "--measurements", "m.csv", "--out", "o"], "did you mean 'rtx4090'"
    ),
    "no gpu": (
        ["--base", "systolic_ws_32x32", "--measurements", "m.csv", "--out", "o"],
        "--base must be a GPU .kind tensorcore.; 'systolic_ws_32x32' is systolic",
    ),
    "no file": (["--base", BASE, "--measurements", "none.csv", "--out", "o"], "none.csv"),
    "no device": (
        ["--base", BASE, "--measurements", "m.csv", "--out", "o", "--device", "mime"],
        "--device must be one of mine; got 'mime', did you mean 'mine'",
    ),
    "no size": (
        ["--base", BASE, "--measurements", "m.csv", "--out", "o", "--output-bytes", "int8=3"],
        "--output-bytes must be FORMAT=0.5, 1, 2 or 4; got 'int8=3'",
    ),
    "a bad row": (
        ["--base", BASE, "--measurements", "bad.csv", "--out", "o"],
        "bad.csv:3: dtype must be one of bf16, .* did you mean 'bf16'.*; got 'bf17'",
    ),
    "too few rows": (
        ["--base", BASE, "--measurements", "m.csv", "--out", "o"], "must have at least 12"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(call, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "m.csv", products(3))
    written(tmp_path / "bad.csv", products(1, dtype="bf17"))
    words, message = BAD[case]
    out, err = call(*words, expect=2)
    assert out == ""
    (line,) = [x for x in err.splitlines() if not x.startswith("fitting")]
    assert line.startswith("accsim: error: ")
    assert re.search(message, line), line
    assert not (tmp_path / "o").exists()
