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
from accsim.devices import systolic_tiling
from accsim.devices.systolic_adaptive import (
    MaskedFolds,
    _spell_out,
    _with_packed,
    best_adaptive,
)
from accsim.devices.systolic_modes import modes
from accsim.devices.systolic_ops import make_ops
from accsim.devices.systolic_tiles import spell_out
from accsim.devices.systolic_tiling import Tilings, best, candidates, evaluate
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
        "launch_us": pick(rng, (0.0, 0.005)),
    }


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


def transfer(nbytes, bandwidth, latency):
    return latency + math.ceil(nbytes / bandwidth) if nbytes else 0


def ping_pong(tiles, *, bandwidth, latency, double_buffered):
    """Total cycles of (compute, load, store) tiles: two buffers that swap at a barrier."""
    now, loaded, to_store = 0, None, 0
    queue = list(tiles)
    if not double_buffered:
        for compute, load, store in queue:
            now += (
                transfer(load, bandwidth, latency) + compute + transfer(store, bandwidth, latency)
            )
        return now
    while queue or loaded is not None or to_store:
        array_free = now + (loaded[0] if loaded else 0)
        moved = to_store + (queue[0][1] if queue else 0)
        channel_free = now + transfer(moved, bandwidth, latency)
        to_store = loaded[2] if loaded else 0
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
    """Tilings of one operation; flags: keep_x, x_stays, w_stays, panel_stays of each."""
    t, k, n = np.array(sizes, dtype=np.int64).T
    first = np.zeros(len(t), dtype=np.intp)
    return Tilings(first, t, k, n, *np.array(flags, dtype=bool).T, pixels=t)  # not a convolution


def random_flags(rng):
    return [bool(rng.random() < 0.5) for _ in range(4)]


def test_sums_over_slot_classes_equal_the_spelled_out_loops():
    """Any tiling, not only the chosen one, 1 to 3 runs; about 1 400 nests."""
    rng = np.random.default_rng(11)
    seen = {"single": 0, "deep": 0}
    for case in range(180):
        layer = plain_layer(rng, f"{case}", 18)
        hw = device(**random_changes(rng))
        mode = modes(layer.pattern, hw.array)[0]
        sizes = random_tilings(rng, layer, mode, 8)
        flags = [random_flags(rng) for _ in sizes]
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
    compute, load, store = (sum(column) for column in zip(*tiles, strict=True))
    assert got.compute_cycles[i] == compute, what
    assert (got.load_bytes[i], got.store_bytes[i]) == (load, store), what
    memory = hw.memory
    expected = ping_pong(
        tiles, bandwidth=memory.dram.bandwidth_gb_per_s,
        latency=math.ceil(memory.dram.latency_ns), double_buffered=memory.sram.double_buffered,
    )  # fmt: skip
    assert got.cycles[i] == expected, what


def test_sums_equal_the_pipeline_over_spelled_out_tiles():
    """The same for convolutions, whose input bytes follow the map: evaluate = spell_out."""
    rng = np.random.default_rng(12)
    for case in range(150):
        layer = random_layer(rng, f"{case}")
        hw = device(**random_changes(rng))
        mode = modes(layer.pattern, hw.array)[0]
        ops = make_ops([layer], [mode], hw)
        sizes = random_tilings(rng, layer, mode, 5)
        tilings = as_tilings(sizes, [random_flags(rng) for _ in sizes])
        got = evaluate(ops, tilings, hw)
        for i in range(len(sizes)):
            schedule = spell_out(ops, tilings.take(np.array([i])), hw)
            tiles = schedule.tiles
            assert got.cycles[i] == pipeline_cycles(
                tiles["compute_cycles"], tiles["load_bytes"], tiles["store_bytes"],
                bytes_per_cycle=schedule.bytes_per_cycle, latency_cycles=schedule.latency_cycles,
                double_buffered=schedule.double_buffered, runs=schedule.runs,
            )  # fmt: skip
            assert got.load_bytes[i] == schedule.runs * tiles["load_bytes"].sum()
            assert got.store_bytes[i] == schedule.runs * tiles["store_bytes"].sum()
            assert got.work_cycles[i] == schedule.runs * tiles["work_cycles"].sum()


@pytest.mark.parametrize("double_buffered", [True, False])
def test_pipeline_equals_the_explicit_loop(double_buffered):
    rng = np.random.default_rng([13, double_buffered])
    for _ in range(600):
        count, runs = pick(rng, (1, 1, 2, 3, 7)), int(rng.integers(1, 5))
        compute = rng.integers(0, 30, count)
        load, store = (rng.integers(0, 60, count) * (rng.random(count) < 0.8) for _ in "ls")
        bandwidth, latency = pick(rng, (0.3, 1.0, 2.5, 64.0, math.inf)), pick(rng, (0, 4))
        got = pipeline_cycles(
            compute, load, store, bytes_per_cycle=bandwidth, latency_cycles=latency,
            double_buffered=double_buffered, runs=runs,
        )  # fmt: skip
        tiles = list(zip(compute.tolist(), load.tolist(), store.tolist(), strict=True)) * runs
        assert got == ping_pong(
            tiles, bandwidth=bandwidth, latency=latency, double_buffered=double_buffered
        ), (tiles, bandwidth, latency)


# --- the tile search


@pytest.mark.parametrize("chunk", [1, systolic_tiling.CHUNK])
def test_the_search_finds_the_minimum_over_all_candidates(chunk, monkeypatch):
    """300 devices, 2 layers searched together: fewest cycles, then fewest bytes."""
    monkeypatch.setattr(systolic_tiling, "CHUNK", chunk)
    rng = np.random.default_rng(14)
    pruned = 0
    for case in range(300):
        layers = [random_layer(rng, f"{case}.{i}", dtypes=("int8", "int16")) for i in range(2)]
        changes = random_changes(rng)
        sizes = [int(rng.integers(60, 3000)) for _ in "xwy"]
        hw, (ops, found, chosen, costs) = fitting(changes, sizes, lambda hw: searched(layers, hw))  # noqa: B023
        every = evaluate(ops, found, hw)
        nbytes = every.load_bytes + every.store_bytes
        for op in range(2):
            mine = np.flatnonzero(found.op == op)
            least = min(zip(every.cycles[mine], nbytes[mine], strict=True))
            assert (costs.cycles[op], (costs.load_bytes + costs.store_bytes)[op]) == least, (
                layers[op],
                changes,
            )
            pruned += len(mine) > 12
        again = evaluate(ops, chosen, hw)
        assert all(np.array_equal(a, b) for a, b in zip(again, costs, strict=True))
    assert pruned > 200, "most searches should have candidates to skip"


def searched(layers, hw):
    chosen = [modes(layer.pattern, hw.array)[0] for layer in layers]
    ops = make_ops(layers, chosen, hw)
    tiling, costs = best(ops, hw)
    never = np.flatnonzero(costs.cycles == systolic_tiling.NEVER)
    if len(never):
        raise systolic_tiling.misfit(ops.take(never), hw)
    return ops, candidates(ops, hw), tiling, costs


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
    assert max(up(piece.slots * (8 + mode.index_bits), 8) for piece in got.pieces) <= room


def played(schedule, hw):
    """(cycles, bytes) of a schedule under the explicit loop."""
    names = ("compute_cycles", "load_bytes", "store_bytes")
    tiles = list(zip(*(schedule.tiles[name].tolist() for name in names), strict=True))
    cycles = ping_pong(
        tiles * schedule.runs, bandwidth=hw.memory.dram.bandwidth_gb_per_s,
        latency=math.ceil(hw.memory.dram.latency_ns),
        double_buffered=hw.memory.sram.double_buffered,
    )  # fmt: skip
    return cycles, sum(load + store for _, load, store in tiles)


def test_the_bound_is_below_every_candidate():
    """What lets the search stop early; 200 devices, 3 layers each."""
    rng = np.random.default_rng(17)
    for case in range(200):
        layers = [random_layer(rng, f"{case}.{i}") for i in range(3)]
        changes = random_changes(rng)
        sizes = [int(rng.integers(60, 3000)) for _ in "xwy"]
        hw, (ops, found, _, _) = fitting(changes, sizes, lambda hw: searched(layers, hw))  # noqa: B023
        slack = evaluate(ops, found, hw).cycles - systolic_tiling._lower_bound(ops, found, hw)
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
        hw, (_, found, _, _) = fitting(changes, sizes, lambda hw: searched([layer], hw))  # noqa: B023
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
