"""Fit the shipped GPUs' GEMM kernels to measured products; keep what the ledger predicts with.

    python reports/gpu_gemm/fit.py            # all devices: about ten minutes on two cores

Writes accsim/validate/data/gpu_gemm_fits.csv (parameters on all products, on each four of five
folds by (n, k), on three draws of 24 products; those of the trivial roofline beside them) and
the blocks of hwconfigs between the markers below. Needs scipy (pip install 'accsim[calibrate]').

Data: github.com/bcacdwk/vllmbench at 92a8ca49 (Apache-2.0), accsim/validate/data/gpu_gemm.csv.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from accsim.calibrate.fit import Parameter, fit
from accsim.calibrate.gpu import FAMILIES, KernelFit, base_values, model_of, parameters
from accsim.calibrate.write import blocks
from accsim.spec.gpu import PARAMETERS
from accsim.validate import gpu_gemm_model as model
from accsim.validate.row import DATA

ROOT = Path(__file__).parent.parent.parent
SOURCE = "vllmbench at 92a8ca49 (Apache-2.0), accsim/validate/data/gpu_gemm.csv, {device}"
BEGIN, END = "# --- fitted: reports/gpu_gemm/fit.py", "# --- end of fitted"
COLUMNS = ["model", "device", "dtype", "pattern", "role", "index", *(f"p{i}" for i in range(1, 9))]


# Where every fit starts and near which a parameter is expected: round numbers of the right size.
START = {
    "dense": {
        "launch_us": 4.2, "issue_share": 0.9, "tile_cycles": 1300, "step_ns": 135,
        "dram_share": 0.77, "burst_us": 100, "overlap": 3.8,
    },
    "nm": {
        "launch_us": 4.6, "issue_share": 0.9, "tile_cycles": 1700, "step_ns": 180,
        "dram_share": 0.68, "burst_us": 200, "overlap": 4.5,
    },
}  # fmt: skip
DEFAULTS = ("dense", "nm", "nm_along_n")  # of hwconfigs/kernels


def bare(case: model.Case):
    """Return the GPU with the starting kernels in place of any fitted ones."""
    gpu, family = case.gpu, FAMILIES[case.pattern]
    start = gpu.kernel(family, case.dtype).model_copy(update=START[family] | {"mac_pj": None})
    kernels = {**gpu.kernels, family: {**gpu.kernels[family], case.dtype: start}}
    return gpu.model_copy(update={"kernels": kernels, "calibrated": ()})


def fitted(case: model.Case, chosen: np.ndarray, expected: dict, first: dict, gpu) -> dict:
    """Return the eight parameters fitted to some of a case's products."""
    rows = case.rows.take(chosen)
    predict = model_of(gpu, FAMILIES[case.pattern], case.dtype, rows, case.y_bytes)
    return fit(
        lambda values: predict(values).total_us,
        rows.latency_us,
        parameters(expected, first),
        starts=1,
    )


def roofline(case: model.Case, chosen: np.ndarray) -> dict:
    """Return the trivial model's three numbers fitted to some of a case's products."""
    rows = replace(case, rows=case.rows.take(chosen))
    rate = case.gpu.tensor.rate(case.dtype) * case.gpu.sms * case.gpu.clock_ghz * 1e-3
    three = [
        Parameter("launch_us", 5.0, 0.1, 100.0, "us"),
        Parameter("tera_macs_per_s", rate, rate / 50, rate * 10, "TMAC/s"),
        Parameter("gb_per_s", case.gpu.dram.gb_per_s, 10.0, 1e5, "GB/s"),
    ]
    return fit(rows.roofline, rows.rows.latency_us, three, starts=4).values


def first_round(key: tuple[str, str, str]) -> tuple:
    """Return all-products and fold fits of a case, and the roofline's."""
    case = next(x for x in model.cases() if x.key == key)
    gpu = bare(case)
    expected = base_values(gpu, FAMILIES[case.pattern], case.dtype)
    everything = np.ones(len(case.rows), dtype=bool)
    whole = fitted(case, everything, expected, expected, gpu)
    found = [("gemm", "all", 0, whole.values), ("roofline", "all", 0, roofline(case, everything))]
    after = np.zeros(len(case.rows))
    for fold in range(model.FOLDS):
        held = case.folds == fold
        values = fitted(case, ~held, expected, whole.values, gpu).values
        after[held] = case.predict(values, gpu)[held]
        found += [("gemm", "fold", fold, values), ("roofline", "fold", fold, roofline(case, ~held))]
    kernel = gpu.kernel(FAMILIES[case.pattern], case.dtype).model_copy(update=dict(whole.values))
    predicted = case.costs(whole.values, gpu)
    one = KernelFit(
        FAMILIES[case.pattern], case.dtype, case.rows, whole, kernel,
        case.predict(expected, gpu), after, predicted.regime,
    )  # fmt: skip
    print(case.key, f"{np.abs(after / case.rows.latency_us - 1).mean():.3f}", flush=True)
    return case.key, found, one


def few_round(key: tuple[str, str, str]) -> list:
    """Return the fits to 24 products, expected near the other devices' parameters."""
    case = next(x for x in model.cases() if x.key == key)
    gpu, expected = bare(case), model.from_others(case)
    return [
        ("gemm", "few", draw, fitted(case, case.few(draw), expected, expected, gpu).values)
        for draw in range(model.DRAWS)
    ]


def lines(key: tuple[str, str, str], found: list) -> Iterator[list]:
    """Yield rows of the kept file."""
    for name, role, index, values in found:
        numbers = [f"{values[x]:.6g}" for x in (PARAMETERS if name == "gemm" else model.ROOFLINE)]
        yield [name, *key, role, index, *numbers, *[""] * (8 - len(numbers))]


def write_fits(rows: list[list]) -> None:
    """Write the kept parameters."""
    with (DATA / model.FITS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def write_device(device: str, fits: list[KernelFit]) -> None:
    """Replace the fitted block of a device's file, or put one at its end."""
    path = ROOT / "hwconfigs" / f"{model.HARDWARE[device]}.yaml"
    text = path.read_text(encoding="utf-8")
    kept = text.split(BEGIN)[0].rstrip("\n")
    inside = "\n".join(blocks(fits, SOURCE.format(device=device)))
    path.write_text(f"{kept}\n{BEGIN}\n{inside}\n{END}\n", encoding="utf-8")


def write_defaults(first: list) -> None:
    """Write the medians over all fits into hwconfigs/kernels: what an unmeasured GPU gets."""
    for family, pattern in (("dense", "dense"), ("nm", "2:4")):
        fits = [found[0][3] for key, found, _ in first if key[2] == pattern]
        for name in PARAMETERS:
            if name == "mac_pj":
                continue
            values = np.array([x[name] for x in fits])
            middle, low, high = np.median(values), values.min(), values.max()
            written = f"{{value: {middle:.4g}, low: {low:.4g}, high: {high:.4g}}}"
            for file in DEFAULTS:
                _replace_number(
                    ROOT / "hwconfigs" / "kernels" / f"{file}.yaml", family, name, written
                )


def _replace_number(path: Path, family: str, name: str, written: str) -> None:
    """Replace ``name: …`` everywhere inside the section of a kernel family."""
    inside, out = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        stripped = line.strip()
        if line.startswith("  ") and not line.startswith("   ") and stripped.endswith(":"):
            inside = stripped[:-1]
        if inside == family and stripped.startswith(f"{name}:"):
            line = f"{line[: len(line) - len(line.lstrip())]}{name}: {written}"
        out.append(line)
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


def main() -> None:
    """Fit everything, two cases at a time."""
    keys = [case.key for case in model.cases()]
    with ProcessPoolExecutor(2) as pool:
        first = list(pool.map(first_round, keys))
    rows = [line for key, found, _ in first for line in lines(key, found)]
    write_fits(rows)
    for device in model.HARDWARE:
        write_device(device, [one for key, _, one in first if key[0] == device])
    write_defaults(first)
    with ProcessPoolExecutor(2) as pool:
        few = list(pool.map(few_round, keys))
    rows += [line for key, found in zip(keys, few, strict=True) for line in lines(key, found)]
    write_fits(rows)


if __name__ == "__main__":
    sys.exit(main())
