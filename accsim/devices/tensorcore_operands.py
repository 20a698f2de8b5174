"""Bytes, rates and energies of number formats on a GPU's tensor and CUDA cores."""

from __future__ import annotations

from accsim.base.errors import InputError, one_of
from accsim.devices.tensorcore_tiles import Operands
from accsim.spec.dtype import DTYPES
from accsim.spec.gpu import Gpu

BLOCK_SCALE_BYTES = {"fp4": 1 / 16}  # one 8-bit scale for 16 elements (NVFP4)
WIDE_OUTPUT_BYTES = 4.0
INDEX_BYTES = 1 / 8  # of an element of dense W in mma.sp: 4 bits a group of four, every format


def cuda_rate(dtype: str, gpu: Gpu) -> int:
    """Return MACs of one SM in one clock on CUDA cores.

    Raises:
        InputError: a format they do not multiply.
    """
    rates = {
        "fp32": gpu.sm.fp32_fma_per_clock,
        "tf32": gpu.sm.fp32_fma_per_clock,
        "int8": gpu.sm.int8_fma_per_clock,
    }
    if dtype not in rates:
        known = one_of(sorted({*gpu.tensor.fma_per_clock, *rates}))
        raise InputError(f"device '{gpu.name}' does not multiply {dtype}; it does {known}")
    return rates[dtype]


def operands_of(dtype: str, name: str, gpu: Gpu, y_bytes: float | None = None) -> Operands:
    """Return bytes, rate and energy of a format as kernel family ``dense``, ``nm`` or ``simt``.

    Outputs are written in 16 bits for formats of 16 bits and fewer, as inference libraries do, in
    32 for wider ones.
    """
    width = DTYPES[dtype].bits / 8 + BLOCK_SCALE_BYTES.get(dtype, 0.0)
    usual = 2.0 if DTYPES[dtype].bits <= 16 else WIDE_OUTPUT_BYTES
    if name == "simt":
        pj = gpu.board.energy.fp32_fma_pj
        return Operands(width, 0.0, width, y_bytes or usual, cuda_rate(dtype, gpu), 1.0, pj)
    sparse = name == "nm"
    kernel = gpu.kernel("nm" if sparse else "dense", dtype)
    out = y_bytes or kernel.y_bytes or usual
    rate = gpu.tensor.rate(dtype) * (gpu.tensor.gain(dtype) if sparse else 1.0)
    factor = gpu.board.energy.sparse_mma_factor if sparse else 1.0
    pj = kernel.mac_pj or _mma_pj(dtype, gpu) * factor
    mma = {str(key): found for key, found in gpu.tensor.mma.items()}.get(dtype)
    chain = mma.chain_cycles(1.0, sparse=sparse) if mma else 0.0
    if sparse:
        return Operands(width / 2, INDEX_BYTES, width, out, rate, 0.5, pj, chain)
    return Operands(width, 0.0, width, out, rate, 1.0, pj, chain)


def _mma_pj(dtype: str, gpu: Gpu) -> float:
    prices = {str(name): pj for name, pj in gpu.board.energy.mma_pj.items()}
    if dtype not in prices:
        raise InputError(
            f"board '{gpu.board.name}' has no energy.mma_pj.{dtype}; it has {one_of(prices)}"
        )
    return prices[dtype]
