"""Synthetic weights with the row and column scale structure of trained networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accsim.base.rng import stream

if TYPE_CHECKING:
    import numpy.typing as npt

# Log-standard-deviation of the row (k) and column (n) scales; how it was chosen: see the docstring.
SCALE_SIGMA = 0.5


def synthetic_weights(
    k: int, n: int, *, seed: int = 0, name: str = "", iid: bool = False
) -> npt.NDArray[np.float32]:
    """Return a (k, n) float32 matrix w[i, j] = row[i] · column[j] · g[i, j].

    g is standard normal; row and column scales are log-normal with log-standard-deviation
    ``SCALE_SIGMA``. On plain Gaussian noise (``iid=True``) the ranking of sparsity patterns by
    what they retain is reversed against real networks (facts/patterns.md), so it is never the
    default. SCALE_SIGMA was *fitted* to the retained magnitudes of facts/patterns.md for
    unstructured and 2:8 pruning to 25 % of 1024² weights with scales (.642, .545).
    """
    rng = stream(seed, "weights", name, k, n)
    weights = rng.standard_normal((k, n), dtype=np.float32)
    if not iid:
        weights *= np.exp(SCALE_SIGMA * rng.standard_normal((k, 1), dtype=np.float32))
        weights *= np.exp(SCALE_SIGMA * rng.standard_normal((1, n), dtype=np.float32))
    return weights


def retained_magnitude(weights: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]) -> float:
    """Return Σ|w| over the kept weights divided by Σ|w| over all (1 for all-zero weights)."""
    total = float(np.abs(weights).sum(dtype=np.float64))
    return float(np.abs(weights[mask]).sum(dtype=np.float64)) / total if total else 1.0


def retained_energy(weights: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]) -> float:
    """Return Σw² over the kept weights divided by Σw² over all (1 for all-zero weights)."""
    squares = np.square(weights, dtype=np.float64)
    total = float(squares.sum())
    return float(squares[mask].sum()) / total if total else 1.0
