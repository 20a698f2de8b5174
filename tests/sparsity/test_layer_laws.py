"""Layer laws share a budget exactly; formats of unstructured non-zeros count what they store."""

import numpy as np
import pytest
from sparsity import pattern_laws as laws

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.formats import FORMATS
from accsim.sparsity.laws import LAWS, SCORES, kept_counts, layer_densities, prune_by_law
from accsim.sparsity.tile_wise import TileWise
from accsim.sparsity.unstructured import Unstructured
from accsim.spec.pattern import DENSE
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload


def conv(name, in_channels, out_channels, kernel, groups=1, **more):
    op = Conv2d(
        in_channels=in_channels, out_channels=out_channels, size=16, kernel=kernel, groups=groups
    )
    return Layer(name=name, op=op, **more)


def linear(name, k, n, **more):
    return Layer(name=name, op=Linear(in_features=k, out_features=n), **more)


NET = Workload(
    name="net",
    layers=(
        conv("stem[0]", 3, 16, 3),
        conv("body*", 16, 64, 3, repeats=3),
        conv("depthwise", 64, 64, 3, groups=64),
        conv("point", 64, 256, 1),
        Layer(name="scores", op=Matmul(t=8, k=64, n=8)),
        linear("frozen", 256, 512, prunable=False),
        linear("head", 256, 100),
    ),
)
PRUNABLE = ["stem[0]", "body*", "depthwise", "point", "head"]
SIZE = {x.name: x.gemm.k * x.gemm.n * x.runs for x in NET}


def of_layer(layer):
    """Weights with a scale of their own for each layer."""
    scale = {"stem[0]": 4.0, "head": 0.25}.get(layer.name, 1.0)
    return scale * laws.weights(layer.gemm.k, layer.gemm.n, len(layer.name))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.8, 0.9, 0.98])
def test_densities_sum_to_the_global_one(law, sparsity):
    densities = layer_densities(NET, sparsity, law, of_layer)
    assert list(densities) == PRUNABLE
    assert all(0 <= d <= 1 for d in densities.values())
    held = sum(d * SIZE[name] for name, d in densities.items())
    total = sum(SIZE[name] for name in PRUNABLE)
    slack = 64 if law == "magnitude" else 1e-6  # a threshold keeps whole weights of all 64 groups
    assert held == pytest.approx((1 - sparsity) * total, abs=slack)


@pytest.mark.parametrize("law", sorted(SCORES))
def test_densities_are_in_proportion_unless_full(law):
    """Evci et al.: one ε for all layers, ε · score, cut at 1."""
    by_hand = {  # Σ extents / Π extents
        "uniform": [1, 1, 1, 1, 1],
        "er": [19 / 48, 80 / 1024, 65 / 64, 320 / 16384, 356 / 25600],
        "erk": [25 / 432, 86 / 9216, 71 / 576, 322 / 16384, 356 / 25600],
    }[law]
    for sparsity in (0.3, 0.9, 0.97):
        densities = layer_densities(NET, sparsity, law)
        scores = dict(zip(PRUNABLE, by_hand, strict=True))
        factors = [d / scores[name] for name, d in densities.items() if d < 1]
        assert factors
        assert factors == pytest.approx([factors[0]] * len(factors))
        assert all(scores[name] * factors[0] >= 1 for name, d in densities.items() if d == 1)


def test_a_full_layer_hands_its_rest_to_the_others():
    net = Workload(name="two", layers=(linear("small", 10, 10), linear("large", 100, 100)))
    densities = layer_densities(net, 0.5, "er")  # proportions 0.2 : 0.02, budget 5050
    assert densities == {"small": 1.0, "large": 4950 / 10000}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sparsity", [0.05, 0.5, 0.9, 0.97])
def test_pruning_keeps_the_declared_number(law, sparsity):
    pruned = prune_by_law(NET, sparsity, law, weights=of_layer)
    kept = sum(x.pattern.kept(x.gemm.k, x.gemm.n) * x.runs for x in pruned if x.name in PRUNABLE)
    total = sum(SIZE[name] for name in PRUNABLE)
    assert abs(kept - (1 - sparsity) * total) <= (64 if law == "magnitude" else 0.5)
    for layer in pruned:
        assert (layer.pattern == DENSE) or layer.name in PRUNABLE
        assert accsim.pattern(str(layer.pattern)) == layer.pattern


def test_counts_round_to_the_nearest_sum():
    net = Workload(name="odd", layers=tuple(linear(f"l{at}", 3, 3) for at in range(4)))
    counts = kept_counts(net, {f"l{at}": 0.4 for at in range(4)})
    assert sorted(counts.values()) == [3, 3, 4, 4]  # 14.4 asked for
    assert counts == {"l0": 3, "l1": 3, "l2": 4, "l3": 4}


def test_one_weight_at_least():
    pruned = prune_by_law(NET, 0.9999, "erk")
    assert all(x.pattern.kept(x.gemm.k, x.gemm.n) >= 1 for x in pruned)


def test_magnitude_equals_the_sort_of_all_weights():
    for sparsity in (0.3, 0.75, 0.97):
        densities = layer_densities(NET, sparsity, "magnitude", of_layer)
        layers = [NET.layer(name) for name in PRUNABLE]
        every = [
            (-abs(float(x)), at) for at, layer in enumerate(layers)
            for x in np.repeat(of_layer(layer).ravel(), layer.runs)
        ]  # fmt: skip
        chosen = sorted(every)[: round((1 - sparsity) * len(every))]
        for at, layer in enumerate(layers):
            held = sum(which == at for _, which in chosen)
            assert densities[layer.name] * SIZE[layer.name] == pytest.approx(held, abs=64)
    assert densities["stem[0]"] > densities["point"] > densities["head"]


def test_magnitude_shares_out_ties_in_order():
    net = Workload(name="two", layers=(linear("a", 4, 4), linear("b", 4, 4)))
    same = layer_densities(net, 0.25, "magnitude", lambda layer: np.ones((4, 4), np.float32))
    assert same == {"a": 1.0, "b": 0.5}


def test_another_pattern_and_names_that_look_like_globs():
    pruned = prune_by_law(NET, 0.9, "uniform", lambda s: TileWise(8, s))
    assert {str(x.pattern) for x in pruned} >= {"dense", "tw:8@0.9"}
    assert pruned.layer("frozen").pattern == DENSE
    assert pruned.layer("body*").pattern != DENSE


def test_sparsities_are_written_with_few_digits():
    words = {x.name: str(x.pattern) for x in prune_by_law(NET, 0.9, "uniform")}
    assert words["stem[0]"] == "unstructured@0.9"
    assert words["point"] == "unstructured@0.9001", "takes what rounding the others leaves"
    assert all(len(word) <= len("unstructured@0.90001") for word in words.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((NET, 0.5, "erl"), "law must be one of uniform, er, erk, magnitude; got 'erl'"),
        ((NET, 1.0), "0 <= s < 1; got '1.0'"),
        ((NET, float("nan")), "0 <= s < 1; got 'nan'"),
        ((NET, 0.5, "magnitude"), "needs the weights"),
        ((NET.select("frozen"), 0.5), "workload 'net' has no prunable layer"),
    ],
)
def test_bad_arguments(arguments, complaint):
    with pytest.raises(InputError) as error:
        layer_densities(*arguments)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_real_network():
    net = accsim.load_workload("resnet50")
    for law in ("uniform", "er", "erk"):
        pruned = prune_by_law(net, 0.9, law)
        kept = total = 0
        for layer in pruned:
            if layer.prunable and layer.has_weights:
                size = layer.gemm.k * layer.gemm.n
                kept += layer.pattern.kept(layer.gemm.k, layer.gemm.n) * layer.runs
                total += size * layer.runs
        assert kept / total == pytest.approx(0.1, abs=1e-6)


# --- formats of unstructured non-zeros


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_obey_the_laws(name):
    pattern = Unstructured(0.75, name)
    laws.generator_passes_checker(pattern)
    laws.idempotent(pattern)
    text = "unstructured@0.75" if name == "bitmap" else f"unstructured:{name}@0.75"
    laws.round_trips(text, pattern)


@pytest.mark.parametrize(
    ("text", "bits", "size"),
    # Facts: .750 and .501 (CSR-16: ours .50049, as with 32-bit pointers CSR-32's .75049; both
    # cannot round as printed), bitmap .313 (.3125, a half rounded up).
    [("unstructured:csr32@0.75", 8.0, 0.750), ("unstructured:csr16@0.75", 4.0, 0.501),
     ("unstructured@0.75", 1.00, 0.313)],
)  # fmt: skip
def test_metadata_of_4096_squared(text, bits, size):
    pattern = accsim.pattern(text)
    mask = np.zeros((4096, 4096), bool)
    mask[:, ::4] = True
    assert round(pattern.metadata_bits(mask) / mask.size, 1) == bits
    ratio = pattern.packed_bits(mask, 16) / (16 * mask.size)
    assert ratio == pytest.approx(size, abs=0.00052)


def test_csr_counts_indices_and_pointers():
    mask = np.zeros((100, 7), bool)
    mask[3, :5] = True
    assert Unstructured(0.9, "csr16").metadata_bits(mask) == 5 * 16 + 8 * 32
    assert Unstructured(0.9, "csr32").metadata_bits(mask) == 5 * 32 + 8 * 32


def slow_run_length(mask, longest):
    """Entries of all rows as (zeros before, is a value)."""
    entries = []
    for column in mask.T:
        zeros = 0
        waiting = []
        for kept in column:
            if kept or zeros == longest:
                waiting.append((zeros, bool(kept)))
                zeros = 0
            else:
                zeros += 1
            if kept:
                entries += waiting
                waiting = []
    return entries


def test_run_length_equals_writing_it_out():
    rng = np.random.default_rng(5)
    for density in (0.0, 0.01, 0.05, 0.3, 1.0):
        for k in (1, 15, 16, 17, 33, 200):
            mask = rng.random((k, 6)) < density
            entries = slow_run_length(mask, 15)
            pattern = Unstructured(0.0, "rle4")
            assert pattern.stored(mask) == len(entries)
            assert pattern.metadata_bits(mask) == 4 * len(entries) + 7 * 32
            assert sum(value for _, value in entries) == mask.sum()


def test_a_run_of_sixteen_zeros_takes_one_filler():
    for zeros, fillers in ((0, 0), (15, 0), (16, 1), (31, 1), (32, 2)):
        mask = np.zeros((40, 1), bool)
        mask[zeros] = True
        assert Unstructured(0.0, "rle4").stored(mask) == 1 + fillers


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("unstructured:csr@0.5", "format must be one of bitmap, csr16, csr32, rle4; got 'csr'"),
        ("unstructured:csr61@0.5", "did you mean 'csr16'?"),
        ("unstructured:@0.5", "0 <= s < 1"),
        ("unstructured:csr16", "0 <= s < 1"),
    ],
)
def test_bad_formats(text, complaint):
    laws.refused(Unstructured, text, complaint)


def test_an_index_too_short_is_refused():
    mask = np.zeros((65537, 1), bool)
    with pytest.raises(InputError, match="csr16 needs k <= 65536; got k = 65537: use csr32"):
        Unstructured(0.5, "csr16").metadata_bits(mask)
    assert Unstructured(0.5, "csr16").metadata_bits(mask[:-1]) == 64
