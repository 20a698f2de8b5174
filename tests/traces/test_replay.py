"""A traced network simulated: the device sees the recorded masks, and nothing else changes."""

import numpy as np
import pytest
from traces.samples import network, trace

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.masks import Masks
from accsim.spec.workload import Workload
from accsim.traces.draft import make_trace
from accsim.traces.load import load_workload, suffixes
from accsim.traces.pattern import TRACED
from accsim.traces.replay import TracedWorkload, TraceMasks, masks_of, replayed
from accsim.traces.trace import write_trace

K, N = 160, 80


def clustered(seed=0):
    """A mask no synthetic weights would give: its first rows nearly full, a few full ones below."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((K, N), dtype=bool)
    mask[: K // 8] = rng.random((K // 8, N)) < 0.9
    mask[rng.random(K) < 0.05] = True
    return mask


def traced(mask, pattern=TRACED, **given):
    net = accsim.gemm(64, K, N).prune(pattern)
    return make_trace(net, masks={"gemm": mask}, **given)


class ByHand(Masks):
    def __init__(self, mask):
        super().__init__()
        self.made = mask

    def mask(self, layer):
        return self.made


def device(dataflow="ws"):
    return accsim.load_hardware("systolic_nm_32x32", {"dataflow": dataflow})


@pytest.mark.parametrize("pattern", [TRACED, "unstructured@0.8"])
@pytest.mark.parametrize(
    ("dataflow", "level"),
    [("ws", "closed"), ("os", "closed"), ("is", "closed"), ("os", "events"), ("os", "register")],
)
def test_cycles_are_those_of_the_recorded_mask(dataflow, level, pattern):
    mask, hw = clustered(), device(dataflow)
    net = replayed(traced(mask, pattern))
    found = accsim.simulate(net, hw, level=level, masks=masks_of(net))
    plain = accsim.gemm(64, K, N).prune(pattern)
    by_hand = accsim.simulate(plain, hw, level=level, masks=ByHand(mask))
    synthetic = accsim.simulate(plain, hw, level=level)
    assert found.columns["mode"] == ["adaptive"]
    assert found.cycles == by_hand.cycles != synthetic.cycles
    assert found.columns["effective_macs"] == by_hand.columns["effective_macs"]
    assert found.energy_j == by_hand.energy_j


def test_equal_layers_with_masks_of_their_own_are_told_apart():
    """On a device that runs them dense, too, each has its own count of kept weights."""
    layers = [accsim.gemm(8, K, N, name=f"l{i}").prune(TRACED).layers[0] for i in range(2)]
    masks = {"l0": clustered(), "l1": np.eye(K, N, dtype=bool)}
    net = replayed(make_trace(Workload(name="two", layers=tuple(layers)), masks=masks))
    found = accsim.simulate(net, accsim.load_hardware("systolic_ws_32x32"), masks=masks_of(net))
    kept = [int(mask.sum()) * 8 for mask in masks.values()]
    assert list(found.columns["effective_macs"]) == kept


def test_layers_not_recorded_are_synthetic():
    masks = TraceMasks(traced(clustered()), seed=5)
    other = accsim.gemm(8, 32, 16, name="other").prune("2:4").layers[0]
    np.testing.assert_array_equal(masks.mask(other), Masks(5).mask(other))
    np.testing.assert_array_equal(masks.weights(other), Masks(5).weights(other))
    assert (masks.seed, masks.iid) == (5, False)


def test_recorded_weights_take_the_place_of_synthetic_ones():
    values = np.random.default_rng(3).standard_normal((K, N)).astype(np.float16)
    net = make_trace(accsim.gemm(64, K, N), weights={"gemm": values})
    masks = TraceMasks(net)
    dense = net.workload.layers[0]
    assert masks.weights(dense).dtype == np.float32
    np.testing.assert_array_equal(masks.weights(dense), values.astype(np.float32))
    assert masks.mask(dense).all()
    pruned = replayed(net).prune("2:4")
    expected = accsim.pattern("2:4").mask(values.astype(np.float32))
    np.testing.assert_array_equal(masks_of(pruned).mask(pruned.layers[0]), expected)


def test_pruned_anew_the_recorded_mask_no_longer_counts():
    net = replayed(traced(clustered()))
    np.testing.assert_array_equal(masks_of(net).mask(net.layers[0]), clustered())
    again = net.prune("2:4").layers[0]
    np.testing.assert_array_equal(masks_of(net).mask(again), Masks().mask(again))
    dense = net.prune("dense").layers[0]
    assert masks_of(net).mask(dense).all()
    always = replayed(traced(clustered(), "dense"))
    assert masks_of(always).mask(always.layers[0]).all()


def test_runs_with_masks_of_their_own_are_stood_for_by_the_median():
    masks = np.zeros((3, 4, 3), dtype=bool)
    masks[0, :3], masks[1, :1], masks[2, :2] = True, True, True
    layer = network().layer("heads")
    net = Workload(name="net", layers=(layer,))
    replay = TraceMasks(make_trace(net, masks={"heads": masks}))
    np.testing.assert_array_equal(replay.mask(layer), masks[2])


def test_another_shape_under_the_same_name_is_refused():
    masks = TraceMasks(traced(clustered()))
    other = accsim.gemm(64, K, N + 1).prune(TRACED).layers[0]
    with pytest.raises(
        InputError, match="'gemm' must have the trace's k × n of 160 × 80; got 160 × 81"
    ):
        masks.mask(other)


def test_traced_without_a_mask_is_refused():
    masks = TraceMasks(traced(clustered()))
    with pytest.raises(InputError, match=r"layer 'gemm2' is traced, but .* has no mask of it"):
        masks.mask(accsim.gemm(64, K, N, name="gemm2").prune(TRACED).layers[0])


def test_the_network_keeps_its_trace_through_every_change():
    net = replayed(trace())
    assert net.sources[-1] == f"trace sha256:{trace().digest}"
    for changed in (
        net.prune("2:4"), net.select("fc"), net.with_batch(3), net.with_dtype("bf16"),
        net.model_copy(deep=True),
    ):  # fmt: skip
        assert isinstance(changed, TracedWorkload)
        assert isinstance(masks_of(changed), TraceMasks)
        assert changed.trace.digest == trace().digest
    assert type(masks_of(accsim.gemm(1, 1, 1))) is Masks


def test_load_workload_takes_every_format(tmp_path, monkeypatch):
    write_trace(tmp_path / "NET.TRACE", trace())
    (tmp_path / "m.smtx").write_text("3, 4, 3\n0 2 2 3\n1 3 0\n")
    np.save(tmp_path / "m.npy", np.eye(4))
    monkeypatch.chdir(tmp_path)  # a bare file name is a path, not a catalogue name
    assert load_workload("NET.TRACE", dtype="bf16").layers[1].dtype == "bf16"
    assert load_workload("m.smtx", batch=2).layers[0].gemm.t == 512
    assert load_workload(tmp_path / "m.npy").layers[0].gemm.k == 4
    (tmp_path / "g.csv").write_text("Layer, M, N, K,\nfc, 8, 16, 32,\n")
    assert load_workload("g.csv").macs == 8 * 16 * 32
    assert load_workload("resnet50", batch=4) == accsim.load_workload("resnet50", batch=4)
    assert {".trace", ".yaml", ".csv", ".smtx"} <= set(suffixes())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.trace", "none.trace: no such file"),
        ("resnet5", "no workload called 'resnet5', did you mean 'resnet50'"),
        ("net.doc", "suffix must be one of .csv, .mtx, .*; got '.doc'"),
        (3, "must be a word; got 3"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.doc").write_text("")
    with pytest.raises(InputError, match=message):
        load_workload(name)


def test_a_mask_that_breaks_its_claim_stops_the_load(tmp_path):
    path = write_trace(tmp_path / "a.trace", traced(np.ones((K, N), dtype=bool), "2:4"))
    with pytest.raises(InputError, match=r"a.trace: layer 'gemm': the mask is not 2:4"):
        load_workload(path)


def test_other_packages_add_formats(tmp_path, monkeypatch):
    class Point:
        name = "foo"

        @staticmethod
        def load():
            return lambda path: accsim.gemm(1, 2, 3, name=path.stem)

    monkeypatch.setattr("accsim.traces.load.entry_points", lambda group: [Point])
    assert load_workload(tmp_path / "a.foo").name == "a_1x2x3"
    assert ".foo" in suffixes()
