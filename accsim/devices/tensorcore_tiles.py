"""CTA tiles of a GPU library: their shapes, how many fit an SM, what they read of shared memory."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.spec.gpu import Gpu, Kernel

Floats = npt.NDArray[np.float64]

# Sides along n (weight columns) and t (tokens). NVIDIA's CUTLASS profiles these shapes by default;
# cuBLASLt and cuSPARSELt name theirs the same way (…_128x256_…).
CATALOGUE = (
    (256, 128), (128, 256), (192, 128), (128, 192), (128, 128), (256, 64), (64, 256),
    (128, 64), (64, 128), (64, 64), (128, 32), (64, 32), (32, 64),
)  # fmt: skip
SPLITS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
STREAM_K = 0  # in place of a number of splits: all tiles' k dealt evenly to the CTAs that fit
STEP = 64  # k a tile is padded to
STAGE_BYTES = 64  # of k a pipeline stage holds, in bytes of X
STAGES = 4  # assumed: of a multistage mainloop, 3 to 5 in CUTLASS (from memory)
LEAST_STAGES = 3
RESERVED_BYTES = 1024  # of shared memory, by CUDA for each CTA (programming guide, from memory)
WARP = 64 * 64  # accumulators of one warp's tile
THREADS, EXTRA_REGISTERS_BYTES = 128, 100  # of a warp tile: fragments and addresses, by thread
WGMMA_ROWS = 64  # rows of W one warpgroup multiplies; each reads the whole tile of X


@dataclass(frozen=True, eq=False)
class Tiles:
    """Candidate tiles of one kernel: arrays over candidates, sides, residents, bytes by k."""

    n: Floats
    t: Floats
    splits: Floats
    resident: Floats  # CTAs of it an SM holds
    shared_bytes_per_k: Floats  # through the shared-memory port, written and read, one k of a CTA
    fetch_bytes_per_k: Floats  # from L2, one k of a CTA

    def __len__(self) -> int:
        return len(self.n)

    def take(self, which: npt.NDArray[np.intp]) -> Tiles:
        """Return the chosen candidates."""
        return Tiles(*(getattr(self, f.name)[which] for f in fields(self)))


@dataclass(frozen=True)
class Operands:
    """Bytes of one element and what multiplying costs.

    ``w_bytes`` and ``index_bytes`` are of one element of dense W as packed (values, positions).
    ``rate`` is dense-equivalent MACs of one SM in a clock, nominal; ``kept`` executed over dense
    MACs; ``mac_pj`` the energy of an executed one at boost; ``chain_cycles`` those of dependent
    instructions over one k.
    """

    w_bytes: float
    index_bytes: float
    x_bytes: float
    y_bytes: float
    rate: float
    kept: float
    mac_pj: float
    chain_cycles: float = 0.0

    @property
    def packed_bytes(self) -> float:
        """Bytes of one element of dense W, positions included."""
        return self.w_bytes + self.index_bytes


def candidates(gpu: Gpu, kernel: Kernel, operands: Operands) -> Tiles:
    """Return every tile and split the kernel's library may choose on this GPU."""
    n, t = np.array(kernel.tiles or CATALOGUE, dtype=np.float64).T
    inside = np.maximum(n, t) <= kernel.largest_tile
    n, t = n[inside], t[inside]
    fetch = n * operands.packed_bytes + x_held(gpu.tensor.fetch, t) * operands.x_bytes
    resident = resident_ctas(gpu, n, t, fetch * STAGE_BYTES / max(operands.x_bytes, 0.5))
    fits = resident > 0
    if not fits.any():
        raise InputError(
            f"device '{gpu.name}': no CTA tile up to {kernel.largest_tile} fits an SM's "
            f"{gpu.sm.shared_kb:g} KiB of shared memory"
        )
    n, t, fetch, resident = n[fits], t[fits], fetch[fits], resident[fits]
    shared = fetch + fragment_bytes(gpu.tensor.fetch, n, t, operands)
    shares = [s for s in SPLITS if s <= kernel.most_splits]
    splits = np.array([*shares, STREAM_K] if kernel.stream_k else shares, dtype=np.float64)
    tile, split = np.repeat(np.arange(len(n)), len(splits)), np.tile(splits, len(n))
    return Tiles(n[tile], t[tile], split, resident[tile], shared[tile], fetch[tile])


def resident_ctas(gpu: Gpu, n: Floats, t: Floats, stage_bytes: Floats) -> Floats:
    """Return how many CTAs of each tile an SM holds: shared memory, registers, a ceiling."""
    shared = gpu.sm.shared_kb * 1024
    accumulators = n * t * 4 + n * t / WARP * THREADS * EXTRA_REGISTERS_BYTES
    by_shared = np.floor(shared / (STAGES * stage_bytes + RESERVED_BYTES))
    least = LEAST_STAGES * stage_bytes + RESERVED_BYTES
    by_shared = np.where(by_shared == 0, shared >= least, by_shared)
    by_registers = np.maximum(np.floor(gpu.sm.register_kb * 1024 / accumulators), 1)
    found: Floats = np.minimum(np.minimum(by_shared, by_registers), gpu.sm.most_ctas)
    return found


def x_held(fetch: str, t: Floats) -> Floats:
    """Return the tokens of a CTA's tile its own SM holds: half of them where two SMs share X."""
    return t / 2 if fetch == "paired" else t


def fragment_bytes(fetch: str, n: Floats, t: Floats, operands: Operands) -> Floats:
    """Return what tensor cores read of shared memory in one k of a CTA, bytes.

    ``registers``: the warps of a CTA form a grid; each loads a row of W's and a column of X's
    fragments, so that W is read once by each column of warps. ``shared``: a warpgroup reads its 64
    rows of W and all of X. ``tensor_memory``: each operand once; ``paired``: half of X.
    """
    packed = operands.packed_bytes
    if fetch in ("tensor_memory", "paired"):
        return n * packed + x_held(fetch, t) * operands.x_bytes
    if fetch == "shared":
        return n * packed + t * operands.x_bytes * np.maximum(n / WGMMA_ROWS, 1)
    warps = np.where(n * t > 128 * 128, 8.0, 4.0)
    rows = np.where((n >= 4 * t) | ((n > t) & (warps == 8)), 4.0, 2.0)
    rows = np.where(t >= 4 * n, 1.0, rows)
    return n * (warps / rows) * packed + t * rows * operands.x_bytes
