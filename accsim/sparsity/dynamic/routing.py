"""Which expert each token goes to: top-k of skewed, sticky choices, with capacity.

Choices are drawn without replacement in proportion to the experts' popularity (Gumbel top-k).
Along a sequence a token repeats its predecessor's choices with probability ``sticky``, else it
draws anew: the first choice then repeats with probability sticky + (1 − sticky)·Σp².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.base.rng import stream

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Fitted so that of 8 equally popular experts the first choice repeats 27.9 % of the time:
# Mixtral of Experts, arXiv 2401.04088, table 5, layer 15, ArXiv (cited from memory).
MIXTRAL_STICKY = 0.176
# Assumed; its 8 experts get 8 to 23 % of the tokens each.
ASSUMED_ZIPF = 0.5


@dataclass(frozen=True, kw_only=True)
class Router:
    """A mixture's router. The first ``experts`` slots are feed-forward networks, then come those
    that compute (almost) nothing: zero, copy and constant experts (MoE++).

    ``tau`` is the weight of a feed-forward expert against 1 of a computation-free one, in
    popularity and in capacity. ``capacity`` (None: no limit) times the even share is what an expert
    takes; the rest is dropped.
    """

    experts: int
    least: int
    most: int
    zipf: float = ASSUMED_ZIPF
    dirichlet: float | None = None
    sticky: float = MIXTRAL_STICKY
    capacity: float | None = None
    zero: int = 0
    copy: int = 0
    const: int = 0
    tau: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most <= self.slots:
            raise InputError(
                f"a router needs 1 <= k <= its {self.slots} experts; "
                f"got k {self.least} to {self.most}"
            )

    @property
    def slots(self) -> int:
        """All experts, computation-free ones included."""
        return self.experts + self.zero + self.copy + self.const

    @property
    def weights(self) -> Floats:
        """The even share of each slot: tau for feed-forward, 1 for the others; sums to 1."""
        free = self.slots - self.experts
        raw = np.array([self.tau] * self.experts + [1.0] * free)
        return np.asarray(raw / raw.sum())

    def popularity(self, seed: int, name: str) -> Floats:
        """Return the probability of each slot as first choice: skewed among the feed-forward."""
        rng = stream(seed, "popularity", name)
        shares = self.weights
        if self.dirichlet is not None:
            skew = rng.dirichlet(np.full(self.experts, self.dirichlet))
        else:
            skew = rng.permutation(1.0 / np.arange(1, self.experts + 1) ** self.zipf)
            skew /= skew.sum()
        shares[: self.experts] = shares[: self.experts].sum() * skew
        return shares

    def choose(self, seed: int, name: str, sequences: int, length: int) -> Ints:
        """Return the choices (sequences, length, most), best first; −1 beyond a token's k."""
        rng = stream(seed, "routing", name, sequences, length)
        with np.errstate(divide="ignore"):
            scores = np.log(self.popularity(seed, name))
        scores = scores + rng.gumbel(size=(sequences, length, self.slots))
        own = np.argsort(-scores, axis=-1, kind="stable")[..., : self.most]
        k = rng.integers(self.least, self.most, size=(sequences, length), endpoint=True)
        own = np.where(np.arange(self.most) < k[..., None], own, -1)
        fresh = rng.random((sequences, length)) >= self.sticky
        source = np.maximum.accumulate(np.where(fresh, np.arange(length), 0), axis=1)
        return np.asarray(np.take_along_axis(own, source[..., None], axis=1), dtype=np.int64)

    def route(self, seed: int, name: str, sequences: int, tokens: int, steps: int) -> Routing:
        """Return the loads of ``steps`` steps of ``tokens`` tokens of each sequence."""
        chosen = self.choose(seed, name, sequences, tokens * steps)
        assigned = np.zeros((steps, self.slots), np.int64)
        for step in range(steps):
            now = chosen[:, step * tokens : (step + 1) * tokens]
            assigned[step] = np.bincount(now[now >= 0], minlength=self.slots)
        return Routing(self, assigned, self._limits(assigned))

    def _limits(self, assigned: Ints) -> Ints:
        """Return what each slot takes at most in each step."""
        totals = assigned.sum(axis=1, keepdims=True)
        if self.capacity is None:
            return np.broadcast_to(totals, assigned.shape).copy()
        # a hair below, so that 1.25 · 512 · 2/8 stays 160 when a share is not a binary fraction
        return np.asarray(np.ceil(self.capacity * totals * self.weights - 1e-9), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Routing:
    """Token counts (steps, slots): ``assigned`` by the router, at most ``limits`` taken."""

    router: Router
    assigned: Ints
    limits: Ints

    @property
    def tokens(self) -> Ints:
        """What each slot computes: (steps, slots)."""
        return np.minimum(self.assigned, self.limits)

    @property
    def dropped(self) -> Ints:
        """Assignments beyond capacity, by step."""
        lost: Ints = (self.assigned - self.tokens).sum(axis=1)
        return lost

    def rows(self, step: int, *, pad: bool = False) -> Ints:
        """Return the rows each feed-forward expert runs; ``pad`` fills all up to the capacity."""
        found = (self.limits if pad else self.tokens)[step, : self.router.experts]
        return np.asarray(found, dtype=np.int64)

    @property
    def imbalance(self) -> Floats:
        """The fullest feed-forward expert over the mean, by step."""
        real = self.tokens[:, : self.router.experts]
        return np.asarray(real.max(axis=1) / np.maximum(real.mean(axis=1), 1e-300))
