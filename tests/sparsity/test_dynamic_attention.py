"""Attention masks: causality, closed forms of density, the products they leave."""

import numpy as np
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.dynamic import BlockMask, apply_dynamic, masks, parse_dynamic
from accsim.spec.workload import Layer, Matmul, Workload

SHAPES = [(1, 1), (1, 9), (7, 7), (12, 12), (5, 13), (16, 16), (10, 64)]


def attention(tq, tk, heads=2, width=4):
    qk, av = Matmul(t=tq, k=width, n=tk), Matmul(t=tq, k=tk, n=width)
    layers = (
        Layer(name="b.0.qk", op=qk, repeats=heads),
        Layer(name="b.0.av", op=av, repeats=heads),
    )
    return Workload(name="a", layers=layers)


def plain_window(tq, tk, width, causal):
    """Pair by pair: may query i see key j?"""
    mask = np.zeros((1, tq, tk), bool)
    for i in range(tq):
        for j in range(tk):
            ahead = j - (i + tk - tq)
            mask[0, i, j] = (ahead <= 0 or not causal) and (width is None or abs(ahead) < width)
    return mask


@pytest.mark.parametrize(("tq", "tk"), SHAPES)
@pytest.mark.parametrize("block", [1, 2, 3, 8])
@pytest.mark.parametrize("width", [None, 1, 2, 5, 100])
@pytest.mark.parametrize("causal", [True, False])
def test_windows_are_the_blocks_of_their_pairs(tq, tk, block, width, causal):
    found = masks.window(2, tq, tk, block, width, causal=causal)
    pairs = plain_window(tq, tk, width, causal)
    assert np.array_equal(found.kept[0], masks.of_elements(pairs, block).kept[0])
    assert (pairs[0] <= found.elements()[0]).all()
    assert found.scores == found.elements().sum()
    if block == 1:
        assert np.array_equal(found.elements()[1], pairs[0])


def test_no_query_sees_a_block_that_lies_ahead():
    for tq, tk in SHAPES:
        for block in (1, 4):
            kept = masks.window(1, tq, tk, block).kept[0]
            for row, column in zip(*np.nonzero(kept), strict=True):
                last = min((row + 1) * block, tq) - 1 + tk - tq
                assert column * block <= last
            assert kept.any(axis=1).all()


@pytest.mark.parametrize(("extent", "block"), [(2048, 64), (2048, 1), (96, 8)])
def test_densities_of_causal_and_window_are_closed_forms(extent, block):
    blocks = extent // block
    causal = masks.window(1, extent, extent, block)
    assert causal.density == pytest.approx((blocks + 1) / (2 * blocks), rel=1e-12)
    if block == 1:
        width = 100
        narrow = masks.window(1, extent, extent, 1, width)
        assert narrow.scores == extent * width - width * (width - 1) // 2
    else:
        wide = masks.window(1, extent, extent, block, 2 * block + 1)  # two whole blocks back
        band = sum(min(row + 1, 3) for row in range(blocks))
        assert wide.density == pytest.approx(band / blocks**2)


def test_bigbird_has_its_band_its_globals_and_its_random_blocks():
    count, window, globals_, randoms = 32, 3, 2, 3
    found = masks.big_bird(
        4, count * 8, 8, window=window, globals_=globals_, randoms=randoms, seed=1, name="l"
    )
    for head in range(4):
        for row in range(count):
            if row < globals_:
                assert found.kept[head, row].all()
                continue
            fixed = {c for c in range(count) if c < globals_ or abs(c - row) <= window // 2}
            kept = set(np.flatnonzero(found.kept[head, row]).tolist())
            assert fixed <= kept
            assert len(kept) == len(fixed) + randoms
    inner = found.kept[:, globals_ + 1 : -1].sum(axis=2)
    assert (inner[:, 1:] == globals_ + window + randoms).all()
    assert not np.array_equal(found.kept[0], found.kept[1])
    everything = masks.big_bird(1, 40, 8, window=3, globals_=1, randoms=99, seed=1, name="l")
    assert everything.density == 1.0


def test_top_blocks_keep_the_same_number_everywhere():
    for share, keep in ((0.3, 10), (0.001, 1), (1.0, 32)):
        found = masks.top_blocks(3, 2048, 2048, 64, share, seed=0, name="l")
        assert (found.kept.sum(axis=2) == keep).all()
        assert found.density == keep / 32


def test_heads_like_the_same_keys_again():
    """Correlated: blocks of one column are kept together more often than independent ones."""
    kept = masks.top_blocks(64, 4096, 4096, 64, 0.25, seed=0, name="l").kept
    columns = kept.mean(axis=1)
    assert columns.std() > 3 * (0.25 * 0.75 / 64) ** 0.5


# --- workloads


def computed(workload, heads, width):
    """MACs of qk and of av, from the extents of the products."""
    qk = sum(x.macs for x in workload if ".qk" in x.name)
    av = sum(x.macs for x in workload if ".av" in x.name)
    assert all(x.gemm.k == width for x in workload if ".qk" in x.name)
    return qk, av


@pytest.mark.parametrize(
    "text",
    ["causal:block=4", "window:5,block=4", "window:6,block=4,both", "bigbird:block=4",
     "sparsed:0.4,steps=1,full=0,block=4"],
)  # fmt: skip
@pytest.mark.parametrize("extent", [16, 37])
def test_the_products_compute_every_kept_score_once(text, extent):
    net = attention(extent, extent, heads=3, width=5)
    steps = apply_dynamic(net, text, 2)
    mask = steps.drawn["b.0"]
    assert isinstance(mask, BlockMask)
    qk, av = computed(steps[0], 3, 5)
    assert qk == av == mask.scores * 5 == int(mask.elements().sum()) * 5
    rows = [x for x in steps[0] if ".qk" in x.name]
    assert sum(x.gemm.t * x.repeats for x in rows) == 3 * extent


def test_decode_sees_its_whole_context():
    net = attention(1, 2048)
    assert apply_dynamic(net, "causal")[0].macs == net.macs
    narrow = apply_dynamic(net, "window:512")[0]
    assert computed(narrow, 2, 4)[0] == 2 * 512 * 4


def test_llama_prefill_halves_its_attention():
    net = accsim.load_workload("llama-3-8b-prefill")
    found = apply_dynamic(net, "causal:block=64")[0]
    scores = [x for x in net if x.name.endswith((".qk", ".av"))]
    saved = net.macs - found.macs
    assert saved == sum(x.macs for x in scores) * 31 // 64


def test_sparsed_steps():
    """Facts: full attention for the first 20 % of the steps, then the same mask in every step."""
    net = attention(128, 128)
    steps = apply_dynamic(net, "sparsed:0.25,steps=10,block=8", 3)
    assert [x.macs for x in steps] == [net.macs] * 2 + [net.macs // 4] * 8
    assert len({x.model_dump_json() for x in steps[2:]}) == 1
    total = sum(x.macs for x in steps)
    assert total == 10 * net.macs * (0.2 + 0.8 * 0.25)


def test_a_device_runs_them():
    net = attention(1024, 1024, width=32)
    hardware = accsim.load_hardware("systolic_nm_32x32")
    full = accsim.simulate(net, hardware)
    cut = accsim.simulate(apply_dynamic(net, "window:64,block=64")[0], hardware)
    assert 0 < cut.cycles < full.cycles


def test_texts_print_and_parse():
    for text in ["causal:block=64", "window:512,block=64", "window:512,block=32,both",
                 "bigbird:window=3,global=2,random=3,block=64",
                 "sparsed:0.3,steps=64,full=0.2,block=128"]:  # fmt: skip
        assert str(parse_dynamic(text)) == text
    assert str(parse_dynamic("sparsed:0.3")) == "sparsed:0.3,steps=10,full=0.2,block=64"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("casual", "did you mean 'causal'?"),
        ("causal:blok=3", "has no option 'blok', did you mean 'block'?"),
        ("window", "lacks its width"),
        ("window:0", "needs a whole width of at least 1"),
        ("bigbird:window=2", "needs an odd window, got '2'"),
        ("bigbird", "'b.0' has 4 queries and 8 keys; bigbird needs as many"),
        ("sparsed:1.5", "needs a share from 0 to 1, got '1.5'"),
    ],
)
def test_bad_texts_are_refused_in_one_line(text, complaint):
    with pytest.raises(InputError) as error:
        apply_dynamic(attention(4, 8), text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_attention_is_refused():
    net = accsim.load_workload("llama-3-8b-prefill").select("*.mlp.*")
    with pytest.raises(InputError, match="finds no attention product"):
        apply_dynamic(net, "causal")
    with pytest.raises(InputError, match="at least as many keys as queries; got 4 < 8"):
        apply_dynamic(attention(8, 4), "causal")
    odd = Workload(name="a", layers=(attention(4, 4).layers[0], attention(4, 8).layers[1]))
    with pytest.raises(InputError, match=r"qk and av of 'b.0' differ"):
        apply_dynamic(odd, "causal")
    with pytest.raises(InputError, match="a mask of 4×4 in blocks of 2 has 2×2 blocks a head"):
        BlockMask(4, 4, 2, np.ones((1, 2, 3), bool))
