"""`accsim run` with patterns, schemes, run-time sparsity and what masks leave of the weights."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import accsim
from accsim.cli import app
from accsim.sparsity.masks import Masks

HW = ("--hw", "systolic_nm_32x32")
PATTERNS = ("64:2:8", "bsr:16@0.75", "cv:8@0.75", "ob:4@0.9", "balanced:64@0.75", "hss:2:4+4:8",
            "group:filter@0.5", "unstructured@0.9", "columns:16", "tw:64@0.75", "tvw:64@0.75",
            "tew:64@0.76+0.01", "transposable:2:8", "bidirectional:2:8")  # fmt: skip


@pytest.fixture
def ok():
    def run(*words):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_runs_and_counts_its_own_masks(ok, pattern):
    net = "resnet18:layer2.0.*"
    found = json.loads(ok("run", net, *HW, "--pattern", pattern, "--quality", "--json"))
    layers = accsim.load_workload("resnet18").prune(pattern).select("layer2.0.*").layers
    masks = Masks(0)
    for i, layer in enumerate(layers):
        kept = int(masks.mask(layer).sum())
        assert found["layers"]["effective_macs"][i] == kept * layer.gemm.t * layer.runs
        retained = accsim.retained_magnitude(masks.weights(layer), masks.mask(layer))
        assert found["layers"]["retained_magnitude"][i] == pytest.approx(retained, rel=1e-6)
    assert 0 < found["totals"]["retained_magnitude"] < found["totals"]["retained_energy"] < 1


def test_quality_is_said_beside_cost(ok):
    text = ok("run", "resnet18:fc", *HW, "--pattern", "2:4", "--quality")
    assert "of |w|" in text
    assert "weights: synthetic, with scales" in text
    assert "nothing is pruned" in ok("run", "resnet18:fc", *HW, "--quality")


def test_plain_noise_is_for_those_who_ask(ok):
    words = ("run", "resnet18:fc", *HW, "--pattern", "tvw:128@0.75", "--quality", "--json")
    scaled, plain = (json.loads(ok(*words, *more)) for more in ((), ("--iid",)))
    kept = [x["totals"]["retained_magnitude"] for x in (scaled, plain)]
    assert kept[0] > 0.5 > 0.42 > kept[1]


def test_a_trace_says_only_what_it_knows(ok, tmp_path):
    """Masks without weights: no quality. Weights before pruning: that of the mask on them."""
    weights = accsim.synthetic_weights(64, 32)
    mask = accsim.pattern("unstructured@0.8").mask(weights)
    np.save(tmp_path / "m.npy", mask)
    assert "not known" in ok("run", str(tmp_path / "m.npy"), *HW, "--quality")
    assert '"retained_magnitude": "nan"' in ok(
        "run", str(tmp_path / "m.npy"), *HW, "--quality", "--json"
    )
    np.save(tmp_path / "w.npy", weights)
    text = ok("run", str(tmp_path / "w.npy"), *HW, "--pattern", "unstructured@0.8", "--quality")
    kept = accsim.retained_magnitude(weights, mask)
    assert f"{kept:.1%} of |w|" in text
    assert "the trace's weights" in text


def test_a_scheme_runs_what_is_really_computed(ok):
    found = json.loads(ok("run", "resnet18:fc", *HW, "--scheme", "lowrank:8+2:4", "--json"))
    names = found["layers"]["layer"]
    assert {name.removeprefix("fc.") for name in names} == {"lowrank.a", "lowrank.b", "sparse"}
    assert sum(found["layers"]["macs"]) == 512 * 8 + 8 * 1000 + 512 * 1000


def test_routing_is_drawn_by_the_seed(ok):
    words = ("run", "mixtral-8x7b-decode", "--hw", "systolic_ws_128x128", "--batch", "16",
             "--dynamic", "moe:8,2")  # fmt: skip
    first, again, other = (ok(*words, "--seed", seed, "--json") for seed in ("1", "1", "2"))
    assert first == again != other


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scheme", "lowrnk:4"], "did you mean 'lowrank'"),
        (["--dynamic", "windw:4"], "did you mean 'window'"),
        (["--pattern", "bsr:0@0.5"], "bsr"),
        (["--pattern", "hss:2:4"], "hss needs 2 to 4 ranks"),
    ],
)
def test_what_is_wrong_is_one_line(words, says):
    result = CliRunner().invoke(app, ["run", "bert-base", *HW, *words], standalone_mode=False)
    assert isinstance(result.exception, accsim.InputError)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)
