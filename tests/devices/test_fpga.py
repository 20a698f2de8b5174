"""FPGA dataflows: a twin in loops, the engine, the laws of docs/fpga.md, examples by hand."""

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
from devices import fpga_twin as twin

import accsim
from accsim.base.errors import InputError
from accsim.devices import fpga_tiling
from accsim.devices.fpga import FpgaDevice, PassOps, levels_of, pass_costs
from accsim.devices.fpga_array import FLOWS
from accsim.devices.fpga_ops import make_ops
from accsim.devices.fpga_passes import plan_of
from accsim.devices.fpga_register import run as register_run
from accsim.devices.fpga_schedule import spell_out
from accsim.devices.fpga_slots import slot_sums
from accsim.engine import closed
from accsim.engine.attribution import causes as attributed
from accsim.engine.compiled import play
from accsim.sparsity.masks import Masks
from accsim.spec.pattern import parse_pattern

BASE = accsim.load_hardware("vcu1525_sat")
LEVELS = ("dense", "1:2", "1:4", "2:4", "3:4", "1:8", "2:8", "4:8")


def changed(device=BASE, **dotted):
    """Return a device with nested fields replaced: ``array__rows=4``."""
    for path, value in dotted.items():
        *above, key = path.split("__")
        nouns = [device]
        for name in above:
            nouns.append(getattr(nouns[-1], name))
        for noun, name in zip(reversed(nouns), reversed([*above, key]), strict=True):
            value = noun.model_copy(update={name: value})
        device = value
    return device


def small(rng, **dotted):
    """Return a random small device."""
    lanes = int(rng.choice([8, 8, 12, 16]))
    given = {
        "array__rows": int(rng.integers(1, 5)),
        "array__cols": int(rng.integers(1, 5)),
        "array__lanes": lanes,
        "array__multipliers": int(rng.integers(1, 5)),
        "array__levels": LEVELS,
        "array__adder_latency": int(rng.integers(1, 7)),
        "array__interleave": bool(rng.integers(2)),
        "buffers__x__kib": float(rng.choice([1.5, 3, 8, 64])),
        "buffers__w__kib": float(rng.choice([1.5, 3, 8, 64])),
        "buffers__y__kib": float(rng.choice([0.5, 1, 4, 64])),
        "ddr__gb_per_s": float(rng.choice([0.02, 0.1, 1, 10])),
        "ddr__latency_ns": float(rng.choice([0, 12, 100])),
        "launch_cycles": int(rng.integers(1, 9)),
    }
    return changed(**{**given, **dotted})


def products(rng, many, most=90, levels=LEVELS):
    t, k, n = (rng.integers(1, most, many) for _ in range(3))
    whole = t * k
    x = np.where(rng.random(many) < 0.5, whole, rng.integers(1, whole + 1))
    return PassOps(t, k, n, rng.integers(1, 4, many), x, tuple(rng.choice(levels, many).tolist()))


def one(t, k, n, level="dense", count=1):
    return PassOps(*(np.array([v]) for v in (t, k, n, count, t * k)), (level,))


def both(ops, **replaced):
    fields = {name: getattr(ops, name) for name in ("t", "k", "n", "count", "x_unique", "levels")}
    return PassOps(**{**fields, **replaced})


# --- the array


@pytest.mark.parametrize("seed", range(20))
def test_tiles_on_the_array_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    device, passes = small(rng), products(rng, 60)
    ops = make_ops(passes, device)
    for flow, loops in (("ws", twin.ws), ("os", twin.os)):
        spent = FLOWS[flow](ops, ops.t, ops.k, ops.n, device.array)
        for i, level in enumerate(passes.levels):
            total, streaming = loops(ops.t[i], ops.k[i], ops.n[i], level, device.array)
            assert (spent.total[i], spent.streaming[i]) == (total, streaming)
        assert (spent.useful <= spent.streaming).all()
        assert (spent.streaming <= spent.total).all()


@pytest.mark.parametrize("seed", range(20))
def test_tiles_take_what_the_registers_of_the_array_take(seed):
    rng = np.random.default_rng(50 + seed)
    device, passes = small(rng), products(rng, 8, 24)
    ops = make_ops(passes, device)
    for i, level in enumerate(passes.levels):
        x = rng.integers(-9, 9, (passes.t[i], passes.k[i])).astype(np.int8)
        w = rng.integers(-9, 9, (passes.k[i], passes.n[i])).astype(np.int8)
        mask = parse_pattern(level).mask(w.astype(np.float32))
        for flow in FLOWS:
            clocked = register_run(x, w, mask, array=device.array, flow=flow, level=level)
            assert FLOWS[flow](ops, ops.t, ops.k, ops.n, device.array).total[i] == clocked.cycles


# --- the pipeline


@pytest.mark.parametrize("seed", range(25))
def test_cycles_are_those_of_the_twin_slot_by_slot(seed):
    rng = np.random.default_rng(100 + seed)
    device, ops = small(rng), products(rng, 40)
    costs = pass_costs(ops, device)
    for i, op in enumerate(ops.table.T.tolist()):
        plan = (costs.flow[i], *(int(e[i]) for e in costs.tile), bool(costs["keep_x"][i]))
        assert costs.cycles[i] == twin.cycles(op, ops.levels[i], plan, device)
        moved = np.array(twin.tiles(op, ops.levels[i], plan, device)).sum(axis=0)
        moved = moved[1:] * op[3]
        assert moved.tolist() == [costs.load_bytes[i], costs.store_bytes[i]]


@pytest.mark.parametrize("seed", range(25))
def test_the_engine_plays_what_the_closed_form_says(seed):
    rng = np.random.default_rng(200 + seed)
    device, passes = small(rng), products(rng, 60)
    costs, ops = pass_costs(passes, device), make_ops(passes, device)
    for i in range(len(passes)):
        at = np.array([i])
        schedule = spell_out(ops.take(at), plan_of(costs).take(at), device)
        assert closed.total_cycles(schedule) == costs.cycles[i]
        played = play(schedule)
        assert played.total_cycles == costs.cycles[i]
        mine = {name: int(spent[i]) for name, spent in costs.causes.items()}
        found = {name: int(spent) for name, spent in attributed(schedule, played).items() if spent}
        for name in ("work", "padding", "fill_drain", "launch"):
            assert found.get(name, 0) == mine[name]
        assert sum(found.values()) == sum(mine.values()) == costs.cycles[i]
        assert schedule.runs * schedule.tiles["load_bytes"].sum() == costs.load_bytes[i]


@pytest.mark.parametrize("seed", range(15))
def test_the_search_finds_the_minimum_over_all_candidates(seed):
    rng = np.random.default_rng(300 + seed)
    device, passes = small(rng), products(rng, 12)
    ops, costs = make_ops(passes, device), pass_costs(passes, device)
    every = fpga_tiling.candidates(ops, device)
    sums = slot_sums(ops.take(every.op), every, device)
    for i in range(len(passes)):
        for place, flow in enumerate(FLOWS):
            mine = (every.op == i) & (every.flow == place)
            least = sums.cycles[mine].min() + device.launch_cycles
            assert costs.flow_cycles[flow][i] == least
        assert costs.cycles[i] == min(each[i] for each in costs.flow_cycles.values())


@pytest.mark.parametrize("seed", range(10))
def test_causes_are_never_negative_and_add_up(seed):
    rng = np.random.default_rng(400 + seed)
    costs = pass_costs(products(rng, 200), small(rng))
    table = np.array(list(costs.causes.values()))
    assert table.min() >= 0
    assert (table.sum(axis=0) == costs.cycles).all()


# --- laws


@pytest.mark.parametrize("seed", range(15))
def test_choosing_the_dataflow_is_never_worse_than_either(seed):
    rng = np.random.default_rng(500 + seed)
    device, ops = small(rng), products(rng, 60)
    found = pass_costs(ops, device).cycles
    alone = [pass_costs(ops, changed(device, array__flows=(flow,))) for flow in ("ws", "os")]
    assert (found == np.minimum(alone[0].cycles, alone[1].cycles)).all()
    assert (alone[0].flow_cycles["os"] == -1).all()


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize(
    ("path", "less", "more"),
    [
        ("ddr__gb_per_s", 0.05, 0.06),
        ("ddr__gb_per_s", 0.1, 5.0),
        ("buffers__x__kib", 2, 3),
        ("buffers__w__kib", 2, 7),
        ("buffers__y__kib", 1, 40),
        ("array__interleave", False, True),
        ("launch_cycles", 7, 1),
        ("ddr__latency_ns", 90, 10),
    ],
)
def test_more_of_it_is_never_slower(seed, path, less, more):
    rng = np.random.default_rng(600 + seed)
    device, ops = small(rng), products(rng, 60)
    slow = pass_costs(ops, changed(device, **{path: less})).cycles
    fast = pass_costs(ops, changed(device, **{path: more})).cycles
    assert (fast <= slow).all()


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("m", [4, 8])
def test_fewer_kept_of_m_are_never_slower(seed, m):
    rng = np.random.default_rng(700 + seed)
    levels = ("dense", *(f"{n}:{m}" for n in range(1, m + 1)))
    device = small(rng, array__levels=levels)
    ops = products(rng, 60, levels=levels)
    cycles = [pass_costs(both(ops, levels=(f"{n}:{m}",) * 60), device) for n in range(1, m + 1)]
    for fewer, more in itertools.pairwise(cycles):
        assert (fewer.cycles <= more.cycles).all()


def step(shapes, device, ff="dense", bp="dense"):
    """Return the cycles of ff, bp and wu of layers, ff and bp at their levels."""
    found = []
    for (a, b, c), level in (((0, 1, 2), ff), ((0, 2, 1), bp), ((1, 0, 2), "dense")):
        t, k, n = shapes[:, a], shapes[:, b], shapes[:, c]
        ops = PassOps(t, k, n, np.ones_like(t), t * k, (level,) * len(t))
        found.append(int(pass_costs(ops, device).cycles.sum()))
    return np.array(found)


def exact(rng, level, **dotted):
    """Return a device whose multipliers divide what is kept: dense and sparse lose no turn."""
    given = {"lanes": 8, "multipliers": 1, "levels": ("dense", level)}
    return small(rng, **{f"array__{name}": value for name, value in given.items()}, **dotted)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("level", ["1:8", "2:8", "4:8", "2:4"])
def test_a_step_never_beats_its_bound_where_dense_tiles_fit_as_well(seed, level):
    rng = np.random.default_rng(800 + seed)
    room = {f"buffers__{name}__kib": 10.0**6 for name in "xwy"}
    device = exact(rng, level, **room)
    shapes = rng.integers(1, 300, (6, 3))
    dense, forward, sparse = (
        step(shapes, device, *levels) for levels in ((), (level,), (level, level))
    )
    n, m = map(int, level.split(":"))
    assert (n * dense[:2] <= m * sparse[:2]).all()
    ff, bp, wu = dense.tolist()  # of equal length: 3 / (2 + r) and 3 / (1 + 2 r)
    assert Fraction(sum(dense), sum(forward)) <= 1 / (
        1 - Fraction(m - n, m) * Fraction(ff, ff + bp + wu)
    )
    assert Fraction(sum(dense), sum(sparse)) <= 1 / (
        1 - Fraction(m - n, m) * Fraction(ff + bp, ff + bp + wu)
    )


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("level", ["1:8", "2:8", "4:8", "2:4", "3:4"])
def test_a_step_never_beats_its_bound_over_a_dense_array_that_loses_nothing(seed, level):
    """Whatever the device: buffers, memory, lanes and multipliers."""
    rng = np.random.default_rng(900 + seed)
    device, shapes = small(rng), rng.integers(1, 90, (6, 3))
    array, r = device.array, Fraction(*map(int, level.split(":")))
    ideal = Fraction(
        3 * int(shapes.prod(axis=1).sum()), array.rows * array.cols * array.multipliers
    )
    assert ideal / int(step(shapes, device, level).sum()) <= 3 / (2 + r)
    assert ideal / int(step(shapes, device, level, level).sum()) <= 3 / (1 + 2 * r)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("level", ["1:8", "2:8", "4:8", "2:4"])
def test_only_a_packed_operand_that_fits_gains_more_than_its_density(seed, level):
    """In tiles and with operands staying as the packed ones do, dense is at most m/n slower."""
    rng = np.random.default_rng(850 + seed)
    device = exact(rng, level)
    ops = products(rng, 60, 200, (level,))
    sparse = pass_costs(ops, device)
    plan = plan_of(sparse)
    same = slot_sums(make_ops(both(ops, levels=("dense",) * 60), device), plan, device)
    n, m = map(int, level.split(":"))
    assert (n * (same.cycles + device.launch_cycles) <= m * sparse.cycles).all()


@pytest.mark.parametrize("name", ["vcu1525_sat", "zcu102_sat", "u250_sat", "u280_sat"])
@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_networks_on_shipped_designs_keep_to_the_bound(name, batch, network):
    device = accsim.load_hardware(name)
    layers = accsim.load_workload(network, batch=batch).layers
    shapes = np.array([(x.gemm.t, x.gemm.k, x.gemm.n) for x in layers])
    first, rest = step(shapes[:1], device), shapes[1:]  # stays dense, has no bp
    cycles = [
        first[0] + first[2] + step(rest, device, *levels).sum()
        for levels in ((), ("2:8",), ("2:8", "2:8"))
    ]
    assert 1.15 < cycles[0] / cycles[1] < 4 / 3
    assert 1.5 < cycles[0] / cycles[2] < 2


@pytest.mark.parametrize("level", ["1:8", "2:8", "2:4"])
def test_the_bound_is_approached_without_memory_and_overheads(level):
    n, m = map(int, level.split(":"))
    device = changed(
        array__multipliers=1, ddr__gb_per_s=1e6, ddr__latency_ns=0, launch_cycles=1,
        buffers__x__kib=10**7, buffers__w__kib=10**7, buffers__y__kib=10**7,
    )  # fmt: skip
    shapes = np.array([[32 * 8 * 32, 8 * 32 * 16, 8 * 32 * 16]])
    dense, r = step(shapes, device).sum(), n / m
    assert dense / step(shapes, device, level, level).sum() == pytest.approx(
        3 / (1 + 2 * r), rel=0.01
    )
    assert dense / step(shapes, device, level).sum() == pytest.approx(3 / (2 + r), rel=0.01)


def test_without_interleaving_sums_that_stay_wait_for_the_adder():
    kept = changed(array__flows=("os",), ddr__gb_per_s=1e6, ddr__latency_ns=0, launch_cycles=1)
    ops = one(32 * 8, 8 * 4096, 32)
    taken = (
        pass_costs(ops, kept).cycles
        / pass_costs(ops, changed(kept, array__interleave=False)).cycles
    )
    assert taken[0] == pytest.approx(1 / 8, rel=0.05)


# --- by hand (docs/fpga.md)


def by_hand(**dotted):
    given = {
        "array__rows": 4, "array__cols": 4, "array__lanes": 8, "array__multipliers": 2,
        "array__adder_latency": 3, "ddr__gb_per_s": 1e9, "ddr__latency_ns": 0,
        "ddr__channels": 1, "launch_cycles": 1, "clock_ghz": 1,
    }  # fmt: skip
    return changed(**{**given, **dotted})


@pytest.mark.parametrize(
    ("level", "flow", "cycles"),
    [
        # a group of k for each of 4 rows: load 4·s, 10 rows s times, down 5 adders of 3, skew 3
        ("dense", "ws", 4 * 4 + 3 * 10 + 10 + 5 * 3 + 3 - 1),
        ("2:8", "ws", 4 * 1 + 0 + 10 + 5 * 3 + 3 - 1),
        # 10 rows on 4: 3 sums a PE, all turns of the adder taken; 4 groups of s steps
        ("dense", "os", 4 * 4 * 3 + 2 + 3 + 3 + 4 * 3),
        ("2:8", "os", 4 * 1 * 3 + 2 + 3 + 3 + 4 * 3),
    ],
)
def test_one_tile_by_hand(level, flow, cycles):
    costs = pass_costs(one(10, 32, 4, level), by_hand(array__flows=(flow,)))
    # first load, last store and launch take a cycle each
    assert costs.cycles[0] == cycles + 3
    assert costs.causes["dram"][0] == 2
    macs = 10 * 4 * (32 if level == "dense" else 8)
    assert costs.macs[0] == macs
    assert costs.causes["work"][0] == macs / (4 * 4 * 2)
    w_bits = 4 * (32 * 16 if level == "dense" else 8 * (16 + 3))
    assert costs.load_bytes[0] == 10 * 32 * 2 + w_bits / 8
    assert costs.store_bytes[0] == 10 * 4 * 2
    assert costs.metadata_bits[0] == (0 if level == "dense" else 4 * 8 * 3)


def test_a_memory_so_slow_that_it_alone_counts():
    device = by_hand(ddr__gb_per_s=0.5)
    costs = pass_costs(one(4, 32, 4), device)
    # 256 bytes of X, 256 of W, then 32 of Y: nothing overlaps one tile
    assert costs.causes["dram"][0] == (256 + 256 + 32) * 2


# --- the family


def run(pattern="2:8", device=BASE, name="resnet18", **words):
    workload = accsim.load_workload(name).with_dtype("fp16")
    return accsim.simulate(workload.prune(pattern), device, **words)


def test_a_network_runs_at_its_level_and_faster():
    sparse, dense = run(), run("dense")
    assert set(sparse.columns["mode"]) <= {"2:8 ws", "2:8 os", "dense ws", "dense os"}
    assert "2:8 ws" in sparse.columns["mode"]
    assert 2 < dense.cycles / sparse.cycles < 4
    assert all(
        a <= b for a, b in zip(sparse.columns["cycles"], dense.columns["cycles"], strict=True)
    )
    macs = np.array(sparse.evaluation.effective_macs)
    assert (macs <= sparse.evaluation.cycles * 2048).all()


def test_events_play_the_same_network():
    assert run(level="events").cycles == run().cycles


def test_a_pattern_runs_at_every_level_it_fits():
    array = BASE.array
    assert levels_of(parse_pattern("2:8"), array) == ("dense", "2:8", "4:8", "2:4")
    assert levels_of(parse_pattern("1:4"), array) == ("dense", "2:8", "4:8", "1:4", "2:4", "1:2")
    assert levels_of(parse_pattern("unstructured@0.9"), array) == ("dense",)


def test_repeats_are_launched_each():
    device = changed(launch_cycles=50)
    layer = accsim.gemm(64, 64, 64, dtype="fp16").layers[0]
    twice = layer.model_copy(update={"repeats": 2})
    (found,) = FpgaDevice(device).evaluate([twice], Masks()).causes["launch"]
    assert found == 100


# --- errors


def test_errors_name_the_rule_and_the_value():
    with pytest.raises(InputError, match="'vcu1525_sat' computes in fp16; got dtype int8"):
        accsim.simulate(accsim.gemm(8, 8, 8), BASE)
    with pytest.raises(InputError, match=r"array.levels must be one of .*; got '3:8'"):
        pass_costs(one(8, 8, 8, "3:8"), BASE)
    with pytest.raises(InputError, match=r"buffers.w.kib of 'vcu1525_sat' must hold 2 tiles"):
        pass_costs(one(800, 800, 800), changed(buffers__w__kib=1))
    with pytest.raises(InputError, match="operation 0: t, k, n, count must be at least 1"):
        one(0, 8, 8)
    with pytest.raises(InputError, match="x_unique 1 … t·k"):
        both(one(2, 3, 4), x_unique=np.array([7]))
    with pytest.raises(InputError, match="levels must have 1 entries; got 2"):
        both(one(2, 3, 4), levels=("dense", "dense"))


# --- what ships


@pytest.mark.parametrize("name", ["vcu1525_sat", "zcu102_sat", "u250_sat", "u280_sat"])
def test_shipped_designs_say_what_is_assumed(name):
    device = accsim.load_hardware(name)
    own = {path: s for path, s in device.sources.items() if not path.startswith("board.")}
    assumed = {path for path, s in own.items() if s.status == "assumed"}
    assert {"clock_ghz", "array.rows", "array.multipliers", "buffers.x.kib"} <= assumed
    sizes = {"ddr.channels", "vector.master_bytes"}
    assert all(own[p].low < own[p].high for p in assumed - sizes)
    assert run(device=device, name="resnet18").cycles > 0


@pytest.mark.slow
def test_a_warm_step_of_resnet50_takes_less_than_200_us():
    layers = [layer.gemm for layer in accsim.load_workload("resnet50")]
    shapes = np.array([(g.t, g.k, g.n) for g in layers] * 3).T
    ops = PassOps(
        *shapes, np.ones_like(shapes[0]), shapes[0] * shapes[1], ("2:8",) * len(shapes[0])
    )
    pass_costs(ops, BASE)
    start = time.perf_counter()
    for _ in range(200):
        pass_costs(ops, BASE)
    assert (time.perf_counter() - start) / 200 < 200e-6
