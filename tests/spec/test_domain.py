"""The calibrated domain and the intervals: plain loops, laws, coverage, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.base.rng import stream
from accsim.spec.domain import Domain, Intervals, intensity, interval_factor

extents = st.integers(1, 20000)
product = st.tuples(extents, extents, extents)
measured = st.lists(product, min_size=1, max_size=8)


def domain_of(points, dtype="bf16", pattern="dense"):
    t, k, n = zip(*points, strict=True)
    return Domain.of([dtype] * len(t), [pattern] * len(t), t, k, n)


def slow_distance(points, asked):
    """Plain loops over axes and ends."""

    def axes(t, k, n):
        return [math.log2(x) for x in (t, k, n, t * k * n / (t * k + k * n + t * n))]

    worst = 0.0
    for axis, x in enumerate(axes(*asked)):
        values = [axes(*p)[axis] for p in points]
        worst = max(worst, min(values) - x, x - max(values))
    return worst


@given(measured, product)
def test_distance_as_plain_loops_say(points, asked):
    domain = domain_of(points)
    slow = slow_distance(points, asked)
    assert float(domain.distance("bf16", "dense", *asked)) == pytest.approx(slow, abs=2e-9)
    assert bool(domain.inside("bf16", "dense", *asked)) == (slow <= 1e-9)


@given(measured, measured, product)
def test_more_measurements_never_narrow_it(points, others, asked):
    one, both = domain_of(points), domain_of(points + others)
    assert both.distance("bf16", "dense", *asked) <= one.distance("bf16", "dense", *asked) + 1e-9
    assert one.inside("bf16", "dense", *zip(*points, strict=True)).all()


@given(measured)
def test_record_round_trip(points):
    domain = domain_of(points, "int8", "2:4")
    again = Domain.of_record(domain.record())
    assert again.record() == domain.record()
    assert again.inside("int8", "2:4", *zip(*points, strict=True)).all()


def test_boxes_of_their_own():
    domain = Domain.of(
        ["bf16", "bf16", "int8"], ["dense", "2:4", "dense"], [1, 64, 512], [64] * 3, [64] * 3
    )
    assert domain.inside("bf16", "dense", [1, 64], 64, 64).tolist() == [True, False]
    assert domain.inside("bf16", "2:4", [1, 64], 64, 64).tolist() == [False, True]
    assert domain.distance("fp8", "dense", [1, 64], 64, 64).tolist() == [math.inf] * 2
    assert domain.distance("int8", "dense", 2048, 64, 64) == pytest.approx(2)


def test_a_corner_of_the_box_is_outside_by_intensity():
    """Every extent within its range, yet a product of more reuse than any measured."""
    domain = domain_of([(16, 8192, 8192), (8192, 512, 512)])
    assert float(domain.distance("bf16", "dense", 8192, 8192, 8192)) > 1


@given(product)
def test_intensity_is_symmetric(point):
    t, k, n = point
    assert float(intensity(t, k, n)) == pytest.approx(t * k * n / (t * k + k * n + t * n))
    assert float(intensity(t, k, n)) == pytest.approx(float(intensity(n, t, k)))


def test_factor():
    assert interval_factor(0.2, 0) == pytest.approx(math.exp(0.2))
    assert interval_factor(0.2, 4) == pytest.approx(math.exp(0.2 * 1.6))
    far = interval_factor(np.array([0.1, 0.1, 0.0]), np.array([0.0, 3.0, math.inf]))
    assert far[0] < far[1]
    assert far[2] == math.inf


def test_quantiles_by_hand():
    """19 residuals: ⌈0.9 · 20⌉ = the 18th. Five are too few: their worst, or all's if larger."""
    size = np.r_[np.arange(1, 20) / 100, np.full(5, 0.5)]
    regime = np.array(["memory"] * 19 + ["launch"] * 5)
    found = Intervals.of(np.ones(24), np.exp(size), regime)
    assert found.quantiles["memory"] == pytest.approx(0.18)
    assert found.quantiles["launch"] == pytest.approx(0.5)
    few = Intervals.of(np.ones(24), np.exp(size[::-1]), regime[::-1])
    assert few.quantiles == pytest.approx(found.quantiles)
    mild = Intervals.of(np.ones(24), np.exp(np.r_[size[:19], np.full(5, 0.01)]), regime)
    assert mild.quantiles["launch"] == pytest.approx(0.18)  # ⌈0.9 · 25⌉ = the 23rd of all
    wild = np.r_[np.full(99, 0.1), 0.9]
    rare = Intervals.of(np.ones(100), np.exp(wild), np.array(["memory"] * 98 + ["launch"] * 2))
    assert rare.quantiles == pytest.approx({"memory": 0.1, "launch": 0.9})
    low, high = found.bounds([100.0, 100.0, 100.0], ["memory", "launch", "new"], [0, 2, 0])
    assert high[0] == pytest.approx(100 * math.exp(0.18))
    assert low[1] == pytest.approx(100 * math.exp(-0.5 * 1.3))
    assert high[2] == pytest.approx(100 * math.exp(0.5))
    low, high = found.bounds(10.0, "memory", math.inf)
    assert (float(low), float(high)) == (0.0, math.inf)


def test_intervals_cover_new_products():
    """Of 200 × 50 new residuals of the same kind at least nine in ten, and not nearly all."""
    covered = []
    for seed in range(200):
        draws = stream(seed, "residuals")
        old, new = draws.standard_t(3, 40) * 0.05, draws.standard_t(3, 50) * 0.05
        found = Intervals.of(np.ones(40), np.exp(old), np.full(40, "memory"))
        low, high = found.bounds(np.exp(new), np.full(50, "memory"))
        covered.append(np.mean((low <= 1) & (high >= 1)))
    assert 0.895 <= np.mean(covered) <= 0.93


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: domain_of([(0, 1, 1)]), "t, k and n must be at least 1"),
        (lambda: Domain.of([], [], [], [], []), "a domain needs measurements"),
        (lambda: Domain.of(["a"], ["b"], [1, 2], [1, 2], [1, 2]), "a domain needs measurements"),
        (lambda: Domain.of_record([{"dtype": "bf16"}]), "a domain needs dtype, pattern and"),
        (lambda: Domain.of_record([{"dtype": "a", "pattern": "b", "t": [2, 1], "k": [1, 1],
                                    "n": [1, 1], "intensity": [1, 1]}]), "needs 0 < low <= high"),
        (lambda: Intervals.of(np.ones(2), np.ones(1), np.array(["a", "b"])), "of one length"),
        (lambda: Intervals.of(np.ones(1), np.ones(1), np.array(["a"]), 1.0), "level must be"),
    ],
)  # fmt: skip
def test_refused(action, message):
    with pytest.raises(InputError, match=message):
        action()
