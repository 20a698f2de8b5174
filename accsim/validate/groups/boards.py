"""Power, clocks and rates of GPU boards against published ones (reports/board_power).

The traffic of a GEMM is worked out for one kernel, output tiles of 128 × 256 by warps of 64 × 64,
not fitted: L2 bytes are tiles × (128 + 256) × k operands and the result; shared memory is written
once with these and read (64 + 64) × k operands a warp tile; DRAM bytes are what a wave of tiles, a
square as far as possible, touches, and the result. Cores run at peak rate in every wave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.cost.board import Kernels, at_corner, run_power
from accsim.cost.fpga_power import Used, power, power_range
from accsim.files.board import load_board_of
from accsim.spec.board import GpuBoard
from accsim.spec.fpga_power import FpgaBoard
from accsim.validate.row import Row, Status, read, slug

Floats = npt.NDArray[np.float64]
Three = list[float]  # at the board's values, its low and its high corner

# The sources give no error bars. A round number, chosen with the errors in sight: the median of
# the predictions' is 8 %, and none lies between 8.4 and 13 %.
TOLERANCE = 0.10
TILE, WARP = (128, 256), (64, 64)
OPERAND_BYTES = {"bf16": 2, "fp16": 2, "tf32": 4, "int8": 1}
RESULT_BYTES = {"bf16": 2, "fp16": 2, "tf32": 4, "int8": 4}
A100_SMS, SIDE, SLOW, BOOST_HZ, SPIN_W = 108, 8192, 1.095, 1.41e9, 164.0
GEMMS = "github.com/bcacdwk/vllmbench at 92a8ca49 (Apache-2.0), unlocked clocks"
SEEN = "not blind: sparse_mma_factor was set to the middle of its range after a look at these"


class Chip(NamedTuple):
    """What a board's power model does not hold: gpu_datasheet.csv and gpu_mma_microbench.csv."""

    sms: int
    macs: int  # 16-bit MACs a clock of an SM
    dram_gb_per_s: float  # sustained stream
    l2_gb_per_s: float


CHIPS = {
    "a100_sxm4_40gb": Chip(A100_SMS, 1024, 1442, 5400),
    "a100_pcie_80gb": Chip(A100_SMS, 1024, 1806, 5400),
}


def rows() -> Iterator[Row]:
    """Yield published figures of the A100 boards, the medians of products, and FPGA cards."""
    figures = a100_figures()
    for known in read("boards.csv"):
        value = float(known["value"])
        model, low, high = figures[known["key"]]()
        yield _row(
            f"boards/{known['device']}/{known['key']}",
            f"{known['quantity']}, {known['condition']}", known["unit"], known["source"],
            value, (model, min(low, high), max(low, high)), known["note"],
            "fitted" if known["role"] == "fitted" else "predicted",
        )  # fmt: skip
    yield from _gemm_rows()
    yield from _fpga_rows()


def _row(
    name: str, quantity: str, unit: str, source: str, value: float, ours: Any, remark: str,
    status: Status = "predicted",
) -> Row:  # fmt: skip
    model, low, high = ours
    return Row(
        id=name, quantity=quantity, unit=unit, source=source, low=value, high=value, ours=model,
        ours_low=min(low, model), ours_high=max(high, model), tolerance=TOLERANCE, status=status,
        remark=remark,
    )  # fmt: skip


# --- one kernel


def gemm(
    board: GpuBoard, dtype: str, t: Any, k: Any, n: Any, *, sparse: bool = False
) -> tuple[Kernels, Floats]:
    """Return t × k × n products, W in 2:4 if ``sparse``: actions, times, and dense operations."""
    chip, size = CHIPS[board.name], OPERAND_BYTES[dtype]
    t, k, n = (np.asarray(extent, dtype=np.float64) for extent in (t, k, n))
    rate = chip.macs * 2 / size  # 8-bit twice, tf32 half the rate of 16-bit
    tiles = np.ceil(t / TILE[0]) * np.ceil(n / TILE[1])
    waves = np.ceil(tiles / chip.sms)
    side = (chip.sms * TILE[0] * TILE[1]) ** 0.5  # of the square that a wave's tiles cover
    # W lies along n: half of it and its positions, 2 of 16 bits an element, where it is 2:4
    w = 0.5 + 1 / (8 * size) if sparse else 1.0
    kept = 0.5 if sparse else 1.0
    result = t * n * RESULT_BYTES[dtype]
    fetched = tiles * (TILE[0] + TILE[1] * w) * k * size
    l2 = fetched + result
    shared = t * k * n * (1 / WARP[1] + w / WARP[0]) * size + fetched
    dram = np.maximum(waves * side * (1 + w) * k * size, (t + n * w) * k * size) + result
    core_s = waves * TILE[0] * TILE[1] * k * kept / rate / (board.boost_ghz * 1e9)
    memory_s = np.maximum(dram / chip.dram_gb_per_s, l2 / chip.l2_gb_per_s) * 1e-9
    macs: dict[str, Any] = {"sparse_mma_macs" if sparse else "mma_macs": {dtype: t * k * n * kept}}
    kernels = Kernels(
        core_s=core_s, memory_s=memory_s, shared_bytes=shared, l2_bytes=l2, dram_bytes=dram, **macs
    )
    return kernels, 2 * t * k * n


def _gemm_rows() -> Iterator[Row]:
    """Yield the median rate of the large products, by board, format and density."""
    points = read("boards_gemms.csv")
    for device, dtype in dict.fromkeys((p["device"], p["dtype"]) for p in points):
        mine = [p for p in points if (p["device"], p["dtype"]) == (device, dtype)]
        extents = [np.array([float(p[key]) for p in mine]) for key in ("t", "k", "n")]
        board = load_board_of(GpuBoard, device)
        for density, column in (("dense", "dense_us"), ("2:4", "sparse24_us")):
            kernels, operations = gemm(board, dtype, *extents, sparse=density == "2:4")
            measured_s = np.array([float(p[column]) for p in mine]) * 1e-6
            times = (run_power(b, kernels).time_s for b in corners(board))
            rates = [np.median(operations / time) * 1e-12 for time in (measured_s, *times)]
            measured, model, slow, fast = map(float, sorted_ends(rates))
            yield _row(
                f"boards/{device}/gemm/{dtype}/{slug(density)}",
                f"{dtype} GEMM {density}, median of {len(mine)} products over 1e11 MACs",
                "TFLOPS", GEMMS, measured, (model, slow, fast),
                SEEN if density == "2:4" else "cores never wait within a wave",
            )  # fmt: skip


def sorted_ends(four: list[Any]) -> list[Any]:
    """Return [first, second, …] with the last two in rising order."""
    return [*four[:2], *sorted(four[2:])]


def corners(board: GpuBoard) -> list[GpuBoard]:
    """Return a board at its values, at the low and at the high corner."""
    return [board, at_corner(board, "low"), at_corner(board, "high")]


# --- the A100-SXM4-40GB


class A100:
    """The board at its values, at the low and at the high corner, in this order."""

    def __init__(self) -> None:
        self.boards = corners(load_board_of(GpuBoard, "a100_sxm4_40gb"))

    def idle_w(self, clock_ghz: float | None = None) -> Three:
        """Return the power without a context."""
        gap = Kernels(fixed_s=1.0, gap_s=1.0)
        runs = (run_power(b, gap, gap="idle", limit_ghz=clock_ghz) for b in self.boards)
        return [float(run.parts_j["gap"][0]) for run in runs]

    def power_w(self, clock_ghz: float | None = None, **per_s: Any) -> Three:
        """Return the power of kernels that do so many actions in a second."""
        kernels = Kernels(fixed_s=1.0, **per_s)
        return [float(run_power(b, kernels, limit_ghz=clock_ghz).power_w[0]) for b in self.boards]

    def action_pj(
        self, per_s: float, *which: str, all_in: bool = False, clock_ghz: float | None = None
    ) -> Three:
        """Return the energy of an action over the busy spin; if ``all_in``, over active idle."""
        # Few actions, so that the cap is far; they take what many take.
        few = self.power_w(clock_ghz, **dict.fromkeys(which, 1e9))
        spin = self.power_w(clock_ghz)
        more = [b.issue_w / per_s * 1e12 if all_in else 0.0 for b in self.boards]
        return [(a - b) * 1e3 + c for a, b, c in zip(few, spin, more, strict=True)]

    def mac_pj(self, dtype: str, clock_ghz: float | None = None, compute: bool = False) -> Three:
        """Return the energy of a big GEMM a MAC over a spin, or that of its mma alone.

        Over the spin at the same clock if it is locked; at 1410 MHz under the cap.
        """
        kernels, operations = gemm(self.boards[0], dtype, SIDE, SIDE, SIDE)
        base = self.power_w(clock_ghz) if clock_ghz else [SPIN_W] * 3
        found = []
        for board, watts in zip(self.boards, base, strict=True):
            run = run_power(board, kernels, limit_ghz=clock_ghz)
            whole = run.energy_j - watts * run.time_s
            joules = run.parts_j["mma"] if compute else whole
            found.append(float(joules[0]) / float(operations) * 2e12)
        return found

    def big(self) -> tuple[Three, Three]:
        """Return clock and TFLOPS of a big bf16 GEMM under the cap."""
        kernels, operations = gemm(self.boards[0], "bf16", SIDE, SIDE, SIDE)
        runs = [run_power(b, kernels) for b in self.boards]
        rates = [float(operations / run.time_s[0]) * 1e-12 for run in runs]
        return [float(run.clock_ghz[0]) for run in runs], rates


def a100_figures() -> dict[str, Callable[[], Three]]:
    """Return key of boards.csv → our figure, at values, low and high corner."""
    a, bytes_of_l1 = A100(), 128 * A100_SMS * BOOST_HZ
    fmas, beyond = 64 * A100_SMS * BOOST_HZ, ("l2_bytes", "dram_bytes")
    increment = partial(a.action_pj, clock_ghz=SLOW)
    all_in = partial(a.action_pj, all_in=True)
    return {
        "idle": a.idle_w,
        "idle_1095": lambda: a.idle_w(SLOW),
        "spin_108": a.power_w,
        "spin_54": lambda: a.power_w(busy=0.5),
        "spin_1095": lambda: a.power_w(SLOW),
        "fma_1095": lambda: increment(fmas, "fp32_fmas"),
        "smem_1095": lambda: increment(bytes_of_l1, "shared_bytes"),
        "hbm_1095": lambda: increment(1.442e12, *beyond),
        "fma_all": lambda: all_in(fmas, "fp32_fmas"),
        "smem_all": lambda: all_in(bytes_of_l1, "shared_bytes"),
        "l1_all": lambda: all_in(bytes_of_l1, "l1_bytes"),
        "l2_all": lambda: all_in(2.83e12, "l2_bytes"),
        "hbm_all": lambda: all_in(1.442e12, *beyond),
        "bf16_compute_1095": lambda: a.mac_pj("bf16", SLOW, compute=True),
        "int8_compute_1095": lambda: a.mac_pj("int8", SLOW, compute=True),
        "bf16_whole_1095": lambda: a.mac_pj("bf16", SLOW),
        "int8_whole_1095": lambda: a.mac_pj("int8", SLOW),
        "gemm_clock": lambda: a.big()[0],
        "gemm_tflops": lambda: a.big()[1],
        "stream_232": lambda: a.power_w(l2_bytes=1.372e12, dram_bytes=1.372e12),
        **{f"{dtype}_whole": partial(a.mac_pj, dtype) for dtype in OPERAND_BYTES},
    }


# --- FPGA cards


def _fpga_rows() -> Iterator[Row]:
    """Yield what is not checked: a card used whole, and the one published ratio."""
    board = load_board_of(FpgaBoard, "xcvu9p")
    a = board.available
    used = Used(dsp=a.dsp, lut=a.lut, ff=a.ff, bram36=a.bram36, channels=a.channels)
    low, high = power_range(board, used, 0.2, dram_gb_per_s=60)
    yield Row(
        id="boards/xcvu9p/whole", unit="W", source="facts/fpga_training.md: power [?]",
        quantity="board power, every DSP, LUT, FF, BRAM, random data, 200 MHz, 60 GB/s",
        ours=float(power(board, used, 0.2, dram_gb_per_s=60).power_w),
        ours_low=float(low.power_w), ours_high=float(high.power_w), status="out_of_scope",
        remark="no published wattage to hold it against",
    )  # fmt: skip
    yield Row(
        id="boards/xcvu9p/efficiency", unit="x", source="facts/fpga_training.md: arXiv 2309.13015",
        quantity="energy efficiency, BDWP/SAT over earlier FPGA training accelerators",
        low=1.36, high=3.58, status="out_of_scope",
        remark="needs the power of the earlier accelerators, and the training device",
    )  # fmt: skip
