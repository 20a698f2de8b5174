"""The two digit networks in plain numpy, from the arrays of a trace: a second opinion on train.py.

``weights[name]`` is the (k, n) matrix of a layer, ``extra[name]`` what else a network needs; a
convolution's k runs over (kernel row, kernel column, channel), channel fastest. Nothing here knows
of accsim or torch. Every function takes and returns float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, Array]

HEADS = 4
PATCH = 2


def prepared(images: npt.NDArray[np.uint8]) -> Array:
    """Return 8×8 images of 0 … 16 as (batch, 8, 8, 1) from 0 to 1."""
    return (images.astype(np.float32) / np.float32(16))[..., None]


def linear(name: str, x: Array, weights: Arrays, extra: Arrays) -> Array:
    """Return x·W + b over the last axis."""
    return x @ weights[name] + extra[f"bias/{name}"]


def conv3x3(name: str, x: Array, weights: Arrays, extra: Arrays) -> Array:
    """Return the 3×3 convolution of (batch, height, width, channels), padded by one."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return linear(name, np.concatenate(taps, axis=-1), weights, extra)


def pooled(x: Array) -> Array:
    """Return the largest of each 2×2 square."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def relu(x: Array) -> Array:
    """Return the positive part."""
    return np.maximum(x, np.float32(0))


def normed(name: str, x: Array, extra: Arrays) -> Array:
    """Return layer norm over the last axis, ε = 1e-5."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    return centred / spread * extra[f"scale/{name}"] + extra[f"shift/{name}"]


def softmax(x: Array) -> Array:
    """Return softmax over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def patches(x: Array) -> Array:
    """Return 2×2 patches as tokens: (batch, 16, 4), row by row in the image and in the patch."""
    batch, size = x.shape[:2]
    cut = x.reshape(batch, size // PATCH, PATCH, size // PATCH, PATCH).transpose(0, 1, 3, 2, 4)
    return cut.reshape(batch, -1, PATCH * PATCH)


def cnn(images: npt.NDArray[np.uint8], weights: Arrays, extra: Arrays) -> tuple[Array, dict]:
    """Return logits (batch, 10) and the input of each layer."""
    seen: dict[str, Array] = {}

    def layer(run: Callable[..., Array], name: str, x: Array) -> Array:
        seen[name] = x
        return run(name, x, weights, extra)

    x = relu(layer(conv3x3, "conv1", prepared(images)))
    x = pooled(relu(layer(conv3x3, "conv2", x)))
    x = pooled(relu(layer(conv3x3, "conv3", x)))
    x = relu(layer(linear, "fc1", x.reshape(len(x), -1)))
    return layer(linear, "fc2", x), seen


def attention(x: Array, scores: str, context: str, seen: dict[str, Array]) -> Array:
    """Return softmax(Q·Kᵀ/√d)·V of (batch, tokens, 3·width): queries, keys, values, by head."""
    batch, tokens, width = x.shape
    split = x.reshape(batch, tokens, 3, HEADS, width // 3 // HEADS).transpose(2, 0, 3, 1, 4)
    seen[scores] = split[0]
    sharp = softmax(split[0] @ split[1].swapaxes(-1, -2) / np.float32(split.shape[-1] ** 0.5))
    seen[context] = sharp
    return (sharp @ split[2]).transpose(0, 2, 1, 3).reshape(batch, tokens, -1)


def transformer(
    images: npt.NDArray[np.uint8], weights: Arrays, extra: Arrays
) -> tuple[Array, dict]:
    """Return logits (batch, 10) and the input of each layer; attention's are those of Q and of P.

    Blocks normalise before attention and before the MLP; tokens are averaged for the classifier.
    """
    seen: dict[str, Array] = {}

    def layer(name: str, x: Array) -> Array:
        seen[name] = x
        return linear(name, x, weights, extra)

    x = layer("embed", patches(prepared(images))) + extra["position"]
    for block in sorted({name.partition(".")[0] for name in weights if "." in name}):
        qkv = layer(f"{block}.qkv", normed(f"{block}.norm1", x, extra))
        x = x + layer(f"{block}.out", attention(qkv, f"{block}.qk", f"{block}.pv", seen))
        hidden = relu(layer(f"{block}.up", normed(f"{block}.norm2", x, extra)))
        x = x + layer(f"{block}.down", hidden)
    return layer("head", normed("norm", x, extra).mean(axis=1)), seen


NETWORKS = {"cnn": cnn, "transformer": transformer}
