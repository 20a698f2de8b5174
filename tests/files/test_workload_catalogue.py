"""The workload catalogue against published totals, shapes derived twice, and closed forms.

The derivations never compute a convolution's output size: they start from the output maps that the
papers print, so a wrong size, stride or padding in a file shows as a wrong ``t``.
"""

from pathlib import Path

import pytest

import accsim

CATALOGUE = Path(__file__).parents[2] / "workloads"
NAMES = sorted(path.stem for path in CATALOGUE.glob("*.yaml"))


def shapes(workload):
    """Return ``{layer name: (t, k, n, runs)}`` in file order."""
    return {x.name: (x.gemm.t, x.gemm.k, x.gemm.n, x.runs) for x in workload.layers}


def weighted(workload):
    return [layer for layer in workload.layers if layer.has_weights]


@pytest.mark.parametrize("name", NAMES)
def test_totals_agree_with_the_published_ones(name):
    workload = accsim.load_workload(name)
    assert workload.published, "a catalogue entry is held to at least one published total"
    for quantity, published in workload.published.items():
        total = getattr(workload, quantity)
        off = abs(total - published.value)
        assert off <= published.tolerance * published.value, (quantity, total, published)


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_named_after_its_file_and_states_its_sources(name):
    workload = accsim.load_workload(name)
    assert workload.name == name
    assert workload.title
    assert workload.sources
    assert "Apache-2.0" in workload.license


@pytest.mark.parametrize("name", NAMES)
def test_layer_names_are_unique(name):
    layers = accsim.load_workload(name).layers
    assert len({layer.name for layer in layers}) == len(layers)


def resnet_twin(depths, *, bottleneck):
    """He et al., table 1: stage s (from 0) has width 64·2^s and a 56/2^s wide output map."""
    expansion = 4 if bottleneck else 1
    twin = {"conv1": (112**2, 3 * 7 * 7, 64, 1)}
    cin = 64
    for s, depth in enumerate(depths):
        width, side = 64 << s, 56 >> s
        for b in range(depth):
            block = f"layer{s + 1}.{b}"
            # v1.5: the first 1x1 of a later stage still sees the map of the stage before.
            before = 2 * side if b == 0 and s > 0 else side
            if bottleneck:
                twin[f"{block}.conv1"] = (before**2, cin, width, 1)
                twin[f"{block}.conv2"] = (side**2, 9 * width, width, 1)
                twin[f"{block}.conv3"] = (side**2, width, 4 * width, 1)
            else:
                twin[f"{block}.conv1"] = (side**2, 9 * cin, width, 1)
                twin[f"{block}.conv2"] = (side**2, 9 * width, width, 1)
            if cin != expansion * width:
                twin[f"{block}.downsample.0"] = (side**2, cin, expansion * width, 1)
            cin = expansion * width
    return twin | {"fc": (1, cin, 1000, 1)}


def vgg16_twin():
    """Simonyan and Zisserman, column D; torchvision counts its ReLUs and poolings in the names."""
    twin, cin, index = {}, 3, 0
    for side, width, depth in [
        (224, 64, 2),
        (112, 128, 2),
        (56, 256, 3),
        (28, 512, 3),
        (14, 512, 3),
    ]:
        for _ in range(depth):
            twin[f"features.{index}"] = (side**2, 9 * cin, width, 1)
            cin, index = width, index + 2
        index += 1
    return twin | {
        "classifier.0": (1, 512 * 7 * 7, 4096, 1),
        "classifier.3": (1, 4096, 4096, 1),
        "classifier.6": (1, 4096, 1000, 1),
    }


def alexnet_twin():
    """Krizhevsky et al., figure 2: conv2, conv4 and conv5 see only the maps of their own GPU."""
    return {
        "conv1": (55**2, 3 * 121, 96, 1),
        "conv2": (27**2, 48 * 25, 128, 2),
        "conv3": (13**2, 256 * 9, 384, 1),
        "conv4": (13**2, 192 * 9, 192, 2),
        "conv5": (13**2, 192 * 9, 128, 2),
        "fc6": (1, 256 * 6 * 6, 4096, 1),
        "fc7": (1, 4096, 4096, 1),
        "fc8": (1, 4096, 1000, 1),
    }


def mobilenet_v1_twin():
    """Howard et al., table 1, as (output side, output channels of the pairs at that side)."""
    stages = [(112, [64]), (56, [128] * 2), (28, [256] * 2), (14, [512] * 6), (7, [1024] * 2)]
    twin = {"conv_stem": (112**2, 27, 32, 1)}
    cin = 32
    for s, (side, channels) in enumerate(stages):
        for b, cout in enumerate(channels):
            twin[f"blocks.{s}.{b}.conv_dw"] = (side**2, 9, 1, cin)
            twin[f"blocks.{s}.{b}.conv_pw"] = (side**2, cin, cout, 1)
            cin = cout
    return twin | {"classifier": (1, 1024, 1000, 1)}


def mobilenet_v2_twin():
    """Sandler et al., table 2, as the output side and width of each of the 17 bottlenecks."""
    sides = [112] + [56] * 2 + [28] * 3 + [14] * 7 + [7] * 4
    widths = [16] + [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320]
    twin = {"features.0.0": (112**2, 27, 32, 1)}
    cin, before = 32, 112
    for i, (side, width) in enumerate(zip(sides, widths, strict=True), start=1):
        block = f"features.{i}.conv"
        if i == 1:  # expansion 1: no expanding 1x1
            twin[f"{block}.0.0"] = (side**2, 9, 1, cin)
            twin[f"{block}.1"] = (side**2, cin, width, 1)
        else:
            twin[f"{block}.0.0"] = (before**2, cin, 6 * cin, 1)
            twin[f"{block}.1.0"] = (side**2, 9, 1, 6 * cin)
            twin[f"{block}.2"] = (side**2, 6 * cin, width, 1)
        cin, before = width, side
    return twin | {"features.18.0": (7**2, 320, 1280, 1), "classifier.1": (1, 1280, 1000, 1)}


def efficientnet_b0_twin():
    """Tan and Le, table 1, as (output side, kernel, width, depth) of each stage of bottlenecks."""
    stages = [(112, 3, 16, 1), (56, 3, 24, 2), (28, 5, 40, 2), (14, 3, 80, 3)]
    stages += [(14, 5, 112, 3), (7, 5, 192, 4), (7, 3, 320, 1)]
    twin = {"features.0.0": (112**2, 27, 32, 1)}
    cin, before = 32, 112
    for s, (side, kernel, width, depth) in enumerate(stages, start=1):
        for b in range(depth):
            block, hidden = f"features.{s}.{b}.block", cin if s == 1 else 6 * cin
            if s > 1:
                twin[f"{block}.0.0"] = (before**2, cin, hidden, 1)
            first = 0 if s == 1 else 1
            twin[f"{block}.{first}.0"] = (side**2, kernel**2, 1, hidden)
            # Squeeze to a quarter of the block's input, not of its hidden width.
            twin[f"{block}.{first + 1}.fc1"] = (1, hidden, cin // 4, 1)
            twin[f"{block}.{first + 1}.fc2"] = (1, cin // 4, hidden, 1)
            twin[f"{block}.{first + 2}.0"] = (side**2, hidden, width, 1)
            cin, before = width, side
    return twin | {"features.8.0": (7**2, 320, 1280, 1), "classifier.1": (1, 1280, 1000, 1)}


def encoder_twin(seq, prefix, inner):
    """Both base encoders: 12 layers of width 768, 12 heads of 64, feed-forward 4·768."""
    twin = {}
    for i in range(12):
        layer = f"{prefix}.layer.{i}"
        for operand in ("query", "key", "value"):
            twin[f"{layer}.attention.{inner}.{operand}"] = (seq, 768, 768, 1)
        twin[f"{layer}.attention.{inner}.qk"] = (seq, 64, seq, 12)
        twin[f"{layer}.attention.{inner}.av"] = (seq, seq, 64, 12)
        twin[f"{layer}.attention.output.dense"] = (seq, 768, 768, 1)
        twin[f"{layer}.intermediate.dense"] = (seq, 768, 3072, 1)
        twin[f"{layer}.output.dense"] = (seq, 3072, 768, 1)
    return twin


def vit_twin():
    """Dosovitskiy et al., section 3.1: 14x14 patches of 16x16x3, then a class token joins them."""
    return {
        "vit.embeddings.patch_embeddings.projection": (14**2, 16 * 16 * 3, 768, 1),
        **encoder_twin(14**2 + 1, "vit.encoder", "attention"),
        "classifier": (1, 768, 1000, 1),
    }


TWINS = {
    "alexnet": alexnet_twin(),
    "vgg16": vgg16_twin(),
    "resnet18": resnet_twin([2, 2, 2, 2], bottleneck=False),
    "resnet50": resnet_twin([3, 4, 6, 3], bottleneck=True),
    "mobilenet_v1": mobilenet_v1_twin(),
    "mobilenet_v2": mobilenet_v2_twin(),
    "efficientnet_b0": efficientnet_b0_twin(),
    "bert-base": encoder_twin(128, "encoder", "self"),
    "vit-b-16": vit_twin(),
}


@pytest.mark.parametrize("name", TWINS)
def test_shapes_agree_with_a_second_derivation(name):
    found = shapes(accsim.load_workload(name))
    assert found == TWINS[name]
    assert list(found) == list(TWINS[name]), "layers stand in the order in which they run"


@pytest.mark.parametrize("name", sorted(set(TWINS) - {"alexnet", "bert-base"}))
def test_convolution_input_is_stride_times_output(name):
    """Rounding hides a size or padding off by one from ``t``; these networks never round."""
    for layer in accsim.load_workload(name).layers:
        op = layer.op
        if op.kind == "conv2d":
            for axis in (0, 1):
                assert op.size[axis] == op.stride[axis] * op.output(axis), layer.name
                assert op.padding[axis] == (op.kernel[axis] - op.stride[axis] + 1) // 2, layer.name


def test_alexnet_first_kernel_ends_on_the_last_pixel():
    op = accsim.load_workload("alexnet").layer("conv1").op
    assert op.size == (11 + 4 * 54, 11 + 4 * 54)
    assert op.padding == (0, 0)


GPT2_BLOCK = 12 * 768**2
LLAMA_ATTENTION = 4096 * (4096 + 1024 + 1024 + 4096)
EXPERT = 3 * 4096 * 14336  # gate, up, down; the dense feed-forward of Llama has the same shape
LLAMA_BLOCK = LLAMA_ATTENTION + EXPERT
MIXTRAL_BLOCK = LLAMA_ATTENTION + 4096 * 8 + 2 * EXPERT  # router, and two experts for each token


@pytest.mark.parametrize(
    ("name", "tokens", "context", "blocks", "width", "weights", "vocabulary"),
    [
        ("gpt2", 1024, 1024, 12, 768, GPT2_BLOCK, 50257),
        ("llama-3-8b-prefill", 2048, 2048, 32, 4096, LLAMA_BLOCK, 128256),
        ("llama-3-8b-decode", 1, 2048, 32, 4096, LLAMA_BLOCK, 128256),
        ("mixtral-8x7b-prefill", 2048, 2048, 32, 4096, MIXTRAL_BLOCK, 32000),
        ("mixtral-8x7b-decode", 1, 2048, 32, 4096, MIXTRAL_BLOCK, 32000),
    ],
)
def test_decoder_macs_closed_form(name, tokens, context, blocks, width, weights, vocabulary):
    """Each token meets each weight of a block once; scores and context cost 2·context·width."""
    block_macs = tokens * (weights + 2 * context * width)
    assert accsim.load_workload(name).macs == blocks * block_macs + width * vocabulary


@pytest.mark.parametrize("model", ["llama-3-8b", "mixtral-8x7b"])
def test_prefill_and_decode_hold_the_same_matrices(model):
    prefill, decode = (accsim.load_workload(f"{model}-{phase}") for phase in ("prefill", "decode"))
    matrices = [
        {x.name: (x.gemm.k, x.gemm.n) for x in weighted(phase)} for phase in (prefill, decode)
    ]
    assert matrices[0] == matrices[1]


def test_mixtral_decode_leaves_six_experts_of_a_block_idle():
    prefill, decode = (accsim.load_workload(f"mixtral-8x7b-{x}") for x in ("prefill", "decode"))
    assert prefill.params - decode.params == 32 * 6 * EXPERT


@pytest.mark.parametrize(("phase", "tokens"), [("prefill", 2048), ("decode", 1)])
def test_mixtral_routes_each_token_to_two_experts(phase, tokens):
    experts = accsim.load_workload(f"mixtral-8x7b-{phase}").select("*.experts.*").layers
    assert len(experts) == 32 * 3
    assert {layer.gemm.t * layer.runs for layer in experts} == {2 * tokens}


def test_only_attention_products_lack_weights():
    for name in NAMES:
        for layer in accsim.load_workload(name).layers:
            is_product = layer.name.endswith((".qk", ".av"))
            assert is_product != layer.has_weights, (name, layer.name)
