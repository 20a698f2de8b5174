"""Token counts by block: pruning, exit, depth; DynamicViT's published work."""

import math

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.dynamic import apply_dynamic, dynamics, parse_dynamic
from accsim.spec.workload import Layer, Linear, Matmul, Workload


def vit(tokens, width, heads, blocks=12):
    """An encoder with DeiT's layers, and its patch embedding and classifier."""
    shapes = {"q_proj": (1, 1), "k_proj": (1, 1), "v_proj": (1, 1), "o_proj": (1, 1),
              "up_proj": (1, 4), "down_proj": (4, 1)}  # fmt: skip
    layers = []
    for b in range(blocks):
        for name, (k, n) in shapes.items():
            op = Linear(in_features=k * width, out_features=n * width, tokens=tokens)
            layers.append(Layer(name=f"b.{b}.{name}", op=op))
        head = width // heads
        qk, av = Matmul(t=tokens, k=head, n=tokens), Matmul(t=tokens, k=tokens, n=head)
        layers.append(Layer(name=f"b.{b}.qk", op=qk, repeats=heads))
        layers.append(Layer(name=f"b.{b}.av", op=av, repeats=heads))
    layers.append(Layer(name="patches", op=Linear(in_features=768, out_features=width, tokens=196)))
    layers.append(Layer(name="head", op=Linear(in_features=width, out_features=1000)))
    return Workload(name="vit", layers=tuple(layers))


DYNAMICVIT = "tokens:3@0.7,6@0.7,9@0.7,fixed=1"


@pytest.mark.parametrize(
    ("width", "heads", "whole_g", "pruned_g"), [(384, 6, 4.6, 2.9), (768, 12, 17.5, 11.4)]
)
def test_dynamicvit(width, heads, whole_g, pruned_g):
    """DeiT-S 4.6 → 2.9, DeiT-B 17.5 → 11.4 GFLOPs (sparsity_presets: DynamicViT). Predicted: within
    3 %; the published figures also count the modules that predict what to drop."""
    net = vit(197, width, heads)
    assert net.macs / 1e9 == pytest.approx(whole_g, rel=0.01)
    found = apply_dynamic(net, DYNAMICVIT)[0]
    assert found.macs / 1e9 == pytest.approx(pruned_g, rel=0.03)


def plain_macs(net, counts):
    """Layer by layer from each item's own counts."""
    total = 0
    for layer in net:
        if not layer.name.startswith("b."):
            total += layer.macs
            continue
        for item in counts[:, int(layer.name.split(".")[1])].tolist():
            op = layer.op
            if isinstance(op, Linear):
                macs = item * op.in_features * op.out_features
            else:
                macs = item * item * (op.k if layer.name.endswith("qk") else op.n)
            total += macs * layer.repeats
    return total


@pytest.mark.parametrize(
    "text", [DYNAMICVIT, "tokens:0@0.5", "exit:30@3", "exit:40@2,spread=0", "depth:1x6,2x3"]
)
@pytest.mark.parametrize("batch", [1, 5])
def test_macs_are_those_of_every_item_on_its_own(text, batch):
    text = text.replace("3@0.7,6@0.7,9@0.7", "1@0.7,3@0.5")
    net = vit(40, 12, 3, blocks=6).with_batch(batch)
    steps = apply_dynamic(net, text, 1)
    for step, workload in enumerate(steps):
        counts = steps.drawn.counts[step]
        assert counts.shape == (batch, 6)
        assert workload.macs == plain_macs(net, counts)


def test_pruning_keeps_the_shares_of_what_is_not_fixed():
    steps = apply_dynamic(vit(197, 12, 3), DYNAMICVIT)
    counts = steps.drawn.counts[0, 0].tolist()
    expected = [1 + math.ceil(196 * 0.7 ** (b // 3) - 1e-9) for b in range(12)]
    assert counts == expected
    assert counts == sorted(counts, reverse=True)


def test_an_exit_without_spread_is_exact():
    net = accsim.load_workload("llama-3-8b-prefill", batch=3)
    found = apply_dynamic(net, "exit:576@18,spread=0")
    counts = found.drawn.counts[0]
    assert (counts[:, :18] == 2048).all()
    assert (counts[:, 18:] == 2048 - 576).all()
    up = found[0].layer("model.layers.20.mlp.up_proj")
    assert (up.op.tokens, up.batch) == (1472, 3)


def test_items_leave_at_their_own_block():
    net = vit(40, 12, 3, blocks=12).with_batch(200)
    counts = apply_dynamic(net, "exit:30@6,spread=2", 0).drawn.counts[0]
    last = (counts == 40).sum(axis=1)
    assert set(np.unique(counts)) == {10, 40}
    assert len(set(last.tolist())) > 3
    assert last.std() == pytest.approx(2 * 0.5**0.5, rel=0.25)
    means = [
        (apply_dynamic(net, "exit:30@6,spread=2", seed).drawn.counts[0] == 40).sum(axis=1).mean()
        for seed in range(80)
    ]
    assert np.mean(means) == pytest.approx(6, abs=0.5)
    assert np.std(means) == pytest.approx(2**0.5, rel=0.3)


def test_depth_runs_evenly_spread_blocks():
    net = accsim.load_workload("vit-b-16")
    steps = apply_dynamic(net, "depth:3x12,7x6")
    assert len(steps) == 10
    ran = [sorted({int(x.name.split(".")[3]) for x in w if ".layer." in x.name}) for w in steps]
    assert ran[0] == list(range(12))
    assert ran[9] == [0, 2, 4, 7, 9, 11]
    per_block = sum(x.macs for x in net.select("vit.encoder.layer.0.*"))
    assert steps[0].macs - steps[9].macs == 6 * per_block


def test_a_device_runs_ragged_items():
    net = vit(40, 12, 3, blocks=4).with_batch(4)
    hardware = accsim.load_hardware("systolic_nm_32x32")
    full = accsim.simulate(net, hardware).cycles
    assert accsim.simulate(apply_dynamic(net, "exit:30@2", 1)[0], hardware).cycles < full


def test_texts_print_and_parse():
    for text in [DYNAMICVIT, "tokens:0@0.5", "exit:576@18,spread=2", "depth:3x12,7x6"]:
        assert str(parse_dynamic(text)) == text
    for grammar, summary in dynamics().values():
        assert grammar
        assert "\n" not in summary


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("token:3@0.7", "did you mean 'tokens'?"),
        ("tokens", "lacks its block@share"),
        ("tokens:3", "lacks its block@share"),
        ("tokens:3@1.2", "needs a share from 0 to 1, got '1.2'"),
        ("tokens:3@0.5,2@0.5", "needs its blocks in order, each once"),
        ("tokens:4@0.5", "names block 4; there are 4, from 0"),
        ("tokens:1@0.5,fixed=41", "keeps 41 tokens of 40"),
        ("exit:41@2", "drops 41 tokens of 40"),
        ("exit:30@0", "needs a block from 1 to 10000, got '0'"),
        ("depth:3", "needs a whole depth of at least 1, got ''"),
        ("depth:3x5", "runs 5 blocks; there are 4"),
    ],
)
def test_bad_texts_are_refused_in_one_line(text, complaint):
    with pytest.raises(InputError) as error:
        apply_dynamic(vit(40, 12, 3, blocks=4), text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_decode_and_experts_are_refused():
    with pytest.raises(InputError, match=r"'model.layers.0.self_attn.qk' works on 1 × 2048 tokens"):
        apply_dynamic(accsim.load_workload("llama-3-8b-decode"), "tokens:3@0.7")
    with pytest.raises(InputError, match="no decode, no experts"):
        apply_dynamic(accsim.load_workload("mixtral-8x7b-prefill"), "tokens:3@0.7")
    with pytest.raises(InputError, match="finds no linear layer in a numbered block"):
        apply_dynamic(accsim.load_workload("alexnet"), "tokens:3@0.7")
