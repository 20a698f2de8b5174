"""Cross-validation beside plain loops; errors by regime beside hand-made ones."""

import numpy as np
import pytest
from calibrate.rooflines import PARAMETERS, noisy, products, roofline
from hypothesis import given
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.base.rng import stream
from accsim.calibrate.fit import fit
from accsim.calibrate.held_out import cross_validated, error_table, fold_of


def dealt(groups, folds, seed):
    """Plain loops: sorted groups shuffled, dealt out one by one."""
    names = sorted({tuple(g) for g in groups})
    order = stream(seed, "calibrate", "folds").permutation(len(names))
    fold = {}
    for turn, i in enumerate(order):
        fold[names[i]] = turn % folds
    return [fold[tuple(g)] for g in groups]


groups = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40)


@given(groups, st.integers(2, 5), st.integers(0, 3))
def test_folds_as_plain_loops_deal_them(pairs, folds, seed):
    if len(set(pairs)) < folds:
        with pytest.raises(InputError, match="folds must be 2 to"):
            fold_of(np.array(pairs), folds, seed)
        return
    found = fold_of(np.array(pairs), folds, seed)
    assert found.tolist() == dealt(pairs, folds, seed)
    sizes = [len({p for p, f in zip(pairs, found, strict=True) if f == i}) for i in range(folds)]
    assert max(sizes) - min(sizes) <= 1
    turned = np.random.default_rng(0).permutation(len(pairs))
    assert (fold_of(np.array(pairs)[turned], folds, seed) == found[turned]).all()


@given(st.lists(st.integers(0, 9), min_size=12, max_size=30), st.integers(0, 5))
def test_predictions_never_saw_their_group(names, seed):
    """A fit that memorises its groups; each is asked only for others, all of them once."""
    names = np.array([*names, 10, 11, 12])
    asked = []

    def fitter(train):
        known = set(names[train].tolist())

        def predict(held):
            assert not known & set(names[held].tolist())
            assert (train ^ held).all()
            asked.extend(np.flatnonzero(held).tolist())
            return names[held] + len(known)

        return predict

    found = cross_validated(fitter, names, 3, seed)
    assert sorted(asked) == list(range(len(names)))
    fold = fold_of(names, 3, seed)
    for i, name in enumerate(names):
        others = {x for x, f in zip(names.tolist(), fold, strict=True) if f != fold[i]}
        assert found[i] == name + len(others)


def test_cross_validation_of_a_fit():
    """Held-out errors of the right model are the noise, a little more than its residuals."""
    pytest.importorskip("scipy")
    t, k, n = products(1, 100)
    measured = noisy(roofline(t, k, n), 1, 0.05)

    def fitter(train):
        found = fit(roofline(t[train], k[train], n[train]), measured[train], PARAMETERS, starts=1)
        return lambda held: roofline(t[held], k[held], n[held])(found.values)

    predicted = cross_validated(fitter, np.stack([n, k], axis=1), 5)
    seen = fit(roofline(t, k, n), measured, PARAMETERS, starts=1)
    spread = np.std(np.log(predicted / measured))
    assert np.std(seen.residuals) < spread < 0.06


@pytest.mark.parametrize("given_back", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_predictions_that_are_none(given_back):
    with pytest.raises(InputError, match="fold 0: predictions must be 2 latencies above 0"):
        cross_validated(lambda train: lambda held: np.array(given_back), np.arange(4), 2)


def test_error_table_by_hand():
    measured = np.array([10.0, 10.0, 10.0, 4.0, 8.0])
    predicted = np.array([11.0, 9.0, 15.0, 4.0, 4.0])
    regime = np.array(["memory", "memory", "memory", "launch", "odd"])
    rows = {row.regime: row for row in error_table(measured, predicted, regime)}
    assert list(rows) == ["launch", "memory", "odd", "all"]
    memory = rows["memory"]
    assert memory.n == 3
    assert memory.median == pytest.approx(0.1)
    assert memory.mean == pytest.approx(0.7 / 3)
    assert memory.p90 == pytest.approx(0.1 + 0.8 * 0.4)
    assert memory.worst == pytest.approx(0.5)
    assert memory.bias == pytest.approx((1.1 * 0.9 * 1.5) ** (1 / 3) - 1)
    assert rows["odd"].worst == pytest.approx(-0.5)
    assert rows["all"].n == 5


@pytest.mark.parametrize(
    ("measured", "predicted", "regime", "message"),
    [
        ([1.0], [1.0, 2.0], ["a"], "as long as one another; got 1, 2, 1"),
        ([], [], [], "finite numbers above 0"),
        ([1.0], [0.0], ["a"], "finite numbers above 0"),
    ],
)
def test_error_table_refuses(measured, predicted, regime, message):
    with pytest.raises(InputError, match=message):
        error_table(np.array(measured), np.array(predicted), np.array(regime))
