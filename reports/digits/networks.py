"""The two digit networks in torch: every weight a (k, n) matrix that an accsim pattern prunes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F

from accsim.sparsity.bidirectional import Bidirectional
from accsim.spec.pattern import Pattern

Tensor = torch.Tensor
# fixed: pruned once, pruned weights stay zero. sr-ste: the mask is taken anew before each step, the
# gradient reaches all weights, pruned ones decay (SR-STE). bdwp: the same, and the gradient of the
# inputs comes from the weights that the backward mask keeps (BDWP, arXiv 2309.13015).
Method = Literal["fixed", "sr-ste", "bdwp"]
HEADS, WIDTH, HIDDEN, BLOCKS = 4, 64, 128, 2
TOKENS, PATCH = 16, 2


class Product:
    """A layer: y = x·W + b, or the 3×3 convolution that has W for its matrix.

    W is (k, n); a convolution's k runs over (kernel row, kernel column, channel), channel fastest.
    """

    def __init__(self, k: int, n: int, gain: float, random: torch.Generator, taps: int = 1) -> None:
        scale = (gain / (k * taps)) ** 0.5
        self.weight = (torch.randn(k * taps, n, generator=random) * scale).requires_grad_()
        self.bias = torch.zeros(n, requires_grad=True)
        self.taps, self.channels = taps, k
        self.pattern: Pattern | None = None
        self.method: Method = "fixed"
        self.mask = torch.ones(k * taps, n)
        self.backward_mask: Tensor | None = None

    def prune(self, pattern: Pattern, method: Method) -> None:
        """Mask the layer from now on."""
        self.pattern, self.method = pattern, method
        self.refresh()

    def refresh(self) -> None:
        """Take the masks anew from the weights."""
        assert self.pattern is not None
        values = self.weight.detach().numpy()
        self.mask = torch.from_numpy(self.pattern.mask(values)).float()
        if self.method == "bdwp":
            assert isinstance(self.pattern, Bidirectional)
            self.backward_mask = torch.from_numpy(self.pattern.backward_mask(values)).float()

    def decay_pruned(self, decay: float) -> None:
        """Add decay·w to the gradient of every pruned weight (SR-STE)."""
        assert self.weight.grad is not None
        self.weight.grad += decay * (1 - self.mask) * self.weight.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product with the weights kept; its gradients are those of the method."""
        if self.pattern is None or self.method == "fixed":
            return self._product(x, self.weight * self.mask, self.bias)
        # The value of the masked weights, with a gradient that reaches all of them.
        through = self.weight + (self.weight * self.mask - self.weight).detach()
        if self.backward_mask is None:
            return self._product(x, through, self.bias)
        y = self._product(x.detach(), through, self.bias)
        back = self._product(x, (self.weight * self.backward_mask).detach(), None)
        return y + (back - back.detach())  # adds zero, and the gradient of x

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.taps == 1:
            return x @ weight if bias is None else x @ weight + bias
        kernel = weight.reshape(3, 3, self.channels, -1).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, bias, padding=1)


class Network:
    """Layers by name, what else is learned, and the forward pass over images (batch, 8, 8)."""

    def __init__(self, name: str, random: torch.Generator) -> None:
        self.name = name
        self.products: dict[str, Product] = {}
        self.others: dict[str, Tensor] = {}  # learned, but multiplied by nothing on the array
        self._forward = {"cnn": self._cnn, "transformer": self._transformer}[name]
        for layer, k, n, gain, taps in _shapes(name):
            self.products[layer] = Product(k, n, gain, random, taps)
        if name == "transformer":
            self.others["position"] = torch.randn(TOKENS, WIDTH, generator=random) * 0.02
            norms = [f"block{i}.norm{j}" for i in range(BLOCKS) for j in (1, 2)]
            for norm in (*norms, "norm"):
                self.others[f"scale/{norm}"] = torch.ones(WIDTH)
                self.others[f"shift/{norm}"] = torch.zeros(WIDTH)
        for value in self.others.values():
            value.requires_grad_()

    @property
    def prunable(self) -> list[str]:
        """Every layer but the first and the last."""
        return list(self.products)[1:-1]

    def pruned(self) -> Iterator[Product]:
        """Yield the layers that have a pattern."""
        return (x for x in self.products.values() if x.pattern is not None)

    def parameters(self) -> list[Tensor]:
        """Return everything learned."""
        products = self.products.values()
        return [*(x.weight for x in products), *(x.bias for x in products), *self.others.values()]

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (batch, 10)."""
        return self._forward(images)

    def _cnn(self, images: Tensor) -> Tensor:
        run = self.products
        x = F.relu(run["conv1"](images[:, None]))
        x = F.max_pool2d(F.relu(run["conv2"](x)), 2)
        x = F.max_pool2d(F.relu(run["conv3"](x)), 2)
        x = F.relu(run["fc1"](x.permute(0, 2, 3, 1).flatten(1)))  # channel fastest
        return run["fc2"](x)

    def _transformer(self, images: Tensor) -> Tensor:
        run = self.products
        cut = images.unflatten(1, (-1, PATCH)).unflatten(3, (-1, PATCH)).permute(0, 1, 3, 2, 4)
        x = run["embed"](cut.reshape(len(images), TOKENS, -1)) + self.others["position"]
        for i in range(BLOCKS):
            block = f"block{i}"
            x = x + run[f"{block}.out"](
                _attention(run[f"{block}.qkv"], self._norm(f"{block}.norm1", x))
            )
            hidden = F.relu(run[f"{block}.up"](self._norm(f"{block}.norm2", x)))
            x = x + run[f"{block}.down"](hidden)
        return run["head"](self._norm("norm", x).mean(1))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        scale, shift = self.others[f"scale/{name}"], self.others[f"shift/{name}"]
        return F.layer_norm(x, (WIDTH,), scale, shift)


def _attention(qkv: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    split = qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    sharp = F.softmax(split[0] @ split[1].mT / split.shape[-1] ** 0.5, dim=-1)
    return (sharp @ split[2]).transpose(1, 2).flatten(2)


def _shapes(name: str) -> list[tuple[str, int, int, float, int]]:
    """Return name, k of a tap, n, gain (2 before a ReLU) and taps of each layer, in order."""
    if name == "cnn":
        return [
            ("conv1", 1, 32, 2, 9), ("conv2", 32, 64, 2, 9), ("conv3", 64, 64, 2, 9),
            ("fc1", 256, 64, 2, 1), ("fc2", 64, 10, 1, 1),
        ]  # fmt: skip
    block = [
        ("qkv", WIDTH, 3 * WIDTH, 1, 1), ("out", WIDTH, WIDTH, 1, 1),
        ("up", WIDTH, HIDDEN, 2, 1), ("down", HIDDEN, WIDTH, 1, 1),
    ]  # fmt: skip
    blocks = [(f"block{i}.{layer}", *rest) for i in range(BLOCKS) for layer, *rest in block]
    return [("embed", PATCH * PATCH, WIDTH, 1, 1), *blocks, ("head", WIDTH, 10, 1, 1)]
