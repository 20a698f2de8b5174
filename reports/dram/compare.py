"""What the shipped DRAM parts sustain; our DDR4 against LiteDRAM's tables; all against GPUs.

    pip install litedram==2024.12 && python reports/dram/compare.py

Writes efficiency.csv (share of peak: closed form and replay), litedram.csv (timings and sustained
bandwidth from LiteDRAM's module tables beside ours) and measured.csv (published measured bandwidth
of GPUs beside the part they carry). Last run 2026-11-21, litedram 2024.12, Python 3.11.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from accsim.files.dram import dram_parts, from_litedram, load_dram
from accsim.spec.dram import DramPart
from accsim.spec.dram_access import replayed_gb_per_s, sustained_gb_per_s

HERE = Path(__file__).parent
DATE = "2026-11-21"
KIB = 1024
# run bytes, stride bytes (None: random), share of writes
PATTERNS: dict[str, tuple[int, int | None, float]] = {
    "stream read": (64 * KIB, 64 * KIB, 0.0),
    "stream write": (64 * KIB, 64 * KIB, 1.0),
    "copy, 64 KiB pieces": (64 * KIB, 64 * KIB, 0.5),
    "copy, 4 KiB pieces": (4 * KIB, 4 * KIB, 0.5),
    "64 B every 4 KiB": (64, 4 * KIB, 0.0),
    "256 B every 4 KiB": (256, 4 * KIB, 0.0),
    "1 KiB every 4 KiB": (KIB, 4 * KIB, 0.0),
    "1 KiB every 64 KiB": (KIB, 64 * KIB, 0.0),
    "random 64 B": (64, None, 0.0),
    "random 256 B": (256, None, 0.0),
    "random 1 KiB": (KIB, None, 0.0),
    "random 4 KiB": (4 * KIB, None, 0.0),
}
MODULES = [("MT40A1G8", 2400), ("MT40A512M8", 2400), ("EDY4016A", 2400),
           ("MTA18ASF2G72PZ", 2400), ("MTA18ASF2G72PZ", 3200), ("HMA82GR7DJR4N", 3200)]  # fmt: skip
SHOWN = {"stream": "stream read", "copy_4k": "copy, 4 KiB pieces",
         "strided_256": "256 B every 4 KiB", "random_64": "random 64 B"}  # fmt: skip
# Measured GB/s as in the shared gpu_datasheet.csv, column measured_stream_gbs (2026-11-21).
MEASURED = {
    "V100 SXM2": ("hbm2_2gbps", 900, "802-895"),
    "A100 SXM4 40GB": ("hbm2_2gbps", 1555, "1381-1503"),
    "A100 SXM4 80GB": ("hbm2e", 2039, "1732-1880"),
    "H100 PCIe 80GB": ("hbm2e", 2039, "1704-2016"),
    "H200 SXM": ("hbm3", 4800, "3165-3884"),
    "L40 (GDDR6 ECC)": ("gddr6_16", 864, "770-846"),
}


def shares(part: DramPart) -> list[dict[str, object]]:
    """Return the share of peak of every pattern on a part."""
    return [
        {
            "part": part.name,
            "pattern": name,
            "peak_gb_per_s": round(part.peak_gb_per_s, 2),
            "closed": round(sustained_gb_per_s(part, *pattern) / part.peak_gb_per_s, 4),
            "replayed": round(replayed_gb_per_s(part, *pattern) / part.peak_gb_per_s, 4),
        }
        for name, pattern in PATTERNS.items()
    ]


def litedram_rows() -> list[dict[str, object]]:
    """Return LiteDRAM's timings beside ours, and what each sustains."""
    rows: list[dict[str, object]] = []
    for module, rate in MODULES:
        for part in (load_dram(f"ddr4_{rate}"), from_litedram(module, rate)):
            times = part.timings.model_dump()
            keys = ("trcd", "trp", "tras", "tccd_l", "trrd_l", "tfaw", "twr", "twtr_l", "trfc")
            rows.append(
                {"module": module, "mt_per_s": rate, "timings_from": part.name, "date": DATE,
                 "litedram": version("litedram"), "bank_groups": part.bank_groups}
                | {f"{key}_ns": round(times[f"{key}_ns"], 3) for key in keys}
                | {f"{word}_gb_per_s": round(replayed_gb_per_s(part, *PATTERNS[name]), 3)
                   for word, name in SHOWN.items()}
            )  # fmt: skip
    return rows


def measured_rows() -> list[dict[str, object]]:
    """Return measured shares of peak beside the replayed ones of the part a GPU carries."""
    rows: list[dict[str, object]] = []
    for gpu, (name, peak, text) in MEASURED.items():
        low, high = (int(word) for word in re.findall(r"\d+", text))
        part = load_dram(name)
        found = {
            what: round(replayed_gb_per_s(part, *PATTERNS[what]) / part.peak_gb_per_s, 3)
            for what in ("stream read", "copy, 64 KiB pieces", "copy, 4 KiB pieces")
        }
        rows.append(
            {"gpu": gpu, "part": name, "measured_low": round(low / peak, 3),
             "measured_high": round(high / peak, 3), **found}
        )  # fmt: skip
    return rows


def main() -> None:
    """Write the three tables."""
    tables = {
        "efficiency": [row for name in dram_parts() for row in shares(load_dram(name))],
        "litedram": litedram_rows(),
        "measured": measured_rows(),
    }
    for name, rows in tables.items():
        table = pd.DataFrame(rows)
        table.to_csv(HERE / f"{name}.csv", index=False)
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
