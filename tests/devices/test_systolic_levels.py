"""Closed form = events = register level on random small layers; the search by brute force.

Also home of the small devices and layers the other tests of this folder are made of.
"""

import copy
import math
from functools import cache
from itertools import product

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.devices import systolic_search, systolic_tiling
from accsim.devices.systolic_adaptive import (
    MaskedFolds,
    _spell_out,
    _with_packed,
    best_adaptive,
)
from accsim.devices.systolic_levels import beyond_buffers
from accsim.devices.systolic_modes import modes
from accsim.devices.systolic_ops import make_ops
from accsim.devices.systolic_search import best, lower_bound
from accsim.devices.systolic_tiles import spell_out, waits
from accsim.devices.systolic_tiling import Tilings, candidates, evaluate
from accsim.engine.closed import total_cycles
from accsim.kernels.pipeline import pipeline_cycles
from accsim.sparsity.masks import Masks
from accsim.spec.hardware import Systolic
from accsim.spec.workload import Layer, Workload

DATAFLOWS = ("ws", "os", "is")
MACS = {"int8": 0.2, "int16": 0.5, "fp8": 0.3, "bf16": 0.6, "fp16": 0.7, "fp32": 2.0}
SMALL = {
    "name": "small",
    "dataflow": "ws",
    "clock_ghz": 1.0,
    "array": {"rows": 4, "cols": 4},
    "memory": {
        "sram": {name: {"bytes": 2**30} for name in "xwy"},
        "dram": {"bandwidth_gb_per_s": 16.0},
    },
    "energy": {
        "table": "made up for tests",
        "node_nm": 22,
        "mac": {name: {"mult_pj": pj, "add_pj": pj / 4} for name, pj in MACS.items()},
        "register_pj_per_bit": 0.011,
        "select_pj_per_bit": 0.003,
        "sram": [
            {"bytes": 1024, "read_pj": 1.5, "write_pj": 2.0},
            {"bytes": 65536, "read_pj": 9.0, "write_pj": 10.0, "access_bits": 128},
            {"bytes": 2**20, "read_pj": 40.0, "write_pj": 47.0, "access_bits": 128},
        ],
        "dram_pj_per_bit": {"dram": 12.5, "other": 1.0},
        "pe_static_uw": 1.7,
        "sram_static_mw_per_mb": 2.3,
        "dram_static_mw": 31.0,
    },
}


def device(**changes):
    """A small device; ``array__rows=2`` sets array.rows. Huge buffers unless stated."""
    tree = copy.deepcopy(SMALL)
    for key, value in changes.items():
        *path, last = key.split("__")
        at = tree
        for step in path:
            at = at.setdefault(step, {})
        at[last] = value
    return Systolic.model_validate(tree)


def buffers(x, w, y):
    """Changes of :func:`device` that set the bytes of the three buffers."""
    return {
        f"memory__sram__{name}__bytes": size for name, size in zip("xwy", (x, w, y), strict=True)
    }


def network(*layers):
    return Workload(name="random", layers=layers)


# (multipliers, lanes, levels)
PES = (
    (1, 1, ("dense",)),
    (1, 4, ("1:4", "dense")),
    (2, 4, ("1:4", "2:4", "dense")),
    (2, 8, ("1:4", "2:4", "1:8", "2:8", "dense")),
    (4, 8, ("2:4", "4:8", "dense")),
    (3, 5, ("3:5", "1:5", "dense")),
    (2, 8, ("3:8", "4:8", "dense")),  # more slots than multipliers: several passes
    (1, 8, ("5:8", "2:4", "dense")),
)
PATTERNS = ("dense", "1:4", "2:4", "3:4", "1:8", "2:8", "3:8", "3:5", "1:3", "4:6", "1:16")
SHARES = ("unstructured@0.3", "unstructured@0.7", "unstructured@0.97")


def pick(rng, options):
    return options[int(rng.integers(len(options)))]


def random_extents(rng, largest):
    """t, k, n, now and then 1."""
    return [1 if rng.random() < 0.1 else int(rng.integers(1, largest)) for _ in "tkn"]


def random_op(rng, largest=22):
    """A linear layer, a product of activations, or a grouped convolution."""
    t, k, n = random_extents(rng, largest)
    kind = rng.random()
    if kind < 0.55:
        return {"kind": "linear", "tokens": t, "in_features": k, "out_features": n}
    if kind < 0.7:
        return {"kind": "matmul", "t": t, "k": k, "n": n}
    groups, span = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    return {
        "kind": "conv2d", "groups": groups, "kernel": (span, int(rng.integers(1, 4))),
        "in_channels": groups * int(rng.integers(1, 7)),
        "out_channels": groups * int(rng.integers(1, 6)),
        "size": (int(rng.integers(3, 8)), int(rng.integers(3, 8))),
        "stride": (int(rng.integers(1, 3)), int(rng.integers(1, 4))),
        "padding": (int(rng.integers(0, 2)), int(rng.integers(0, 2))),
    }  # fmt: skip


def random_layer(rng, name, dtypes=("int8", "int8", "int16", "bf16", "fp32", "fp8")):
    op = random_op(rng)
    pattern = "dense"
    if op["kind"] != "matmul" and rng.random() < 0.8:
        pattern = pick(rng, SHARES if rng.random() < 0.35 else PATTERNS)
    return Layer(
        name=name, op=op, pattern=accsim.pattern(pattern), dtype=pick(rng, dtypes),
        batch=int(rng.integers(1, 4)), repeats=pick(rng, (1, 1, 2, 3)),
    )  # fmt: skip


def random_changes(rng):
    multipliers, lanes, levels = pick(rng, PES)
    adaptive = lanes > 1 and rng.random() < 0.6
    return {
        "dataflow": pick(rng, DATAFLOWS),
        "array__rows": int(rng.integers(1, 6)),
        "array__cols": int(rng.integers(1, 6)),
        "array__count": 1 if adaptive else pick(rng, (1, 1, 2, 3)),
        "array__multipliers": multipliers,
        "array__lanes": lanes,
        "array__levels": levels,
        "array__adaptive": adaptive,
        "array__double_buffering": bool(rng.random() < 0.7),
        "array__accumulator_bits": pick(rng, (32, 32, 24)),
        "memory__sram__double_buffered": bool(rng.random() < 0.75),
        "memory__dram__bandwidth_gb_per_s": pick(rng, (0.4, 1.0, 3.7, 16.0, 200.0, math.inf)),
        "memory__dram__latency_ns": pick(rng, (0.0, 0.0, 3.0, 40.0)),
        "memory__onchip": random_levels(rng),
        "launch_us": pick(rng, (0.0, 0.005)),
    }


def random_levels(rng):
    """No memory beyond the buffers in most devices, else one or two."""
    names = ("l2", "l1")[: pick(rng, (0, 0, 1, 2))]
    return [
        {"name": name, "bytes": int(rng.integers(20, 4000)),
         "bandwidth_gb_per_s": pick(rng, (0.7, 2.0, 9.0, math.inf)),
         "latency_ns": pick(rng, (0.0, 2.0))}
        for name in names
    ]  # fmt: skip


def fitting(changes, sizes, use):
    """Return ``use(device)`` on the smallest of a row of buffer sizes that hold a tile."""
    for _ in range(12):
        small = device(**changes, **buffers(*sizes))
        try:
            return small, use(small)
        except InputError as error:
            if "must hold" not in str(error):
                raise
            sizes = [size * 4 for size in sizes]
    raise AssertionError("no buffer was large enough")


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_three_levels_agree(dataflow):
    """225 devices × 3 layers a dataflow: 2 025 layers, each on all three levels."""
    rng = np.random.default_rng(list(dataflow.encode()))
    seen = {"layers": 0, "tiles": 0, "several": 0, "modes": set(), "adaptive": 0, "sizes": set()}
    for case in range(225):
        changes = random_changes(rng) | {"dataflow": dataflow}
        net = network(*(random_layer(rng, f"{case}.{i}") for i in range(3)))
        sizes = [int(rng.integers(8, 600)) for _ in "xwy"]
        masks = Masks(case)
        small, closed = fitting(changes, sizes, lambda hw: accsim.simulate(net, hw, masks=masks))  # noqa: B023
        compare(net, small, closed, masks)
        note(seen, net, small, closed, masks)
    assert seen["layers"] == 675
    assert seen["several"] > 250, "most layers should need several tiles"
    assert seen["adaptive"] > 25
    assert {"dense", "2:4", "1:4", "2:8", "3:8", "4:8", "3:5", "adaptive"} <= seen["modes"]


def compare(net, small, closed, masks):
    for level in ("events", "register"):
        other = accsim.simulate(net, small, masks=masks, level=level)
        cycles = closed.columns["cycles"], other.columns["cycles"]
        assert cycles[0] == cycles[1], (level, cycles, small, net.layers)


def note(seen, net, small, closed, masks):
    from accsim.devices.systolic import SystolicDevice

    seen["layers"] += len(net.layers)
    seen["modes"] |= set(closed.columns["mode"])
    seen["adaptive"] += closed.columns["mode"].count("adaptive")
    planner = SystolicDevice(small)
    seen["several"] += sum(len(planner.schedule(layer, masks)) > 1 for layer in net.layers)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_short_last_block_agrees_too(dataflow):
    """A mode with fixed passes steps through all of them, also for a short last block."""
    for k in (1, 2, 9, 10, 11, 17, 18):
        hardware = device(
            dataflow=dataflow, array__rows=2, array__cols=3, array__multipliers=2,
            array__lanes=8, array__levels=("3:8", "dense"),
        )  # fmt: skip
        net = accsim.gemm(5, k, 7).prune("3:8")
        closed = accsim.simulate(net, hardware)
        assert (
            closed.columns["cycles"]
            == accsim.simulate(net, hardware, level="register").columns["cycles"]
        )


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("dtype", ["int8", "bf16"])
def test_an_empty_mask_agrees(dataflow, dtype):
    """unstructured@0.99 of few weights keeps none: every fold is skipped, outputs are 0."""
    hardware = device(
        dataflow=dataflow,
        array__multipliers=2,
        array__lanes=4,
        array__adaptive=True,
        **buffers(256, 256, 256),
    )
    net = accsim.gemm(7, 6, 5, dtype=dtype).prune("unstructured@0.99")
    assert net.layers[0].pattern.kept(6, 5) == 0
    cycles = {
        accsim.simulate(net, hardware, level=x).cycles for x in ("closed", "events", "register")
    }
    assert len(cycles) == 1


# --- a slow twin of a tiled layer: plain loops over runs, tiles, folds


def up(a, b):
    return -(-a // b)


def transfer(nbytes, rates):
    """Cycles of a transfer of bytes (one a channel) at rates (bandwidth, latency)."""
    return max(
        latency + math.ceil(moved / bandwidth) if moved else 0
        for moved, (bandwidth, latency) in zip(nbytes, rates, strict=True)
    )


def rates_of(hw):
    """(bytes a cycle, cycles of latency) of DRAM and of the levels towards the buffers."""
    levels = (hw.memory.dram, *hw.memory.onchip)
    return [(x.bandwidth_gb_per_s / hw.clock_ghz, math.ceil(x.latency_ns)) for x in levels]


def plus(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))


def ping_pong(tiles, rates, *, double_buffered):
    """Total cycles of (compute, loads, stores) tiles: two buffers that swap at a barrier."""
    now, loaded, none = 0, None, (0,) * len(rates)
    queue, to_store = list(tiles), none
    if not double_buffered:
        for compute, load, store in queue:
            now += transfer(load, rates) + compute + transfer(store, rates)
        return now
    while queue or loaded is not None or any(to_store):
        array_free = now + (loaded[0] if loaded else 0)
        moved = plus(to_store, queue[0][1] if queue else none)
        channel_free = now + transfer(moved, rates)
        to_store = loaded[2] if loaded else none
        loaded = queue.pop(0) if queue else None
        now = max(array_free, channel_free)
    return now


@cache
def fold_cycles(rows_used, cols_used, steps, passes, rows, cols, stationary, double):
    """Total cycles of one tile, fold after fold."""
    along = [min(cols, cols_used - c) for c in range(0, cols_used, cols)]
    down = [min(rows, rows_used - r) for r in range(0, rows_used, rows)]
    order = (
        [(r, c) for c in along for r in down]
        if stationary
        else [(r, c) for r in down for c in along]
    )
    start, end, before = 0, 0, None
    for r, c in order:
        for _ in range(passes if stationary else 1):
            if before is None or not double:
                start = end + (r if stationary else 0)
            else:
                start += max(steps, r if stationary else before)
            end = max(end, start + steps + c - 2 + rows + (0 if stationary else r))
            before = r
    return end


def twin_tile(t, k, n, layer, mode, hw):
    """Cycles of one tile on its busiest array."""
    array, blocks = hw.array, up(k, mode.lanes)
    rows_used, cols_used, steps = {
        "ws": (blocks, n, t),
        "os": (t, n, blocks * mode.passes),
        "is": (blocks, t, n * mode.passes),
    }[hw.dataflow]
    folds = up(cols_used, array.cols)
    cols_used = min(cols_used, up(folds, array.count) * array.cols)
    return fold_cycles(
        rows_used, cols_used, steps, mode.passes if hw.dataflow == "ws" else 1, array.rows,
        array.cols, hw.dataflow != "os", array.double_buffering,
    )  # fmt: skip


def parts(extent, size):
    return [(first, min(size, extent - first)) for first in range(0, extent, size)]


def twin_tiles(layer, mode, hw, size, flags):
    """(compute, loads, stores) of all tiles of all runs, an entry a channel; flags of each."""
    channels = [twin_channel(layer, mode, hw, size, seen) for seen in flags]
    return [
        (one[0][0], tuple(x[1] for x in one), tuple(x[2] for x in one))
        for one in zip(*channels, strict=True)
    ]


def twin_channel(layer, mode, hw, size, flags):
    """(compute, load, store) of all tiles of all runs of a linear layer or product.

    What is on chip is a set of pieces: all of a run's where the operand stays, those of the round
    where the outer operand's panel does, else only the last one.
    """
    bits = {"int8": 8, "int16": 16, "bf16": 16, "fp32": 32, "fp8": 8}[layer.dtype]
    gemm = layer.gemm
    keep_x, x_stays, w_stays, panel_stays = flags
    cuts = {d: parts(getattr(gemm, d), size[d]) for d in "tkn"}
    tiles = []
    for _ in range(layer.runs):
        on_chip = {"x": set(), "w": set()}
        last = {"x": None, "w": None}
        for outer in cuts["t" if keep_x else "n"]:
            outermost = "x" if keep_x else "w"
            if not {"x": x_stays, "w": w_stays}[outermost]:
                on_chip[outermost] = set()
            for inner in cuts["n" if keep_x else "t"]:
                for k0, k in cuts["k"]:
                    (t0, t), (n0, n) = (outer, inner) if keep_x else (inner, outer)
                    slots = k // mode.group * mode.slots + min(mode.slots, k % mode.group)
                    needs = {
                        "x": ((t0, k0), t * k * bits // 8),
                        "w": ((k0, n0), up(slots * n * (bits + mode.index_bits), 8)),
                    }
                    load = 0
                    for name, (piece, nbytes) in needs.items():
                        stays = x_stays if name == "x" else w_stays
                        held = stays or (panel_stays and name == outermost)
                        if piece != last[name] and not (held and piece in on_chip[name]):
                            load += nbytes
                        on_chip[name].add(piece)
                        last[name] = piece
                    done = k0 + k == gemm.k
                    compute = twin_tile(t, k, n, layer, mode, hw)
                    tiles.append((compute, load, t * n * bits // 8 if done else 0))
    return tiles


def plain_layer(rng, name, largest):
    """A linear layer or a batch of products, 1 to 3 runs."""
    t, k, n = random_extents(rng, largest)
    runs, pattern = int(rng.integers(1, 4)), accsim.pattern(pick(rng, PATTERNS))
    dtype = pick(rng, ("int8", "int16", "bf16"))
    if rng.random() < 0.3:
        op = {"kind": "matmul", "t": t, "k": k, "n": n}
        return Layer(name=name, op=op, batch=runs, dtype=dtype)
    op = {"kind": "linear", "tokens": t, "in_features": k, "out_features": n}
    return Layer(name=name, op=op, repeats=runs, dtype=dtype, pattern=pattern)


def random_tilings(rng, layer, mode, count):
    """Tile extents of any size, k in whole blocks; the whole layer first."""
    gemm, made = layer.gemm, []
    for i in range(count):
        t, n = (1 + int(rng.integers(getattr(gemm, d))) for d in "tn")
        k = mode.lanes * (1 + int(rng.integers(up(gemm.k, mode.lanes))))
        whole = i == 0
        made.append(
            (gemm.t if whole else t, gemm.k if whole else min(k, gemm.k), gemm.n if whole else n)
        )
    return made


def as_tilings(sizes, flags):
    """Tilings of one operation, given for each what each channel sees to stay (random_flags)."""
    t, k, n = np.array(sizes, dtype=np.int64).T
    first = np.zeros(len(t), dtype=np.intp)
    nearest = np.array([seen[-1] for seen in flags], dtype=bool).T
    levels = [
        [sum((seen[c][which] << c) for c in range(len(seen) - 1)) for seen in flags]
        for which in (1, 2, 3)
    ]
    beyond = np.array(levels, dtype=np.int64)
    return Tilings(first, t, k, n, *nearest, t, *beyond)  # not a convolution: pixels are t


def random_flags(rng, hw):
    """keep_x, x_stays, w_stays, panel_stays as seen from each channel, the farthest first.

    What stays in one memory need not be fetched over any channel farther out.
    """
    keep = bool(rng.random() < 0.5)
    levels = rng.random((1 + len(hw.memory.onchip), 3)) < 0.4
    seen = np.logical_or.accumulate(levels[::-1])[::-1]
    return [(keep, *(bool(x) for x in stays)) for stays in seen]


def test_sums_over_slot_classes_equal_the_spelled_out_loops():
    """Any tiling, not only the chosen one, 1 to 3 runs; about 1 400 nests."""
    rng = np.random.default_rng(11)
    seen = {"single": 0, "deep": 0}
    for case in range(180):
        layer = plain_layer(rng, f"{case}", 18)
        hw = device(**random_changes(rng))
        mode = modes(layer.pattern, hw.array)[0]
        sizes = random_tilings(rng, layer, mode, 8)
        flags = [random_flags(rng, hw) for _ in sizes]
        ops = make_ops([layer], [mode], hw)
        got = evaluate(ops, as_tilings(sizes, flags), hw)
        for i, (size, flag) in enumerate(zip(sizes, flags, strict=True)):
            tiles = twin_tiles(layer, mode, hw, dict(zip("tkn", size, strict=True)), flag)
            seen["single"] += len(tiles) == layer.runs
            seen["deep"] += len(tiles) > 40
            check_sums(got, i, tiles, hw, (layer, size, flag))
    assert seen["single"] >= 180
    assert seen["deep"] > 50


def check_sums(got, i, tiles, hw, what):
    compute, load, store = zip(*tiles, strict=True)
    assert got.compute_cycles[i] == sum(compute), what
    assert got.load_bytes[:, i].tolist() == [sum(moved) for moved in zip(*load, strict=True)], what
    assert got.store_bytes[i] == sum(moved[0] for moved in store), what
    double = hw.memory.sram.double_buffered
    assert got.cycles[i] == ping_pong(tiles, rates_of(hw), double_buffered=double), what
    assert got.cycles[i] == got.compute_cycles[i] + got.waits[:, i].sum(), what
    assert got.waits.min() >= 0


def test_sums_equal_the_pipeline_over_spelled_out_tiles():
    """The same for convolutions, whose input bytes follow the map: evaluate = spell_out."""
    rng = np.random.default_rng(12)
    for case in range(150):
        layer = random_layer(rng, f"{case}")
        hw = device(**random_changes(rng))
        mode = modes(layer.pattern, hw.array)[0]
        ops = make_ops([layer], [mode], hw)
        sizes = random_tilings(rng, layer, mode, 5)
        tilings = as_tilings(sizes, [random_flags(rng, hw) for _ in sizes])
        got = evaluate(ops, tilings, hw)
        padding = got.work_cycles - got.useful_cycles
        assert padding.min() >= 0
        for i in range(len(sizes)):
            schedule = spell_out(ops, tilings.take(np.array([i])), hw)
            tiles = schedule.tiles
            assert got.cycles[i] == total_cycles(schedule) - schedule.machine.launch_cycles
            assert got.waits[:, i].tolist() == waits(schedule)
            loads = tiles["load_bytes"].sum(axis=0)
            assert got.load_bytes[:, i].tolist() == (schedule.runs * loads).tolist()
            assert (tiles["store_bytes"][:, 0] == tiles["store_bytes"].T).all()
            assert got.store_bytes[i] == schedule.runs * tiles["store_bytes"][:, 0].sum()
            for cause, total in (("work", got.useful_cycles), ("padding", padding)):
                assert total[i] == schedule.runs * tiles[f"{cause}_cycles"].sum()


@pytest.mark.parametrize("double_buffered", [True, False])
def test_pipeline_equals_the_explicit_loop(double_buffered):
    rng = np.random.default_rng([13, double_buffered])
    for _ in range(600):
        count, runs, channels = (
            pick(rng, (1, 1, 2, 3, 7)),
            int(rng.integers(1, 5)),
            pick(rng, (1, 1, 2)),
        )
        compute = rng.integers(0, 30, count)
        shape = (count, channels)
        load, store = (rng.integers(0, 60, shape) * (rng.random(shape) < 0.8) for _ in "ls")
        rates = [
            (pick(rng, (0.3, 1.0, 2.5, 64.0, math.inf)), pick(rng, (0, 4))) for _ in range(channels)
        ]
        bandwidth, latency = zip(*rates, strict=True)
        got = pipeline_cycles(
            compute, load, store, bytes_per_cycle=bandwidth, latency_cycles=latency,
            double_buffered=double_buffered, runs=runs,
        )  # fmt: skip
        columns = (compute.tolist(), map(tuple, load.tolist()), map(tuple, store.tolist()))
        tiles = list(zip(*columns, strict=True)) * runs
        assert got == ping_pong(tiles, rates, double_buffered=double_buffered), (tiles, rates)


# --- the tile search


@pytest.mark.parametrize("chunk", [1, systolic_search.CHUNK])
def test_the_search_finds_the_minimum_over_all_candidates(chunk, monkeypatch):
    """300 devices, 2 layers searched together: fewest cycles, then fewest bytes."""
    monkeypatch.setattr(systolic_search, "CHUNK", chunk)
    rng = np.random.default_rng(14)
    pruned = 0
    for case in range(300):
        layers = [random_layer(rng, f"{case}.{i}", dtypes=("int8", "int16")) for i in range(2)]
        changes = random_changes(rng)
        sizes = [int(rng.integers(60, 3000)) for _ in "xwy"]
        hw, (ops, found, chosen, costs) = fitting(changes, sizes, lambda hw: searched(layers, hw))  # noqa: B023
        every = evaluate(ops, found, hw)
        nbytes = every.moved_bytes
        for op in range(2):
            mine = np.flatnonzero(found.op == op)
            least = min(zip(every.cycles[mine], nbytes[mine], strict=True))
            assert (costs.cycles[op], costs.moved_bytes[op]) == least, (
                layers[op],
                changes,
            )
            pruned += len(mine) > 12
        again = evaluate(ops, chosen, hw)
        assert np.array_equal(again.table, costs.table)
    assert pruned > 200, "most searches should have candidates to skip"


def searched(layers, hw):
    chosen = [modes(layer.pattern, hw.array)[0] for layer in layers]
    ops = make_ops(layers, chosen, hw)
    tiling, costs = best(ops, hw)
    never = np.flatnonzero(costs.cycles == systolic_search.NEVER)
    if len(never):
        raise systolic_tiling.misfit(ops.take(never), hw)
    found = beyond_buffers(ops, candidates(ops, hw), ops.weight_bytes(ops.k, ops.n), hw)
    return ops, found, tiling, costs


def test_the_search_under_a_mask_finds_the_minimum_too():
    """best_adaptive against every candidate spelled out and played by the explicit loop."""
    rng = np.random.default_rng(16)
    searches = 0
    for case in range(110):
        changes = random_changes(rng) | {"array__count": 1, "array__adaptive": True}
        if changes["array__lanes"] == 1:
            continue
        t, k, n = random_extents(rng, 30)
        op = {"kind": "linear", "tokens": t, "in_features": k, "out_features": n}
        layer = Layer(
            name=f"{case}",
            op=op,
            repeats=int(rng.integers(1, 4)),
            pattern=accsim.pattern(pick(rng, SHARES)),
        )
        sizes = [int(rng.integers(100, 2000)) for _ in "xwy"]
        hw, mode = fitting(changes, sizes, lambda hw: modes(layer.pattern, hw.array)[-1])  # noqa: B023
        ops, mask = make_ops([layer], [mode], hw), Masks(2).mask(layer)
        folds = MaskedFolds(mask, hw)
        found = _with_packed(ops, candidates(ops, hw), folds, hw)
        tried = [_spell_out(ops, found.take(np.array([i])), folds, hw) for i in range(len(found))]
        costs = [played(one.schedule, hw) for one in tried if one is not None]
        got = best_adaptive(ops, folds, hw)
        assert (got is None) == (not costs)
        if got is not None:
            assert played(got.schedule, hw) == min(costs)
            assert got.cycles == min(costs)[0]
            check_packed_fits(got, mode, layer, hw)
            searches += 1
    assert searches > 70


def check_packed_fits(got, mode, layer, hw):
    tiles, sram = got.schedule.tiles, hw.memory.sram
    whole = tiles["k"][0] == layer.gemm.k and tiles["n"][0] == layer.gemm.n and layer.runs == 1
    room = sram.w.bytes // (1 if whole or not sram.double_buffered else 2)
    assert up(int(got.spent["slots"].max()) * (8 + mode.index_bits), 8) <= room


def played(schedule, hw):
    """(cycles, bytes) of a schedule under the explicit loop."""
    tiles = schedule.tiles
    loads, stores = (map(tuple, tiles[f"{x}_bytes"].tolist()) for x in ("load", "store"))
    each = list(zip(tiles["compute_cycles"].tolist(), loads, stores, strict=True))
    double = hw.memory.sram.double_buffered
    cycles = ping_pong(each * schedule.runs, rates_of(hw), double_buffered=double)
    return cycles, sum(load[0] + store[0] for _, load, store in each)


def test_the_bound_is_below_every_candidate():
    """What lets the search stop early; 200 devices, 3 layers each."""
    rng = np.random.default_rng(17)
    for case in range(200):
        layers = [random_layer(rng, f"{case}.{i}") for i in range(3)]
        changes = random_changes(rng)
        sizes = [int(rng.integers(60, 3000)) for _ in "xwy"]
        hw, (ops, found, _, _) = fitting(changes, sizes, lambda hw: searched(layers, hw))  # noqa: B023
        slack = evaluate(ops, found, hw).cycles - lower_bound(ops, found, hw)
        assert slack.min() > -1e-6, (layers, changes)


def halvings(extent, unit):
    """Tile extents of 1, 2, 4, … parts in whole units, down to one unit a tile."""
    count, number, found = up(extent, unit), 1, set()
    while True:
        found.add(min(up(count, number) * unit, extent))
        if number >= count:
            return found
        number *= 2


def tiles_that_fit(layer, mode, hw):
    """Half a buffer for an operand that is replaced, all of it for one that is not."""
    gemm, sram, array = layer.gemm, hw.memory.sram, hw.array
    bits = {"int8": 8, "int16": 16, "bf16": 16}[layer.dtype]
    sum_bits = 32 if layer.dtype == "bf16" else array.accumulator_bits
    unit = {
        "ws": (1, mode.lanes * array.rows, array.cols),
        "os": (array.rows, mode.lanes, array.cols),
        "is": (array.cols, mode.lanes * array.rows, 1),
    }[hw.dataflow]
    splits = [halvings(getattr(gemm, d), u) for d, u in zip("tkn", unit, strict=True)]
    packed = up(mode.stored(gemm.k) * gemm.n * (bits + mode.index_bits), 8)
    room = 1 if layer.runs == 1 or not sram.double_buffered else 2
    whole_fits = {
        "tk": up(gemm.t * gemm.k * bits, 8) <= sram.x.bytes // room,
        "kn": packed <= sram.w.bytes // room,
        "tn": False,
    }
    for t, k, n in product(*splits):
        slots = k // mode.group * mode.slots + min(mode.slots, k % mode.group)
        whole = {"t": t == gemm.t, "k": k == gemm.k, "n": n == gemm.n}
        fits = True
        for used, buffer, dims in (
            (up(t * k * bits, 8), sram.x, "tk"),
            (up(slots * n * (bits + mode.index_bits), 8), sram.w, "kn"),
            (up(t * n * sum_bits, 8), sram.y, "tn"),
        ):
            stays = layer.runs == 1 and all(whole[d] for d in dims)
            halves = 1 if stays or not sram.double_buffered else 2
            fits &= used <= buffer.bytes // halves or whole_fits[dims]
        if fits:
            yield t, k, n


def test_candidates_are_all_halvings_that_fit_in_both_orders():
    rng = np.random.default_rng(15)
    for case in range(200):
        layer = plain_layer(rng, f"{case}", 30)
        changes = random_changes(rng)
        sizes = [int(rng.integers(60, 1500)) for _ in "xwy"]
        hw, (ops, _, _, _) = fitting(changes, sizes, lambda hw: searched([layer], hw))  # noqa: B023
        found = candidates(ops, hw)
        got = [*zip(*(getattr(found, d).tolist() for d in "tkn"), found.keep_x, strict=True)]
        mode = modes(layer.pattern, hw.array)[0]
        expected = {
            (*tile, keep)
            for tile in tiles_that_fit(layer, mode, hw)
            for keep in (True, False)
            if keep or (tile[0] < layer.gemm.t and tile[2] < layer.gemm.n)  # else the same loops
        }
        assert set(got) == expected
        assert len(got) == len(expected)


def test_a_buffer_too_small_is_refused_in_one_line():
    net = accsim.gemm(9, 9, 9)
    with pytest.raises(
        InputError, match=r"memory\.sram\.w\.bytes of 'small' must hold 2 tiles"
    ) as error:
        accsim.simulate(net, device(**buffers(10**6, 7, 10**6)))
    assert "\n" not in str(error.value)


# --- memories between the buffers and DRAM


def choices_that_fit(x, w, panel, capacity, keep_x):
    """What one memory may keep, as sets; sizes with what is replaced while in use counted twice."""
    outer = {"nothing": 0, "panel": panel, "whole": x if keep_x else w}
    inner = {"nothing": 0, "whole": w if keep_x else x}
    order = ("nothing", "panel", "whole")
    fit = [(a, b) for a in outer for b in inner if outer[a] + inner[b] <= capacity]
    for a, b in fit:
        better = [
            (c, d) for c, d in fit
            if order.index(c) >= order.index(a) and order.index(d) >= order.index(b)
        ]  # fmt: skip
        if better == [(a, b)]:
            yield a, b


def test_a_memory_keeps_the_most_that_fits():
    """150 devices of one level: every undominated choice of every tiling, and no other."""
    rng = np.random.default_rng(41)
    kinds = set()
    for case in range(150):
        layer = plain_layer(rng, f"{case}", 24)
        level = {"name": "l2", "bytes": int(rng.integers(10, 900)), "bandwidth_gb_per_s": 4.0}
        changes = random_changes(rng) | {"memory__onchip": [level]}
        sizes = [int(rng.integers(60, 1500)) for _ in "xwy"]
        hw, (_, found, _, _) = fitting(changes, sizes, lambda hw: searched([layer], hw))  # noqa: B023
        mode, gemm = modes(layer.pattern, hw.array)[0], layer.gemm
        bits = {"int8": 8, "int16": 16, "bf16": 16}[layer.dtype]
        once = layer.runs == 1

        def packed(n, mode=mode, gemm=gemm, bits=bits):
            return up(mode.stored(gemm.k) * n * (bits + mode.index_bits), 8)

        expected = set()
        columns = (getattr(found, d).tolist() for d in ("t", "k", "n", "keep_x"))
        for t, k, n, keep in zip(*columns, strict=True):
            x, w = gemm.t * gemm.k * bits // 8, packed(gemm.n)
            panel = t * gemm.k * bits // 8 if keep else packed(n)
            alone = once and (t == gemm.t if keep else n == gemm.n)
            twice = 1 if once else 2
            for a, b in choices_that_fit(
                twice * x, twice * w, (1 if alone else 2) * panel, level["bytes"], keep
            ):
                kinds.add((a, b))
                whole = {keep} if a == "whole" else set()
                whole |= {not keep} if b == "whole" else set()
                expected.add((t, k, n, keep, True in whole, False in whole, a == "panel"))
        names = ("t", "k", "n", "keep_x", "x_levels", "w_levels", "panel_levels")
        got = list(zip(*(getattr(found, name).tolist() for name in names), strict=True))
        assert {(*g[:4], bool(g[4]), bool(g[5]), bool(g[6])) for g in got} == expected
        assert len(got) == len(expected)
    assert len(kinds) == 6


def test_a_level_keeps_bytes_from_dram_and_is_waited_for():
    """W of 64 × 64 comes 8 times to the buffers; a level of its size fetches it from DRAM once."""
    small = {"memory__sram__x__bytes": 1024, "memory__sram__w__bytes": 2048,
             "memory__dram__bandwidth_gb_per_s": 2.0}  # fmt: skip
    level = {"name": "l2", "bytes": 4096, "bandwidth_gb_per_s": 1.0}
    net = accsim.gemm(64, 64, 64)
    plain = accsim.simulate(net, device(**small))
    found = accsim.simulate(net, device(**small, memory__onchip=[level]))
    columns = found.columns
    assert plain.columns["dram_read_bytes"][0] > columns["dram_read_bytes"][0] == 2 * 64 * 64
    assert columns["l2_write_bytes"][0] == 2 * 64 * 64 + 64 * 64  # filled, and outputs on their way
    assert columns["l2_read_bytes"][0] > columns["l2_write_bytes"][0]
    assert columns["l2_cycles"][0] > columns["dram_cycles"][0]  # the level is the slower of the two
    assert found.evaluation.causes.keys() == {*plain.evaluation.causes, "l2"}
    table = found.hardware.energy
    read, write = table.sram_pj_per_byte(4096)
    moved = columns["l2_read_bytes"][0] * read + columns["l2_write_bytes"][0] * write
    assert columns["energy_l2_j"][0] == pytest.approx(moved * 1e-12)


@pytest.mark.parametrize("change", ["bytes", "bandwidth_gb_per_s"])
def test_more_of_a_level_never_costs(change):
    """A larger or a faster level never takes more cycles."""
    rng = np.random.default_rng(42)
    for case in range(120):
        layers = [random_layer(rng, f"{case}.{i}") for i in range(2)]
        level = {"name": "l2", "bytes": int(rng.integers(10, 2000)), "bandwidth_gb_per_s": 2.0}
        changes = random_changes(rng) | {"memory__onchip": [level]}
        sizes = [int(rng.integers(60, 900)) for _ in "xwy"]
        net = network(*layers)
        hw, base = fitting(changes, sizes, lambda hw: accsim.simulate(net, hw))  # noqa: B023
        more = hw.memory.onchip[0].model_copy(update={change: 3 * level[change]})
        memory = hw.memory.model_copy(update={"onchip": (more,)})
        larger = accsim.simulate(net, hw.model_copy(update={"memory": memory}))
        for i in range(2):
            assert larger.columns["cycles"][i] <= base.columns["cycles"][i], (layers[i], hw, more)
