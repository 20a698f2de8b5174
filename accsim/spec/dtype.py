"""Number formats of operands and what they accumulate into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTypeName = Literal["int8", "int16", "fp4", "fp8", "bf16", "fp16", "tf32", "fp32"]


@dataclass(frozen=True)
class DType:
    """A number format: its operand width in memory, and whether products accumulate as floats."""

    name: str
    bits: int
    floating: bool


# fp8 is e4m3 (OCP 8-bit floating point specification), fp4 e2m1 (OCP microscaling formats); tf32 is
# stored as fp32 and multiplied with 11 significant bits. All floats accumulate in fp32.
DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("int8", 8, floating=False),
        DType("int16", 16, floating=False),
        DType("fp4", 4, floating=True),
        DType("fp8", 8, floating=True),
        DType("bf16", 16, floating=True),
        DType("fp16", 16, floating=True),
        DType("tf32", 32, floating=True),
        DType("fp32", 32, floating=True),
    )
}
