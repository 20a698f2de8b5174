"""What an operator takes of an FPGA: DSPs, LUTs, flip-flops and memory blocks, a range at each.

The numbers lie in hwconfigs/fpga_parts, boards extend such a file; what a design is made of is
counted in devices/fpga_resources.py.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accsim.spec.base import FiniteFloat, PositiveFinite, Spec


class Amounts(Spec):
    """What one copy of a part takes."""

    dsp: FiniteFloat
    lut: FiniteFloat
    ff: FiniteFloat


class Block(Amounts):
    """What one copy of a part with memory of its own takes."""

    bram36: FiniteFloat


class Multipliers(Spec):
    """A pipelined multiplier of each format, one product a clock."""

    fp16: Amounts
    bf16: Amounts
    fp32: Amounts
    int8: Amounts
    int16: Amounts


class MemoryShape(Spec):
    """A block of on-chip memory."""

    wires: Annotated[PositiveFinite, Field(description="bits of one access")]
    kibit: Annotated[PositiveFinite, Field(description="capacity")]


class FpgaParts(Spec):
    """Operators and other parts on one generation of FPGAs; all are pipelined, one a clock."""

    multiplier: Multipliers
    fp32_adder: Annotated[Amounts, Field(description="with DSPs")]
    fp32_adder_lut: Annotated[Amounts, Field(description="of LUTs alone")]
    int32_adder: Annotated[Amounts, Field(description="accumulates integer products")]
    fp32_divider: Amounts
    fp32_root: Amounts
    mux_inputs: Annotated[PositiveFinite, Field(description="inputs a LUT adds to a multiplexer")]
    shift_depth: Annotated[PositiveFinite, Field(description="clocks a LUT delays one bit")]
    compare_width: Annotated[
        PositiveFinite, Field(description="bits of two numbers a LUT compares")
    ]
    pe_control: Amounts
    controller: Annotated[Block, Field(description="of one memory channel")]
    control: Annotated[Block, Field(description="sequencer, DMA, addresses of the design")]
    bram36: MemoryShape
    uram: MemoryShape
