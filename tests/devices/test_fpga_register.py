"""The FPGA's clocked array: product in hardware order, slow twin, closed form and laws."""

import ml_dtypes
import numpy as np
import pytest
from kernels import twin_fpga as twin
from numba import config

from accsim.base.errors import AccsimError, InputError
from accsim.devices.fpga_array import FLOWS as CLOSED
from accsim.devices.fpga_ops import Ops, mode_of
from accsim.devices.fpga_register import run, select
from accsim.kernels import fpga
from accsim.sparsity.nm import NM
from accsim.spec.fpga import TensorPes

FLOWS = ("ws", "os")
CASES = 25 if config.DISABLE_JIT else 2500  # of each flow; with every addition in order: a fifth
FORMATS = (np.int8, np.int16, np.float16, ml_dtypes.bfloat16, np.float32)


def pes(**changes):
    most = {"rows": 3, "cols": 2, "multipliers": 2, "lanes": 8, "adder_latency": 4}
    return TensorPes(**({"levels": ("dense", "2:4", "2:8", "1:8")} | most | changes))


def random_array(rng):
    """PEs with one n:m level, mostly."""
    multipliers = int(rng.integers(1, 6))
    lanes = int(rng.integers(max(multipliers, 2), 11))
    m = int(rng.integers(2, lanes + 1))
    return TensorPes(
        rows=int(rng.integers(1, 6)),
        cols=int(rng.integers(1, 6)),
        multipliers=multipliers,
        lanes=lanes,
        levels=("dense", f"{rng.integers(1, m)}:{m}"),
        adder_latency=int(rng.integers(1, 10)),
        interleave=bool(rng.integers(2)),
    )


def operand(rng, shape, dtype):
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    wide = 3 if dtype is np.float16 else 12
    values = rng.standard_normal(shape) * 2.0 ** rng.integers(-wide, wide, shape)
    return np.where(rng.random(shape) < 0.05, -0.0, values).astype(dtype)


def random_mask(rng, shape, level):
    """Every group keeps up to n; in dense mode any mask."""
    if level == "dense":
        return rng.random(shape) < 0.8
    mask = NM.parse(level).mask(rng.random(shape).astype(np.float32))
    return mask & (rng.random(shape) < rng.choice([0.6, 1.0]))


def random_case(rng, largest=20):
    array = random_array(rng)
    level = array.levels[rng.integers(2)]
    t, k, n = (int(size) for size in rng.integers(1, largest, 3))
    dtype = FORMATS[rng.integers(len(FORMATS))]
    x, w = operand(rng, (t, k), dtype), operand(rng, (k, n), dtype)
    return x, w, random_mask(rng, w.shape, level), array, level


def sums(values):
    integer = np.issubdtype(values.dtype, np.integer)
    return values.astype(np.int32 if integer else np.float32)


def bits(values):
    """Bit patterns: -0.0 differs from 0.0."""
    return values.view(np.int32).tolist()


@pytest.mark.parametrize("flow", FLOWS)
def test_product_in_hardware_order_and_closed_form(flow):
    rng = np.random.default_rng([5, FLOWS.index(flow)])
    for case in range(CASES):
        x, w, mask, array, level = random_case(rng)
        found = run(x, w, mask, array=array, flow=flow, level=level)
        if case % 5 == 0:
            want = twin.product(sums(x), sums(w), mask, array, level, flow)
            assert bits(found.outputs) == bits(want), (array, level, x.shape, w.shape)
        elif found.outputs.dtype == np.int32:
            want = x.astype(np.int64) @ np.where(mask, w, 0).astype(np.int64)
            assert (found.outputs == want.astype(np.int32)).all()
        assert found.cycles == twin.CLOSED[flow](*x.shape, w.shape[1], array, level)
        assert found.cycles == found.tiles.sum()


@pytest.mark.parametrize("flow", FLOWS)
def test_same_as_the_twin(flow):
    rng = np.random.default_rng([6, FLOWS.index(flow)])
    for _ in range(8 if config.DISABLE_JIT else 60):
        x, w, mask, array, level = random_case(rng, largest=10)
        found = run(x, w, mask, array=array, flow=flow, level=level)
        with np.errstate(over="ignore"):
            outputs, cycles = twin.RUN[flow](sums(x), sums(w), mask, array, level)
        assert bits(found.outputs) == bits(outputs), (array, level, x.shape, w.shape)
        assert found.cycles == cycles, (array, level, x.shape, w.shape)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_device_counts_what_the_clock_does(flow):
    rng = np.random.default_rng([13, FLOWS.index(flow)])
    for _ in range(CASES // 5):
        x, w, mask, array, level = random_case(rng, largest=30)
        sizes = {"t": x.shape[0], "k": x.shape[1], "n": w.shape[1]}
        known = sizes | mode_of(level, array)._asdict()
        ops = Ops(np.array([[known.get(name, 1)] for name in Ops.__annotations__]))
        closed = CLOSED[flow](ops, ops.t, ops.k, ops.n, array)
        found = run(x, w, mask, array=array, flow=flow, level=level)
        assert found.cycles == closed.total[0], (array, level, sizes)
        assert closed.streaming[0] <= found.cycles


@pytest.mark.parametrize("flow", FLOWS)
def test_integers_are_the_product_modulo_2_32(flow):
    rng = np.random.default_rng(7)
    x = rng.integers(-(2**31), 2**31, (9, 33)).astype(np.int32)
    w = rng.integers(-(2**31), 2**31, (33, 5)).astype(np.int32)
    mask = random_mask(rng, w.shape, "2:8")
    want = x.astype(object) @ np.where(mask, w, 0).astype(object)
    found = run(x, w, mask, array=pes(), flow=flow, level="2:8").outputs
    assert ((found - want) % 2**32 == 0).all()


@pytest.mark.parametrize("flow", FLOWS)
def test_columns_may_change_places(flow):
    rng = np.random.default_rng(8)
    x, w = operand(rng, (7, 30), np.float16), operand(rng, (30, 9), np.float16)
    mask, order = random_mask(rng, w.shape, "2:4"), rng.permutation(9)
    straight = run(x, w, mask, array=pes(), flow=flow, level="2:4")
    permuted = run(x, w[:, order], mask[:, order], array=pes(), flow=flow, level="2:4")
    assert bits(permuted.outputs) == bits(np.ascontiguousarray(straight.outputs[:, order]))
    assert permuted.cycles == straight.cycles


@pytest.mark.parametrize("flow", FLOWS)
def test_integers_are_linear_and_rows_independent(flow):
    rng = np.random.default_rng(9)
    x, other = (rng.integers(-99, 99, (7, 30)).astype(np.int32) for _ in range(2))
    w = rng.integers(-99, 99, (30, 4)).astype(np.int32)

    def outputs(operand):
        return run(operand, w, array=pes(), flow=flow).outputs

    assert (outputs(x + 5 * other) == outputs(x) + 5 * outputs(other)).all()
    assert (outputs(x[::-1]) == outputs(x)[::-1]).all()


def test_interleaving_hides_the_adder_and_changes_no_bit():
    rng = np.random.default_rng(10)
    x, w = operand(rng, (48, 200), np.float32), operand(rng, (200, 2), np.float32)
    alone, turns = (
        run(x, w, array=pes(adder_latency=8, interleave=choice), flow="os")
        for choice in (False, True)
    )
    assert bits(alone.outputs) == bits(turns.outputs)
    # 25 groups of 4 steps: 16 tiles of 800 cycles against 2, and fill and drain
    assert alone.cycles == 16 * (800 + 0 + 2 + 1 + 3)
    assert turns.cycles == 2 * (800 + 7 + 2 + 1 + 24)


def test_square_product_of_a_square_array():
    """3n - 2 cycles (ISPASS'20) and n more until the results are out."""
    for size in (1, 2, 4, 5):
        array = pes(rows=size, cols=size, multipliers=1, lanes=1, levels=("dense",))
        array = array.model_copy(update={"adder_latency": 1})
        ones = np.ones((size, size), np.int8)
        assert run(ones, ones, array=array, flow="os").cycles == 3 * size - 2 + size


def test_a_sparser_mode_takes_fewer_steps():
    x, w = np.ones((64, 64), np.int8), np.ones((64, 2), np.int8)
    mask = np.arange(64)[:, None] % 8 == np.zeros(2)
    for flow in FLOWS:
        cycles = [
            run(x, w, mask, array=pes(multipliers=1), flow=flow, level=level).cycles
            for level in ("dense", "2:4", "2:8", "1:8")
        ]
        assert cycles == sorted(cycles, reverse=True)
        assert len(set(cycles)) == 4
        assert cycles[0] / cycles[3] > 5


def test_tiles_of_ws():
    rng = np.random.default_rng(11)
    x, w = operand(rng, (23, 40), np.float32), operand(rng, (40, 5), np.float32)
    whole = run(x, w, array=pes(), flow="ws")
    tiled = run(x, w, array=pes(), flow="ws", tile_rows=10)
    assert bits(whole.outputs) == bits(tiled.outputs)
    assert tiled.tiles.tolist() == [twin.ws_cycles(t, 40, 5, pes(), "dense") for t in (10, 10, 3)]


def test_an_operand_that_no_slot_names_is_not_read():
    x, w = np.ones((2, 8), np.float32), np.ones((8, 1), np.float32)
    mask = np.arange(8)[:, None] == 3
    x[:, np.arange(8) != 3] = np.inf
    for flow in FLOWS:
        found = run(x, w, mask, array=pes(), flow=flow, level="2:4")
        assert found.outputs.tolist() == [[1.0], [1.0]]


def test_a_bug_of_the_kernel_is_told(monkeypatch):
    monkeypatch.setattr(fpga, "flow", lambda *_: fpga.NOT_LOADED)
    ones = np.ones((2, 2), np.int8)
    with pytest.raises(AccsimError, match="ws: weights had not arrived"):
        run(ones, ones, array=pes(), flow="ws")


@pytest.mark.parametrize("dtype", FORMATS)
def test_selection_is_the_mask(dtype):
    rng = np.random.default_rng(12)
    for _ in range(10 if config.DISABLE_JIT else 200):
        m = int(rng.integers(1, 10))
        n, engines = int(rng.integers(1, m + 1)), int(rng.integers(1, 9))
        shape = tuple(int(size) for size in rng.integers(1, 30, 2))
        w = operand(rng, shape, dtype)
        if rng.random() < 0.5:
            w = rng.integers(-2, 3, shape).astype(dtype)  # ties
        found = select(w, n, m, engines=engines)
        kept, cycles = twin.select(w, n, m, engines)
        assert (found.mask == NM(n, m).mask(w.astype(np.float32))).all()
        assert found.cycles == cycles
        for (group, column), ks in kept.items():
            slots = [-1] * (n - len(ks)) + [k - group * m for k in ks]
            assert found.index[group, column].tolist() == slots
            some = found.values[group, column, n - len(ks) :]
            assert some.tobytes() == w[ks, column].tobytes()


def test_engines_side_by_side():
    w = np.arange(64.0).reshape(64, 1).astype(np.float32)
    assert [select(w, 2, 8, engines=e).cycles for e in (1, 2, 4, 8, 16)] == [65, 33, 17, 9, 9]


def test_refusals():
    x, w = np.ones((2, 8), np.int8), np.ones((8, 3), np.int8)
    with pytest.raises(InputError, match=r"flow must be one of .*; got 'is'"):
        run(x, w, array=pes(), flow="is")
    with pytest.raises(InputError, match=r"level must be one of .*; got '3:4'"):
        run(x, w, array=pes(), flow="ws", level="3:4")
    with pytest.raises(InputError, match="at most 2 of every 4 k; one group keeps 4"):
        run(x, w, array=pes(), flow="ws", level="2:4")
    with pytest.raises(InputError, match="tile_rows must be at least 1; got 0"):
        run(x, w, array=pes(), flow="ws", tile_rows=0)
    with pytest.raises(InputError, match=r"x must be t×k and w k×n"):
        run(x, w[:7], array=pes(), flow="ws")
    with pytest.raises(InputError, match="mask must be bool"):
        run(x, w, w, array=pes(), flow="ws")
    with pytest.raises(InputError, match="must fit int32 or float32; got float64"):
        run(x.astype(float), w, array=pes(), flow="ws")
    with pytest.raises(InputError, match="1 <= n <= m and engines >= 1; got 3:2, 1"):
        select(w, 3, 2)
    with pytest.raises(InputError, match="w must be k×n, not empty, and fit float32"):
        select(w.astype(float), 1, 2)
    with pytest.raises(InputError, match="w must hold no NaN"):
        select(np.full((2, 2), np.nan, np.float32), 1, 2)
