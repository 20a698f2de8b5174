"""Laws a systolic device keeps whatever its numbers are, on small random devices and layers."""

import math
from itertools import product

import numpy as np
import pytest
from devices.test_systolic_levels import DATAFLOWS, PATTERNS, PES, SHARES, buffers, device, network
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import accsim
from accsim.base.errors import InputError
from accsim.devices.systolic import SystolicDevice
from accsim.devices.systolic_modes import modes
from accsim.devices.systolic_ops import make_ops
from accsim.sparsity.masks import Masks
from accsim.spec.workload import Layer

BITS = {"int8": 8, "int16": 16, "fp8": 8, "bf16": 16, "fp16": 16, "fp32": 32}
laws = settings(derandomize=True, deadline=None, max_examples=150, database=None)
extents = st.integers(1, 40)
sizes = st.tuples(*[st.integers(40, 4000)] * 3)
bandwidths = st.sampled_from([0.3, 1.0, 2.7, 8.0, 50.0, 1000.0, math.inf])


@st.composite
def arrays(draw, adaptive=None):
    multipliers, lanes, levels = draw(st.sampled_from(PES[1:] if adaptive else PES))
    follow = (lanes > 1 and draw(st.booleans())) if adaptive is None else adaptive
    return {
        "dataflow": draw(st.sampled_from(DATAFLOWS)),
        "array__rows": draw(st.integers(1, 6)),
        "array__cols": draw(st.integers(1, 6)),
        "array__count": 1 if follow else draw(st.integers(1, 3)),
        "array__multipliers": multipliers,
        "array__lanes": lanes,
        "array__levels": levels,
        "array__adaptive": follow,
        "array__double_buffering": draw(st.booleans()),
        "memory__sram__double_buffered": draw(st.booleans()),
        "memory__dram__bandwidth_gb_per_s": draw(bandwidths),
        "memory__dram__latency_ns": draw(st.sampled_from([0.0, 5.0, 40.0])),
        "launch_us": draw(st.sampled_from([0.0, 0.003])),
    }


@st.composite
def linears(draw, patterns=PATTERNS + SHARES, dtypes=("int8", "bf16")):
    t, k, n = draw(extents), draw(extents), draw(extents)
    return linear(
        t, k, n, draw(st.sampled_from(patterns)), dtype=draw(st.sampled_from(dtypes)),
        repeats=draw(st.integers(1, 3)),
    )  # fmt: skip


def linear(t, k, n, pattern="dense", *, name="a", dtype="int8", repeats=1):
    op = {"kind": "linear", "tokens": t, "in_features": k, "out_features": n}
    return Layer(name=name, op=op, pattern=accsim.pattern(pattern), dtype=dtype, repeats=repeats)


@st.composite
def convolutions(draw, padded=True, batches=3):
    groups = draw(st.integers(1, 3))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    op = {
        "kind": "conv2d", "groups": groups, "in_channels": groups * draw(st.integers(1, 5)),
        "out_channels": groups * draw(st.integers(1, 5)), "kernel": draw(pairs),
        "size": (draw(st.integers(3, 9)), draw(st.integers(3, 9))), "stride": draw(pairs),
        "padding": (draw(st.integers(0, 2)), draw(st.integers(0, 2))) if padded else (0, 0),
    }  # fmt: skip
    return Layer(
        name="c", op=op, batch=draw(st.integers(1, batches)), repeats=draw(st.integers(1, 2)),
        pattern=accsim.pattern(draw(st.sampled_from(PATTERNS))),
    )  # fmt: skip


def run(layers, hw, masks=None):
    layers = layers if isinstance(layers, tuple) else (layers,)
    return accsim.simulate(network(*layers), hw, masks=masks or Masks(3))


def run_or_skip(layers, hw):
    try:
        return run(layers, hw)
    except InputError:
        assume(False)


# --- never slower


@laws
@given(array=arrays(), layer=st.one_of(linears(), convolutions()), size=sizes, more=bandwidths)
def test_more_bandwidth_is_never_slower(array, layer, size, more):
    key = "memory__dram__bandwidth_gb_per_s"
    low, high = sorted([array[key], more])
    slow = run_or_skip(layer, device(**array | {key: low}, **buffers(*size)))
    fast = run(layer, device(**array | {key: high}, **buffers(*size)))
    assert fast.cycles <= slow.cycles


@laws
@given(array=arrays(), layer=linears(), size=sizes, latencies=st.tuples(*[st.integers(0, 60)] * 2))
def test_less_latency_is_never_slower(array, layer, size, latencies):
    low, high = (
        run_or_skip(
            layer, device(**array | {"memory__dram__latency_ns": float(ns)}, **buffers(*size))
        ).cycles
        for ns in sorted(latencies)
    )
    assert low <= high


@laws
@given(
    array=arrays(), layer=st.one_of(linears(), convolutions()), size=sizes,
    grown=st.integers(1, 4000), which=st.integers(0, 2),
)  # fmt: skip
def test_more_of_any_buffer_is_never_slower(array, layer, size, grown, which):
    larger = [s + grown * (i == which) for i, s in enumerate(size)]
    slow = run_or_skip(layer, device(**array, **buffers(*size)))
    fast = run(layer, device(**array, **buffers(*larger)))
    assert fast.cycles <= slow.cycles


shares = st.integers(0, 99).map(lambda percent: percent / 100)


@settings(laws, max_examples=60)
@given(array=arrays(adaptive=True), layer=linears(), size=sizes, pair=st.tuples(shares, shares))
def test_a_sparser_nested_mask_is_never_slower(array, layer, size, pair):
    """Unstructured masks of one seed are nested: the sparser keeps a part of the denser."""
    hw = device(**array, **buffers(*size))
    masks = Masks(5)
    denser, sparser = (
        layer.model_copy(update={"pattern": accsim.pattern(f"unstructured@{s}")})
        for s in sorted(pair)
    )
    assert np.all(masks.mask(denser) | ~masks.mask(sparser))
    try:
        slow, fast = run(denser, hw, masks), run(sparser, hw, masks)
    except InputError:
        assume(False)
    assert fast.cycles <= slow.cycles


def test_a_sparse_layer_fits_where_the_dense_one_does():
    hw = device(
        array__rows=3,
        array__multipliers=1,
        array__lanes=4,
        array__adaptive=True,
        **buffers(40, 999, 999),
    )
    dense = run(linear(1, 11, 1, "unstructured@0.0", dtype="bf16", repeats=2), hw)
    sparse = run(linear(1, 11, 1, "unstructured@0.3", dtype="bf16", repeats=2), hw)
    assert sparse.cycles <= dense.cycles


pairs_of_8 = st.tuples(st.integers(1, 8), st.integers(1, 8))


@laws
@given(array=arrays(), t=extents, blocks=st.integers(1, 8), n=extents, pair=pairs_of_8)
def test_a_sparser_n_of_m_is_never_slower(array, t, blocks, n, pair):
    """Whole blocks, one pass, room for everything: see the next test for the rest."""
    levels = [level.split(":")[0] for level in array["array__levels"] if level != "dense"]
    assume(all(int(level) <= array["array__multipliers"] for level in levels))
    hw = device(**array)
    fast, slow = (run(linear(t, 40 * blocks, n, f"{a}:8"), hw) for a in sorted(pair))
    assert fast.cycles <= slow.cycles


@pytest.mark.parametrize(
    ("shape", "patterns", "multipliers", "lanes", "levels", "size"),
    [
        ((11, 1, 6), ("2:4", "3:4"), 2, 8, ("4:8", "dense"), (2**20,) * 3),  # 1 row of k: 2 passes
        ((9, 200, 3), ("2:4", "3:4"), 2, 8, ("4:8", "dense"), (330, 146, 867)),  # coarser tiles
        ((16, 64, 16), ("2:4", "dense"), 2, 4, ("2:4", "dense"), (80, 512, 512)),  # refused
        ((2, 1, 9), ("1:4", "4:4"), 2, 4, ("1:4", "2:4", "dense"), (2**20,) * 3),  # an index a slot
    ],
)
def test_a_sparser_n_of_m_is_never_slower_on_short_layers(
    shape, patterns, multipliers, lanes, levels, size
):
    hw = device(
        dataflow="is", array__rows=4, array__cols=4, array__multipliers=multipliers,
        array__lanes=lanes, array__levels=levels, memory__dram__bandwidth_gb_per_s=0.5,
        **buffers(*size),
    )  # fmt: skip
    slow = run(linear(*shape, patterns[1]), hw)
    assert run(linear(*shape, patterns[0]), hw).cycles <= slow.cycles


@laws
@given(array=arrays(), layer=linears(), size=sizes)
def test_a_wider_format_is_never_faster(array, layer, size):
    hw = device(**array, **buffers(*size))
    for formats in (("int8", "int16"), ("fp8", "bf16", "fp32")):
        cycles = []
        for dtype in formats:
            try:
                cycles.append(run(layer.model_copy(update={"dtype": dtype}), hw).cycles)
            except InputError:
                cycles.append(math.inf)  # does not fit: never cheaper either
        assert cycles == sorted(cycles)


# --- what adds up


@laws
@given(
    array=arrays(),
    layers=st.lists(st.one_of(linears(), convolutions()), min_size=1, max_size=3),
    size=sizes,
)
def test_causes_add_up_and_nothing_exceeds_the_peak(array, layers, size):
    hw = device(**array, **buffers(*size))
    named = tuple(x.model_copy(update={"name": f"{i}"}) for i, x in enumerate(layers))
    for level in ("closed", "events"):
        try:
            result = accsim.simulate(network(*named), hw, masks=Masks(3), level=level)
        except InputError:
            assume(False)
        columns = result.columns
        for row, cycles in enumerate(columns["cycles"]):
            parts = [columns[f"{cause}_cycles"][row] for cause in result.causes]
            assert min(parts) >= 0
            assert sum(parts) == cycles
            assert columns["work_cycles"][row] + columns["stall_cycles"][row] == cycles
        assert max(columns["utilisation"]) <= 1
        assert columns["effective_macs"] == [
            layer.runs * layer.gemm.t * int(Masks(3).mask(layer).sum()) for layer in named
        ]
        check_totals(result)


def check_totals(result):
    columns, totals = result.columns, result.totals
    for name in ("cycles", "dram_read_bytes", "dram_write_bytes", "sram_read_bytes",
                 "sram_write_bytes", "metadata_bits", "macs", "effective_macs"):  # fmt: skip
        assert totals[name] == sum(columns[name])
    for name in ("energy_j", "latency_s"):
        assert totals[name] == pytest.approx(sum(columns[name]), rel=1e-12)
    assert totals["cycles_by_cause"] == {c: sum(columns[f"{c}_cycles"]) for c in result.causes}
    assert totals["energy_j"] == pytest.approx(sum(totals["energy_parts_j"].values()), rel=1e-12)
    peak = totals["cycles"] * result.hardware.peak_macs_per_cycle
    assert totals["utilisation"] == pytest.approx(totals["effective_macs"] / peak, rel=1e-12)


def test_the_metadata_cause_is_what_free_positions_would_save():
    """Memory-bound 2:4: W is 10 bits a slot, 8 without its index; no overlap."""
    hw = device(
        array__multipliers=2, array__lanes=4, array__levels=("2:4", "dense"), array__rows=4,
        array__cols=4, memory__sram__double_buffered=False, memory__dram__bandwidth_gb_per_s=1.0,
    )  # fmt: skip
    columns = run(linear(8, 64, 32, "2:4"), hw).columns
    slots = 32 * 32
    assert columns["metadata_bits"] == [2 * slots]
    assert columns["metadata_cycles"] == [slots * 2 // 8]
    assert columns["dram_cycles"] == [8 * 64 + slots + 8 * 32]


# --- bytes


def packed_bytes(layer, hw):
    """(bytes of packed W, bits of positions): n slots of m, ⌈log2 m⌉ bits each."""
    mode, k, n = run(layer, hw).columns["mode"][0], layer.gemm.k, layer.gemm.n
    if mode == "dense":
        return layer.runs * -(-k * n * BITS[layer.dtype] // 8), 0
    m = int(mode.split(":")[1])
    slots = n * sum(
        most_in_a_block(layer.pattern, first, min(first + m, k), m) for first in range(0, k, m)
    )
    index = math.ceil(math.log2(m))
    bits = slots * (BITS[layer.dtype] + index)
    return layer.runs * -(-bits // 8), layer.runs * slots * index


def most_in_a_block(pattern, first, end, m):
    """Slots stored for rows first … end − 1: the most kept weights any full block can hold."""
    worst = max(
        sum(
            min(pattern.n, sum(row // pattern.m == g for row in range(start, start + m)))
            for g in range(start // pattern.m, (start + m - 1) // pattern.m + 1)
        )
        for start in range(0, m * pattern.m, m)
    )
    return min(worst, end - first)


def used_inputs(layer):
    """Input values of one run that any output needs, padding not counted."""
    op = layer.op
    if op.kind != "conv2d":
        return layer.gemm.t * layer.gemm.k
    used = []
    for axis in (0, 1):
        taps = product(range(op.output(axis)), range(op.kernel[axis]))
        at = {o * op.stride[axis] - op.padding[axis] + q * op.dilation[axis] for o, q in taps}
        used.append(len({p for p in at if 0 <= p < op.size[axis]}))
    return layer.batch * used[0] * used[1] * op.in_channels // op.groups


ALIGNED = ("dense", "1:4", "2:4", "1:8", "2:8", "3:8", "4:4")


@laws
@given(
    array=arrays(adaptive=False),
    layer=st.one_of(linears(patterns=ALIGNED), convolutions(padded=False)),
)
def test_with_room_for_all_every_byte_moves_once(array, layer):
    """Buffers that hold everything, transfers one after the other: X, packed W and Y once a run."""
    assume(str(layer.pattern) in ALIGNED)
    hw = device(**array | {"memory__sram__double_buffered": False})
    columns = run(layer, hw).columns
    weights, positions = packed_bytes(layer, hw)
    size = BITS[layer.dtype] // 8
    assert columns["dram_read_bytes"] == [layer.runs * used_inputs(layer) * size + weights]
    assert columns["dram_write_bytes"] == [layer.runs * layer.gemm.t * layer.gemm.n * size]
    assert columns["metadata_bits"] == [positions]


@pytest.mark.parametrize(
    ("shape", "dataflow", "bandwidth"),
    [((9, 37, 55), "ws", 4.0), ((39, 49, 50), "ws", 64.0), ((24, 36, 57), "is", 4.0)],
)
def test_with_room_for_all_every_byte_moves_once_overlapped_too(shape, dataflow, bandwidth):
    t, k, n = shape
    hw = device(dataflow=dataflow, memory__dram__bandwidth_gb_per_s=bandwidth)
    assert run(linear(t, k, n), hw).columns["dram_read_bytes"] == [t * k + k * n]


@laws
@given(
    array=arrays(), layer=st.one_of(linears(patterns=ALIGNED + SHARES), convolutions()), size=sizes
)
def test_never_fewer_bytes_than_the_layer_has(array, layer, size):
    hw = device(**array, **buffers(*size))
    result = run_or_skip(layer, hw)
    columns, counts = result.columns, result.evaluation.counts
    bits, gemm, runs = BITS[layer.dtype], layer.gemm, layer.runs
    kept = layer.pattern.kept(gemm.k, gemm.n) * runs * bits // 8
    inputs = runs * used_inputs(layer) * bits // 8
    outputs = runs * gemm.t * gemm.n * bits // 8
    assert columns["dram_read_bytes"][0] >= inputs + kept
    assert columns["dram_write_bytes"] == [outputs]
    assert counts["sram_w_read_bytes"][0] >= kept
    assert counts["sram_y_read_bytes"].tolist() == counts["sram_y_write_bytes"].tolist()
    if columns["mode"] != ["adaptive"]:  # which skips sums and activations no kept weight meets
        assert counts["sram_y_write_bytes"][0] >= runs * gemm.t * gemm.n * 32 // 8
        assert counts["sram_x_read_bytes"][0] >= runs * gemm.t * gemm.k * bits // 8
    loaded = counts["sram_x_write_bytes"] + counts["sram_w_write_bytes"]
    assert loaded.tolist() == columns["dram_read_bytes"]
    assert counts["sram_w_write_bytes"][0] >= kept
    assert counts["sram_x_write_bytes"][0] >= inputs
    everything = layer.pattern.kept(gemm.k, gemm.n) * runs * gemm.t
    assert counts["macs"].tolist() == [everything]  # zero_gating: only kept weights switch


@laws
@given(array=arrays(), layer=linears())
def test_without_gating_every_slot_switches(array, layer):
    gated, not_gated = (
        run(layer, device(**array, array__zero_gating=gating)).evaluation
        for gating in (True, False)
    )
    assert not_gated.counts["macs"][0] >= gated.counts["macs"][0]
    if gated.mode == ("dense",):
        k = -(-layer.gemm.k // array["array__multipliers"]) * array["array__multipliers"]
        assert not_gated.counts["macs"][0] == layer.runs * layer.gemm.t * k * layer.gemm.n
    assert not_gated.cycles == gated.cycles


def touched_inputs(op, first, count):
    """Input positions under the whole output rows that ``count`` positions from ``first`` touch."""
    rows, cols, found = op.output(0), op.output(1), set()
    last = first + count - 1
    for at in range(first // cols * cols, (last // cols + 1) * cols):
        item, (row, col) = at // (rows * cols), divmod(at % (rows * cols), cols)
        for i, j in product(range(op.kernel[0]), range(op.kernel[1])):
            y, x = row * op.stride[0] - op.padding[0] + i, col * op.stride[1] - op.padding[1] + j
            if 0 <= y < op.size[0] and 0 <= x < op.size[1]:
                found.add((item, y, x))
    return len(found)


def check_halo(layer, part):
    hw, op, t = device(), layer.op, layer.gemm.t
    ops = make_ops([layer], [modes(layer.pattern, hw.array)[0]], hw)
    needed = max(touched_inputs(op, first, min(part, t - first)) for first in range(0, t, part))
    loaded = ops.x_bytes(np.array([part]), ops.k)[0]
    assert min(needed * op.in_channels // op.groups, part * layer.gemm.k) <= loaded
    assert loaded <= part * layer.gemm.k


@laws
@given(layer=convolutions(batches=1), part=st.integers(1, 12))
def test_a_tile_of_a_convolution_loads_its_halo(layer, part):
    """Any tile of t: never fewer inputs than the output rows it touches need."""
    check_halo(layer, min(part, layer.gemm.t))


def test_a_tile_across_two_items_loads_both_halos():
    """18 of 21 positions from the 18th: the last row of item 0 and three rows of item 1."""
    op = {
        "kind": "conv2d",
        "in_channels": 1,
        "out_channels": 1,
        "size": 3,
        "kernel": 1,
        "padding": (0, 2),
    }
    check_halo(Layer(name="c", op=op, batch=2), 18)


def buffer_traffic(layer, mode, hw, tiles):
    """Bytes (x read, w read, sums written) of one run, tile after tile, fold after fold."""
    bits, array, traffic = BITS[layer.dtype], hw.array, [0, 0, 0]
    for t, k, n in tiles:
        slots = k // mode.group * mode.slots + min(mode.slots, k % mode.group)
        x, w = t * k * bits // 8, -(-slots * n * (bits + mode.index_bits) // 8)
        k_folds = math.ceil(math.ceil(k / mode.lanes) / array.rows)
        n_folds, t_rows, t_cols = -(-n // array.cols), -(-t // array.rows), -(-t // array.cols)
        times = {  # X enters, W enters, sums leave the array
            "ws": (mode.passes * n_folds, 1, mode.passes * k_folds),
            "os": (mode.passes * n_folds, t_rows, 1),
            "is": (1, t_cols, mode.passes * k_folds),
        }[hw.dataflow]
        for at, nbytes in enumerate((x, w, t * n * 4)):
            traffic[at] += times[at] * nbytes
    return traffic


@laws
@given(
    array=arrays(adaptive=False),
    layer=linears(patterns=ALIGNED, dtypes=("int8", "int16")),
    size=sizes,
)
def test_buffer_traffic_equals_the_folds_counted(array, layer, size):
    """Per fold: what enters and leaves the array. Sums are read as often as they are written."""
    hw = device(**array, **buffers(*size))
    result = run_or_skip(layer, hw)
    schedule = SystolicDevice(hw).schedule(layer, Masks(3))
    level = result.columns["mode"][0]
    mode = next(mode for mode in modes(layer.pattern, hw.array) if mode.level == level)
    tiles = [tuple(int(tile[d]) for d in "tkn") for tile in schedule.tiles]
    x, w, y = (layer.runs * nbytes for nbytes in buffer_traffic(layer, mode, hw, tiles))
    counts = result.evaluation.counts
    assert counts["sram_x_read_bytes"].tolist() == [x]
    assert counts["sram_w_read_bytes"][0] == pytest.approx(w, abs=layer.runs * len(tiles) * 99)
    assert counts["sram_y_write_bytes"].tolist() == counts["sram_y_read_bytes"].tolist() == [y]
    loads = weight_loads(layer, mode, schedule)
    assert counts["sram_w_write_bytes"][0] == pytest.approx(loads, abs=layer.runs * len(tiles) * 2)


def weight_loads(layer, mode, schedule):
    """Bytes of W that come from DRAM: each tile loads X, W, both or neither."""
    total = 0
    for tile in schedule.tiles:
        t, k, n = (int(tile[d]) for d in "tkn")
        slots = k // mode.group * mode.slots + min(mode.slots, k % mode.group)
        w = -(-slots * n * (BITS[layer.dtype] + mode.index_bits) // 8)
        x = t * k * BITS[layer.dtype] // 8
        assume(x != w)
        loaded = int(tile["load_bytes"][0])
        assert loaded in (0, x, w, x + w)
        total += w * (loaded in (w, x + w))
    return total * layer.runs


# --- energy


def per_byte(table, capacity):
    """(read, write) pJ of a byte: straight lines on log–log axes through the table's points."""
    points = sorted(table.sram, key=lambda point: point.bytes)
    logs = np.log([point.bytes for point in points])
    at, found = math.log(capacity), []
    for action in ("read_pj", "write_pj"):
        values = np.log([getattr(p, action) * 8 / p.access_bits for p in points])
        i = min(max(int(np.searchsorted(logs, at)) - 1, 0), len(points) - 2)
        slope = (values[i + 1] - values[i]) / (logs[i + 1] - logs[i])
        found.append(math.exp(values[i] + slope * (at - logs[i])))
    return found


@laws
@given(
    array=arrays(), size=st.tuples(*[st.integers(300, 3 * 2**20)] * 3),
    layers=st.lists(linears(dtypes=tuple(BITS)), min_size=1, max_size=3),
    clock=st.sampled_from([0.5, 1.0, 2.0]),
)  # fmt: skip
def test_energy_is_counts_times_table(array, size, layers, clock):
    hw = device(**array, **buffers(*size), clock_ghz=clock)
    result = run_or_skip(
        tuple(x.model_copy(update={"name": f"{i}"}) for i, x in enumerate(layers)), hw
    )
    counts, table, columns = result.evaluation.counts, hw.energy, result.columns
    pes = hw.array.rows * hw.array.cols * hw.array.multipliers * hw.array.count
    static_mw = pes * 1.7e-3 + sum(size) / 2**20 * 2.3 + 31.0
    for i, layer in enumerate(layers):
        mac = table.mac[layer.dtype]
        sram = 0.0
        for name, capacity in zip("xwy", size, strict=True):
            read, write = per_byte(table, capacity)
            sram += float(counts[f"sram_{name}_read_bytes"][i]) * read
            sram += float(counts[f"sram_{name}_write_bytes"][i]) * write
        seconds = columns["cycles"][i] / (clock * 1e9)
        expected = {
            "mac": counts["macs"][i] * (mac.mult_pj + mac.add_pj),
            "select": counts["select_bits"][i] * 0.003,
            "register": counts["register_bits"][i] * 0.011,
            "sram": sram,
            "dram": (columns["dram_read_bytes"][i] + columns["dram_write_bytes"][i]) * 8 * 12.5,
            "static": static_mw * 1e-3 * seconds * 1e12,
        }
        for part, pj in expected.items():
            assert columns[f"energy_{part}_j"][i] == pytest.approx(pj * 1e-12, rel=1e-9)
        assert columns["energy_j"][i] == pytest.approx(sum(expected.values()) * 1e-12, rel=1e-9)
        assert columns["latency_s"][i] == pytest.approx(seconds, rel=1e-12)


def test_a_plain_array_selects_nothing():
    plain = run(linear(9, 9, 9, "2:4"), device()).evaluation.counts
    tensor = {"array__multipliers": 2, "array__lanes": 4, "array__levels": ("2:4", "dense")}
    sparse = run(linear(9, 8, 9, "2:4"), device(**tensor)).evaluation.counts
    driven = run(linear(9, 8, 9, "unstructured@0.9"), device(**tensor, array__adaptive=True))
    assert driven.evaluation.mode == ("adaptive",)
    assert driven.evaluation.counts["select_bits"].tolist() == [9 * 7 * 8]  # 7 kept weights
    assert plain["select_bits"].tolist() == [0]
    assert sparse["select_bits"].tolist() == [9 * 4 * 9 * 8]  # a byte for each kept weight and row


# --- composition


@laws
@given(array=arrays(), layer=linears(), size=sizes)
def test_doubling_repeats_doubles_work_and_macs(array, layer, size):
    hw = device(**array, **buffers(*size))
    many = [run_or_skip(layer.model_copy(update={"repeats": r}), hw) for r in (2, 4)]
    once, twice = (result.columns for result in many)
    names = ["macs", "effective_macs", "dram_write_bytes", "launch_cycles"]
    if once["mode"] == twice["mode"]:
        names.append("metadata_bits")
    for name in names:
        assert [2 * value for value in once[name]] == twice[name]
    if not hw.memory.sram.double_buffered:  # then mode and tiling do not depend on the repeats
        for name in ("work_cycles", "dram_read_bytes", "metadata_bits", "cycles"):
            assert [2 * value for value in once[name]] == twice[name]


@laws
@given(
    array=arrays(),
    size=sizes,
    layers=st.lists(st.one_of(linears(), convolutions()), min_size=2, max_size=5),
)
def test_layers_do_not_know_their_neighbours(array, size, layers):
    hw = device(**array, **buffers(*size))
    named = tuple(x.model_copy(update={"name": f"{i}"}) for i, x in enumerate(layers))
    there = run_or_skip(named, hw).columns
    back = run(named[::-1], hw).columns
    assert {name: values[::-1] for name, values in back.items()} == there
    alone = [run(layer, hw).columns for layer in named]
    assert {name: [one[name][0] for one in alone] for name in there} == there
    assert run(named, hw).columns == there


def test_two_arrays_are_never_slower_than_one():
    rng = np.random.default_rng(21)
    for _ in range(100):
        t, k, n = rng.integers(1, 60, 3).tolist()
        shape = {"array__rows": int(rng.integers(1, 6)), "array__cols": int(rng.integers(1, 6))}
        flow = DATAFLOWS[int(rng.integers(3))]
        cycles = [
            run(linear(t, k, n), device(**shape, dataflow=flow, array__count=count)).cycles
            for count in (4, 2, 1)
        ]
        assert cycles == sorted(cycles)


def test_launch_is_paid_once_a_repeat():
    for repeats in (1, 3):
        layer = linear(4, 4, 4, repeats=repeats)
        free, paid = (run(layer, device(launch_us=us, clock_ghz=2.0)) for us in (0.0, 0.25))
        assert paid.cycles - free.cycles == 500 * repeats
        assert paid.columns["launch_cycles"] == [500 * repeats]
        events = accsim.simulate(network(layer), paid.hardware, level="events")
        assert events.cycles == paid.cycles
