"""Hold hwconfigs/boards/ against published power and clocks; say which numbers chose a parameter.

    python reports/board_power/check.py          # write check.csv; print it and the fitted values

published.csv: figures with source. gemms.csv: the 147 products over 1e11 MACs on A100 PCIe
of github.com/bcacdwk/vllmbench at 92a8ca49 (Apache-2.0), measured by others, unlocked clocks.

The figures are the ledger's (accsim/validate/groups/boards.py, which says how the traffic of a GEMM
is worked out); here are the fitted parameters, the clocks, and what the cap explains.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from accsim.cost.board import run_power
from accsim.cost.fpga_power import Used, power
from accsim.cost.fpga_power import power_range as fpga_range
from accsim.files.board import load_board_of
from accsim.spec.board import GpuBoard
from accsim.spec.fpga_power import FpgaBoard
from accsim.validate.groups.boards import SEEN, a100_figures, corners, gemm
from accsim.validate.row import read

HERE = Path(__file__).parent


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


def figures() -> pd.DataFrame:
    """Return published figures of the A100-SXM4-40GB beside the model's."""
    ours, rows = a100_figures(), []
    for given in read("boards.csv"):
        value, (model, *ends) = float(given["value"]), ours[given["key"]]()
        rows.append({
            "board": given["device"], "quantity": given["quantity"],
            "condition": given["condition"], "role": given["role"], "published": value,
            "model": model, "low": min(ends), "high": max(ends), "unit": given["unit"],
            "error_percent": (model / value - 1) * 100, "note": given["note"],
            "source": given["source"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def gemms() -> pd.DataFrame:
    """Return predicted against measured rate of the large products, by board, format, density."""
    points, rows = pd.read_csv(HERE / "gemms.csv"), []
    for (device, dtype), mine in points.groupby(["device", "dtype"]):
        board = load_board_of(GpuBoard, str(device))
        for density, column in (("dense", "dense_us"), ("2:4", "sparse24_us")):
            extents = (mine[extent].to_numpy() for extent in ("t", "k", "n"))
            kernels, operations = gemm(board, str(dtype), *extents, sparse=density == "2:4")
            runs = [run_power(corner, kernels) for corner in corners(board)]
            free_s = np.maximum(kernels.core_s, kernels.memory_s)
            times = (mine[column] * 1e-6, *(run.time_s for run in runs), free_s)
            table = np.array([operations / np.asarray(time) * 1e-12 for time in times])
            measured, model, *ends, _ = np.median(table, axis=1)
            error, free = np.abs(table[[1, 4]] / table[0] - 1).mean(axis=1) * 100
            clock = np.median(runs[0].clock_ghz)
            note = f"mean |error| {error:.0f} %, without the cap {free:.0f} %; {clock:.2f} GHz"
            rows.append({
                "board": device, "quantity": f"{dtype} GEMM {density}", "role": "predicted",
                "condition": f"median of {len(mine)} products over 1e11 MACs",
                "published": measured, "model": model, "low": min(ends), "high": max(ends),
                "unit": "TFLOPS", "error_percent": (model / measured - 1) * 100,
                "note": note + f"; {SEEN}" * (density == "2:4"),
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
    table = pd.concat([figures(), gemms(), fpga()]).round(3)
    table.to_csv(HERE / "check.csv", index=False)
    print(table.drop(columns=["source", "low", "high"]).to_string(index=False, max_colwidth=60))


if __name__ == "__main__":
    main()
