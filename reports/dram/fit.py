"""Fit the closed form of accsim/spec/dram_access.py to replays; write errors.csv.

    python reports/dram/fit.py          # the error of the constants in the code, on both halves
    python reports/dram/fit.py --fit    # search better constants on the first half and print them

A case is a random part (a shipped one with its timings, window, ranks, rows and refresh changed at
random) under a random pattern. Cases 0 … 1999 are fitted to, 10000 … 11999 only reported.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from accsim.files.dram import dram_parts, load_dram
from accsim.spec import dram_access
from accsim.spec.dram import DramPart
from accsim.spec.dram_access import replayed_gb_per_s, sustained_gb_per_s

HERE = Path(__file__).parent
CONSTANTS = ("_CROWDING", "_SHARPNESS", "_TURNS", "_CHURN", "_WANDERING", "_BYSTANDERS")
Case = tuple[str, DramPart, tuple[int, int | None, float, int]]


def random_part(rng: np.random.Generator) -> DramPart:
    """Return a shipped part with its numbers changed at random, timings by −25 … +35 %."""
    names = dram_parts()
    part = load_dram(names[rng.integers(len(names))])
    data = part.model_dump(exclude={"sources"})
    times = data["timings"]
    for key in times:
        if times[key] is not None and key != "tccd_s_ns":
            times[key] *= float(rng.uniform(0.75, 1.35))
    for key in ("tccd", "trrd", "twtr"):
        times[f"{key}_l_ns"] = max(times[f"{key}_l_ns"], times[f"{key}_s_ns"])
    banks = part.bank_groups * part.banks_per_group
    if times["trfc_pb_ns"] is not None:
        # Beyond 85 % of the time in refresh the replay's controller falls behind.
        times["trfc_pb_ns"] = min(times["trfc_pb_ns"], 0.85 * times["trefi_ns"] / banks)
        if rng.random() < 0.3:
            times["trfc_pb_ns"] = None
    data["ranks"] = int(rng.choice([1, 1, 2]))
    data["row_bytes"] = int(part.row_bytes * rng.choice([0.5, 1, 2]))
    data["controller"] = {
        "interleave_bytes": int(part.burst_bytes * 2 ** rng.integers(0, 6)),
        "window": int(rng.choice([16, 32, 64, 128])),
    }
    return DramPart.model_validate(data)


def random_case(seed: int) -> Case:
    """Return the kind of access, a part, and (run, stride, write share, channels)."""
    rng = np.random.default_rng(seed)
    part = random_part(rng)
    size = part.burst_bytes
    kind = str(rng.choice(["stream", "strided", "random"]))
    run = int(size * 2 ** rng.uniform(0, 8))
    if rng.random() < 0.6:
        run = max(1, run // size) * size
    stride: int | None = None
    if kind == "stream":
        run = stride = max(run, 1024)
    elif kind == "strided":
        stride = run + max(1, int(run * 2 ** rng.uniform(-3, 8)))
        if rng.random() < 0.5:
            stride = int(2 ** np.ceil(np.log2(stride)))
    writes = float(rng.choice([0, 0, 0, 1, 0.5, rng.random()]))
    return kind, part, (run, stride, writes, int(rng.choice([1, 1, 2, 3])))


def cases(seeds: range) -> pd.DataFrame:
    """Return the cases with their replayed bandwidth."""
    rows = []
    for seed in seeds:
        kind, part, pattern = random_case(seed)
        replayed = replayed_gb_per_s(part, *pattern, bursts_per_channel=12_000)
        rows.append((kind, part, pattern, replayed))
    return pd.DataFrame(rows, columns=["kind", "part", "pattern", "replayed"])


def log_errors(table: pd.DataFrame) -> np.ndarray:
    """Return log(closed / replayed) of every case."""
    pairs = zip(table.part, table.pattern, strict=True)
    closed = np.array([sustained_gb_per_s(part, *pattern) for part, pattern in pairs])
    return np.asarray(np.log(closed / table.replayed.to_numpy(dtype=float)))


def summary(table: pd.DataFrame, half: str) -> pd.DataFrame:
    """Return mean and quantiles of |closed / replayed − 1| by kind, refresh and direction."""
    error = np.abs(np.expm1(log_errors(table)))
    refresh = ["bank" if p.timings.trfc_pb_ns else "rank" for p in table.part]
    mixed = ["mixed" if 0 < pattern[2] < 1 else "one way" for pattern in table.pattern]
    frame = pd.DataFrame(
        {"half": half, "kind": table.kind, "refresh": refresh, "direction": mixed, "error": error}
    )
    groups = frame.groupby(["half", "kind", "refresh", "direction"]).error
    found = groups.agg(["size", "mean"])
    for q in (0.5, 0.9, 0.95, 1.0):
        found[f"q{q:g}"] = groups.quantile(q)
    return found.round(4).reset_index()


def search(table: pd.DataFrame, seconds: float) -> dict[str, float]:
    """Return the constants a random descent ends at: least mean |log error|, at most 0.6 each."""
    rng = np.random.Generator(np.random.PCG64(1))

    def loss() -> float:
        return float(np.minimum(np.abs(log_errors(table)), 0.6).mean())

    best, least, end = (
        {n: getattr(dram_access, n) for n in CONSTANTS},
        loss(),
        time.time() + seconds,
    )
    while time.time() < end:
        trial = dict(best)
        for name in rng.choice(CONSTANTS, 2, replace=False):
            trial[name] *= float(np.exp(0.3 * rng.standard_normal()))
        vars(dram_access).update(trial)
        if (now := loss()) < least:
            best, least = trial, now
    vars(dram_access).update(best)
    return best | {"loss": least}


def main() -> None:
    """Fit if asked to, then write errors.csv."""
    fitted = cases(range(2000))
    if "--fit" in sys.argv:
        print(search(fitted, 120))
    halves = [summary(fitted, "fitted"), summary(cases(range(10_000, 12_000)), "held out")]
    table = pd.concat(halves)
    table.to_csv(HERE / "errors.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
