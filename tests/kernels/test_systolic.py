"""The clocked array against the product in hardware order, the closed form and the slow twin."""

import ml_dtypes
import numpy as np
import pytest
from kernels import twin_systolic as twin
from numba import config

from accsim.base.errors import InputError
from accsim.devices.systolic_register import RegisterFaults, run
from accsim.kernels import systolic

DATAFLOWS = ("ws", "is", "os")
TENSOR_PES = ((1, 1), (1, 2), (2, 4), (1, 4), (2, 8), (4, 4), (3, 5), (5, 7), (1, 3))
CASES = 40 if config.DISABLE_JIT else 750  # of each dataflow


def random_mask(rng, shape, lanes):
    kind = rng.choice(["dense", "n:m", "unstructured", "empty"], p=[0.3, 0.3, 0.35, 0.05])
    if kind == "dense":
        return np.ones(shape, bool)
    if kind == "empty":
        return np.zeros(shape, bool)
    if kind == "unstructured":
        return rng.random(shape) < rng.random()
    keep = rng.integers(1, lanes + 1)
    scores = rng.random((-(-shape[0] // lanes), lanes, shape[1]))
    return (scores.argsort(axis=1) < keep).reshape(-1, shape[1])[: shape[0]]


def operand(rng, shape, dtype):
    if dtype is np.int32:
        return rng.integers(-(2**15), 2**15, shape).astype(np.int32)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12, shape)).astype(np.float32)


def random_case(rng, dataflow, largest=9, widest=5):
    """x, w, mask and the array of one random run."""
    t, k, n = rng.integers(1, largest, 3)
    slots, lanes = TENSOR_PES[rng.integers(len(TENSOR_PES))]
    dtype = np.int32 if rng.random() < 0.5 else np.float32
    k *= rng.integers(1, lanes + 1)
    mask = random_mask(rng, (k, n), lanes)
    array = {
        "rows": int(rng.integers(1, widest)),
        "cols": int(rng.integers(1, widest)),
        "slots": slots,
        "lanes": lanes,
        "dataflow": dataflow,
        "double_buffered": bool(rng.integers(2)),
    }
    return operand(rng, (t, k), dtype), operand(rng, (k, n), dtype), mask, array


def bits(values):
    """Bit patterns: -0.0 differs from 0.0, and a NaN is equal to itself."""
    return values.view(np.int32).tolist()


def in_order(x, w, mask, array):
    names = ("rows", "slots", "lanes", "dataflow")
    with np.errstate(over="ignore"):
        return twin.reference_product(x, w, mask, **{name: array[name] for name in names})


def closed_form(x, w, mask, array):
    """The folds and the cycles from the recurrence of the schedule."""
    cut = {name: array[name] for name in ("rows", "cols", "slots", "lanes", "dataflow")}
    folds = twin.folds_of(x, w, mask, **cut)
    when = {name: array[name] for name in ("rows", "dataflow", "double_buffered")}
    cycles = twin.schedule(folds, **when)
    return [[f.rows, f.cols, f.steps, f.start] for f in folds], cycles


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_outputs_in_hardware_order_and_cycles_of_the_closed_form(dataflow):
    rng = np.random.default_rng(hash_of(dataflow))
    for _ in range(CASES):
        x, w, mask, array = random_case(rng, dataflow)
        got = run(x, w, mask, **array)
        folds, cycles = closed_form(x, w, mask, array)
        assert bits(got.outputs) == bits(in_order(x, w, mask, array)), (array, mask)
        assert (got.folds.tolist(), got.cycles) == (folds, cycles), (array, mask)


def hash_of(word):
    return list(word.encode())


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_same_as_the_twin(dataflow):
    rng = np.random.default_rng(hash_of("twin " + dataflow))
    for _ in range(min(CASES, 150)):
        x, w, mask, array = random_case(rng, dataflow, largest=5, widest=5)
        got = run(x, w, mask, **array)
        with np.errstate(over="ignore"):
            outputs, cycles = twin.run_twin(x, w, mask, **array)
        assert bits(got.outputs) == bits(outputs), (array, mask)
        assert got.cycles == cycles, (array, mask)


def test_sums_in_another_order_would_be_noticed():
    x = np.array([[2.0**24, 1.0, 1.0]], np.float32)
    w, mask = np.ones((3, 1), np.float32), np.ones((3, 1), bool)
    tree = run(x, w, mask, **square(4, slots=4, lanes=4))  # (2^24 + 1) + 1
    assert tree.outputs[0, 0] == 2.0**24
    other = run(x[:, ::-1], w, mask, **square(4, slots=4, lanes=4))  # (1 + 1) + 2^24
    assert other.outputs[0, 0] == 2.0**24 + 2


def square(size, *, dataflow="ws", double_buffered=False, slots=1, lanes=1):
    return {
        "rows": size,
        "cols": size,
        "slots": slots,
        "lanes": lanes,
        "dataflow": dataflow,
        "double_buffered": double_buffered,
    }


def dense(t, k, n, dtype=np.int32):
    rng = np.random.default_rng([t, k, n])
    return operand(rng, (t, k), dtype), operand(rng, (k, n), dtype), np.ones((k, n), bool)


def test_published_cycles_of_output_stationary_4x4x4():
    """RTL of ISPASS'20: 3n - 2 = 10 cycles to the last MAC; the drain of 4 comes after."""
    assert run(*dense(4, 4, 4), **square(4, dataflow="os")).cycles == 10 + 4


@pytest.mark.parametrize("t", [1, 7, 30])
def test_scale_sim_cycles_of_one_full_weight_stationary_fold(t):
    array = {**square(8), "cols": 5}
    assert run(*dense(t, 8, 5), **array).cycles == 2 * 8 + 5 + t - 2


@pytest.mark.parametrize("double_buffered", [False, True])
def test_a_longer_stream_takes_that_many_cycles_more(double_buffered):
    array = square(4, double_buffered=double_buffered)
    assert run(*dense(22, 4, 4), **array).cycles == run(*dense(11, 4, 4), **array).cycles + 11


def test_a_short_stream_waits_for_the_output_registers_of_the_fold_before():
    """Column 0 streams six steps, column 1 one: its first sum may come a cycle after the release.

    Fold 0 is captured in cycles 5 ... 8 and moves from cycle 9 on, so row 0 may be captured again
    at the end of cycle 9, when its old sum has moved on: step 0 (the last one) is in cycle 9.
    """
    x, w, _ = dense(4, 6, 2)
    mask = np.array([[True, True]] + [[True, False]] * 5)
    got = run(x, w, mask, rows=4, cols=1, slots=1, lanes=1, dataflow="os", double_buffered=True)
    assert got.folds[:, 2:].tolist() == [[6, 0], [1, 9]]
    assert bits(got.outputs) == bits(x @ np.where(mask, w, 0))


def test_no_weight_no_cycle():
    x, w, mask = dense(3, 8, 5)
    for dataflow in ("ws", "is"):
        got = run(x, w, ~mask, **square(4, dataflow=dataflow))
        assert (got.cycles, got.outputs.any(), len(got.folds)) == (0, False, 0)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_columns_of_w_are_columns_of_the_output(dataflow):
    x, w, mask = dense(6, 16, 9, np.float32)
    mask = random_mask(np.random.default_rng(3), mask.shape, 4)
    order = np.random.default_rng(4).permutation(9)
    array = square(3, dataflow=dataflow, slots=2, lanes=4, double_buffered=True)
    straight = run(x, w, mask, **array).outputs
    permuted = run(x, w[:, order], mask[:, order], **array).outputs
    assert bits(permuted) == bits(np.ascontiguousarray(straight[:, order]))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_linear_in_the_activations(dataflow):
    x, w, mask = dense(6, 13, 7)
    other = dense(6, 13, 8)[0]
    array = square(3, dataflow=dataflow, slots=2, lanes=4)
    one, two = run(x, w, mask, **array).outputs, run(other, w, mask, **array).outputs
    assert bits(run(3 * x + other, w, mask, **array).outputs) == bits(3 * one + two)


@pytest.mark.parametrize("acc_bits", [1, 8, 17, 31, 32])
def test_narrow_accumulators_wrap(acc_bits):
    x, w, mask = dense(5, 12, 4)
    exact = x.astype(np.int64) @ w
    wrapped = (exact + 2 ** (acc_bits - 1)) % 2**acc_bits - 2 ** (acc_bits - 1)
    assert run(x, w, mask, **square(4), acc_bits=acc_bits).outputs.tolist() == wrapped.tolist()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_narrow_floats_are_added_in_float32(dtype):
    x, w, mask = dense(3, 8, 4, np.float32)
    x, w = (np.clip(v, -100, 100).astype(dtype) for v in (x, w))
    wide = run(x.astype(np.float32), w.astype(np.float32), mask, **square(4))
    assert bits(run(x, w, mask, **square(4)).outputs) == bits(wide.outputs)


def test_stale_operands_below_the_fold_are_not_added():
    """The second fold uses one row; infinities of the first stay in the rows below it."""
    w = np.array([[1], [np.inf], [1]], np.float32)
    x = np.array([[1, 0, 3]], np.float32)
    for double_buffered in (False, True):
        array = square(2, double_buffered=double_buffered)
        assert np.isnan(run(x, w, np.ones((3, 1), bool), **array).outputs).all()
        kept = np.array([[True], [False], [True]])
        assert run(x, w, kept, **array).outputs.tolist() == [[4]]
    # Lanes 0 and 1 are inf and 0: 0 times the stale weight must not enter either.
    w = np.array([[np.inf], [np.inf], [1]], np.float32)
    assert run(x[:, [0, 0, 2]], w, np.ones((3, 1), bool), **square(2)).outputs[0, 0] == np.inf


def faults(*entries):
    columns = np.array(entries, np.int64).reshape(-1, 6).T
    names = ("cycle", "row", "col", "register", "slot", "mask")
    return RegisterFaults(**dict(zip(names, columns, strict=True)))


def difference(x, w, mask, array, *flips):
    """Outputs with the flips less those without, modulo 2**32, and the clean run."""
    clean, dirty = run(x, w, mask, **array), run(x, w, mask, **array, faults=faults(*flips))
    assert dirty.cycles == clean.cycles
    return (dirty.outputs.astype(np.int64) - clean.outputs) % 2**32, clean


@pytest.mark.parametrize("dataflow", ["ws", "is"])
@pytest.mark.parametrize("bit", [0, 13, 31])
def test_a_flip_in_a_sum_reaches_one_output_by_that_bit(dataflow, bit):
    x, w, mask = dense(4, 4, 4)
    array = square(4, dataflow=dataflow)
    step, row, col = 2, 1, 3
    start = run(x, w, mask, **array).folds[0, 3]
    flip = (start + step + row + col + 1, row, col, systolic.REG_PSUM, 0, 1 << bit)
    change, _ = difference(x, w, mask, array, flip)
    place = (step, col) if dataflow == "ws" else (col, step)
    assert [tuple(at) for at in np.argwhere(change)] == [place]
    assert change[place] in (2**bit, 2**32 - 2**bit)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_flip_at_the_south_edge_is_that_bit_of_the_output(dtype):
    x, w, mask = dense(4, 4, 4, dtype)
    array = square(4)
    clean = run(x, w, mask, **array)
    for step, col in ((0, 0), (3, 3)):  # the very last one stands there as the clock stops
        flip = (clean.folds[0, 3] + step + 3 + col + 1, 3, col, systolic.REG_PSUM, 0, 1 << 20)
        dirty = run(x, w, mask, **array, faults=faults(flip))
        expected = clean.outputs.copy()
        expected.view(np.int32)[step, col] ^= 1 << 20
        assert bits(dirty.outputs) == bits(expected)


def test_a_flip_in_an_accumulator_or_output_register_reaches_one_output():
    x, w, mask = dense(4, 5, 4)
    array = square(4, dataflow="os")
    row, col, last = 1, 2, 5 - 1 + 1 + 2
    for cycle, register in ((last - 2, systolic.REG_PSUM), (last + 1, systolic.REG_OUT)):
        change, _ = difference(x, w, mask, array, (cycle, row, col, register, 0, 4))
        assert [tuple(at) for at in np.argwhere(change)] == [(row, col)]
        assert change[row, col] in (4, 2**32 - 4)
    # Captured in cycle `last`, released after the last row, cycle 5 - 1 + 3 + 2; one row a cycle.
    moved, _ = difference(x, w, mask, array, (5 + 3 + 2 + 1, 2, col, systolic.REG_OUT, 0, 4))
    assert [tuple(at) for at in np.argwhere(moved)] == [(row, col)]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_flip_in_a_lane_that_no_index_selects_is_harmless(dataflow):
    """One kept weight, lane 2 of 4, in a PE with one slot: three of four lanes are dead."""
    x, w, _ = dense(3, 4, 1)
    mask = np.array([[False], [False], [True], [False]])
    array = square(1, dataflow=dataflow, lanes=4)
    lane = systolic.REG_STATIONARY if dataflow == "is" else systolic.REG_STREAM
    start = run(x, w, mask, **array).folds[0, 3]
    for slot in range(4):
        change, _ = difference(x, w, mask, array, (start, 0, 0, lane, slot, 64))
        expected = [[int(w[2, 0]) * (64 if x[0, 2] & 64 == 0 else -64) % 2**32 * (slot == 2)]]
        assert change[:1].tolist() == expected
        assert not change[1:].any()


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_flip_in_an_index_selects_another_lane(dataflow):
    x, w, _ = dense(1, 4, 1)
    mask = np.array([[False], [False], [True], [False]])
    array = square(1, dataflow=dataflow, lanes=4)
    start = run(x, w, mask, **array).folds[0, 3]
    for mask_bits, lane in ((1, 3), (2, 0), (3, 1), (4, 0)):  # 6 names no lane: 0
        flip = (start, 0, 0, systolic.REG_INDEX, 0, mask_bits)
        change, clean = difference(x, w, mask, array, flip)
        expected = int(x[0, lane]) * int(w[2, 0]) - int(clean.outputs[0, 0])
        assert change.tolist() == [[expected % 2**32]]


def test_a_flip_in_a_shadow_register_hurts_the_next_fold_from_its_row_on():
    x, w, mask = dense(5, 4, 4)
    array = square(2, double_buffered=True)
    start = run(x, w, mask, **array).folds[1, 3]  # k rows 2 and 3, columns 0 and 1
    flip = (start + 1, 1, 0, systolic.REG_SHADOW, 0, 1)
    change, _ = difference(x, w, mask, array, flip)
    sign = 1 if w[3, 0] & 1 == 0 else -1
    assert change[:, 0].tolist() == [sign * int(v) % 2**32 for v in x[:, 3]]
    assert not change[:, 1:].any()


@pytest.mark.parametrize("double_buffered", [False, True])
@pytest.mark.parametrize("register", [systolic.REG_STATIONARY, systolic.REG_INDEX])
@pytest.mark.parametrize("step", range(5))
def test_a_held_weight_stays_flipped_until_the_fold_ends(double_buffered, register, step):
    x, w, mask = dense(5, 4, 2)
    mask[[0, 2]] = False  # lane 1 of both blocks
    array = {**square(2, double_buffered=double_buffered), "lanes": 2}
    # Step `step` is in PE (0, 1) one cycle after it is in PE (0, 0); the switch comes with step 0.
    cycle = run(x, w, mask, **array).folds[0, 3] + 1 + step + (step == 0 and double_buffered)
    change, _ = difference(x, w, mask, array, (cycle, 0, 1, register, 0, 1))
    first = step + (step == 0 and double_buffered)
    assert (change != 0).tolist() == [[False, t >= first] for t in range(5)]


def test_faults_may_come_in_any_order():
    x, w, mask = dense(4, 4, 4)
    start = run(x, w, mask, **square(4)).folds[0, 3]
    flips = [(start + 4 + step, 3, 0, systolic.REG_PSUM, 0, 1) for step in (2, 0, 3)]
    change, _ = difference(x, w, mask, square(4), *flips)
    assert np.flatnonzero(change[:, 0]).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be at least 1; got 0"),
        ({"acc_bits": 33}, "acc_bits must be at most 32; got 33"),
        ({"dataflow": "wss"}, r"one of ws, is, os; got 'wss', did you mean 'ws'\?"),
        ({"x": np.zeros((2, 3), np.int32)}, r"none empty; got \(2, 3\) and \(4, 4\)"),
        ({"mask": np.ones((4, 4))}, r"mask must be bool \(4, 4\) like w; got float64"),
        ({"x": np.zeros((4, 4), np.int64)}, "must fit int32 or float32; got int64 and int32"),
        ({"faults": faults((0, 4, 0, 0, 0, 1))}, r"register 0 slot 0 of PE \(4, 0\)"),
        ({"faults": faults((0, 0, 0, systolic.REG_OUT, 0, 1))}, "must hit a register"),
        ({"faults": faults((0, 0, 0, systolic.REG_SHADOW, 0, 1))}, "must hit a register"),
    ],
)
def test_nonsense_is_refused(change, message):
    x, w, mask = dense(4, 4, 4)
    with pytest.raises(InputError, match=message):
        run(**{"x": x, "w": w, "mask": mask, **square(4), **change})


def test_narrow_accumulators_are_for_integers():
    with pytest.raises(InputError, match="acc_bits must be 32 for floats; got 16"):
        run(*dense(2, 2, 2, np.float32), **square(2), acc_bits=16)
