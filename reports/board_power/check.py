"""Hold hwconfigs/boards/ against published power and clocks; say which numbers chose a parameter.

    python reports/board_power/check.py          # write check.csv; print it and the fitted values

published.csv: figures with source. gemms.csv: the 147 products over 1e11 MACs on A100 PCIe
of github.com/bcacdwk/vllmbench at 92a8ca49 (Apache-2.0), measured by others, unlocked clocks.

The traffic of a GEMM is worked out here for one kernel, output tiles of 128 × 256 by warps of
64 × 64, not fitted: L2 bytes are tiles × (128 + 256) × k operands and the result; shared memory is
written once with these and read (64 + 64) × k operands a warp tile; DRAM bytes are what a wave of
tiles, a square as far as possible, touches, and the result.
Cores run at peak rate in every wave, so a prediction errs to the fast side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from accsim.cost.board import BoardRun, Kernels, at_corner, power_range, run_power
from accsim.cost.fpga_power import Used, power
from accsim.cost.fpga_power import power_range as fpga_range
from accsim.files.board import load_board_of
from accsim.spec.board import GpuBoard
from accsim.spec.fpga_power import FpgaBoard

HERE = Path(__file__).parent
TILE, WARP = (128, 256), (64, 64)
OPERAND_BYTES = {"bf16": 2, "fp16": 2, "tf32": 4, "int8": 1}
RESULT_BYTES = {"bf16": 2, "fp16": 2, "tf32": 4, "int8": 4}
A100_SMS, SIDE = 108, 8192
POINT = ("t", "k", "n", "dense_us", "sparse24_us")
SEEN = "; not blind: sparse_mma_factor was set to the middle of its range after a look at these"


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


def gemm(board: GpuBoard, dtype: str, t: int, k: int, n: int, *, sparse: bool = False) -> Kernels:
    """Return one t × k × n product, W in 2:4 if ``sparse``, its actions and times worked out."""
    chip, size = CHIPS[board.name], OPERAND_BYTES[dtype]
    rate = chip.macs * 2 / size  # 8-bit twice, tf32 half the rate of 16-bit
    tiles = -(-t // TILE[0]) * -(-n // TILE[1])
    waves = -(-tiles // chip.sms)
    side = (chip.sms * TILE[0] * TILE[1]) ** 0.5  # of the square that a wave's tiles cover
    # W lies along n: half of it and its positions, 2 of 16 bits an element, where it is 2:4
    w = 0.5 + 1 / (8 * size) if sparse else 1.0
    kept = 0.5 if sparse else 1.0
    result = t * n * RESULT_BYTES[dtype]
    fetched = tiles * (TILE[0] + TILE[1] * w) * k * size
    l2 = fetched + result
    read = t * k * n * (1 / WARP[1] + w / WARP[0]) * size
    dram = max(waves * side * (1 + w) * k * size, (t + n * w) * k * size) + result
    core_s = waves * TILE[0] * TILE[1] * k * kept / rate / (board.boost_ghz * 1e9)
    memory_s = max(dram / chip.dram_gb_per_s, l2 / chip.l2_gb_per_s) * 1e-9
    macs = {dtype: t * k * n * kept}
    return Kernels(
        core_s=core_s, memory_s=memory_s, shared_bytes=read + fetched, l2_bytes=l2,
        dram_bytes=dram, **{"sparse_mma_macs" if sparse else "mma_macs": macs},
    )  # fmt: skip


def fitted() -> dict[str, float]:
    """Return the parameters of a100_sxm4_40gb.yaml that were chosen by a published figure."""
    value = pd.read_csv(HERE / "published.csv").set_index("key").value
    board = load_board_of(GpuBoard, "a100_sxm4_40gb")
    square = float(
        np.sqrt(
            value.fma_1095 / board.energy.fp32_fma_pj
            * value.smem_1095 / board.energy.shared_pj_per_byte
        )
    )  # fmt: skip
    rail = 1.095 / 1.41 * square
    return {
        "voltage.point": square**0.5,
        "idle_fixed_w": float(value.idle - (value.idle - value.idle_1095) / (1 - rail)),
        "energy.mma_pj.bf16": value.bf16_compute_1095 / square,
        "energy.mma_pj.int8": value.int8_compute_1095 / square,
    }


class A100:
    """The A100-SXM4-40GB at its values, at the low and at the high corner, in this order."""

    def __init__(self) -> None:
        board = load_board_of(GpuBoard, "a100_sxm4_40gb")
        self.boards = [board, at_corner(board, "low"), at_corner(board, "high")]

    def run(self, kernels: Kernels, clock_ghz: float | None = None) -> list[BoardRun]:
        """Run kernels, at a locked clock if one is given."""
        return [run_power(board, kernels, limit_ghz=clock_ghz) for board in self.boards]

    def idle_w(self, clock_ghz: float | None = None) -> list[float]:
        """Return the power without a context."""
        gap = Kernels(fixed_s=1.0, gap_s=1.0)
        runs = [run_power(b, gap, gap="idle", limit_ghz=clock_ghz) for b in self.boards]
        return [float(run.parts_j["gap"][0]) for run in runs]

    def power_w(self, clock_ghz: float | None = None, **per_s: Any) -> list[float]:
        """Return the power of kernels that do so many actions in a second."""
        runs = self.run(Kernels(fixed_s=1.0, **per_s), clock_ghz)
        return [float(run.power_w[0]) for run in runs]

    def action_pj(
        self, per_s: float, *which: str, all_in: bool = False, clock_ghz: float | None = None
    ) -> list[float]:
        """Return the energy of an action over the busy spin; if ``all_in``, over active idle."""
        # Few actions, so that the cap is far; they take what many take.
        few = self.power_w(clock_ghz, **dict.fromkeys(which, 1e9))
        spin = self.power_w(clock_ghz)
        more = [b.issue_w / per_s * 1e12 if all_in else 0.0 for b in self.boards]
        return [(a - b) * 1e3 + c for a, b, c in zip(few, spin, more, strict=True)]

    def mac_pj(
        self, dtype: str, clock_ghz: float | None = None, compute: bool = False
    ) -> list[float]:
        """Return the energy of a big GEMM a MAC over a spin, or that of its mma alone.

        Over the spin at the same clock if it is locked; at 1410 MHz, 164 W, under the cap.
        """
        one = gemm(self.boards[0], dtype, SIDE, SIDE, SIDE)
        base = self.power_w(clock_ghz) if clock_ghz else [164.0] * 3
        return [
            float(run.parts_j["mma"][0] if compute else run.energy_j[0] - watts * run.time_s[0])
            / SIDE**3 * 1e12
            for run, watts in zip(self.run(one, clock_ghz), base, strict=True)
        ]  # fmt: skip


def a100() -> dict[str, tuple[str, list[float], str]]:
    """Return key → (role, [model, at the low corner, at the high corner], how it was had)."""
    a, slow, boost = A100(), 1.095, 1.41e9
    fma, byte = 64 * A100_SMS * boost, 128 * A100_SMS * boost
    both = ("l2_bytes", "dram_bytes")
    big = a.run(gemm(a.boards[0], "bf16", SIDE, SIDE, SIDE))
    stream = a.power_w(l2_bytes=1.372e12, dram_bytes=1.372e12)
    note = "power less 164 W, the spin at 1410 MHz (docs/power.md): says what TFLOPS says"
    return {
        "idle": ("fitted", a.idle_w(), "is the parameter"),
        "idle_1095": ("fitted", a.idle_w(slow), "fits idle_fixed_w"),
        "spin_108": ("fitted", a.power_w(), "is active_idle_w + issue_w"),
        "spin_54": ("predicted", a.power_w(busy=0.5), "half of issue_w"),
        "spin_1095": ("predicted", a.power_w(slow), "by f v2"),
        "fma_1095": ("fitted", a.action_pj(fma, "fp32_fmas", clock_ghz=slow), "fits v, with SMEM"),
        "smem_1095": (
            "fitted", a.action_pj(byte, "shared_bytes", clock_ghz=slow), "fits v, with FMA"),
        "hbm_1095": (
            "predicted", a.action_pj(1.442e12, *both, clock_ghz=slow), "L2 by v2, the rest fixed"),
        "fma_all": (
            "predicted", a.action_pj(fma, "fp32_fmas", all_in=True), "64 FMA a clock of an SM"),
        "smem_all": (
            "predicted", a.action_pj(byte, "shared_bytes", all_in=True), "128 B a clock of an SM"),
        "l1_all": (
            "predicted", a.action_pj(byte, "l1_bytes", all_in=True), "128 B a clock of an SM"),
        "l2_all": (
            "predicted", a.action_pj(2.83e12, "l2_bytes", all_in=True),
            "at 2.83 TB/s (arXiv 2402.13499); 40.4 pJ/B at the 5.4 TB/s others measured"),
        "hbm_all": ("predicted", a.action_pj(1.442e12, *both, all_in=True), "at 1442 GB/s"),
        "bf16_compute_1095": ("fitted", a.mac_pj("bf16", slow, compute=True), "fits mma_pj.bf16"),
        "int8_compute_1095": ("fitted", a.mac_pj("int8", slow, compute=True), "fits mma_pj.int8"),
        "bf16_whole_1095": (
            "predicted", a.mac_pj("bf16", slow), "our traffic is 0.55 pJ/MAC, the notes' 0.80"),
        "int8_whole_1095": (
            "predicted", a.mac_pj("int8", slow), "our traffic is 0.30 pJ/MAC, the notes' 0.62"),
        "gemm_clock": ("predicted", [float(r.clock_ghz[0]) for r in big], f"bf16 {SIDE}^3"),
        "gemm_tflops": (
            "predicted", [float(2 * SIDE**3 / r.time_s[0] * 1e-12) for r in big],
            f"bf16 {SIDE}^3, cores never wait within a wave"),
        "stream_232": ("predicted", stream, "all SMs issue all the time; 189 W if none did"),
        **{f"{dtype}_whole": ("predicted", a.mac_pj(dtype), note) for dtype in OPERAND_BYTES},
    }  # fmt: skip


def rates(board: GpuBoard, dtype: str, points: pd.DataFrame, *, sparse: bool) -> np.ndarray:
    """Return TFLOPS measured, predicted, at the slow and fast corner, without a cap; and GHz."""
    rows = []
    for t, k, n, dense_us, sparse_us in points[list(POINT)].itertuples(index=False):
        kernel, flops = gemm(board, dtype, t, k, n, sparse=sparse), 2 * t * k * n * 1e-12
        run, (low, high) = run_power(board, kernel), power_range(board, kernel)
        free_s = max(float(kernel.core_s[0]), float(kernel.memory_s[0]))
        times = ((sparse_us if sparse else dense_us) * 1e-6, *_s(run, high, low), free_s)
        rows.append([*(flops / time for time in times), float(run.clock_ghz[0])])
    return np.array(rows)


def _s(*runs: BoardRun) -> list[float]:
    return [float(run.time_s[0]) for run in runs]


def gemms() -> pd.DataFrame:
    """Return predicted against measured rate of the large products, by board, format, density."""
    points, rows = pd.read_csv(HERE / "gemms.csv"), []
    for (device, dtype), mine in points.groupby(["device", "dtype"]):
        board = load_board_of(GpuBoard, str(device))
        for density in ("dense", "2:4"):
            table = rates(board, str(dtype), mine, sparse=density == "2:4")
            measured, model, slow, fast, _, clock = np.median(table, axis=0)
            error, free = np.abs(table[:, [1, 4]] / table[:, [0]] - 1).mean(axis=0) * 100
            note = f"mean |error| {error:.0f} %, without the cap {free:.0f} %; {clock:.2f} GHz"
            rows.append({
                "board": device, "quantity": f"{dtype} GEMM {density}", "role": "predicted",
                "condition": f"median of {len(mine)} products over 1e11 MACs",
                "published": measured, "model": model, "low": slow, "high": fast,
                "unit": "TFLOPS", "error_percent": (model / measured - 1) * 100,
                "note": note + SEEN * (density == "2:4"),
                "source": "vllmbench at 92a8ca49, gemms.csv",
            })  # fmt: skip
    return pd.DataFrame(rows)


def fpga() -> pd.DataFrame:
    """Return the power of a card used whole: nothing published to hold it against."""
    board = load_board_of(FpgaBoard, "xcvu9p")
    a = board.available
    used = Used(dsp=a.dsp, lut=a.lut, ff=a.ff, bram36=a.bram36, channels=a.channels)
    model = power(board, used, 0.2, dram_gb_per_s=60)
    low, high = fpga_range(board, used, 0.2, dram_gb_per_s=60)
    return pd.DataFrame(
        [{
            "board": "xcvu9p", "quantity": "board power", "role": "not checked", "unit": "W",
            "condition": "every DSP, LUT, FF, BRAM, random data, 200 MHz, 60 GB/s",
            "model": float(model.power_w), "low": float(low.power_w), "high": float(high.power_w),
            "note": "no published wattage in facts/; the one published figure, 1.36-3.58x energy "
                    "efficiency, needs the power of the earlier accelerators",
            "source": "facts/fpga_training.md: power [?]",
        }]
    )  # fmt: skip


def main() -> None:
    """Compare, write, print."""
    print({name: round(value, 4) for name, value in fitted().items()})
    published = pd.read_csv(HERE / "published.csv").set_index("key")
    rows = []
    for key, (role, (model, low, high), note) in a100().items():
        given = published.loc[key]
        rows.append({
            "board": given.device, "quantity": given.quantity, "condition": given.condition,
            "role": role, "published": given.value, "model": model, "low": min(low, high),
            "high": max(low, high), "unit": given.unit,
            "error_percent": (model / given.value - 1) * 100, "note": note,
            "source": given.source,
        })  # fmt: skip
    columns = list(rows[0])
    table = pd.concat([pd.DataFrame(rows), gemms(), fpga()])[columns].round(3)
    table.to_csv(HERE / "check.csv", index=False)
    print(table.drop(columns=["source", "low", "high"]).to_string(index=False, max_colwidth=60))


if __name__ == "__main__":
    main()
