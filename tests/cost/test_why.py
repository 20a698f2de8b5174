"""why(): every quoted number is simulated again here on hardware changed by hand."""

import math

import pytest

import accsim
from accsim.cost.why import WIDTH, findings, why
from accsim.devices.systolic_why import BATCH, RULES, WHAT_IFS
from accsim.sparsity.masks import Masks
from accsim.spec.schedule import COMPUTE_CAUSES
from accsim.spec.why import NO_STALLS, WORDS, Counterfactuals, Rule

# what the tests change, as overrides of a file: an independent way to the same hardware
OVERRIDES = {
    "bandwidth": lambda d: {"memory.dram.bandwidth_gb_per_s": math.inf},
    "latency": lambda d: {"memory.dram.latency_ns": 0},
    "buffers": lambda d: {
        f"memory.sram.{x}.bytes": 2 * getattr(d.memory.sram, x).bytes for x in "xwy"
    },
    "double_buffers": lambda d: {"memory.sram.double_buffered": True},
    "registers": lambda d: {"array.double_buffering": True},
    "rows": lambda d: {"array.rows": 2 * d.array.rows},
    "cols": lambda d: {"array.cols": 2 * d.array.cols},
    "wide": lambda d: {"array.rows": d.array.rows // 2, "array.cols": 2 * d.array.cols},
    "tall": lambda d: {"array.rows": 2 * d.array.rows, "array.cols": d.array.cols // 2},
    "ws": lambda d: {"dataflow": "ws"},
    "os": lambda d: {"dataflow": "os"},
    "is": lambda d: {"dataflow": "is"},
}
SMALL = {f"memory.sram.{x}.bytes": 2**15 for x in "xwy"}
CASES = [
    ("systolic_nm_32x32", "resnet50", "2:4", {}),
    ("systolic_nm_16x16", "resnet18", "unstructured@0.9", {"memory.dram.bandwidth_gb_per_s": 1000}),
    ("systolic_ws_32x32", "mobilenet_v2", "dense", {}),
    ("systolic_os_32x32", "mobilenet_v2", "dense", {"array.double_buffering": False}),
    ("systolic_ws_128x128", "gpt2", "dense", {"memory.sram.double_buffered": False}),
    ("systolic_ws_32x32", "alexnet", "2:4", {"timing": "scalesim_v3"}),
    ("systolic_ws_32x32", "vit-b-16", "2:4", {"launch_us": 40}),
    ("systolic_is_32x32", "resnet18", "dense", {"memory.dram.latency_ns": 5000}),
    ("tpu_cloud", "resnet50", "dense", {}),
    ("systolic_ws_32x32", "bert-base", "dense", SMALL | {"memory.dram.bandwidth_gb_per_s": 5}),
]


def prepared(device, network, pattern, overrides):
    hardware = accsim.load_hardware(device, overrides)
    workload, masks = accsim.load_workload(network).prune(pattern), Masks(0)
    return hardware, workload, masks, accsim.simulate(workload, hardware, masks=masks)


def simulated(device, overrides, hardware, layer, tried, masks):
    """Return the cycles of one change, through files and simulate()."""
    more, one = {}, accsim.Workload(name="one", layers=(layer,))
    if tried.key == "batch":
        one = one.with_batch(BATCH * layer.batch)
    elif tried.key == "pattern":
        one = one.prune(tried.phrase.removeprefix("pruned "))
    else:
        more = OVERRIDES[tried.key](hardware)
    return accsim.simulate(one, accsim.load_hardware(device, overrides | more), masks=masks).cycles


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_every_quoted_number_is_what_simulate_says(case):
    device, _, _, overrides = case
    hardware, workload, masks, result = prepared(*case)
    found = findings(result.evaluation, workload.layers, hardware, masks)
    quoted = 0
    for finding in found:
        for tried in finding.tried:
            layer = workload.layer(finding.layers[0])
            cycles = simulated(device, overrides, hardware, layer, tried, masks)
            assert tried.cycles == cycles, (finding.sentence, tried)
            assert tried.cycles / tried.items < finding.cycles
            assert f"{tried.phrase} → " in finding.sentence
            assert f"{cycles:,}" in finding.sentence
            quoted += 1
    assert quoted


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_every_layer_has_its_line_and_the_line_its_largest_stall(case):
    hardware, workload, masks, result = prepared(*case)
    found = findings(result.evaluation, workload.layers, hardware, masks)
    assert sorted(n for f in found for n in f.layers) == sorted(x.name for x in workload.layers)
    assert why(result.evaluation, workload.layers, hardware, masks) == [f.sentence for f in found]
    weight = [finding.cycles * len(finding.layers) for finding in found]
    assert weight == sorted(weight, reverse=True)
    assert sum(weight) == result.cycles
    row = {layer.name: i for i, layer in enumerate(workload.layers)}
    for finding in found:
        assert len(finding.sentence) <= WIDTH
        assert "\n" not in finding.sentence
        assert f"{finding.cycles:,} cycles" in finding.sentence
        i = row[finding.layers[0]]
        spent = {cause: int(each[i]) for cause, each in result.evaluation.causes.items()}
        stalls = {cause: cycles for cause, cycles in spent.items() if cause not in NO_STALLS}
        if finding.bound in stalls:
            assert stalls[finding.bound] == max(stalls.values())
        else:
            assert "compute-bound" in finding.sentence
        if max(stalls.values()) > 0.5 * finding.cycles:
            assert "compute-bound" not in finding.sentence


def one(device, t, k, n, pattern="dense", **overrides):
    hardware = accsim.load_hardware(device, {k.replace("__", "."): v for k, v in overrides.items()})
    workload = accsim.gemm(t, k, n).prune(pattern)
    result = accsim.simulate(workload, hardware)
    return findings(result.evaluation, workload.layers, hardware)[0]


def test_a_layer_that_only_computes_is_compute_bound():
    found = one("systolic_ws_32x32", 4096, 64, 64, memory__dram__bandwidth_gb_per_s=1e6)
    assert found.bound == "work"
    assert "compute-bound (" in found.sentence
    assert {tried.key for tried in found.tried} == {"rows", "cols"}


def test_waiting_for_dram_is_said_with_bytes_and_bandwidth():
    # 256·256 bytes of X, as many of W and of Y: 192 KiB
    found = one("systolic_ws_32x32", 256, 256, 256, memory__dram__bandwidth_gb_per_s=1)
    assert found.bound == "dram"
    assert "waiting for DRAM (192 KiB at 1 GB/s" in found.sentence
    assert found.tried[0].key == "bandwidth"


def test_more_sram_is_quoted_where_tiles_are_reloaded():
    small = {f"memory.sram.{x}.bytes": 2**14 for x in "xwy"}
    net = accsim.gemm(512, 2048, 512)
    hardware = accsim.load_hardware("systolic_ws_32x32", small)
    result = accsim.simulate(net, hardware)
    found = findings(result.evaluation, net.layers, hardware)[0]
    doubled = accsim.load_hardware("systolic_ws_32x32", dict.fromkeys(small, 2**15))
    assert f"twice the buffers → {accsim.simulate(net, doubled).cycles:,}" in found.sentence


def test_one_row_of_activations_is_said_and_batch_helps():
    found = one("systolic_ws_32x32", 1, 512, 512, memory__dram__bandwidth_gb_per_s=1e6)
    assert found.bound == "fill_drain"
    assert "(1 step a 32×32 fold)" in found.sentence
    assert "batch" in [tried.key for tried in found.tried]


def test_ragged_folds_are_said_with_their_side():
    # k = 147 in blocks of 4 lanes: 37 PE rows in two folds of 32
    fast = {"memory__dram__bandwidth_gb_per_s": 1e6}
    found = one("systolic_nm_32x32", 4096, 147, 64, "2:4", **fast)
    assert found.bound == "padding"
    assert "k = 147 fills 37 of 64 PE rows" in found.sentence
    found = one("systolic_ws_32x32", 4096, 64, 1, **fast)
    assert "n = 1 fills 1 of 32 PE columns" in found.sentence


def test_weights_a_plain_array_cannot_skip_are_said():
    fast = {"memory__dram__bandwidth_gb_per_s": 1e6}
    found = one("systolic_ws_32x32", 4096, 64, 64, "1:4", **fast)
    assert found.bound == "zeros"
    assert "on slots without a kept weight (1:4 as dense)" in found.sentence


def test_dram_that_never_rests_bounds_a_layer_with_few_stalls():
    """Padding would hide behind the transfers: more PEs do not help, and the line says DRAM."""
    net = accsim.load_workload("resnet50").prune("2:4").select("layer1.0.conv3")
    hardware = accsim.load_hardware("systolic_nm_32x32")
    result = accsim.simulate(net, hardware)
    found = findings(result.evaluation, net.layers, hardware)[0]
    assert found.bound == "dram"
    assert "95 % busy" in found.sentence


def test_equal_layers_share_a_line_and_names_cannot_break_it():
    layer = accsim.gemm(64, 64, 64).layers[0]
    names = ["a", "b", "evil\x1b[31m\n" + "x" * 180]
    layers = tuple(layer.model_copy(update={"name": name}) for name in names)
    hardware = accsim.load_hardware("systolic_ws_32x32")
    result = accsim.simulate(accsim.Workload(name="w", layers=layers), hardware)
    (line,) = why(result.evaluation, layers, hardware)
    assert line.startswith("a ×3 (100 % of all): ")
    (line,) = why(result.evaluation.take([2]), layers[2:], hardware)
    assert line.isprintable()
    assert len(line) <= WIDTH


def test_a_change_that_no_longer_fits_is_left_out():
    """A tile of os holds all rows of sums, one of ws a single row: only that fits 512 bytes."""
    tight = {"memory.sram.y.bytes": 512, "memory.dram.bandwidth_gb_per_s": 1e6,
             "memory.dram.latency_ns": 0}  # fmt: skip
    layers = tuple(
        accsim.gemm(t, 64, 64, name=f"t{t}").layers[0].model_copy(update={"prunable": False})
        for t in (1, 4)
    )
    hardware = accsim.load_hardware("systolic_ws_32x32", tight)
    workload = accsim.Workload(name="two", layers=layers)
    found = findings(accsim.simulate(workload, hardware).evaluation, layers, hardware)
    assert {finding.bound for finding in found} == {"fill_drain"}
    other = accsim.load_hardware("systolic_ws_32x32", tight | {"dataflow": "os"})
    with pytest.raises(accsim.InputError, match="must hold 2 tiles"):
        accsim.simulate(workload, other)


def test_every_bound_has_its_words_and_a_memory_those_of_onchip():
    assert {*COMPUTE_CAUSES, "dram", "launch", "onchip", "zeros"} == set(WORDS)
    assert Counterfactuals().rule("l2").words == WORDS["onchip"]
    assert Counterfactuals().rule("throttle") == Rule(WORDS["throttle"])
    own = Counterfactuals({"onchip": Rule("waits", "a"), "l2": Rule("waits for L2")})
    assert own.rule("l1").first == "a"
    assert own.rule("l2").words == "waits for L2"
    assert own.rule("gather") == Rule(WORDS["gather"])


def test_rules_name_changes_that_exist():
    for rule in RULES.values():
        assert {rule.first, *rule.others} - {None} <= set(WHAT_IFS)
    assert {*COMPUTE_CAUSES, "dram", "launch", "onchip", "zeros"} == set(RULES)
    assert set(OVERRIDES) | {"batch", "pattern", "levels", "capacity"} == set(WHAT_IFS)


def test_waiting_for_a_memory_beyond_the_buffers_names_it():
    slow = {"name": "l2", "bytes": 2**20, "bandwidth_gb_per_s": 1.0}
    net = accsim.gemm(256, 256, 256)
    hardware = accsim.load_hardware("systolic_ws_32x32", {"memory.onchip": [slow]})
    found = findings(accsim.simulate(net, hardware).evaluation, net.layers, hardware)[0]
    assert found.bound == "l2"
    assert "waiting for L2" in found.sentence
    assert found.tried[0].key == "levels"
    wide = {"memory.onchip": [slow | {"bandwidth_gb_per_s": 1e9}]}
    free = accsim.simulate(net, accsim.load_hardware("systolic_ws_32x32", wide))
    assert found.tried[0].cycles == pytest.approx(free.cycles, rel=1e-4)
