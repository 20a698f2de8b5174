"""Kernels between GEMMs: the catalogue's derived a second time, what a file may say, what scales.

The twins say what a block moves in units of its width, from the papers' tables, and never look at
the layers.
"""

from collections import Counter
from math import prod

import pytest

import accsim
from accsim.base.errors import InputError

NAMES = ["alexnet", "bert-base", "gpt2", "llama-3-8b-decode", "llama-3-8b-prefill", "resnet18",
         "resnet50", "vgg16", "vit-b-16"]  # fmt: skip


def by_kind(name):
    """Return ``{kind: (kernels, elements read, elements written)}``."""
    found = {}
    for x in accsim.load_workload(name).elementwise:
        kernels, reads, writes = found.get(x.kind, (0, 0, 0))
        size = prod(x.shape) * x.repeats
        found[x.kind] = (kernels + x.repeats, reads + x.reads * size, writes + x.writes * size)
    return found


def encoder_twin(tokens, blocks, width, heads, ratio, final_norms, mask):
    """One block: 4 copies to split and join heads, 2 norms, 2 sums, an activation, scores."""
    hidden, scores = tokens * width, heads * tokens**2
    twin = {
        "transpose": (4 * blocks, 4 * blocks * hidden, 4 * blocks * hidden),
        "layernorm": ((2 * blocks + final_norms),) + ((2 * blocks + final_norms) * hidden,) * 2,
        "add": (2 * blocks, 4 * blocks * hidden, 2 * blocks * hidden),
        "gelu": (blocks, blocks * ratio * hidden, blocks * ratio * hidden),
    }
    for kind in ("scale", "softmax", *(["mask"] if mask else [])):
        twin[kind] = (blocks, blocks * scores, blocks * scores)
    return twin


def plus(twin, kind, kernels, reads, writes):
    old = twin.get(kind, (0, 0, 0))
    return twin | {kind: (old[0] + kernels, old[1] + reads, old[2] + writes)}


def vit_twin():
    twin = encoder_twin(197, 12, 768, 12, 4, final_norms=1, mask=False)
    twin = plus(twin, "transpose", 1, 196 * 768, 196 * 768)
    twin = plus(twin, "copy", 1, 197 * 768, 197 * 768)
    return plus(twin, "add", 1, 197 * 768, 197 * 768)


def gpt2_twin():
    twin = encoder_twin(1024, 12, 768, 12, 4, final_norms=1, mask=True)
    twin = plus(twin, "embedding", 1, 1024 * 768, 1024 * 768)
    return plus(twin, "add", 1, 1024 * 768, 1024 * 768)


def llama_twin(tokens, context):
    """32 blocks of width 4096; 8 of 32 heads have keys and values; 65 norms; FFN 14336."""
    hidden, scores, ffn = tokens * 4096, 32 * tokens * context, tokens * 14336
    twin = {
        "embedding": (1, hidden, hidden),
        "rmsnorm": (65, 65 * hidden, 65 * hidden),
        "rope": (64, 32 * 5 * hidden // 4, 32 * 5 * hidden // 4),
        "copy": (32, 32 * hidden // 2, 32 * hidden // 2),
        "scale": (32, 32 * scores, 32 * scores),
        "softmax": (32, 32 * scores, 32 * scores),
        "transpose": (32, 32 * hidden, 32 * hidden),
        "add": (64, 128 * hidden, 64 * hidden),
        "silu": (32, 32 * ffn, 32 * ffn),
        "mul": (32, 64 * ffn, 32 * ffn),
    }
    return twin | ({"mask": twin["scale"]} if tokens > 1 else {})


def resnet_twin(depths, *, bottleneck):
    """Every convolution's output is normalised; all but a block's last and the shortcut's relu'd.

    Stage s has 64·2^s channels (a bottleneck ends with four times as many) and a side of 56/2^s.
    """
    maps = [64 * 112**2]
    relus, sums = [64 * 112**2], []
    for s, depth in enumerate(depths):
        width, side = 64 << s, 56 >> s
        wide = 4 * width if bottleneck else width
        for b in range(depth):
            entered = width * (4 if b == 0 and s > 0 else 1) * side**2  # before the stride
            inner = [entered, width * side**2] if bottleneck else [width * side**2]
            shortcut = b == 0 and (bottleneck or s > 0)
            maps += [*inner, wide * side**2, *([wide * side**2] if shortcut else [])]
            sums.append(wide * side**2)
            relus += [*inner, wide * side**2]
    last = sums[-1] // 49
    return {
        "batchnorm": (len(maps), sum(maps), sum(maps)),
        "relu": (len(relus), sum(relus), sum(relus)),
        "add": (len(sums), 2 * sum(sums), sum(sums)),
        "pool": (2, 64 * 112**2 + 49 * last, 64 * 56**2 + last),
    }


def vgg16_twin():
    stages = [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3)]
    relu = sum(side**2 * width * depth for side, width, depth in stages) + 2 * 4096
    whole = sum(side**2 * width for side, width, _ in stages)
    return {"relu": (15, relu, relu), "pool": (5, whole, whole // 4)}


def alexnet_twin():
    relu = 55**2 * 96 + 27**2 * 256 + 13**2 * (384 + 384 + 256) + 2 * 4096
    norm = 55**2 * 96 + 27**2 * 256
    pools = norm + 13**2 * 256, 27**2 * 96 + 13**2 * 256 + 6**2 * 256
    return {"relu": (7, relu, relu), "lrn": (2, norm, norm), "pool": (3, *pools)}


TWINS = {
    "alexnet": alexnet_twin(),
    "bert-base": encoder_twin(128, 12, 768, 12, 4, final_norms=0, mask=True),
    "gpt2": gpt2_twin(),
    "llama-3-8b-decode": llama_twin(1, 2048),
    "llama-3-8b-prefill": llama_twin(2048, 2048),
    "resnet18": resnet_twin([2, 2, 2, 2], bottleneck=False),
    "resnet50": resnet_twin([3, 4, 6, 3], bottleneck=True),
    "vgg16": vgg16_twin(),
    "vit-b-16": vit_twin(),
}


@pytest.mark.parametrize("name", NAMES)
def test_counts_agree_with_a_second_derivation(name):
    found = by_kind(name)
    assert found.keys() == TWINS[name].keys()
    for kind, (kernels, reads, writes) in TWINS[name].items():
        assert found[kind][0] == kernels, kind
        # alexnet's pools: reads for each output are written with three digits
        assert found[kind][1:] == pytest.approx((reads, writes), rel=2e-4), kind


@pytest.mark.parametrize("name", NAMES)
def test_each_follows_a_layer_of_its_block(name):
    network = accsim.load_workload(name)
    order = {layer.name: i for i, layer in enumerate(network.layers)}
    places = [order.get(x.after, -1) for x in network.elementwise]
    assert places == sorted(places)
    assert "elementwise" in " ".join(network.sources)
    head = (accsim.files.catalogue.find("workloads", name)).read_text().partition("name:")[0]
    assert "lementwise" in head, "how they are counted stands at the head of the file"


def test_file_batch_and_dtype_reach_them():
    network = accsim.load_workload("bert-base", batch=7, dtype="fp32")
    one = accsim.load_workload("bert-base")
    assert {(x.batch, x.dtype) for x in network.elementwise} == {(7, "fp32")}
    assert {(x.batch, x.dtype) for x in one.elementwise} == {(1, "bf16")}
    for a, b in zip(network.elementwise, one.elementwise, strict=True):
        assert a.accesses(fused=False) == 7 * b.accesses(fused=False)


def test_selected_layers_keep_what_follows_them():
    network = accsim.load_workload("bert-base").select("encoder.layer.3.*")
    assert Counter(x.kind for x in network.elementwise)["softmax"] == 1
    assert len(network.elementwise) == 12
    assert {x.name.split(".")[2] for x in network.elementwise} == {"3"}


def test_a_scheme_keeps_them_a_dynamic_one_does_not():
    from accsim.sparsity.dynamic import apply_dynamic
    from accsim.sparsity.schemes import apply_scheme

    network = accsim.load_workload("bert-base")
    rewritten = apply_scheme(network, "lowrank:64")
    assert len(rewritten.elementwise) == len(network.elementwise)
    names = {layer.name for layer in rewritten.layers}
    assert {x.after for x in rewritten.elementwise} <= names
    assert not apply_dynamic(accsim.load_workload("gpt2"), "causal").merged().elementwise


def test_nothing_else_moves():
    network = accsim.load_workload("bert-base")
    bare = network.model_copy(update={"elementwise": ()})
    hardware = accsim.load_hardware("systolic_ws_32x32")
    results = [accsim.simulate(x.with_dtype("int8"), hardware) for x in (network, bare)]
    assert results[0].totals == results[1].totals
    assert len({x.provenance["config_sha256"] for x in results}) == 1
    assert (network.macs, network.params) == (bare.macs, bare.params)


FILE = """\
name: net
layers:
  - name: fc
    linear: {{in_features: 8, out_features: 8}}
  - name: act
    elementwise: {0}
"""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{kind: softmx, shape: [8]}", "must be one of .* got 'softmx', did you mean 'softmax'"),
        ("{kind: relu, shape: [-8]}", "shape.0: must be greater than or equal to 1; got -8"),
        ("{kind: relu, shape: [8], reads: -1}", "reads: must be greater .* got -1"),
        ("{kind: relu, shape: [8], writes: .inf}", "writes: must be"),
        ("{kind: relu, shape: []}", "shape: .* at least 1 item"),
        ("{kind: relu, shape: 8}", "shape: must be a valid tuple"),
        ("{kind: relu, shape: [true]}", "must be a number; got a boolean"),
        ("{kind: relu}", "missing key 'shape'"),
        ("{shape: [8]}", "missing key 'kind'"),
        ("{kind: relu, shap: [8]}", "unknown key 'shap', did you mean 'shape'"),
        ("{kind: relu, shape: [8], batch: 3}", "unknown key 'batch'"),
        ("{kind: relu, shape: [8], reads: 0, writes: 0}", "must read or write something"),
        ("{kind: relu, shape: [100000000, 100000000]}", "must move at most 1e[+]12 elements"),
        ("relu", "must be a mapping of kind and shape; got 'relu'"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, entry, message):
    path = tmp_path / "net.yaml"
    path.write_text(FILE.format(entry))
    with pytest.raises(InputError, match=message) as caught:
        accsim.load_workload(path)
    assert str(caught.value).startswith(f"{path}:6: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- elementwise: {kind: relu, shape: [8]}", "missing key 'name'"),
        ("- name: a\n    elementwise: {kind: relu, shape: [8]}\n    nam: 3", "unknown key 'nam'"),
        ("- name: fc\n    elementwise: {kind: relu, shape: [8]}", "'fc' stands twice"),
    ],
)
def test_entries_have_names_of_their_own(tmp_path, text, message):
    path = tmp_path / "net.yaml"
    path.write_text(FILE.format("{kind: relu, shape: [8]}") + f"  {text}\n")
    with pytest.raises(InputError, match=message):
        accsim.load_workload(path)


def test_a_network_multiplies(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("layers:\n  - name: a\n    elementwise: {kind: relu, shape: [8]}\n")
    with pytest.raises(InputError, match="at least one that multiplies"):
        accsim.load_workload(path)


def test_kernels_at_the_top_are_refused(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(FILE.format("{kind: relu, shape: [8]}") + "elementwise: []\n")
    with pytest.raises(InputError, match="stand among the layers"):
        accsim.load_workload(path)
