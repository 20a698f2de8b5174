"""Sparse activations: densities, unions, sharing of inputs; published levels."""

import itertools
import math

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.dynamic import (
    ActivationMasks,
    Activity,
    apply_dynamic,
    fit_channel,
    parse_dynamic,
    union_density,
)
from accsim.sparsity.dynamic.activity import BLOCKFFN_CHANNEL, RELU_CHANNEL, Input
from accsim.sparsity.presets import Row, preset, presets
from accsim.spec.workload import Layer, Linear, Workload, gemm

# --- the model


def test_independent_draws_leave_17_percent():
    """Facts: 20 % of the experts for one token, 8 tokens, no correlation."""
    assert 1 - union_density(0.2, 0.0, 8) == pytest.approx(0.8**8, abs=1e-9)
    assert 1 - union_density(0.2, 0.0, 8) == pytest.approx(0.17, abs=0.005)


def test_blockffn_is_fitted_to_its_two_numbers():
    """Fitted: > 80 % sparse for one token, >= 70 % for 8."""
    assert fit_channel(0.2, 0.3, 8) == pytest.approx(BLOCKFFN_CHANNEL, abs=5e-5)
    assert union_density(0.2, BLOCKFFN_CHANNEL, 1) == pytest.approx(0.2, abs=1e-6)
    assert union_density(0.2, BLOCKFFN_CHANNEL, 8) == pytest.approx(0.3, abs=1e-4)


def plain_union(density, channel, window):
    """The same integral by adaptive bisection of the u axis, in plain Python."""
    q = 0.0
    low, high = -10.0, 10.0
    for _ in range(80):  # the threshold by bisection of erf
        q = (low + high) / 2
        low, high = (q, high) if 0.5 * math.erfc(q / math.sqrt(2)) > density else (low, q)

    def f(u):
        below = (q - math.sqrt(channel) * u) / math.sqrt(1 - channel)
        on = 1 - (0.5 * math.erfc(-below / math.sqrt(2))) ** window
        return on * math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    def simpson(a, b, depth):
        m = (a + b) / 2
        whole = (b - a) / 6 * (f(a) + 4 * f(m) + f(b))
        left = (m - a) / 6 * (f(a) + 4 * f((a + m) / 2) + f(m))
        right = (b - m) / 6 * (f(m) + 4 * f((m + b) / 2) + f(b))
        if depth > 24 or (depth > 5 and abs(left + right - whole) < 1e-11):
            return left + right
        return simpson(a, m, depth + 1) + simpson(m, b, depth + 1)

    return simpson(-9.0, 9.0, 0)


@pytest.mark.parametrize(
    ("density", "channel", "window"), [(0.2, 0.9475, 8), (0.5, 0.6, 3), (0.05, 0.99, 20)]
)
def test_the_union_is_the_integral(density, channel, window):
    assert union_density(density, channel, window) == pytest.approx(
        plain_union(density, channel, window), abs=1e-7
    )


def test_unions_grow_with_tokens_and_shrink_with_correlation():
    for density in (0.05, 0.2, 0.5, 0.9):
        for channel in (0.0, 0.3, 0.8, 0.99):
            unions = [union_density(density, channel, n) for n in (1, 2, 4, 8, 64)]
            assert unions[0] == pytest.approx(density, abs=1e-6)
            assert unions == sorted(unions)
        along = [union_density(density, c / 10, 8) for c in range(11)]
        assert along == sorted(along, reverse=True)
        assert along[-1] == density


def test_a_union_no_correlation_reaches_is_refused():
    with pytest.raises(InputError, match=r"lies between 0.2 and 0.8322 .*; got 0.9"):
        fit_channel(0.2, 0.9, 8)
    with pytest.raises(InputError, match=r"got 0.1"):
        fit_channel(0.2, 0.1, 8)


# Real ReLU activations (masks of Sparseloop's MobileNet-0.5, counted by us): density, and the
# union of 2, 4, 8, 16 neighbouring pixels. The correlation was fitted to the unions of 8.
MOBILENET = {
    "L07": (0.728, 0.780, 0.829, 0.864, 0.891),
    "L09": (0.864, 0.904, 0.942, 0.967, 0.979),
    "L13": (0.833, 0.879, 0.920, 0.942, 0.961),
    "L19": (0.608, 0.659, 0.734, 0.806, 0.858),
    "L21": (0.641, 0.680, 0.738, 0.791, 0.835),
    "L23": (0.608, 0.661, 0.739, 0.796, 0.841),
    "L25": (0.677, 0.758, 0.816, 0.869, 0.977),
    "L27": (0.583, 0.649, 0.693, 0.784, 0.838),
}


def test_the_default_correlation_is_the_median_of_real_masks():
    fits = [fit_channel(x[0], x[3], 8) for x in MOBILENET.values()]
    assert np.median(fits) == pytest.approx(RELU_CHANNEL, abs=0.005)
    assert min(fits) > 0.8


def test_it_predicts_the_other_windows():
    """Predicted: windows of 2, 4 and 16 pixels, mean error under .02 of density, worst .1."""
    errors = [
        abs(union_density(real[0], RELU_CHANNEL, window) - real[i])
        for real in MOBILENET.values()
        for i, window in ((1, 2), (2, 4), (4, 16))
    ]
    assert np.mean(errors) < 0.025
    assert max(errors) < 0.1


# --- the draws


def masks_of(density, tokens, channels, activity, seed=0):
    found = Input(site="x", tokens=tokens, channels=channels, density=density)
    return ActivationMasks(seed, activity, {"l": found})


@pytest.mark.parametrize(("density", "channel"), [(0.2, 0.9475), (0.5, 0.857), (0.1, 0.0)])
def test_drawn_densities_and_unions_meet_the_integral(density, channel):
    channels, seeds = 2000, 12
    for window in (1, 2, 8):
        drawn = [
            masks_of(density, window, channels, Activity(channel, 0.0), seed).union("l").mean()
            for seed in range(seeds)
        ]
        p = union_density(density, channel, window)
        assert np.mean(drawn) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / channels / seeds))


def test_tokens_differ_in_density_as_the_token_share_says():
    even = masks_of(0.3, 60, 3000, Activity(0.5, 0.0)).mask("l").mean(axis=1)
    uneven = masks_of(0.3, 60, 3000, Activity(0.5, 0.3)).mask("l").mean(axis=1)
    assert even.std() < 0.015 < 0.1 < uneven.std()


def test_topk_is_exact_for_every_token():
    masks = masks_of(0.3, 20, 101, Activity(topk=True))
    assert (masks.mask("l").sum(axis=1) == round(0.3 * 101)).all()


def test_a_mask_is_what_its_latents_say():
    """Twin: threshold and top-k in plain Python."""
    for topk in (False, True):
        activity = Activity(0.6, 0.1, topk)
        mask = masks_of(0.25, 5, 40, activity, seed=3).mask("l", step=2)
        for row, token in enumerate(range(10, 15)):
            z = [float(x) for x in activity.latent(3, "x", token, 40)]
            if topk:
                best = sorted(range(40), key=lambda c: (-z[c], c))[:10]
                assert sorted(np.flatnonzero(mask[row])) == sorted(best)
            else:
                assert mask[row].tolist() == [x > 0.6744897501960817 for x in z]


def test_masks_do_not_depend_on_how_tokens_are_cut_in_steps():
    whole = masks_of(0.4, 12, 50, Activity()).mask("l")
    parts = [masks_of(0.4, 3, 50, Activity()).mask("l", step) for step in (3, 0, 2, 1)]
    assert np.array_equal(whole, np.vstack([parts[i] for i in (1, 3, 2, 0)]))
    assert np.array_equal(masks_of(0.4, 12, 50, Activity()).union("l"), whole.any(axis=0))
    assert not np.array_equal(whole, masks_of(0.4, 12, 50, Activity(), seed=1).mask("l"))


@pytest.mark.parametrize(("density", "kept"), [(0.0, 0), (1.0, 30)])
def test_nothing_and_everything(density, kept):
    for topk in (False, True):
        assert masks_of(density, 2, 30, Activity(topk=topk)).mask("l").sum() == 2 * kept


# --- act


def test_the_layers_have_the_extents_of_their_unions():
    net = gemm(6, 300, 40)
    steps = apply_dynamic(net, "act:0.8,steps=3", 5)
    assert len(steps) == 3
    for step, workload in enumerate(steps):
        mask = steps.drawn.mask("gemm", step)
        assert mask.shape == (6, 300)
        needed = sum(any(mask[t, c] for t in range(6)) for c in range(300))
        (layer,) = workload.layers
        assert (layer.gemm.t, layer.gemm.k, layer.gemm.n) == (6, needed, 40)
    assert [x.macs for x in steps[:]] == [x.macs for x in steps]
    assert steps[-1] == steps[2]
    assert steps.merged().macs == sum(x.macs for x in steps)
    with pytest.raises(IndexError):
        steps[3]


def test_layers_of_one_input_share_its_mask():
    net = accsim.load_workload("llama-3-8b-decode")
    masks = apply_dynamic(net, "act:teal:Llama-3-8B@0.5", 0).drawn
    q, k, v = (f"model.layers.3.self_attn.{x}_proj" for x in "qkv")
    dense, sparse = sorted((q, k), key=lambda x: masks.input(x).density, reverse=True)
    assert masks.input(dense).density > masks.input(sparse).density
    assert not (masks.mask(sparse) & ~masks.mask(dense)).any()
    gate, up = (f"model.layers.3.mlp.{x}_proj" for x in ("gate", "up"))
    assert masks.input(gate).site == masks.input(up).site != masks.input(q).site
    assert masks.input(q).site == masks.input(v).site != masks.input(q.replace("3", "4")).site
    with pytest.raises(InputError, match="did you mean"):
        masks.mask(q + "x")


@pytest.mark.parametrize("target", [0.25, 0.4, 0.5, 0.65])
def test_teal_blocks_have_their_effective_sparsity(target):
    """Predicted: TEAL's seven sparsities of a block, weighted by its weights, against its own
    `effective_sparsity` (published to 4 digits, sparsities to 3)."""
    found = preset(f"teal:Llama-3-8B@{target}")
    sizes = {"q": 4096**2, "k": 4096 * 1024, "v": 4096 * 1024, "o": 4096**2}
    sizes |= dict.fromkeys(("gate", "up", "down"), 4096 * 14336)
    for block in range(32):
        rows = {role: found.row(f"{block}.{role}") for role in sizes}
        sparse = sum(size * (1 - rows[role].middle) for role, size in sizes.items())
        published = float(rows["q"].note.split()[2])
        assert sparse / sum(sizes.values()) == pytest.approx(published, abs=0.002)


def test_half_the_weights_of_a_decode_step_are_skipped_at_teal_50():
    net = accsim.load_workload("llama-3-8b-decode")
    blocks = net.select("model.layers.*_proj")
    left = apply_dynamic(blocks, "act:teal:Llama-3-8B@0.5,topk", 0)[0].macs
    assert left / blocks.macs == pytest.approx(0.5, abs=0.005)


def test_only_blocks_are_thinned_where_there_are_any():
    net = accsim.load_workload("llama-3-8b-decode")
    head = apply_dynamic(net, "act:0.5", 0)[0].layer("lm_head")
    assert head == net.layer("lm_head")
    assert apply_dynamic(net.select("lm_head"), "act:0.5,topk")[0].layers[0].gemm.k == 2048


# --- rsparse


def test_large_and_rest_make_up_the_dense_product():
    """x_large·W_large + x_rest·B·A is x times the matrix with its other rows replaced by B·A."""
    rng = np.random.default_rng(0)
    t, k, n, rank = 3, 60, 20, 4
    steps = apply_dynamic(gemm(t, k, n), f"rsparse:{rank}@0.7", 1)
    union = steps.drawn.union("gemm")
    large, down, up = steps[0].layers
    x, w = rng.standard_normal((t, k)), rng.standard_normal((k, n))
    b, a = rng.standard_normal((k, rank)), rng.standard_normal((rank, n))
    whole = np.where(union[:, None], w, b @ a)
    split = x[:, union] @ w[union] + (x[:, ~union] @ b[~union]) @ a
    np.testing.assert_allclose(split, x @ whole)
    assert (large.gemm.k, large.gemm.n) == (union.sum(), n)
    assert (down.gemm.k, down.gemm.n) == ((~union).sum(), rank)
    assert (up.gemm.k, up.gemm.n) == (rank, n)
    assert {x.gemm.t for x in (large, down, up)} == {t}


def test_no_rest_no_path():
    assert [x.name for x in apply_dynamic(gemm(2, 9, 3), "rsparse:4@0")[0]] == ["gemm.large"]


# --- blockffn


def test_blockffn_layers_have_whole_experts():
    net = accsim.load_workload("llama-3-8b-decode", batch=8)
    steps = apply_dynamic(net, "blockffn:56", 2)
    per = 14336 // 56
    shares = []
    for block in range(32):
        names = [f"model.layers.{block}.mlp.{x}_proj" for x in ("gate", "up", "down")]
        gate, up, down = (steps[0].layer(name).gemm for name in names)
        assert gate.n == up.n == down.k
        assert gate.n % per == 0
        assert gate.n // per == steps.drawn.union(names[2]).sum()
        shares.append(gate.n / 14336)
    assert np.mean(shares) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 56 / 32))


# --- what is refused, and texts


def test_texts_print_and_parse():
    for text in [
        "act:0.5", "act:0.5,topk", "act:teal:Llama-3-8B@0.5,channel=0.5,steps=4",
        "act:0.25,token=0.1", "rsparse:128@0.5", "rsparse:8@0.5,topk,steps=2",
        "blockffn:56,density=0.2,union=0.3,window=8", "blockffn:8,density=0.1,union=0.2,window=4",
    ]:  # fmt: skip
        assert str(parse_dynamic(text)) == text
        assert parse_dynamic(f" {text} ") == parse_dynamic(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("acd:0.5", "did you mean 'act'?"),
        ("act", "lacks its sparsity or preset"),
        ("act:1", "needs a sparsity below 1, got '1'"),
        ("act:half", "needs a sparsity from 0 to 1, got 'half'"),
        ("act:teal:Llama-3-8b@0.5", "did you mean 'teal:Llama-3-8B@0.5'?"),
        ("act:0.5,chanel=0.2", "has no option 'chanel', did you mean 'channel'?"),
        ("act:0.5,channel=0.7,token=0.7", "add up to at most 1; got 0.7 and 0.7"),
        ("act:0.5,topc", "has no 'topc', did you mean 'topk'?"),
        ("act:0.5,steps=0", "needs a whole steps of at least 1, got '0'"),
        ("act:teal:Llama-3-8B@0.5", "the preset knows no layer of"),
        ("rsparse:4", "lacks its rank@sparsity"),
        ("blockffn:8", "finds no gate, up or down layer"),
        ("blockffn:8,union=0.9", "lies between 0.2 and 0.8322"),
    ],
)
def test_bad_texts_are_refused_in_one_line(text, complaint):
    with pytest.raises(InputError) as error:
        apply_dynamic(gemm(2, 24, 18), text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_pruned_layers_and_odd_experts_are_refused():
    with pytest.raises(InputError, match="'gemm' is pruned to 2:4"):
        apply_dynamic(gemm(2, 24, 18).prune("2:4"), "act:0.5")
    net = accsim.load_workload("llama-3-8b-decode")
    with pytest.raises(InputError, match="14336 neurons; they must divide into 48 experts"):
        apply_dynamic(net, "blockffn:48")
    with pytest.raises(InputError, match="finds no linear layer"):
        apply_dynamic(net, "act:0.5", 0, ["*.qk"])


def test_a_layer_without_inputs_vanishes():
    layers = [Layer(name=x, op=Linear(in_features=8, out_features=2)) for x in ("a", "b")]
    net = Workload(name="w", layers=tuple(layers))
    assert [x.name for x in apply_dynamic(net, "act:0.99,topk", 0, ["a"])[0]] == ["b"]
    with pytest.raises(InputError, match="nothing of 'w' is left to compute"):
        apply_dynamic(net, "act:0.99,topk")[0]


# --- presets


def test_every_row_has_a_source_and_a_kind():
    assert len(presets()) == len(set(presets())) > 40
    for name in presets():
        for row in preset(name).rows:
            assert row.source
            assert row.kind
            assert 0 <= row.low <= row.high <= 1


def test_presets_say_what_the_facts_say():
    assert preset("BlockFFN_CLS8").rows[0].high == 0.3
    assert preset("moe_Mixtral-8x7B").rows[0].middle == 2 / 8
    stages = [row.middle for row in preset("dynamicvit_0.7").rows]
    assert stages == pytest.approx(list(itertools.accumulate([0.7] * 3, lambda a, b: a * b)))
    assert preset("sparge_75k_video").rows[0].middle == pytest.approx(0.3)


def test_nothing_without_a_licence_is_shipped():
    sources = {row.source for name in presets() for row in preset(name).rows}
    assert not [x for x in sources if "sparseloop" in x.lower() or "DLMC" in x]


def test_unknown_presets_and_scopes_are_refused():
    with pytest.raises(InputError, match="no preset is called 'blockffn_cls8', did you mean"):
        preset("blockffn_cls8")
    with pytest.raises(InputError, match="has no scope 'expert', did you mean 'experts'"):
        preset("moe_Mixtral-8x7B").row("expert")
    with pytest.raises(InputError, match="0 <= low <= high <= 1"):
        Row(scope="", operand="", low=0.5, high=0.4, structure="", note="", kind="", source="x")
