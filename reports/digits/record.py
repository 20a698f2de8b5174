"""What a trained digit network leaves behind: its workload and its trace."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forward
import networks
import numpy as np
import train

import accsim
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload
from accsim.traces.draft import Draft, recording

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[np.float32]]

DATE = "2026-11-21"
BATCH = 64  # test images whose activations are kept
SIZES = {"conv1": 8, "conv2": 8, "conv3": 4}
SOURCE = (
    "weights trained here by reports/digits/train.py on scikit-learn's load_digits(): the test part"
    " of UCI 'Optical Recognition of Handwritten Digits' (E. Alpaydin, C. Kaynak, 1998,"
    " doi 10.24432/C50P49)"
)
LICENSE = (
    "weights, masks: Apache-2.0, as accsim; images, labels: CC BY 4.0 (UCI; authors in the source),"
    " as distributed with scikit-learn (BSD-3-Clause)"
)


def workload(network: networks.Network, variant: train.Variant) -> Workload:
    """Return the network as accsim sees it: batch 64, fp32, the inference pattern by layer.

    Inference needs BDWP's forward mask alone, which is plain 2:8.
    """
    pattern = accsim.pattern(variant.pattern.removeprefix("bidirectional:"))
    layers = []
    for name, product in network.products.items():
        pruned = name in network.prunable
        layers.append(
            Layer(
                name=name, op=_op(network.name, name, product), batch=BATCH, dtype="fp32",
                pattern=pattern if pruned else accsim.pattern("dense"), prunable=pruned,
                other_params=_other_params(network, name),
            )
        )  # fmt: skip
        if name.endswith(".qkv"):
            layers += _attention(name.partition(".")[0])
    return Workload(
        name=f"digits-{network.name}-{variant.name}",
        title=f"{network.name} on 8×8 digits, {variant.pattern}",
        sources=("reports/digits",), license=LICENSE, layers=tuple(layers),
    )  # fmt: skip


def _op(network: str, name: str, product: networks.Product) -> Conv2d | Linear:
    k, n = product.weight.shape
    if name in SIZES:
        return Conv2d(
            in_channels=k // 9, out_channels=n, size=SIZES[name], kernel=3, padding=1, bias=True
        )
    tokens = networks.TOKENS if network == "transformer" and name != "head" else 1
    return Linear(in_features=k, out_features=n, tokens=tokens, bias=True)


def _attention(block: str) -> list[Layer]:
    heads, tokens = networks.HEADS, networks.TOKENS
    width = networks.WIDTH // heads
    kinds = {"qk": Matmul(t=tokens, k=width, n=tokens), "pv": Matmul(t=tokens, k=tokens, n=width)}
    return [
        Layer(name=f"{block}.{kind}", op=op, repeats=heads, batch=BATCH, dtype="fp32")
        for kind, op in kinds.items()
    ]


def _other_params(network: networks.Network, name: str) -> int:
    """Return the sizes of position embedding and norms, at the layer that follows them."""
    block, _, kind = name.partition(".")
    after = {"qkv": f"{block}.norm1", "up": f"{block}.norm2", "head": "norm", "embed": "position"}
    norm = after.get(kind or name, "")
    return sum(x.numel() for key, x in network.others.items() if norm and key.endswith(norm))


def arrays(network: networks.Network) -> tuple[Arrays, Arrays]:
    """Return the weights by layer, zero where pruned, and what else is learned."""
    weights = {
        name: (product.weight * product.mask).detach().numpy()
        for name, product in network.products.items()
    }
    extra = {f"bias/{name}": x.bias.detach().numpy() for name, x in network.products.items()}
    return weights, extra | {name: x.detach().numpy() for name, x in network.others.items()}


def record(
    folder: Path, network: networks.Network, variant: train.Variant, row: Mapping[str, Any]
) -> None:
    """Write the trace; refuse to if numpy and torch disagree about the accuracy."""
    data = train.digits()
    images, labels = data.images[data.test], data.labels[data.test]
    weights, extra = arrays(network)
    run = forward.NETWORKS[network.name]
    logits, _ = run(images, weights, extra)
    right = int((logits.argmax(axis=1) == labels).sum())
    if right != row["correct"]:
        raise RuntimeError(f"{variant}: numpy finds {right} right, torch {row['correct']}")
    net = workload(network, variant)
    path = folder / f"{net.name}.trace"
    about = facts(network, variant, row) | {"least_margin": margin(logits)}
    shape = {"images": (BATCH, 8, 8)}
    with recording(path, net, inputs=shape, facts=about, provenance=provenance(row)) as draft:
        for name, values in extra.items():
            draft.extra(name, values)
        draft.extra("test_images", images)
        draft.extra("test_labels", labels)
        for name, product in network.products.items():
            draft.weights(name, weights[name])
            if product.pattern is not None:
                draft.mask(name, product.mask.numpy().astype(bool))
            if product.backward_mask is not None:
                draft.extra(f"backward_mask/{name}", product.backward_mask.numpy().astype(bool))
        _activations(draft, net, run(images[:BATCH], weights, extra)[1])


def _activations(draft: Draft, net: Workload, seen: Arrays) -> None:
    """Record where each layer's input is not zero, in the shape the trace wants."""
    for layer in net:
        mask = seen[layer.name] != 0
        if isinstance(layer.op, Matmul):
            mask = mask.reshape(layer.runs, layer.gemm.t, layer.gemm.k)
        elif isinstance(layer.op, Linear):
            mask = mask.reshape(layer.gemm.t, layer.gemm.k)
        draft.activation_mask(layer, 0, mask)


def margin(logits: npt.NDArray[np.float32]) -> float:
    """Return the least distance of the two largest logits: what rounding would have to move."""
    ordered = np.sort(logits, axis=1)
    return round(float((ordered[:, -1] - ordered[:, -2]).min()), 6)


def facts(
    network: networks.Network, variant: train.Variant, row: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the header says about the network and how it was trained."""
    stages = [stage._asdict() for stage in (train.FIRST, train.SECOND)]
    return {
        "network": network.name,
        "variant": variant.name,
        "pattern": variant.pattern,
        "dense_layers": [name for name in network.products if name not in network.prunable],
        "density_of_pruned_layers": row["density"],
        "accuracy": {
            "correct": row["correct"], "images": row["images"],
            "percent": row["accuracy_percent"],
            "percent_before_stage_2": round(
                100 * row["correct_before_stage_2"] / row["images"], 4
            ),
        },
        "split": "test: images whose index in load_digits() is a multiple of 5; train: the others",
        "traced_batch": f"test images 0 … {BATCH - 1}",
        "order_of_k": "convolutions: (kernel row, kernel column, channel), channel fastest; "
        "fc1: (row, column, channel); attention's runs: (image, head)",
        "training": {
            "method": variant.words, "seed": row["seed"], "optimiser": "SGD, cross-entropy",
            "batch": train.BATCH, "momentum": train.MOMENTUM,
            "weight_decay": train.WEIGHT_DECAY, "stages": stages,
            "sr_ste_decay": train.SR_STE_DECAY if variant.method in ("sr-ste", "bdwp") else 0,
        },
    }  # fmt: skip


def provenance(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return who, when, from what, with which versions."""
    import sklearn
    import torch

    return {
        "made_by": f"python reports/digits/train.py (seed {row['seed']})",
        "date": DATE, "source": SOURCE, "license": LICENSE,
        "versions": {
            "accsim": accsim.__version__, "python": platform.python_version(),
            "torch": torch.__version__, "numpy": np.__version__,
            "scikit-learn": sklearn.__version__, "machine": platform.machine(),
        },
    }  # fmt: skip
