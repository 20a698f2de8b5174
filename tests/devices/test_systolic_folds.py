"""Cycles of folds: closed form, recurrence and a slow twin; published and derived goldens."""

import numpy as np
import pytest

import accsim
from accsim.devices.systolic_folds import DATAFLOWS, fold_sequence, uniform_folds
from accsim.files import catalogue

SQUARES = (4, 8, 10, 16, 20, 32, 40, 50, 64, 80, 90)
CASES = 3600
EDGES = 9  # the first cases of each kind have extents of 1


def cut(extent, size):
    """Lengths of the parts of an extent, one after the other."""
    parts = []
    while extent > 0:
        parts.append(min(size, extent))
        extent -= size
    return parts


def folds_in_order(rows_used, cols_used, steps, passes, *, rows, cols, stationary):
    """(r, c, s) of every fold as the array runs them.

    A stationary array goes down one column of folds, every pass of a fold at once; an
    output-stationary one goes along a row of folds and counts passes among its steps.
    """
    down, along = cut(rows_used, rows), cut(cols_used, cols)
    if stationary:
        return [(r, c, steps) for c in along for r in down for _ in range(passes)]
    return [(r, c, steps) for r in down for c in along]


def twin(folds, *, rows, stationary, double_buffering):
    """Total and work cycles, from what each PE does when (0-based cycles, loops over folds)."""
    free, start, before = 0, 0, None
    last_event, streamed = -1, 0
    for r, c, s in folds:
        if not double_buffering:
            start = free + (r if stationary else 0)  # nothing moves before the last fold has left
        elif before is None:
            start = r if stationary else 0
        elif stationary:  # streamed, and the next tile shifted in behind it
            start += max(before[2], r)
        else:
            # Streamed; and row 0 may write its output register (in cycle start + s − 1) only after
            # the fold before let go of it, which waits for its own last row.
            let_go = start + (before[2] - 1) + (before[0] - 1)
            start = max(start + before[2], let_go + 1 - (s - 1))
        last_multiply = start + (s - 1) + (r - 1) + (c - 1)
        # A sum at PE row i passes the rows below it; an output of os is shifted through R rows.
        leaves = start + (s - 1) + (c - 1) + (rows - 1) if stationary else last_multiply + rows
        last_event = max(last_event, leaves)
        free = leaves + 1
        streamed += s
        before = (r, c, s)
    return last_event + 1, streamed


def random_cases(seed):
    """Arrays of (rows_used, cols_used, steps, passes, rows, cols), edges of 1 first."""
    rng = np.random.default_rng(seed)
    cases = np.stack(
        [
            rng.integers(1, 30, CASES), rng.integers(1, 30, CASES), rng.integers(1, 25, CASES),
            rng.integers(1, 5, CASES), rng.integers(1, 9, CASES), rng.integers(1, 9, CASES),
        ],
        axis=1,
    )  # fmt: skip
    for column in range(6):
        cases[column * EDGES : (column + 1) * EDGES, column] = 1
    cases[6 * EDGES : 7 * EDGES, :3] = 1
    cases[7 * EDGES : 8 * EDGES, 3:] = 1
    cases[8 * EDGES : 9 * EDGES] = 1
    return cases


@pytest.mark.parametrize("double_buffering", [True, False])
@pytest.mark.parametrize("stationary", [True, False])
def test_closed_form_and_recurrence_equal_the_twin(stationary, double_buffering):
    cases = random_cases([stationary, double_buffering])
    m, c, s, p, rows, cols = cases.T
    closed = uniform_folds(
        m, c, s, p, rows=rows, cols=cols, stationary=stationary, double_buffering=double_buffering
    )
    for i, (*extents, r_size, c_size) in enumerate(cases.tolist()):
        folds = folds_in_order(*extents, rows=r_size, cols=c_size, stationary=stationary)
        how = {"rows": r_size, "stationary": stationary, "double_buffering": double_buffering}
        expected = twin(folds, **how)
        assert tuple(fold_sequence(*np.array(folds).T, **how)) == expected, (folds, how)
        assert (closed.total[i], closed.work[i]) == expected, (folds, how)


@pytest.mark.parametrize("double_buffering", [True, False])
@pytest.mark.parametrize("stationary", [True, False])
def test_recurrence_equals_the_twin_on_uneven_folds(stationary, double_buffering):
    """Folds as an adaptive array makes them: rows, columns and steps all differ."""
    rng = np.random.default_rng([7, stationary, double_buffering])
    for _ in range(400):
        rows = int(rng.integers(1, 8))
        count = int(rng.integers(1, 9))
        folds = np.stack(
            [rng.integers(1, high, count) for high in (rows + 1, 9, 15)], axis=1
        ).tolist()
        how = {"rows": rows, "stationary": stationary, "double_buffering": double_buffering}
        assert tuple(fold_sequence(*np.array(folds).T, **how)) == twin(folds, **how), (folds, how)


def test_no_fold_takes_no_cycle():
    none = np.zeros(0, np.int64)
    how = {"rows": 4, "stationary": True, "double_buffering": True}
    assert tuple(fold_sequence(none, none, none, **how)) == (0, 0)


def test_broadcasting_equals_one_by_one():
    steps, used = np.arange(1, 12), np.array([[1], [3], [7], [9]])
    for stationary in (True, False):
        how = {"rows": 3, "cols": 4, "stationary": stationary, "double_buffering": True}
        both = uniform_folds(used, 9, steps, 2, **how)
        for row, m in enumerate((1, 3, 7, 9)):
            for at, s in enumerate(range(1, 12)):
                one = uniform_folds(m, 9, s, 2, **how)
                assert (both.total[row, at], both.work[row, at]) == (one.total, one.work)


# --- goldens


def test_the_rtl_golden_of_output_stationary_4x4x4():
    """10 cycles to the last multiply (facts/systolic_abft.md, RTL), then 4 rows shift out."""
    for double_buffering in (True, False):
        got = uniform_folds(
            4, 4, 4, 1, rows=4, cols=4, stationary=False, double_buffering=double_buffering
        )
        assert (int(got.work), int(got.total) - 4) == (4, 10)


def catalogue_array(**overrides):
    """A dense array from the catalogue, its own dataflow and shape replaced."""
    known = catalogue.names("hwconfigs")
    wanted = ("systolic_os_4x4", "systolic_ws_32x32")
    name = next(name for name in wanted if name in known)
    plain = {"array.multipliers": 1, "array.lanes": 1, "array.levels": "[dense]"}
    return accsim.load_hardware(name, plain | overrides)


@pytest.mark.parametrize("size", SQUARES)
def test_squares_take_3n_minus_2_cycles_of_work(size):
    """ISPASS'20, eleven sizes 4…90: n×n×n on n×n output-stationary."""
    hardware = catalogue_array(**{"array.rows": size, "array.cols": size, "dataflow": "os"})
    result = accsim.simulate(accsim.gemm(size, size, size), hardware)
    row = result.table.iloc[0]
    assert (row.work_cycles, row.padding_cycles) == (size, 0)
    skew = row.fill_drain_cycles - size  # the drain goes through all rows
    assert row.work_cycles + skew == 3 * size - 2


@pytest.mark.parametrize(("rows", "cols", "t"), [(1, 1, 1), (4, 4, 9), (8, 3, 100), (32, 32, 1)])
def test_single_buffered_weight_stationary_fold(rows, cols, t):
    """2R + C + t − 2 a fold, the published count (facts/systolic_abft.md)."""
    for folds_down, folds_along in ((1, 1), (3, 2)):
        got = uniform_folds(
            rows * folds_down, cols * folds_along, t, 1,
            rows=rows, cols=cols, stationary=True, double_buffering=False,
        )  # fmt: skip
        assert got.total == folds_down * folds_along * (2 * rows + cols + t - 2)


# --- laws


@pytest.mark.parametrize("double_buffering", [True, False])
def test_doubling_t_in_one_stationary_fold_adds_t(double_buffering):
    for t in range(1, 40):
        how = {"rows": 4, "cols": 5, "stationary": True, "double_buffering": double_buffering}
        once, twice = (uniform_folds(3, 5, steps, 1, **how).total for steps in (t, 2 * t))
        assert twice - once == t


def test_doubling_t_on_the_whole_array_adds_t():
    hardware = catalogue_array(
        **{
            "array.rows": 8,
            "array.cols": 8,
            "dataflow": "ws",
            "memory.dram.bandwidth_gb_per_s": 1e9,
        }
    )
    compute = []
    for t in (24, 48):
        columns = accsim.simulate(accsim.gemm(t, 8, 8), hardware).columns
        compute.append(columns["work_cycles"][0] + columns["fill_drain_cycles"][0])
    assert compute[1] - compute[0] == 24


@pytest.mark.parametrize("double_buffering", [True, False])
@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
def test_never_faster_than_the_multipliers(dataflow, double_buffering):
    stationary = dataflow != "os"
    m, c, s, p, rows, cols = random_cases([3, stationary, double_buffering]).T
    got = uniform_folds(
        m, c, s, p, rows=rows, cols=cols, stationary=stationary, double_buffering=double_buffering
    )
    macs = m * c * s * (p if stationary else 1)
    assert np.all(got.work * rows * cols >= macs)
    assert np.all(got.total > got.work)


@pytest.mark.parametrize("stationary", [True, False])
def test_a_second_register_never_costs_a_cycle(stationary):
    m, c, s, p, rows, cols = random_cases([4, stationary]).T
    with_one, with_two = (
        uniform_folds(
            m, c, s, p, rows=rows, cols=cols, stationary=stationary, double_buffering=double
        ).total
        for double in (False, True)
    )
    assert np.all(with_two <= with_one)


def test_which_extent_lies_where():
    """facts/systolic_abft.md: ws k × n, t streams; is k × t, n streams; os t × n, k streams."""
    layout = {name: (flow.rows, flow.cols, flow.stream) for name, flow in DATAFLOWS.items()}
    assert layout == {"ws": ("k", "n", "t"), "is": ("k", "t", "n"), "os": ("t", "n", "k")}
    assert {name for name, flow in DATAFLOWS.items() if flow.stationary} == {"ws", "is"}
