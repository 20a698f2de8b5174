"""Steps on a device: sums, bounds, monotony."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accsim
from accsim.base.errors import InputError
from accsim.spec.workload import Conv2d, Layer, Linear, Workload
from accsim.training.methods import METHODS, method_of, speedup_bound
from accsim.training.other_work import STATES
from accsim.training.step import training_step

SPARSE = [name for name in METHODS if name != "dense"]
DEVICE = accsim.load_hardware("vcu1525_sat")
NET = accsim.load_workload("resnet18", batch=16)
PE_RATE = 2.0  # multiply-adds a cycle of the fake array


def fake_costs(ops, device):
    """A device that is never wrong: one multiplier rate, nothing lost, no memory."""
    kept = [1.0 if x == "dense" else int(x[0]) / int(x[2:]) for x in ops.levels]
    macs = (ops.t * ops.k * ops.n * ops.count * np.array(kept)).astype(np.int64)
    zero = np.zeros_like(macs)
    return SimpleNamespace(
        cycles=np.ceil(macs / PE_RATE).astype(np.int64), flow=("os",) * len(macs), macs=macs,
        causes={"work": np.ceil(macs / PE_RATE).astype(np.int64)}, load_bytes=zero,
        store_bytes=zero, metadata_bits=zero, flow_cycles={"os": zero, "ws": zero},
    )  # fmt: skip


def changed(**parts):
    """DEVICE with fields of its parts changed."""
    update = {name: getattr(DEVICE, name).model_copy(update=new) for name, new in parts.items()}
    return DEVICE.model_copy(update=update)


def linears(*sizes, batch=64):
    layers = [
        Layer(name=f"l{i}", op=Linear(in_features=a, out_features=b), batch=batch, dtype="fp16")
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    return Workload(name="mlp", layers=layers)


@pytest.mark.parametrize("method", METHODS)
def test_everything_sums(method):
    step = training_step(NET, DEVICE, method, "dense" if method == "dense" else "2:8")
    assert sum(step.causes.values()) == step.cycles == sum(row["cycles"] for row in step.rows)
    assert sum(step.decomposition.values()) == pytest.approx(step.cycles, rel=1e-12)
    assert sum(row["load_bytes"] for row in step.rows) == step.load_bytes
    assert sum(row["store_bytes"] for row in step.rows) == step.store_bytes
    for row in step.rows:
        assert row["cycles"] == sum(
            row[f"{x}_cycles"] for x in ("work", "padding", "fill_drain", "dram", "other")
        )
    assert step.energy_j == pytest.approx(sum(step.energy_by_pass.values()))
    assert all(joules >= 0 for joules in step.energy_by_pass.values())


@pytest.mark.parametrize("level", ["2:8", "1:8", "4:8", "2:4", "1:4"])
@pytest.mark.parametrize("method", SPARSE)
def test_multiplying_never_beats_the_bound(method, level):
    step = training_step(NET, DEVICE, method, level)
    assert step.dense.causes["work"] / step.causes["work"] <= step.bound * (1 + 1e-3)
    assert 1 < step.speedup < step.bound
    assert step.mac_bound <= step.bound


@given(
    sizes=st.lists(st.integers(8, 200), min_size=3, max_size=5),
    batch=st.integers(1, 300), method=st.sampled_from(SPARSE),
    level=st.sampled_from(["2:8", "1:8", "2:4"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_sums_and_bound_on_any_network(sizes, batch, method, level):
    step = training_step(linears(*sizes, batch=batch), DEVICE, method, level)
    assert sum(step.decomposition.values()) == pytest.approx(step.cycles, rel=1e-9)
    assert step.mac_bound <= step.bound * (1 + 1e-12)
    assert step.decomposition["first_layer"] >= 0


def test_a_perfect_device_reaches_the_bound_but_for_the_first_layer():
    """By hand: three layers of w MACs: dense 8w, bdwp 2:8 (1 + 1)w + 2·(¼ + ¼ + 1)w = 5w."""
    net = linears(64, 64, 64, 64, batch=64)
    vector = changed(vector={"lanes": 4096}, ddr={"gb_per_s": 1e6},
                     selection={"groups_per_cycle": 1e9})  # fmt: skip
    step = training_step(net, vector, "bdwp", "2:8", costs=fake_costs)
    w = 64**3 / PE_RATE
    assert step.dense.causes["work"] == 8 * w
    assert step.causes["work"] == 5 * w
    assert step.mac_bound == pytest.approx(8 / 5)
    parts = step.decomposition
    assert parts["bound"] == pytest.approx(step.dense.cycles / 2)
    assert parts["first_layer"] == pytest.approx(0.75 * w)
    assert parts["bp_missing"] == pytest.approx((1 - 0.75) * w)
    assert parts["unequal"] == pytest.approx(0)


def test_bound_words():
    """facts/fpga_training.md: 2:8 → 1.33 and 2.00, 2:4 → 1.20 and 1.50, 1:8 → 1.41 and 2.40."""
    from accsim.sparsity.nm import NM

    for group, once, twice in (
        (NM(2, 8), 4 / 3, 2),
        (NM(2, 4), 1.2, 1.5),
        (NM(1, 8), 24 / 17, 2.4),
    ):
        assert speedup_bound(method_of("sr_ste"), group) == pytest.approx(once)
        assert speedup_bound(method_of("bdwp"), group) == pytest.approx(twice)


def test_sr_ste_backward_is_dense():
    sparse = training_step(NET, DEVICE, "sr_ste", "2:8")
    for which in ("bp", "wu"):
        assert sparse.by_pass[which] == sparse.dense.by_pass[which]
    assert sparse.by_pass["ff"] < sparse.dense.by_pass["ff"]


def test_methods_of_equal_products_take_equal_time_on_the_array():
    steps = {name: training_step(NET, DEVICE, name, "2:8") for name in SPARSE}
    for a, b in (
        ("sr_ste", "sdgf"),
        ("sr_ste", "mdgf"),
        ("bdwp", "bimask"),
        ("bdwp", "transposable"),
    ):
        for which in ("ff", "bp", "wu"):
            assert steps[a].by_pass[which] == steps[b].by_pass[which]
    assert steps["transposable"].metadata_bytes < steps["bdwp"].metadata_bytes


def test_chosen_dataflow_is_the_fastest():
    for cost in training_step(NET, DEVICE, "bdwp", "2:8").products:
        assert cost.cycles == cost.flows[cost.flow] == min(cost.flows.values())


@pytest.mark.parametrize(
    "better",
    [
        {"ddr": {"channels": 8}},
        {"vector": {"lanes": 64}},
        {"vector": {"optimiser": "sgd"}},
        {"selection": {"groups_per_cycle": 64.0}},
    ],
)
@pytest.mark.parametrize("method", ["sr_ste", "bdwp"])
def test_more_of_anything_is_never_slower(better, method):
    before = training_step(NET, DEVICE, method, "2:8")
    assert training_step(NET, changed(**better), method, "2:8").cycles <= before.cycles


def test_sparser_products_are_never_slower():
    for which in ("ff", "bp"):
        cycles = [training_step(NET, DEVICE, "bdwp", p).by_pass[which]
                  for p in ("1:8", "2:8", "4:8", "dense")]  # fmt: skip
        assert cycles == sorted(cycles)


def test_pregenerated_is_never_slower_than_critical():
    critical = changed(selection={"when": "critical"})
    for method in SPARSE:
        slow, fast = (training_step(NET, x, method, "2:8") for x in (critical, DEVICE))
        assert slow.by_pass["selection"] > fast.by_pass["selection"]
        assert slow.cycles > fast.cycles


def test_update_bytes_by_hand():
    """fp16 gradient; fp32 master and states read and written; fp16 working copy where needed."""
    net = linears(64, 64, 64)
    for optimiser, states in STATES.items():
        device = changed(vector={"optimiser": optimiser})
        dense = training_step(net, device)
        numbers = 4 * (1 + states)
        assert dense.bytes_by_pass["optimiser"] == (8192 * (2 + numbers), 8192 * (numbers + 2))
        # bdwp: of the second layer no product reads a dense copy
        pruned = training_step(net, device, "bdwp", "2:8")
        assert dense.bytes_by_pass["optimiser"][1] - pruned.bytes_by_pass["optimiser"][1] == 8192
        # two copies: a quarter of the weights with 2 bytes and 3 bits each
        assert pruned.bytes_by_pass["selection"] == (0, 2 * (1024 * 2 + 1024 * 3 // 8))


def test_between_layers_by_hand():
    """Unfused batch norm: 2 reads 1 write forward, 4 reads 1 write backward; relu 1/1 and 2/1."""
    net = accsim.load_workload("resnet18", batch=1).select("conv1")
    device = changed(vector={"fused": False})
    step = training_step(net, device)
    size = 64 * 112 * 112 * 2
    moved = {(x.name, x.way): (x.load_bytes, x.store_bytes) for x in step.works}
    assert moved["bn1", "ff"] == (2 * size, size)
    assert moved["bn1", "bp"] == (4 * size, size)
    assert moved["relu", "ff"] == (size, size)
    assert moved["relu", "bp"] == (2 * size, size)
    fused = training_step(net, DEVICE)
    assert fused.by_pass["batch_norm"] < step.by_pass["batch_norm"]
    assert {(x.name, x.way): x.load_bytes for x in fused.works}["relu", "ff"] == 0


def test_fading_costs_dense_products_and_masks():
    fading = training_step(NET, DEVICE, "mdgf", "2:8", fading=True)
    for which in ("ff", "bp", "wu"):
        assert fading.by_pass[which] == fading.dense.by_pass[which]
    assert fading.bound == 1
    assert sum(w.elements for w in fading.works if w.which == "selection") > 0
    assert fading.metadata_bytes == 0


def test_a_network_that_begins_with_an_embedding_needs_every_gradient():
    gpt = training_step(accsim.load_workload("gpt2"), DEVICE)
    assert (0, "bp") in {(x.product.layer, x.product.which) for x in gpt.products}


def test_depthwise_convolutions_run():
    op = Conv2d(in_channels=32, out_channels=32, size=8, kernel=3, padding=1, groups=32)
    first = Layer(name="a", op=Conv2d(in_channels=3, out_channels=32, size=8, kernel=1))
    net = Workload(name="dw", layers=[first, Layer(name="dw", op=op)])
    step = training_step(net, DEVICE, "bdwp", "2:8")
    assert sum(step.decomposition.values()) == pytest.approx(step.cycles)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pattern": "3:8"}, r"pattern must be a level of the array of 'vcu1525_sat'.*got '3:8'"),
        ({"fading": True}, "fading steps belong to the method mdgf"),
        ({"metadata_share": 2.0}, "metadata_share must be in"),
        ({"device": accsim.load_hardware("a100_pcie_80gb")}, "must be of kind fpga .*'a100_pcie"),
        ({"device": None}, "must be of kind fpga"),
    ],
)
def test_bad_input_is_refused(fields, message):
    asked = {"workload": NET, "device": DEVICE, "method": "bdwp", "pattern": "2:8"} | fields
    with pytest.raises(InputError, match=message):
        training_step(**asked)
