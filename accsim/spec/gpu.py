"""A GPU with (sparse) tensor cores: chip, memories, board, and its libraries' kernels.

Equations: docs/tensorcore.md. Code: devices/tensorcore*.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from accsim.spec.base import (
    Extent,
    FiniteFloat,
    PositiveFinite,
    PositiveFloat,
    PositiveInt,
    Spec,
)
from accsim.spec.board import GpuBoard
from accsim.spec.dtype import DTypeName
from accsim.spec.gpu_compress import Compress
from accsim.spec.gpu_sparse import BlockKernel, SpmmKernel, VnmKernel
from accsim.spec.gpu_tilewise import TileWiseKernel
from accsim.spec.memory import MemoryLevel
from accsim.spec.schedule import Channel
from accsim.spec.sourced import Sourced

FetchName = Literal["registers", "shared", "tensor_memory", "paired"]
RasterName = Literal["free", "along_n"]
FamilyName = Literal["dense", "nm"]
RegimeName = Literal["launch", "memory", "compute"]

TWINS = {"bf16": "fp16", "fp16": "bf16"}
PARAMETERS = (  # of library kernels, that `accsim calibrate` fits
    "launch_us",
    "issue_share",
    "tile_cycles",
    "step_ns",
    "dram_share",
    "mac_pj",
    "burst_us",
    "overlap",
)

Share = Annotated[PositiveFloat, Field(le=1)]
Us = Annotated[FiniteFloat, Field(le=10**6)]


class Mma(Spec):
    """One multiply instruction: its shape in columns of W × tokens × k, and its latency.

    mma.sp has the dense one's latency, or its own, and twice its k.
    """

    shape: tuple[Extent, Extent, Extent]
    latency_cycles: PositiveFinite
    sparse_latency_cycles: PositiveFinite | None = None

    def chain_cycles(self, k: float, *, sparse: bool) -> float:
        """Return the cycles of dependent instructions over one k, by k: a sum adds one by one."""
        latency = self.sparse_latency_cycles if sparse else self.latency_cycles
        return k * (latency or self.latency_cycles) / (self.shape[2] * (2 if sparse else 1))


class TensorCore(Spec):
    """Tensor cores of one SM. ``fetch`` is where ``mma`` reads its operands from.

    ``registers``: mma.sync, every warp loads its fragments; ``shared``: wgmma, four warps read B
    together; ``tensor_memory``: tcgen05, an SM reads each operand once; ``paired``: the same by two
    SMs, each of which holds half of X's tile.
    """

    fetch: FetchName
    fma_per_clock: dict[DTypeName, PositiveInt] = Field(
        min_length=1, description="dense multiply-accumulates of one SM in one clock"
    )
    sparse_gain: dict[DTypeName, Annotated[PositiveFloat, Field(le=4)]] = Field(
        default_factory=dict, description="rate of mma.sp over mma, dense-equivalent"
    )

    mma: dict[DTypeName, Mma] = Field(
        default_factory=dict, description="the instruction kernels use, by format"
    )

    def rate(self, dtype: str) -> int:
        """Return the dense MACs of one SM in one clock; 0 for a format it does not multiply."""
        return {str(name): rate for name, rate in self.fma_per_clock.items()}.get(dtype, 0)

    def gain(self, dtype: str) -> float:
        """Return the rate of mma.sp over mma; 1 where there is none."""
        return {str(name): gain for name, gain in self.sparse_gain.items()}.get(dtype, 1.0)

    @model_validator(mode="after")
    def _gains_have_rates(self) -> TensorCore:
        for dtype in self.sparse_gain:
            if dtype not in self.fma_per_clock:
                raise ValueError(f"sparse_gain.{dtype} needs fma_per_clock.{dtype}")
        return self


class Sm(Spec):
    """One streaming multiprocessor."""

    shared_kb: Annotated[PositiveFloat, Field(le=4096, description="shared memory a CTA may use")]
    shared_bytes_per_clock: PositiveInt
    register_kb: Annotated[PositiveFloat, Field(le=4096)]
    fp32_fma_per_clock: Annotated[PositiveInt, Field(description="CUDA cores")]
    int8_fma_per_clock: Annotated[PositiveInt, Field(description="dp4a on CUDA cores")]
    most_ctas: Annotated[PositiveInt, Field(le=64, description="CTAs of a GEMM resident at once")]


class L2(Spec):
    """The last cache. Beyond ``knee`` of its size, a working set starts to miss."""

    mb: PositiveFinite
    bytes_per_clock: Annotated[PositiveFinite, Field(description="all SMs together")]
    knee: Annotated[PositiveFloat, Field(le=2, description="share of its size that stays resident")]
    latency_cycles: PositiveInt

    @property
    def resident_bytes(self) -> float:
        """Bytes that stay resident when read again and again."""
        return self.mb * 1e6 * self.knee


class GpuDram(Spec):
    """Device memory: its peak; kernels sustain ``dram_share`` of it."""

    gb_per_s: PositiveFinite
    gb: PositiveFinite
    latency_cycles: PositiveInt


class Launch(Spec):
    """Fixed times of the driver's queue."""

    kernel_us: Annotated[Us, Field(description="one more kernel on a stream")]
    graph_us: Annotated[Us, Field(description="one more kernel inside a graph")]


class Kernel(Spec):
    """What a library's GEMM kernels do on this chip in one number format.

    The first eight are physical parameters that `accsim calibrate` can fit; the others say which
    kernels the library has.
    """

    launch_us: Annotated[Us, Field(description="fixed time of a call, as a user's timer sees it")]
    issue_share: Annotated[Share, Field(description="mma rate within a tile over the nominal one")]
    tile_cycles: Annotated[FiniteFloat, Field(description="prologue and epilogue of one tile")]
    step_ns: Annotated[FiniteFloat, Field(description="least time of 128 bytes of k in one tile")]
    dram_share: Annotated[Share, Field(description="DRAM rate sustained over its peak")]
    mac_pj: Annotated[
        PositiveFinite | None, Field(description="executed MAC at boost; absent: the board's")
    ] = None
    burst_us: Annotated[Us, Field(description="kernel time by which the power cap has half acted")]
    overlap: Annotated[
        PositiveFloat, Field(ge=1, le=64, description="p of the norm that joins math, L2 and DRAM")
    ]
    raster: RasterName = "free"
    largest_tile: Annotated[Extent, Field(le=256, description="longest side of a CTA tile")] = 256
    most_splits: Annotated[PositiveInt, Field(le=16, description="split-k")] = 16
    stream_k: bool = Field(False, description="CTAs that share all tiles' k evenly (stream-k)")
    pad_t: Annotated[Extent, Field(le=1024, description="tokens are padded to a multiple")] = 1
    pad_k: Annotated[Extent, Field(le=1024, description="k is padded to a multiple")] = 1
    pad_n: Annotated[Extent, Field(le=1024, description="columns are padded to a multiple")] = 1
    tiles: Annotated[
        tuple[tuple[Extent, Extent], ...],
        Field(description="CTA tiles it has, n × t; empty: the whole catalogue"),
    ] = ()
    y_bytes: Annotated[
        PositiveFinite | None, Field(le=8, description="an output element; absent: the usual")
    ] = None


class Calibrated(Spec):
    """Where a kernel's parameters were fitted, and how far off it was out of fold.

    Ranges are of the measurements, ``intensity`` of their products per element of operands and
    result; errors are 90 % quantiles of |ln(predicted / measured)| by regime.
    """

    family: FamilyName
    dtype: DTypeName
    measurements: PositiveInt
    t: tuple[Extent, Extent]
    k: tuple[Extent, Extent]
    n: tuple[Extent, Extent]
    intensity: tuple[PositiveFinite, PositiveFinite]
    error: dict[RegimeName, FiniteFloat] = Field(min_length=1)


class Gpu(Spec):
    """A GPU. Its clock is the boost clock of the SMs; what the power cap takes is ``throttle``."""

    name: str = Field(min_length=1)
    title: str = ""
    kind: Literal["tensorcore"] = "tensorcore"
    sms: Annotated[PositiveInt, Field(le=4096)]
    clock_ghz: Annotated[PositiveFloat, Field(le=100, description="boost clock of the SMs")]
    tensor: TensorCore
    sm: Sm
    l2: L2
    dram: GpuDram
    launch: Launch
    kernels: dict[FamilyName, dict[DTypeName | Literal["default"], Kernel]]
    vnm: VnmKernel | None = None
    spmm: dict[str, SpmmKernel] = Field(default_factory=dict)
    block: BlockKernel | None = None
    compress: Compress | None = None
    calibrated: tuple[Calibrated, ...] = ()
    tilewise: TileWiseKernel | None = None
    board: GpuBoard
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _has_dense_kernels(self) -> Gpu:
        if "dense" not in self.kernels:
            raise ValueError("kernels must include 'dense'")
        for family, kernels in self.kernels.items():
            rates = self.tensor.fma_per_clock if family == "dense" else self.tensor.sparse_gain
            missing = [] if "default" in kernels else [x for x in rates if x not in kernels]
            if missing:
                raise ValueError(f"kernels.{family} must have {missing[0]} or default")
        return self

    def kernel(self, family: FamilyName, dtype: str) -> Kernel:
        """Return the kernels of a family in one format: its own, its twin's, the default ones.

        bf16 and fp16 are twins: of one width and rate.
        """
        kernels = {str(name): kernel for name, kernel in self.kernels[family].items()}
        names = [name for name in (dtype, TWINS.get(dtype, ""), "default") if name in kernels]
        return kernels[names[0]]

    def domain(self, family: FamilyName, dtype: str) -> Calibrated | None:
        """Return where the kernels of a family were calibrated in one format, if anywhere."""
        own = {(str(found.family), str(found.dtype)): found for found in self.calibrated}
        twin = TWINS.get(dtype, "") if dtype not in self.kernels[family] else ""
        return own.get((family, dtype), own.get((family, twin)))

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What bytes of tiles move through: DRAM, L2, shared memory (one port an SM)."""
        dram = self.dram.gb_per_s / self.clock_ghz
        return (
            Channel("dram", dram, self.dram.latency_cycles),
            Channel("l2", self.l2.bytes_per_clock, self.l2.latency_cycles),
            Channel("shared", float(self.sm.shared_bytes_per_clock), 0, shared=False),
        )

    @property
    def memory_levels(self) -> tuple[MemoryLevel, ...]:
        """From the registers of all SMs outwards. No energy of a register is known by itself."""
        dram, l2, shared = self.channels
        energy = self.board.energy
        rows = (
            ("registers", self.sms * self.sm.register_kb * 1024, None, 0, None, False),
            ("shared", self.sms * self.sm.shared_kb * 1024, self.sms * shared.bytes_per_cycle,
             shared.latency_cycles, energy.shared_pj_per_byte, True),
            ("l2", self.l2.mb * 1e6, l2.bytes_per_cycle, l2.latency_cycles,
             energy.l2_pj_per_byte, False),
            ("dram", self.dram.gb * 1e9, dram.bytes_per_cycle, dram.latency_cycles,
             energy.dram_pj_per_byte, False),
        )  # fmt: skip
        return tuple(
            MemoryLevel(name, round(size), rate, latency, pj, pj, double)
            for name, size, rate, latency, pj, double in rows
        )
