"""What users of GPU libraries report: one token, speed-up by tokens, packing, the best rate.

Single figures of shared/facts/tensor_core.md beside the shipped hardware; medians of the speed-up
by fits that did not see the product's weight shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from accsim.devices.tensorcore import TensorCoreDevice
from accsim.devices.tensorcore import gemm_costs as library_costs
from accsim.files.hardware import load_hardware
from accsim.sparsity.masks import Masks
from accsim.spec.gpu import Gpu
from accsim.spec.pattern import parse_pattern
from accsim.spec.workload import Layer, gemm
from accsim.validate.gpu_gemm_model import out_of_fold
from accsim.validate.groups.gpu_gemm import HELD, SOURCE, pair_of, speedups
from accsim.validate.row import Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NOTES = "shared/facts/tensor_core.md"
WIDTH = 4096  # k and n of the one-token and packing figures
PADDED = 32  # tokens PyTorch pads one to for a 2:4 product
ONE_TOKEN_GPU = "a100_pcie_80gb"
UNNAMED = f"the GPU is not named; assumed: {ONE_TOKEN_GPU}, fp16"
# device, format, the medians the notes state at 64 and at 4096 tokens
MEDIANS = (("a100-pcie-80gb", "fp16", (1.34, 1.66)), ("h100-pcie-80gb", "bf16", (0.93, 1.60)))
TOKENS = (64, 4096)
# hardware, format, best dense TFLOPS that others sustain
BEST = (
    ("a100_sxm4_80gb", "bf16", 268.0),
    ("h100_sxm5_80gb", "bf16", 794.0),
    ("h200_sxm", "fp8", 1453.0),
    ("b200", "bf16", 1745.0),
)
BIG = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 8192, 8192), (8192, 8192, 16384),
       (16384, 16384, 16384))  # fmt: skip
KNEW = {"b200": "its L2 rate and its pairs of SMs were put in knowing this figure; "}
NARROW, WIDE = 768, 1024  # n for which an RTX 3090 takes the same time
STEPS_K = (768, 6144, 8448, 9984)  # k of both in rtx3090_vnm_24.csv at 4096 tokens
NEAR, NEAR_MEDIAN, NEAR_BEST, SAME = 0.25, 0.10, 0.15, 0.01


def rows() -> Iterator[Row]:
    """Yield one token, medians of the speed-up, packing, best rates, equal times of two widths."""
    yield from _one_token()
    yield from _medians()
    yield _compression()
    yield from _best()
    yield _same_time()


# --- the model


def product(t: int, k: int, n: int, dtype: str, pattern: str = "dense") -> Layer:
    """Return a product of t tokens with a k × n weight under a pattern."""
    layer = gemm(t, k, n, dtype=dtype).layers[0]
    return layer.model_copy(update={"pattern": parse_pattern(pattern)})


def library_us(layer: Layer, gpu: Gpu) -> float:
    """Return the time of one call in a library's best kernel."""
    return float(library_costs([layer], Masks(0), gpu).total_us[0])


def best_tflops(gpu: Gpu, dtype: str) -> float:
    """Return the highest dense rate over the big shapes, two operations a MAC."""
    return max(2e-6 * t * k * n / library_us(product(t, k, n, dtype), gpu) for t, k, n in BIG)


@cache
def _speedups(device: str, dtype: str) -> tuple[Ints, Floats, Floats]:
    """Return tokens of shapes measured dense and 2:4, their speed-ups, ours out of fold."""
    pair = pair_of(device, dtype)
    assert pair is not None
    found = {case.key: out_of_fold(case) for case in (pair.dense, pair.nm)}
    return pair.dense.rows.t[pair.at_dense], *speedups(found, device, dtype)


def median_speedups(device: str, dtype: str, tokens: int) -> tuple[float, float, int]:
    """Return the median speed-up of 2:4 over dense at so many tokens: measured, ours; shapes."""
    t, measured, ours = _speedups(device, dtype)
    mine = t == tokens
    return float(np.median(measured[mine])), float(np.median(ours[mine])), int(mine.sum())


def width_ratio(gpu: Gpu) -> float:
    """Return the time of 2:4 at n = 1024 over that at 768, of all k that farthest from 1."""
    wide, narrow = (
        np.array([library_us(product(4096, k, n, "fp16", "2:4"), gpu) for k in STEPS_K])
        for n in (WIDE, NARROW)
    )
    return float(max(wide / narrow, key=lambda ratio: abs(np.log(ratio))))


# --- the rows


def _one_token() -> Iterator[Row]:
    gpu = load_hardware(ONE_TOKEN_GPU)
    for name, tokens, pattern, published, why in (
        ("dense", 1, "dense", 22.0, "products of one token were not fitted to (t from 64)"),
        ("2:4", PADDED, "2:4", 196.0, f"ours is the best kernel of a search, {PADDED} tokens; what "
         "PyTorch's own path adds to it (host, kernel not searched for) is not modelled"),
    ):  # fmt: skip
        yield Row(
            id=f"gpu_decode/one_token/{name}", unit="us", source=f"{NOTES}: measured in PyTorch",
            quantity=f"{name}, one token, {WIDTH} × {WIDTH}", low=published, high=published,
            ours=library_us(product(tokens, WIDTH, WIDTH, "fp16", pattern), gpu), tolerance=NEAR,
            remark=f"{UNNAMED}; {why}",
        )  # fmt: skip


def _medians() -> Iterator[Row]:
    for device, dtype, stated in MEDIANS:
        for tokens, told in zip(TOKENS, stated, strict=True):
            measured, ours, shapes = median_speedups(device, dtype, tokens)
            yield Row(
                id=f"gpu_decode/median/{device}/{dtype}/{tokens}", unit="x", source=SOURCE,
                quantity=f"median speed-up of 2:4, {device}, {dtype}, {tokens} tokens",
                low=measured, high=measured, ours=ours, tolerance=NEAR_MEDIAN,
                remark=f"{shapes} shapes of the table; {NOTES} states {told:g}; {HELD}",
            )  # fmt: skip


def _compression() -> Row:
    layer = product(PADDED, WIDTH, WIDTH, "fp16", "2:4")
    found = TensorCoreDevice.generator_us(
        load_hardware(ONE_TOKEN_GPU), [layer], compress=True, setup=False
    )
    assert found is not None
    value, low, high = (float(x[0]) for x in found)
    return Row(
        id="gpu_decode/compression", quantity=f"packing {WIDTH} × {WIDTH} to 2:4 at run time",
        unit="us", source=NOTES, low=20, high=120, ours=value, ours_low=low, ours_high=high,
        status="fitted", remark=f"our share of DRAM's peak is assumed from these ends; {UNNAMED}",
    )  # fmt: skip


def _best() -> Iterator[Row]:
    for device, dtype, published in BEST:
        yield Row(
            id=f"gpu_decode/best/{device}/{dtype}", unit="TFLOPS", source=f"{NOTES}: by others",
            quantity=f"best dense rate anyone sustains, {device}, {dtype}", low=published,
            high=published, ours=best_tflops(load_hardware(device), dtype), tolerance=NEAR_BEST,
            status="fitted" if device in KNEW else "predicted",
            remark=f"{KNEW.get(device, '')}of {len(BIG)} shapes of 4096 to 16384 a side; kernels "
            "not fitted on this device",
        )  # fmt: skip


def _same_time() -> Row:
    return Row(
        id="gpu_decode/rtx3090/same_time", unit="x", low=1, high=1, source=NOTES,
        quantity=f"time of 2:4 at n = {WIDE} over n = {NARROW}, RTX 3090, 4096 tokens",
        ours=width_ratio(load_hardware("rtx3090")), tolerance=SAME, status="fitted",
        remark=f"its tile was chosen for this; k of {', '.join(map(str, STEPS_K))}: the farthest "
        "from 1",
    )  # fmt: skip
