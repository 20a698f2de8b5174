"""Train the digit networks; write accuracy.csv, the figure and workloads/traces/digits-*.trace.

    python reports/digits/train.py [--jobs 2]     # all: about five minutes on two cores
    python reports/digits/train.py --figure       # remake the figure from accuracy.csv

Needs torch and scikit-learn (not the figure). Deterministic: one thread a training, every random
number from the seed; other versions or processors may round differently.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from networks import Network

HERE = Path(__file__).parent
TRACES = HERE.parent.parent / "workloads" / "traces"
NETWORKS = ("cnn", "transformer")
SEEDS = (0, 1, 2, 3, 4)
TRACED_SEED = 0
TEST_EVERY = 5  # image i is a test image if i is a multiple: 360 of 1797
BATCH, MOMENTUM, WEIGHT_DECAY = 64, 0.9, 5e-4
SR_STE_DECAY = 2e-4  # λ of SR-STE (facts/fpga_training.md); BDWP's is assumed to be the same


class Stage(NamedTuple):
    """Epochs of SGD: the rate rises linearly over ``warm_steps`` and falls as a cosine to 0."""

    epochs: int
    rate: float
    warm_steps: int


FIRST, SECOND = Stage(30, 0.05, 44), Stage(15, 0.02, 1)


class Variant(NamedTuple):
    """How a network is pruned: a pattern, and a method of networks.py."""

    name: str
    pattern: str
    method: str
    words: str


VARIANTS = (
    Variant("dense", "dense", "", "dense in both stages"),
    Variant("2of4", "2:4", "sr-ste", "SR-STE in both stages"),
    Variant("bdwp-2of8", "bidirectional:2:8", "bdwp", "BDWP in both stages"),
    Variant("tw", "tw:16@0.75", "fixed", "dense, pruned once by magnitude, then fine-tuned"),
    Variant("tvw", "tvw:16@0.75", "fixed", "dense, pruned once by magnitude, then fine-tuned"),
    Variant(
        "unstructured", "unstructured@0.9", "fixed",
        "dense, pruned once by magnitude layer by layer, then fine-tuned",
    ),
)  # fmt: skip


class Digits(NamedTuple):
    """scikit-learn's bundled digits: (images, 8, 8) of 0 … 16, their labels, which are for test."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    test: npt.NDArray[np.bool_]


class Trained(NamedTuple):
    """One training: its row of accuracy.csv, and the network."""

    row: dict[str, object]
    network: Network


@functools.cache
def digits() -> Digits:
    """Return the data and its split."""
    from sklearn.datasets import load_digits

    data = load_digits()
    test = np.arange(len(data.target)) % TEST_EVERY == 0
    return Digits(data.images.astype(np.uint8), data.target.astype(np.uint8), test)


def tensors(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images from 0 to 1 and labels of one half of the split."""
    import torch

    data = digits()
    mine = data.test == test
    images = torch.from_numpy(data.images[mine].astype(np.float32) / 16)
    return images, torch.from_numpy(data.labels[mine].astype(np.int64))


def fit(network: Network, stage: Stage, random: torch.Generator) -> None:
    """Train one stage; masks that follow the weights are taken anew before every step."""
    import torch
    import torch.nn.functional as F

    images, labels = tensors(test=False)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=stage.rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    whole = len(images) // BATCH * BATCH
    batches = [
        batch
        for _ in range(stage.epochs)
        for batch in torch.randperm(len(images), generator=random)[:whole].split(BATCH)
    ]
    moving = [product for product in network.pruned() if product.method != "fixed"]
    for step, batch in enumerate(batches):
        cosine = 0.5 * (1 + math.cos(math.pi * step / len(batches)))
        optimiser.param_groups[0]["lr"] = (
            stage.rate * min(1, (step + 1) / stage.warm_steps) * cosine
        )
        for product in moving:
            product.refresh()
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        for product in moving:
            product.decay_pruned(SR_STE_DECAY)
        optimiser.step()
    for product in moving:
        product.refresh()


def correct(network: Network) -> int:
    """Return how many test images are classified correctly."""
    import torch

    images, labels = tensors(test=True)
    with torch.no_grad():
        return int((network(images).argmax(dim=1) == labels).sum())


def prune(network: Network, variant: Variant) -> None:
    """Mask every layer but the first and the last."""
    import accsim

    for name in network.prunable:
        network.products[name].prune(accsim.pattern(variant.pattern), variant.method)


def train_all(name: str, seed: int) -> list[Trained]:
    """Train every variant of a network from one seed: equal start, equal order of batches."""
    import torch
    from networks import Network

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    random = torch.Generator().manual_seed(seed)
    base = Network(name, random)
    start, order = copy.deepcopy(base), random.get_state()
    fit(base, FIRST, random)
    middle = random.get_state()
    found = []
    for variant in VARIANTS:
        from_scratch = variant.method in ("sr-ste", "bdwp")
        network = copy.deepcopy(start if from_scratch else base)
        if variant.method:
            prune(network, variant)
        if from_scratch:
            random.set_state(order)
            fit(network, FIRST, random)
        before = correct(network)
        random.set_state(middle)
        fit(network, SECOND, random)
        row = _row(network, variant, seed) | {"correct_before_stage_2": before}
        found.append(Trained(row, network))
    return found


def _row(network: Network, variant: Variant, seed: int) -> dict[str, object]:
    right, images = correct(network), int(digits().test.sum())
    masks = [network.products[name].mask for name in network.prunable]
    kept = sum(float(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    return {
        "network": network.name, "variant": variant.name, "pattern": variant.pattern,
        "seed": seed, "density": round(kept, 6), "correct": right, "images": images,
        "accuracy_percent": round(100 * right / images, 4),
    }  # fmt: skip


def job(name: str, seed: int) -> list[dict[str, object]]:
    """Train, write the traces of the traced seed, return the rows of accuracy.csv."""
    from record import record

    found = train_all(name, seed)
    if seed == TRACED_SEED:
        for variant, trained in zip(VARIANTS, found, strict=True):
            record(TRACES, trained.network, variant, trained.row)
    return [trained.row for trained in found]


def main() -> None:
    """Train, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", action="store_true", help="only remake the figure")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    given = parser.parse_args()
    if not given.figure:
        TRACES.mkdir(exist_ok=True)
        names, seeds = zip(*((name, seed) for seed in SEEDS for name in NETWORKS), strict=True)
        with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
            rows = [row for part in pool.map(job, names, seeds) for row in part]
        order = {variant.name: at for at, variant in enumerate(VARIANTS)}
        rows.sort(key=lambda row: (row["network"], order[row["variant"]], row["seed"]))
        pd.DataFrame(rows).to_csv(HERE / "accuracy.csv", index=False)
    from figure import draw, summary

    accuracy = pd.read_csv(HERE / "accuracy.csv")
    print(summary(accuracy).to_string(index=False))
    draw(accuracy)


if __name__ == "__main__":
    main()
