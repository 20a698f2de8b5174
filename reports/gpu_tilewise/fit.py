"""Fit four numbers of hwconfigs/kernels/tilewise_v100.yaml to the six timings of the artefact.

    python reports/gpu_tilewise/fit.py    # prints the lines to paste

Needs scipy (``pip install 'accsim[studies]'``). Errors are relative, least squares; ranges are one
standard error, of two degrees of freedom. No published speed-up enters. The CTAs an SM holds are
tried as integers: printed with the error of each.
"""

from __future__ import annotations

import numpy as np

import accsim
from accsim.spec.gpu import Gpu
from accsim.validate.groups.gpu_tilewise import GPU, kernel_times_us, measured_us, with_kernel

START = {"stall_cycles": 1300.0, "gather_cycles": 700.0, "edge_us": 10.0, "fixed_us": 15.0}


def errors(values: np.ndarray, gpu: Gpu) -> np.ndarray:
    """Return the relative errors of the six timings."""
    fitted = with_kernel(gpu, **dict(zip(START, values.tolist(), strict=True)))
    return kernel_times_us(fitted) / measured_us() - 1


def fit(gpu: Gpu, keep: list[int] | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Return values, their standard errors and the root mean square error of the six timings."""
    from scipy.optimize import least_squares

    start, which = np.array(list(START.values())), keep or list(range(6))
    found = least_squares(lambda x: errors(x * start, gpu)[which], np.ones(4), diff_step=1e-3,
                          bounds=(0, np.inf))  # fmt: skip
    spread = float(found.fun @ found.fun) / max(len(which) - 4, 1)
    covariance = spread * np.linalg.pinv(found.jac.T @ found.jac)
    all_six = errors(found.x * start, gpu)
    return (found.x * start, np.sqrt(np.diag(covariance)) * start,
            float(np.sqrt(np.mean(all_six**2))))  # fmt: skip


def main() -> None:
    """Fit, print what to paste, the errors of other residents, and each timing left out."""
    gpu = accsim.load_hardware(GPU)
    for residents in (1, 2, 3, 4):
        values, spread, rms = fit(with_kernel(gpu, residents=residents))
        print(f"residents {residents}: rms {rms:.2%}, {np.round(values, 1).tolist()}")
        if residents == gpu.tilewise.residents:
            best = values, spread
    for name, value, error in zip(START, *best, strict=True):
        print(f"  {name}: {{value: {value:.4g}, low: {value - error:.4g}, "
              f"high: {value + error:.4g}}}")  # fmt: skip
    print("errors %", np.round(errors(best[0], gpu) * 100, 2).tolist())
    left_out = [errors(fit(gpu, [j for j in range(6) if j != i])[0], gpu)[i] for i in range(6)]
    print("left out %", np.round(np.array(left_out) * 100, 2).tolist())


if __name__ == "__main__":
    main()
