"""Which activations are non-zero: a latent-factor model, correlated along channels and tokens.

z[token, channel] = √ρ·u[channel] + √ω·w[token] + √(1 − ρ − ω)·e[token, channel], all standard
normal; an activation is active where z exceeds the threshold of its density, so the density is
exact in expectation. ρ makes the same channels active again and again (it sets how the union of
several tokens grows), ω makes whole tokens denser or sparser. Hot channels do not drift (assumed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import erf, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near
from accsim.base.rng import stream

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

# Medians of eight real MobileNet-0.5 activation masks (Sparseloop's artefact at de0374aa00fd):
# ρ fitted to the union of 8 neighbouring pixels of each (.81 to .91), ω to the covariance of
# channels within a pixel (−.003 to .05).
RELU_CHANNEL = 0.857
RELU_TOKEN = 0.0035
# Of the integral over u: ±8 standard deviations in steps of 0.01, sharp edges at ρ near 1 seen.
REACH, POINTS = 8.0, 1601
# Fitted to BlockFFN: 20 % of experts active for one token, 30 % for the union of 8.
BLOCKFFN_CHANNEL = 0.9475


def union_density(density: float, channel: float, window: int) -> float:
    """Return the expected share of channels active for at least one of ``window`` tokens.

    ∫ 1 − Φ((q − √ρ·u)/√(1 − ρ))^window φ(u) du by the trapezium rule.

    >>> round(union_density(0.2, 0.0, 8), 3)  # independent draws leave 17 %
    0.832
    """
    if density in (0.0, 1.0) or channel >= 1.0:
        return density
    points = np.linspace(-REACH, REACH, POINTS)
    weights = np.exp(-(points**2) / 2)
    threshold = NormalDist().inv_cdf(1 - density)
    below = (threshold - sqrt(channel) * points) / sqrt(1 - channel)
    off = np.array([0.5 * (1 + erf(x / sqrt(2))) for x in below])
    return float(np.sum(weights * (1 - off**window)) / np.sum(weights))


def fit_channel(density: float, union: float, window: int) -> float:
    """Return the ρ under which ``window`` tokens of ``density`` have a union of ``union``.

    >>> round(fit_channel(0.2, 0.3, 8), 4) == BLOCKFFN_CHANNEL
    True
    """
    most = union_density(density, 0.0, window)
    if not density <= union <= most:
        raise InputError(
            f"the union of {window} tokens of density {density:g} lies between {density:g} and "
            f"{most:.4g} (independent draws); got {union:g}"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if union_density(density, middle, window) > union else (low, middle)
        )
    return low


@dataclass(frozen=True)
class Activity:
    """The parameters of the model; with ``topk`` every token has exactly round(d·k) active."""

    channel: float = RELU_CHANNEL
    token: float = RELU_TOKEN
    topk: bool = False

    def __post_init__(self) -> None:
        if not (self.channel >= 0 and self.token >= 0 and self.channel + self.token <= 1):
            raise InputError(
                "channel and token must be shares that add up to at most 1; "
                f"got {self.channel:g} and {self.token:g}"
            )

    def latent(self, seed: int, site: str, token: int, channels: int) -> Floats:
        """Return z of one token: float32, (channels,). Each token has its own stream."""
        rng = stream(seed, "activity", site, token)
        own = rng.standard_normal(channels, dtype=np.float32)
        shared = np.float32(rng.standard_normal())
        rest = np.float32(sqrt(max(0.0, 1 - self.channel - self.token)))
        z: Floats = rest * own + np.float32(sqrt(self.token)) * shared
        return z + np.float32(sqrt(self.channel)) * self._hot(seed, site, channels)

    def _hot(self, seed: int, site: str, channels: int) -> Floats:
        return stream(seed, "hot channels", site).standard_normal(channels, dtype=np.float32)

    def active(self, z: Floats, density: float) -> Bools:
        """Return which of one token's channels are active."""
        if not self.topk:
            if density in (0.0, 1.0):
                return np.full(z.shape, density == 1.0)
            return z > np.float32(NormalDist().inv_cdf(1 - density))
        keep = round(density * z.size)
        chosen = np.zeros(z.shape, np.bool_)
        chosen[np.argsort(-z, kind="stable")[:keep]] = True
        return chosen


@dataclass(frozen=True, kw_only=True)
class Input:
    """The input of one layer in one step: its site, extents and density of non-zeros."""

    site: str
    tokens: int
    channels: int
    density: float


@dataclass(frozen=True)
class ActivationMasks:
    """The masks of layers' inputs, made when asked for: the same in any order.

    Layers that read the same input (q, k, v; gate, up) share its draws: at equal densities their
    masks are equal, at different ones nested.
    """

    seed: int
    activity: Activity
    inputs: Mapping[str, Input] = field(repr=False)

    def input(self, layer: str) -> Input:
        """Return the input of the layer called ``layer``; InputError with the near word."""
        if layer not in self.inputs:
            raise InputError(f"no activations of '{layer}' are masked{near(layer, self.inputs)}")
        return self.inputs[layer]

    def mask(self, layer: str, step: int = 0) -> Bools:
        """Return which inputs of a step are non-zero: bool, (tokens, channels)."""
        return np.stack(list(self._tokens(self.input(layer), step)))

    def union(self, layer: str, step: int = 0) -> Bools:
        """Return which channels any token of a step needs: bool, (channels,)."""
        found = self.input(layer)
        union = np.zeros(found.channels, np.bool_)
        for token in self._tokens(found, step):
            union |= token
        return union

    def _tokens(self, found: Input, step: int) -> Iterator[Bools]:
        for token in range(step * found.tokens, (step + 1) * found.tokens):
            z = self.activity.latent(self.seed, found.site, token, found.channels)
            yield self.activity.active(z, found.density)
