"""The shipped digit traces: sound, true to their patterns, and networks that still run.

The forward pass is reports/digits/forward.py: numpy alone, written apart from the training code.
"""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import accsim
from accsim.files.catalogue import folder
from accsim.sparsity.bidirectional import Bidirectional
from accsim.sparsity.masks import Masks
from accsim.spec.pattern import DENSE
from accsim.traces.load import load_workload
from accsim.traces.replay import masks_of, replayed
from accsim.traces.trace import read_trace

REPORT = Path(__file__).parents[2] / "reports" / "digits"
PATTERNS = {
    "dense": "dense", "2of4": "2:4", "bdwp-2of8": "2:8", "tw": "tw:16@0.75",
    "tvw": "tvw:16@0.75", "unstructured": "unstructured@0.9",
}  # fmt: skip
NETWORKS = {"cnn": ("conv1", "fc2"), "transformer": ("embed", "head")}
NAMES = [f"digits-{network}-{variant}" for network in NETWORKS for variant in PATTERNS]
PRUNED = [name for name in NAMES if not name.endswith("dense")]
BDWP = Bidirectional(2, 8)
needs_report = pytest.mark.skipif(not REPORT.is_dir(), reason="reports/ is in the checkout only")


def path(name):
    return folder("workloads") / "traces" / f"{name}.trace"


def parts(name):
    _, network, variant = name.split("-", 2)
    return network, variant


@cache
def trace(name):
    return read_trace(path(name))


def pruned_layers(net):
    return [layer for layer in net if layer.pattern != DENSE]


@cache
def forward():
    spec = importlib.util.spec_from_file_location("digits_forward", REPORT / "forward.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learned(net):
    """Weights by layer and extra arrays of a trace."""
    names = [name.removeprefix("extra/") for name in net.header.arrays if name.startswith("extra/")]
    weights = {layer.name: net.weights(layer) for layer in net.workload if layer.has_weights}
    return weights, {name: net.extra(name) for name in names}


@cache
def run(name):
    """Logits of the test images, and the inputs of each layer for the traced batch."""
    network = forward().NETWORKS[parts(name)[0]]
    weights, extra = learned(trace(name))
    logits, seen = network(extra["test_images"], weights, extra)
    batch = trace(name).inputs["images"][0]
    return logits, {layer: x[:batch] for layer, x in seen.items()}


def test_these_are_shipped():
    assert sorted(x.stem for x in path("x").parent.glob("digits-*.trace")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_verifies_and_says_where_it_comes_from(name):
    net = trace(name)
    net.verify()
    assert net.workload.name == name
    made = net.provenance
    assert "reports/digits/train.py" in made.made_by
    assert made.date == "2026-11-21"
    assert "CC BY 4.0" in made.license
    assert "Apache-2.0" in made.license
    assert {"torch", "numpy", "scikit-learn", "accsim"} <= made.versions.keys()
    assert path(name).stat().st_size < 500_000


@pytest.mark.parametrize("name", NAMES)
def test_all_but_the_first_and_the_last_layer_are_pruned(name):
    net, (network, variant) = trace(name), parts(name)
    held = [layer for layer in net.workload if layer.has_weights]
    assert [layer.pattern for layer in held[1:-1]] == [accsim.pattern(PATTERNS[variant])] * (
        len(held) - 2
    )
    assert (held[0].name, held[-1].name) == NETWORKS[network]
    assert not held[0].prunable
    assert not held[-1].prunable
    assert net.facts["dense_layers"] == [held[0].name, held[-1].name]
    assert [net.has("mask", layer) for layer in held] == [x.pattern != DENSE for x in held]


@pytest.mark.parametrize("name", PRUNED)
def test_masks_obey_their_pattern_and_hold_what_is_declared(name):
    net = trace(name)
    kept = total = 0
    for layer in pruned_layers(net.workload):
        mask, weights = net.weight_mask(layer), net.weights(layer)
        assert layer.pattern.check(mask) == []
        assert layer.pattern.kept(*mask.shape) in (None, mask.sum())
        np.testing.assert_array_equal(layer.pattern.mask(weights), mask)
        kept, total = kept + mask.sum(), total + mask.size
    assert net.facts["density_of_pruned_layers"] == pytest.approx(kept / total, abs=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_bdwp_keeps_a_second_mask_along_n(network):
    net = trace(f"digits-{network}-bdwp-2of8")
    for layer in pruned_layers(net.workload):
        back = net.extra(f"backward_mask/{layer.name}")
        assert BDWP.check_backward(back) == []
        assert BDWP.check(back) != []
        assert back.mean() == 0.25
        # Chance would let a quarter agree; both masks keep the same large weights.
        assert 0.35 < (back & net.weight_mask(layer)).sum() / back.sum() < 1


@needs_report
@pytest.mark.parametrize("name", NAMES)
def test_numpy_finds_the_accuracy_of_the_header(name):
    logits, _ = run(name)
    net = trace(name)
    labels, accuracy = net.extra("test_labels"), net.facts["accuracy"]
    assert len(labels) == accuracy["images"] == 360
    right = int((logits.argmax(axis=1) == labels).sum())
    assert right == accuracy["correct"]
    assert accuracy["percent"] == pytest.approx(100 * right / 360, abs=1e-4)
    ordered = np.sort(logits, axis=1)
    margin = float((ordered[:, -1] - ordered[:, -2]).min())
    assert margin == pytest.approx(net.facts["least_margin"], rel=1e-2, abs=1e-4)


@needs_report
@pytest.mark.parametrize("name", NAMES)
def test_the_report_says_the_same(name):
    network, variant = parts(name)
    table = pd.read_csv(REPORT / "accuracy.csv")
    seed = trace(name).facts["training"]["seed"]
    row = table[(table.network == network) & (table.variant == variant) & (table.seed == seed)]
    assert row.correct.tolist() == [trace(name).facts["accuracy"]["correct"]]
    assert row.density.tolist() == [trace(name).facts["density_of_pruned_layers"]]


@needs_report
@pytest.mark.parametrize("name", ["digits-cnn-2of4", "digits-cnn-unstructured"])
def test_another_order_of_k_would_not_work(name):
    weights, extra = learned(trace(name))
    conv = weights["conv2"]
    channel_slowest = conv.reshape(9, 32, 64).transpose(1, 0, 2).reshape(conv.shape)
    logits, _ = forward().cnn(extra["test_images"], weights | {"conv2": channel_slowest}, extra)
    assert (logits.argmax(axis=1) == extra["test_labels"]).mean() < 0.8


@needs_report
@pytest.mark.parametrize("name", NAMES)
def test_activation_masks_are_those_of_the_traced_batch(name):
    """Rounding may move an activation across zero: about one in a million."""
    _, seen = run(name)
    assert seen.keys() == {layer.name for layer in trace(name).workload}
    for layer, x in seen.items():
        mask = trace(name).activation_mask(layer, 0)
        assert mask.size == x.size
        assert (mask.ravel() != (x != 0).ravel()).mean() < 1e-4, layer


@pytest.mark.parametrize("name", NAMES)
def test_relu_and_the_background_leave_zeros(name):
    net = trace(name)
    first = NETWORKS[parts(name)[0]][0]
    images = net.extra("test_images")[: net.inputs["images"][0]]
    assert net.activation_density(first)[0] == (images != 0).mean()
    after_relu = ("conv2", "conv3", "fc1", "fc2", "block0.down", "block1.down")
    for layer in net.workload:
        if layer.name in after_relu:
            assert 0.01 < net.activation_density(layer)[0] < 0.95
        elif layer.name != first:
            assert net.activation_density(layer)[0] == 1


def test_all_hold_the_same_test_images():
    one = trace(NAMES[0])
    assert np.bincount(one.extra("test_labels"), minlength=10).min() > 20
    for name in NAMES[1:]:
        for array in ("extra/test_images", "extra/test_labels"):
            assert trace(name).header.arrays[array] == one.header.arrays[array]


@pytest.mark.parametrize("name", NAMES)
def test_simulates(name):
    net = load_workload(path(name))
    found = accsim.simulate(net, accsim.load_hardware("systolic_nm_32x32"), masks=masks_of(net))
    modes = dict(zip((layer.name for layer in net), found.columns["mode"], strict=True))
    for layer in net:
        if PATTERNS[parts(name)[1]] in ("2:4", "2:8") and layer.pattern != DENSE:
            assert modes[layer.name] == "2:4"
        elif layer.pattern == DENSE:
            assert modes[layer.name] == "dense"
        else:
            assert modes[layer.name] in ("dense", "adaptive")


class ByHand(Masks):
    def __init__(self, weights):
        super().__init__()
        self.values = weights

    def mask(self, layer):
        values = self.values.get(layer.name)
        return super().mask(layer) if values is None or layer.pattern == DENSE else values != 0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("hardware", ["systolic_nm_16x16", "systolic_nm8_32x32"])
def test_an_adaptive_array_follows_the_recorded_masks(network, hardware):
    net = replayed(trace(f"digits-{network}-unstructured")).with_dtype("int8")
    device = accsim.load_hardware(hardware)
    found = accsim.simulate(net, device, masks=masks_of(net))
    weights, _ = learned(net.trace)
    by_hand = accsim.simulate(net, device, masks=ByHand(weights))
    synthetic = accsim.simulate(net, device, masks=Masks())
    assert "adaptive" in found.columns["mode"]
    assert found.cycles == by_hand.cycles != synthetic.cycles
