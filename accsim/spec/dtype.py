"""Number formats of operands and what they accumulate into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTypeName = Literal["int8", "int16", "fp8", "bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class DType:
    """A number format: its operand width, and whether products accumulate as floats."""

    name: str
    bits: int
    floating: bool

    @property
    def bytes(self) -> int:
        """Bytes of one operand."""
        return self.bits // 8


# fp8 is e4m3 (OCP 8-bit floating point specification); all floats accumulate in fp32.
DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("int8", 8, floating=False),
        DType("int16", 16, floating=False),
        DType("fp8", 8, floating=True),
        DType("bf16", 16, floating=True),
        DType("fp16", 16, floating=True),
        DType("fp32", 32, floating=True),
    )
}
