"""Rewrites: the graph computes what the dense W does, and costs what plain loops count."""

import itertools
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.masks import Masks
from accsim.sparsity.nm import index_bits
from accsim.sparsity.schemes import (
    ColumnSparse,
    Cost,
    apply_scheme,
    chained,
    cost,
    parse_scheme,
    schemes,
    spanning_chain,
)
from accsim.spec.workload import Layer, Linear, Workload, gemm

BITS = 8
SMALL = [
    "lowrank:3", "lowrank:2+sparse@0.8", "lowrank:3+2:4", "sltrain:2@0.9", "dict:10,3", "dict:5,5",
    "armor:4", "armor:5", "armor:64", "kron:2x3", "kron:3x2,3", "kron:12x1,2", "kron:1x6", "mst",
]  # fmt: skip


class Log:
    """Multiplies, and notes every product's extents and its non-zero weights."""

    def __init__(self):
        self.seen = {}

    def __call__(self, name, x, w):
        (t, k), (_, n) = x.shape, w.shape
        y, macs = np.zeros((t, n)), 0
        for i, j, r in itertools.product(range(t), range(n), range(k)):
            if w[r, j] != 0:
                y[i, j] += x[i, r] * w[r, j]
                macs += 1
        self.seen.setdefault(name, []).append((t, k, n, macs))
        return y


def layer_of(t, k, n, **more):
    return Layer(name="l", op=Linear(in_features=k, out_features=n, tokens=t), **more)


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize(("t", "k", "n"), [(3, 12, 6), (1, 12, 6), (4, 24, 18)])
def test_the_graph_computes_what_the_dense_matrix_does(text, t, k, n):
    scheme = parse_scheme(text)
    rng = np.random.default_rng(len(text) + t)
    factors = scheme.factors(k, n, rng)
    x = rng.standard_normal((t, k))
    log = Log()
    y = scheme.product(x, factors, log)
    assert scheme.dense(factors).shape == (k, n)
    np.testing.assert_allclose(y, x @ scheme.dense(factors), atol=1e-9)

    pieces = {p.name.removeprefix("l."): p for p in scheme.pieces(layer_of(t, k, n))}
    assert set(pieces) == set(log.seen)
    for name, runs in log.seen.items():
        piece = pieces[name]
        extents = {(piece.gemm.t, piece.gemm.k, piece.gemm.n)}
        assert {run[:3] for run in runs} == extents
        assert len(runs) == piece.runs
        if text != "mst":  # there the factors are random signs, not the layer's
            assert sum(run[3] for run in runs) == cost([piece]).macs


def loops(layer, text):
    """Count a scheme's MACs, additions, parameters and bits from its definition, in loops."""
    scheme = parse_scheme(text)
    t, k, n = layer.gemm.t, layer.gemm.k, layer.gemm.n
    kind, _, _ = text.partition(":")
    bitmap = lambda s: (round((1 - s) * k * n), k * n)  # noqa: E731
    if kind == "lowrank":
        rank, pattern = scheme.rank, scheme.sparse
        kept, bits = 0, 0
        if pattern is not None and str(pattern) == "2:4":
            for _, start in itertools.product(range(n), range(0, k, 4)):
                kept += min(2, k - start)
            bits = kept * 2
        elif pattern is not None:
            kept, bits = bitmap(pattern.sparsity)
        weights = k * rank + rank * n + kept
        adds = t * n if pattern is not None else 0
        return Cost(macs=t * weights, adds=adds, params=weights, stored_bits=weights * BITS + bits)
    if kind == "sltrain":
        rank, (kept, bits) = scheme.rank, bitmap(scheme.sparsity)
        params = k * rank + rank * n + kept
        macs = sum(rank for _ in range(k * n)) + t * k * n
        return Cost(macs=macs, adds=kept, params=params, stored_bits=params * BITS + bits)
    if kind == "dict":
        codes = sum(min(scheme.count, scheme.atoms) for _ in range(n))
        params = k * scheme.atoms + codes
        bits = params * BITS + codes * index_bits(scheme.atoms)
        return Cost(macs=t * params, params=params, stored_bits=bits)
    if kind == "armor":
        core = sum(min(2, k - start) for start in range(0, k, 4)) * n
        diagonals = 0
        for extent in (k, n):
            for start in range(0, extent, scheme.block):
                diagonals += min(scheme.block, extent - start) ** 2
        params = core + diagonals
        return Cost(macs=t * params, params=params, stored_bits=params * BITS + 2 * core)
    assert kind == "kron"
    k1, n1 = scheme.rows, scheme.cols
    k2, n2, terms = k // k1, n // n1, scheme.terms
    inner = t * k1 * k2 * n2 + t * n2 * k1 * n1
    outer = t * k2 * k1 * n1 + t * n1 * k2 * n2
    params = terms * (k1 * n1 + k2 * n2)
    return Cost(macs=terms * min(inner, outer), params=params, stored_bits=params * BITS)


@pytest.mark.parametrize("text", [text for text in SMALL if text != "mst"])
@pytest.mark.parametrize(("t", "k", "n"), [(3, 12, 6), (7, 24, 30)])
def test_counts_are_those_of_loops(text, t, k, n):
    layer = layer_of(t, k, n)
    assert parse_scheme(text).cost(layer) == loops(layer, text)


@pytest.mark.parametrize("text", SMALL)
def test_repeats_batch_bias_and_norms_are_carried(text):
    plain = parse_scheme(text).cost(layer_of(3, 12, 6))
    many = Layer(
        name="l", op=Linear(in_features=12, out_features=6, tokens=3, bias=True),
        repeats=5, other_params=7,
    )  # fmt: skip
    found = parse_scheme(text).cost(many)
    assert found.macs == 5 * plain.macs
    assert found.adds == 5 * plain.adds
    assert found.params == 5 * (plain.params + 6) + 7
    assert found.stored_bits == 5 * (plain.stored_bits + 6 * BITS) + 7 * BITS
    twice = parse_scheme(text).cost(Layer(name="l", op=many.op, repeats=5, batch=2, other_params=7))
    assert twice.params == found.params
    once = 5 * 12 * 6 * 2 if text.startswith("sltrain") else 0  # the rebuild: once a batch
    assert twice.macs - once == 2 * (found.macs - once)


# --- published


def test_armor_adds_a_sixteenth_of_the_dense_macs():
    """Facts: +6.25 % of dense MACs at d = 4096, b = 128."""
    pieces = apply_scheme(gemm(1, 4096, 4096), "armor:128").layers
    core = next(p for p in pieces if p.name.endswith("core"))
    added = sum(p.macs for p in pieces) - core.macs
    assert added / core.macs == 0.0625


@pytest.mark.parametrize(
    ("width", "hidden", "blocks", "rank", "low_rank_m", "sltrain_m"),
    [
        (512, 1376, 8, 128, 42.8, 43.6),
        (768, 2048, 12, 256, 94.0, 96.5),
        (1024, 2736, 24, 256, 185.2, 194.3),
        (2048, 5461, 24, 512, 609.3, 645.5),
    ],
)
def test_sltrain_parameters_of_llama(width, hidden, blocks, rank, low_rank_m, sltrain_m):
    """Han et al., SLTrain, arXiv 2406.02214, table 2 (43, 94, 185, 609 M low-rank; 44, 97, 194,
    646 M with 3 % sparse), cited from memory; vocabulary 32000, embeddings and head kept dense.
    """
    shapes = [(width, width)] * 4 + [(width, hidden)] * 2 + [(hidden, width)]
    layers = [
        Layer(name=f"w{i}", op=Linear(in_features=k, out_features=n), repeats=blocks)
        for i, (k, n) in enumerate(shapes)
    ]
    others = 2 * 32000 * width + (2 * blocks + 1) * width
    low = sum(p.params for x in layers for p in parse_scheme(f"lowrank:{rank}").pieces(x))
    full = sum(p.params for x in layers for p in parse_scheme(f"sltrain:{rank}@0.97").pieces(x))
    assert (low + others) / 1e6 == pytest.approx(low_rank_m, abs=0.1)
    assert (full + others) / 1e6 == pytest.approx(sltrain_m, abs=0.1)


def test_sltrain_saves_memory_and_no_macs():
    net = gemm(64, 1024, 1024)
    dense, rewritten = cost(net.layers), parse_scheme("sltrain:64@0.97").cost(net.layers[0])
    assert rewritten.macs == dense.macs + 1024 * 64 * 1024
    assert rewritten.stored_bits < dense.stored_bits / 3
    assert rewritten.adds == round(0.03 * 1024 * 1024)


# --- reuse chains


def plain_tree(weights):
    """The least total distance of any spanning tree: Kruskal over all pairs, in plain Python."""
    _, n = weights.shape
    columns = [[bool(w < 0) for w in weights[:, j]] for j in range(n)]
    apart = lambda a, b: sum(x != y for x, y in zip(columns[a], columns[b], strict=True))  # noqa: E731
    edges = sorted((apart(a, b), a, b) for a, b in itertools.combinations(range(n), 2))
    root = list(range(n))
    total = 0
    for d, a, b in edges:
        if root[a] != root[b]:
            total += d
            root = [root[a] if r == root[b] else r for r in root]
    return total


def every_tree(weights):
    """The least over every spanning tree there is (Prüfer sequences)."""
    _, n = weights.shape
    apart = (weights[:, :, None] != weights[:, None, :]).sum(axis=0)
    best = None
    for code in itertools.product(range(n), repeat=n - 2):
        degree = [1 + code.count(v) for v in range(n)]
        total = 0
        for v in code:
            leaf = degree.index(1)
            total += apart[leaf, v]
            degree[leaf], degree[v] = 0, degree[v] - 1
        last = [v for v in range(n) if degree[v] == 1]
        total += apart[last[0], last[1]]
        best = total if best is None else min(best, total)
    return int(best)


@given(k=st.integers(1, 12), n=st.integers(1, 14), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_tree_is_minimal_and_gives_back_every_column(k, n, seed):
    signs = np.where(np.random.default_rng(seed).random((k, n)) < 0.5, -1, 1)
    chain = spanning_chain(signs)
    assert chain.additions == k + plain_tree(signs)
    assert chain.saved == n * k - chain.additions
    assert sorted(chain.order) == list(range(n))
    place = {int(c): i for i, c in enumerate(chain.order)}
    for column, parent in enumerate(chain.parents):
        if parent < 0:
            assert (column, chain.distances[column]) == (0, k)
        else:
            assert place[parent] < place[column]
            assert chain.distances[column] == (signs[:, column] != signs[:, parent]).sum()


def test_no_tree_of_a_small_graph_is_shorter():
    rng = np.random.default_rng(3)
    for _ in range(8):
        signs = np.where(rng.random((7, 6)) < 0.5, -1, 1)
        assert spanning_chain(signs).additions == 7 + every_tree(signs)


def test_equal_columns_cost_nothing_and_opposite_ones_everything():
    same = spanning_chain(np.ones((9, 5)))
    assert (same.additions, same.saved) == (9, 36)
    two = np.ones((9, 2))
    two[:, 1] = -1
    assert spanning_chain(two).saved == 0


def test_a_chained_layer_keeps_as_many_weights_as_there_are_additions():
    weights = np.random.default_rng(1).standard_normal((48, 40))
    chain = spanning_chain(weights)
    (deltas,) = chained(layer_of(5, 48, 40), chain)
    assert deltas.pattern.kept(48, 40) == chain.additions
    assert cost([deltas]).macs == 5 * chain.additions
    net = gemm(5, 48, 40)
    real = spanning_chain(Masks(0).weights(net.layers[0]))
    assert parse_scheme("mst").cost(net.layers[0]).macs == 5 * real.additions
    assert parse_scheme("mst").cost(net.layers[0]).adds == 5 * 39


def test_a_chain_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"'l' is 4×4; the chain is of a 4×5 matrix"):
        chained(layer_of(1, 4, 4), spanning_chain(np.ones((4, 5))))
    with pytest.raises(InputError, match="at most 8192 columns"):
        spanning_chain(np.ones((1, 8193)))
    with pytest.raises(InputError, match="needs a k × n matrix"):
        spanning_chain(np.ones(3))


# --- the pattern of the codes


def test_columns_keep_their_largest():
    rng = np.random.default_rng(2)
    for _ in range(50):
        k, n, s = (int(rng.integers(1, top)) for top in (12, 6, 14))
        weights = rng.integers(-3, 4, (k, n)).astype(np.float32)
        mask = ColumnSparse(s).mask(weights)
        for column in range(n):
            order = sorted(range(k), key=lambda i: (-abs(weights[i, column]), i))
            assert sorted(np.flatnonzero(mask[:, column])) == sorted(order[:s])
        assert ColumnSparse(s).check(mask) == []
        assert mask.sum() == ColumnSparse(s).kept(k, n)
        assert ColumnSparse(s).metadata_bits(mask) == mask.sum() * index_bits(k)
        kept = np.where(mask, weights, 0)
        assert np.abs(kept).sum() == np.abs(np.where(ColumnSparse(s).mask(kept), kept, 0)).sum()
    assert ColumnSparse(2).check(np.ones((3, 2), bool)) == [
        "column 0 keeps 3 > 2", "column 1 keeps 3 > 2",
    ]  # fmt: skip
    assert (ColumnSparse(3).block_bound(4), ColumnSparse(3).block_bound(2)) == (3, None)


def test_the_pattern_prints_and_parses():
    assert ColumnSparse.parse("columns:16") == ColumnSparse(16)
    assert str(ColumnSparse(16)) == "columns:16"
    assert ColumnSparse.parse("2:4") is None
    for text in ("columns", "columns:0", "columns:x"):
        with pytest.raises(InputError, match="columns:s needs"):
            ColumnSparse.parse(text)


# --- the rewrite of a workload


def test_only_the_chosen_layers_are_rewritten():
    net = accsim.load_workload("bert-base")
    found = apply_scheme(net, "lowrank:64+sparse@0.95", layers=["*intermediate.dense"])
    names = [layer.name for layer in found]
    assert "encoder.layer.0.intermediate.dense" not in names
    at = names.index("encoder.layer.0.intermediate.dense.lowrank.b")
    assert names[at : at + 4] == [
        "encoder.layer.0.intermediate.dense.lowrank.b",
        "encoder.layer.0.intermediate.dense.lowrank.a",
        "encoder.layer.0.intermediate.dense.sparse",
        "encoder.layer.0.output.dense",
    ]
    assert len(found.layers) == len(net.layers) + 2 * 12
    untouched = {x.name: x for x in net if "intermediate" not in x.name}
    assert all(x == untouched[x.name] for x in found if x.name in untouched)
    assert found.prune("2:4", layers=["*intermediate.dense*"]) == found
    assert found.published == {}


@pytest.mark.parametrize("text", SMALL)
def test_a_device_runs_the_pieces(text):
    net = apply_scheme(gemm(8, 24, 18), text)
    hardware = accsim.load_hardware("systolic_nm_32x32")
    result = accsim.simulate(net, hardware)
    macs = reduce(Cost.__add__, [cost([x]) for x in net]).macs
    assert int(sum(result.table["effective_macs"])) == macs


def test_texts_print_and_parse():
    texts = [
        "lowrank:64", "lowrank:64+2:4", "lowrank:64+unstructured@0.95", "sltrain:64@0.97",
        "dict:1024,16", "armor:128", "kron:64x64", "kron:64x32,4", "mst", "mst:seed=3",
    ]  # fmt: skip
    for text in texts:
        assert str(parse_scheme(text)) == text
        assert parse_scheme(f" {text} ") == parse_scheme(text)
    assert str(parse_scheme("lowrank:64+sparse@0.95")) == "lowrank:64+unstructured@0.95"
    for grammar, summary in schemes().values():
        assert grammar
        assert "\n" not in summary


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lowrnk:64", "did you mean 'lowrank'?"),
        ("", "scheme must be one of"),
        ("lowrank", "'lowrank' lacks its rank; write lowrank:rank"),
        ("lowrank:x", "needs a whole rank of at least 1, got 'x'"),
        ("lowrank:0", "needs a whole rank of at least 1, got '0'"),
        ("lowrank:4,5", "has no '5'"),
        ("lowrank:4,ranc=5", "has no option 'ranc'"),
        ("lowrank:4+sparse", "needs 0 <= s < 1"),
        ("lowrank:4+desne", "did you mean 'dense'?"),
        ("lowrank:4+", "pattern must be one of"),
        ("sltrain:4", "lacks its rank@sparsity"),
        ("sltrain:4@1", "needs a sparsity below 1, got '1'"),
        ("sltrain:4@nan", "needs a sparsity from 0 to 1, got 'nan'"),
        ("dict:4", "lacks its non-zeros a column"),
        ("dict:4,5", "needs 1 <= s <= atoms; got 'dict:4,5'"),
        ("armor:-1", "needs a whole block of at least 1, got '-1'"),
        ("kron:4", "lacks its rowsxcols"),
        ("kron:4x4,2,3", "has no '3'"),
        ("kron:5x4", "'gemm' is 24×18; kron:5x4 needs rows that divide 24, columns that divide 18"),
        ("lowrank:19", "'gemm' is 24×18; rank 19 > 18"),
        ("mst:sead=3", "has no option 'sead', did you mean 'seed'?"),
        ("mst:seed=1,seed=2", "names an option twice"),
    ],
)
def test_bad_texts_are_refused_in_one_line(text, complaint):
    with pytest.raises(InputError) as error:
        apply_scheme(gemm(8, 24, 18), text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_rewritten_is_refused():
    net = gemm(8, 24, 18)
    with pytest.raises(InputError, match="'gemm' already has the pattern 2:4"):
        apply_scheme(net.prune("2:4"), "lowrank:4")
    with pytest.raises(InputError, match=r"no layer of .* matches 'x'"):
        apply_scheme(net, "lowrank:4", layers=["x"])
    with pytest.raises(InputError, match="finds no linear layer"):
        apply_scheme(accsim.load_workload("bert-base"), "lowrank:4", layers=["*.qk"])
    with pytest.raises(InputError, match="finds no linear layer"):
        apply_scheme(apply_scheme(net, "lowrank:4"), "lowrank:2")
    convolution = accsim.load_workload("alexnet").select("conv1").layers[0]
    with pytest.raises(InputError, match="'conv1' is a conv2d; only linear layers"):
        parse_scheme("lowrank:4").pieces(convolution)


def test_names_stay_unique():
    net = Workload(name="two", layers=(layer_of(1, 8, 8), gemm(1, 8, 8).layers[0]))
    assert len(apply_scheme(net, "armor:3").layers) == 10
