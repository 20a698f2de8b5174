"""Fits: known numbers found again, intervals that cover them, ordinary least squares, refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
from calibrate.rooflines import PARAMETERS, TRUE, noisy, products, roofline

from accsim.base.errors import InputError
from accsim.base.rng import stream
from accsim.calibrate import fit as fitting
from accsim.calibrate.fit import Parameter, fit

optimize = pytest.importorskip("scipy.optimize")


def test_exact_data_give_exact_numbers():
    model = roofline(*products(1, 60))
    found = fit(model, model(TRUE), PARAMETERS)
    assert found.values == pytest.approx(TRUE, rel=1e-4)
    assert found.n == 60
    assert found.warnings == ()
    assert np.abs(found.residuals).max() < 1e-5


@pytest.mark.parametrize(("outliers", "least"), [(0.0, 202), (0.1, 190)])
def test_intervals_cover(outliers, least):
    """Of 60 seeds × 4 parameters, about nine in ten 90 % intervals hold the truth.

    Binomial: 216 of 240 expected, ± 4.6. Outliers that are all too slow bias a robust fit too.
    """
    covered = 0
    for seed in range(60):
        model = roofline(*products(seed, 80))
        found = fit(model, noisy(model, seed, 0.05, outliers), PARAMETERS, starts=1)
        for name, true in TRUE.items():
            low, high = found.interval(name, 0.9)
            covered += low <= true <= high
    assert least <= covered <= 230


def test_outliers_move_ordinary_least_squares_more():
    model = roofline(*products(3, 120))
    measured = noisy(model, 3, 0.02, outliers=0.1)
    robust, plain = (fit(model, measured, PARAMETERS, loss=x) for x in ("soft_l1", "linear"))
    error = [abs(math.log(x.values["peak_tflops"] / 250)) for x in (robust, plain)]
    assert error[0] < 0.03 < error[1]


def test_linear_loss_is_ordinary_least_squares():
    """Values and standard errors of scipy's curve_fit on ln latency."""
    model = roofline(*products(5, 90))
    measured = noisy(model, 5, 0.03)
    found = fit(model, measured, PARAMETERS, loss="linear")
    names = list(TRUE)
    values, covariance = optimize.curve_fit(
        lambda _, *x: np.log(model(dict(zip(names, x, strict=True)))), np.zeros(90),
        np.log(measured), p0=list(TRUE.values()), xtol=1e-12, ftol=1e-12,
    )  # fmt: skip
    assert list(found.values.values()) == pytest.approx(values, rel=1e-4)
    errors = np.sqrt(np.diag(covariance))
    assert list(found.standard_errors.values()) == pytest.approx(errors, rel=0.02)
    assert found.correlation == pytest.approx(
        covariance / np.outer(errors, errors), abs=0.03
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "linear"])
def test_losses_are_scipys(loss):
    """The cost is half scipy's sum of ρ, ψ its derivative and ψ' that of ψ."""
    r = np.linspace(-4, 4, 41) + 0.013
    result = optimize.least_squares(lambda x: r + 0 * x[0], [0.0], loss=loss)
    assert np.sum(fitting._rho(r, loss)) / 2 == pytest.approx(result.cost, rel=1e-12)
    psi, bend = fitting._psi(r, loss)
    h = 1e-6
    slope = (fitting._rho(r + h, loss) - fitting._rho(r - h, loss)) / (4 * h)
    assert psi == pytest.approx(slope, abs=1e-6)
    curve = (fitting._psi(r + h, loss)[0] - fitting._psi(r - h, loss)[0]) / (2 * h)
    assert bend == pytest.approx(curve, abs=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_scaled_latencies_scale_times(factor):
    """All latencies × c: times × c, rates / c, shares as they were, relative errors too."""
    model = roofline(*products(2, 60))
    measured = noisy(model, 2)
    powers = {"launch_us": 1, "peak_tflops": -1, "bandwidth_gbs": -1, "drain": 0}
    moved = [
        replace(p, start=p.start * f, low=p.low * f, high=p.high * f)
        for p in PARAMETERS
        for f in (factor ** powers[p.name],)
    ]
    one = fit(model, measured, PARAMETERS)
    other = fit(model, measured * factor, moved)
    for name, power in powers.items():
        assert other.values[name] == pytest.approx(one.values[name] * factor**power, rel=2e-3)
        assert other.standard_errors[name] == pytest.approx(
            one.standard_errors[name] * factor**power, rel=2e-2
        )
    assert other.cost == pytest.approx(one.cost, rel=1e-5)


def test_twice_the_data_is_weight_two():
    t, k, n = products(4, 50)
    model_one = roofline(t, k, n)
    measured = noisy(model_one, 4)
    weights = np.where(np.arange(50) < 25, 2.0, 1.0)
    again = np.r_[np.arange(50), np.arange(25)]
    weighed = fit(model_one, measured, PARAMETERS, loss="linear", weights=weights)
    twice = fit(roofline(t[again], k[again], n[again]), measured[again], PARAMETERS, loss="linear")
    assert weighed.values == pytest.approx(twice.values, rel=1e-4)


def test_order_of_measurements_and_parameters_does_not_matter():
    t, k, n = products(6, 50)
    measured = noisy(roofline(t, k, n), 6)
    turned = np.arange(50)[::-1]
    one = fit(roofline(t, k, n), measured, PARAMETERS)
    other = fit(roofline(t[turned], k[turned], n[turned]), measured[turned], PARAMETERS[::-1])
    assert one.values == pytest.approx(dict(other.values), rel=1e-3)


def test_a_model_with_steps_inside():
    """Tiles chosen by a search, counted in whole waves: the best of several starts is found."""
    draws = stream(0, "tiles")
    t, n = draws.integers(64, 4096, (2, 80)).astype(float)

    def model(values):
        options = [
            np.ceil(np.ceil(t / a) * np.ceil(n / b) / 108) * (values["fixed"] + a * b * 1e-4)
            for a, b in ((64, 64), (128, 64), (128, 128), (256, 128))
        ]
        return values["launch"] + np.min(options, axis=0) * values["slow"]

    true = {"launch": 4.0, "fixed": 1.0, "slow": 2.0}
    measured = model(true) * np.exp(0.02 * draws.standard_normal(80))
    parameters = [
        Parameter("launch", 1.0, 0.1, 100, "us"), Parameter("fixed", 5.0, 0.01, 50, "us"),
        Parameter("slow", 10.0, 0.1, 100, ""),
    ]  # fmt: skip
    found = fit(model, measured, parameters)
    at_truth = fit(model, measured, [replace(p, start=true[p.name]) for p in parameters], starts=1)
    assert found.cost <= at_truth.cost * 1.001
    assert found.values == pytest.approx(true, rel=0.1)


def test_the_same_seed_gives_the_same_fit():
    model = roofline(*products(7, 40))
    measured = noisy(model, 7)
    one, two = (fit(model, measured, PARAMETERS, seed=5) for _ in range(2))
    assert one.values == two.values


def test_polish_ends_where_no_axis_goes_down():
    """Beside a loop over all single steps: none of 1e-4 of a coordinate lowers the cost."""
    model = roofline(*products(8, 40))
    measured = noisy(model, 8)
    found = fit(model, measured, PARAMETERS)
    task = fitting._task(model, measured, PARAMETERS, "soft_l1", 0.05, None)
    at = np.array([p.inward(found.values[p.name]) for p in PARAMETERS])
    for i in range(len(at)):
        for sign in (-1, 1):
            moved = at.copy()
            moved[i] += sign * 1e-4
            assert task.cost(moved) >= found.cost * (1 - 1e-6)


def test_polish_leaves_a_step_that_derivatives_do_not_see():
    """A model of stairs, flat between them: no derivative, yet the right stair is found."""
    x = np.linspace(1, 10, 30)
    stairs = [Parameter("a", 2.0, 0.1, 10.0, "us")]
    found = fit(lambda v: x * (1 + np.floor(v["a"] / 0.05)), x * 61, stairs, starts=1)
    assert found.cost == 0
    assert 3.0 <= found.values["a"] <= 3.05


def test_warns_of_tied_parameters():
    """Only the product of the two is measured."""
    x = np.linspace(1, 10, 30)
    two = [Parameter("a", 1, 0.01, 100, "us"), Parameter("b", 1, 0.01, 100, "")]
    noise = np.exp(0.01 * stream(0, "x").standard_normal(30))
    found = fit(lambda v: v["a"] * v["b"] * x, 3 * x * noise, two)
    assert found.standard_errors == {"a": math.inf, "b": math.inf}
    assert [w for w in found.warnings if w.startswith("b is undetermined: its standard error")]
    assert found.interval("a") == (0.0, math.inf)
    near = fit(lambda v: v["a"] * x + v["b"] * x**1.5, (2 * x + 2 * x**1.5) * noise, two)
    assert any("a and b are tied (correlation -0.9" in w for w in near.warnings)


def test_warns_of_bounds_and_what_is_not_seen():
    x = np.linspace(1, 10, 30)
    three = [
        Parameter("a", 1, 0.1, 2, "us"), Parameter("unseen", 1, 0.1, 2, "us"),
        Parameter("zero", 0.5, 0, 1, "us", log=False),
    ]  # fmt: skip
    noise = np.exp(0.01 * stream(0, "x").standard_normal(30))
    found = fit(lambda v: v["a"] * x + v["zero"], 3 * x * noise, three)
    assert "a is at its upper bound, 2 us" in found.warnings
    assert any(w.startswith("unseen is undetermined") for w in found.warnings)
    assert found.standard_errors["unseen"] == math.inf
    assert math.isfinite(found.standard_errors["a"])


ONE = [Parameter("a", 1.0, 0.1, 10.0, "us")]
X = np.linspace(1, 10, 12)


def line(values):
    return values["a"] * X


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": [replace(ONE[0], name=f"p{i}") for i in range(9)]},
         "a fit must have 1 to 8 parameters; got 9"),
        ({"parameters": []}, "a fit must have 1 to 8 parameters; got 0"),
        ({"parameters": ONE * 2}, "parameter 'a' stands twice"),
        ({"measured_us": X[:1]}, "1 parameters need more than 1 measurements"),
        ({"measured_us": X - 1}, "measured latencies must be finite and above 0"),
        ({"measured_us": X * np.inf}, "measured latencies must be finite and above 0"),
        ({"weights": X[:3]}, "weights must be finite and above 0"),
        ({"weights": -X}, "weights must be finite and above 0"),
        ({"loss": "l1"}, "loss must be one of linear, soft_l1, huber, cauchy; got 'l1'"),
        ({"scale": 0.0}, "scale must be above 0; got 0"),
        ({"starts": 0}, "starts must be at least 1; got 0"),
        ({"model": lambda v: X[:3]}, "the model must give 12 latencies; got shape"),
        ({"model": lambda v: X - v["a"]}, "the model must give latencies above 0; got 0 at a = 1"),
    ],
)  # fmt: skip
def test_refused(change, message):
    words = {"model": line, "measured_us": X, "parameters": ONE} | change
    with pytest.raises(InputError) as error:
        fit(words.pop("model"), words.pop("measured_us"), words.pop("parameters"), **words)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", 1, 2, 3, "us"), "start must be 2 to 3 us; got 1"),
        (("a", 1, 3, 2, "us"), "needs finite low < high"),
        (("a", 1, 0, math.inf, "us"), "needs finite low < high"),
        (("a", 1, 0, 2, "us"), "low must be above 0; got 0"),
    ],
)
def test_parameter_refused(words, message):
    with pytest.raises(InputError, match="parameter 'a': ") as error:
        Parameter(*words)
    assert message in str(error.value)


def test_interval_refused():
    found = fit(line, X, ONE)
    with pytest.raises(InputError, match=r"no interval of 'b' at level 0\.9; parameters are a"):
        found.interval("b")


def test_no_scipy(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(fitting, "import_module", missing)
    with pytest.raises(InputError, match="fitting needs scipy: pip install"):
        fit(line, X, ONE)
