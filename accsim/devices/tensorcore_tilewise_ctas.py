"""CTAs of a tile-wise kernel: cycles of one by how many share its SM, and of a whole grid of them.

A CTA alone on its SM takes ``mma + wait`` cycles a step of k: the tensor cores work, then wait for
operands and barriers. Residents fill each other's waits: a closed queue with one server, the tensor
cores, whose throughput mean-value analysis gives exactly (Reiser and Lavenberg, J. ACM 27, 1980).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from accsim.spec.gpu import Gpu
from accsim.spec.gpu_tilewise import TileWiseKernel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ctas:
    """CTAs of one kernel on one GPU; all cycles at the boost clock.

    ``covered_k`` is the k of W one step goes through, ``mma``, ``wait`` and ``gather`` are cycles
    of a step, ``edge`` and ``scatter`` of a CTA outside its steps. ``fixed`` and ``launch`` are
    cycles of a call and between the launches of two tiles.
    """

    tile_n: int
    tile_t: int
    covered_k: int
    residents: int
    sms: int
    mma: float
    wait: float
    gather: float
    edge: float
    scatter: float
    fixed: float
    launch: float
    streams: int

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """k steps in a cycle of an SM that holds 0 … ``residents`` CTAs."""
        found, queue = [0.0], 0.0
        for n in range(1, self.residents + 1):
            inside = self.mma * (1 + queue)
            found.append(n / (inside + self.wait + self.gather))
            queue = found[-1] * inside
        return tuple(found)

    @property
    def slots(self) -> int:
        """CTAs that run at once on all SMs."""
        return self.sms * self.residents

    def steps(self, k: npt.ArrayLike) -> Floats:
        """Return the steps of CTAs that keep k rows."""
        return np.ceil(np.asarray(k, dtype=np.float64) / self.covered_k)

    def sm_cycles(self, k: npt.ArrayLike) -> Floats:
        """Return what a CTA takes of the time of an SM that is full."""
        return self.edge + self.scatter + self.steps(k) / self.rates[-1]

    def cycles(self, k: npt.ArrayLike, depth: int) -> Ints:
        """Return the whole cycles from start to end of CTAs of which ``depth`` share each SM."""
        longer = depth * self.rates[-1] / self.rates[depth]
        return np.ceil(self.sm_cycles(k) * longer).astype(np.int64)

    def without_gather(self) -> Ctas:
        """Return the CTAs as if rows lay one after the other, in X as in Y."""
        return replace(self, gather=0.0, scatter=0.0)

    def last_wave(self, ctas: int) -> tuple[int, int, int]:
        """Return full waves, CTAs left for the last one, and how many of these share an SM."""
        waves, rest = divmod(ctas, self.slots)
        return waves, rest, -(-rest // self.sms)

    def makespan(self, k: Ints, rows: int, starts: Ints | None = None) -> float:
        """Return cycles from the first launch to the end of the last CTA.

        Full waves, then one in which fewer CTAs share an SM; k by its mean, but no CTA ends sooner
        than it would alone. A CTA of the first wave that is launched late makes all that follow it
        on its slot as late. Exact where all k are equal.

        Args:
            k: rows each column of CTAs keeps, in launch order, (columns,).
            rows: CTAs along the tokens.
            starts: cycle each column is launched at, rising; all at once if not given.
        """
        if not k.size:
            return 0.0
        ctas = rows * k.size
        at = np.zeros(k.size, dtype=np.int64) if starts is None else starts
        waves, rest, deep = self.last_wave(ctas)
        ends = [float((at + self.cycles(k, self.depth(ctas))).max())]
        full = waves * float(self.cycles(k, self.residents).mean()) if waves else 0.0
        if waves:
            ends.append(full + int(at[(self.slots - 1) // rows]))
        if rest:
            tail = float(self.cycles(k, deep).mean())
            ends.append(full + tail + int(at[(rest - 1) // rows]))
        return max(ends)

    def depth(self, ctas: int) -> int:
        """Return how many CTAs share the fullest SM."""
        return min(self.residents, -(-ctas // self.sms))


def ctas_of(kernel: TileWiseKernel, gpu: Gpu, rate: float, *, dense: bool, sparse: bool) -> Ctas:
    """Return the CTAs of a kernel on a GPU.

    Args:
        kernel: what its CTAs and launches take.
        gpu: the chip.
        rate: multiply-accumulates of one SM in a clock, those by zeros that mma.sp skips included.
        dense: the kernel it is built from, over a dense W: one launch, nothing to gather.
        sparse: kept k are in 2:4. A step stores ``step_k`` of them and covers twice as many.
    """
    plain = dense or kernel.fused
    per_us = gpu.clock_ghz * 1e3
    covered = kernel.step_k * (2 if sparse else 1)
    edge = kernel.dense_edge_us if plain else min(kernel.dense_edge_us, kernel.edge_us)
    return Ctas(
        tile_n=kernel.tile_n,
        tile_t=kernel.tile_t,
        covered_k=covered,
        residents=kernel.residents,
        sms=gpu.sms,
        mma=kernel.tile_n * kernel.tile_t * covered / rate,
        wait=kernel.stall_cycles,
        gather=0.0 if plain else kernel.gather_cycles,
        edge=edge * per_us,
        scatter=0.0 if plain else (kernel.edge_us - edge) * per_us,
        fixed=kernel.fixed_us * per_us,
        launch=0.0 if plain else kernel.launch_us * per_us,
        streams=kernel.streams,
    )
