"""Area of a systolic device and of its checkers: a bill of materials × a table (docs/area.md).

What a PE holds follows docs/systolic.md; what a checker holds follows the invariants it compares,
for weight-stationary arrays Y = X·W. Sums and products of integers wrap at the accumulator's width,
in the array and in its checkers alike, so that no checker needs wider sums. Of floats, every sum is
in fp32 and a checksum is rounded to the operand's format before it is multiplied in the array.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, NamedTuple

from accsim.base.errors import InputError, near, one_of
from accsim.spec.area import SECTIONS, AreaTable
from accsim.spec.dtype import DTYPES
from accsim.spec.hardware import Array, Systolic

CHECKERS = ("none", "column", "row", "two_sided", "scalar", "digit_serial")


class Range(NamedTuple):
    """A figure with the ends of its range, all numbers of the table at their low or high."""

    low: float
    value: float
    high: float


class Overhead(NamedTuple):
    """What a checker adds, in percent of the unprotected arrays alone, and with their SRAMs."""

    array_percent: Range
    with_buffers_percent: Range


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A bill of materials; bills add, and ``n`` of one is ``n * bill``.

    Multipliers are counted by (bits, bits) or by float format, adders by bits or ``"fp32"``, SRAM
    macros by bytes. ``mux_bits`` counts two-input multiplexers of one bit: i inputs are i − 1.
    """

    multipliers: Mapping[tuple[int, int] | str, int] = field(default_factory=dict)
    adders: Mapping[int | str, int] = field(default_factory=dict)
    register_bits: int = 0
    mux_bits: int = 0
    compare_bits: int = 0
    srams: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, counted in ((f.name, getattr(self, f.name)) for f in fields(self)):
            least = min(counted.values(), default=0) if isinstance(counted, Mapping) else counted
            if least < 0:
                raise InputError(f"parts: {name} must not be negative; got {least}")

    def __add__(self, other: Parts) -> Parts:
        return Parts(
            multipliers=_merged(self.multipliers, other.multipliers),
            adders=_merged(self.adders, other.adders),
            register_bits=self.register_bits + other.register_bits,
            mux_bits=self.mux_bits + other.mux_bits,
            compare_bits=self.compare_bits + other.compare_bits,
            srams=_merged(self.srams, other.srams),
        )

    def __rmul__(self, times: int) -> Parts:
        return Parts(
            multipliers={key: times * n for key, n in self.multipliers.items()},
            adders={key: times * n for key, n in self.adders.items()},
            register_bits=times * self.register_bits,
            mux_bits=times * self.mux_bits,
            compare_bits=times * self.compare_bits,
            srams={key: times * n for key, n in self.srams.items()},
        )


def _merged(a: Mapping[Any, int], b: Mapping[Any, int]) -> dict[Any, int]:
    return dict(Counter(a) + Counter(b))


def total(bills: Iterable[Parts]) -> Parts:
    """Return the sum of bills."""
    return sum(bills, start=Parts())


# --- what a device is made of


@dataclass(frozen=True)
class _Numbers:
    """Widths of a number format in an array, and which adder or multiplier serves them."""

    dtype: str
    bits: int
    sum_bits: int
    floating: bool

    def adders(self, bits: int, count: int = 1) -> Parts:
        """Adders of at least ``bits``, never wider than the sums they lead to."""
        return Parts(adders={"fp32" if self.floating else min(bits, self.sum_bits): count})

    def multipliers(self, bits: int, by: int, count: int = 1) -> Parts:
        narrow = self.dtype if bits == by == self.bits else "fp32"
        return Parts(multipliers={narrow if self.floating else (bits, by): count})

    def checksum_bits(self, terms: int) -> int:
        """Bits of the sum of ``terms`` operands."""
        return 32 if self.floating else self.bits + _log2(terms)

    def sums(self, count: int) -> Parts:
        """Adders with their register, as wide as the array's sums."""
        return self.adders(self.sum_bits, count) + Parts(register_bits=count * self.sum_bits)

    def tree(self, terms: int, bits: int) -> Parts:
        """A tree that adds ``terms`` numbers of ``bits``, one bit wider each level."""
        bill, level = Parts(), 1
        while terms > 1:
            bill += self.adders(bits + level, terms // 2)
            terms, level = -(-terms // 2), level + 1
        return bill

    def alarm(self) -> Parts:
        """One comparison: of integers with zero, of floats with a threshold."""
        bill = Parts(compare_bits=self.sum_bits)
        return bill + self.adders(32) if self.floating else bill


def _numbers(array: Array, dtype: str) -> _Numbers:
    if dtype not in DTYPES:
        raise InputError(
            f"dtype must be one of {one_of(DTYPES)}; got '{dtype}'{near(dtype, DTYPES)}"
        )
    floating = DTYPES[dtype].floating
    width = 32 if floating else array.accumulator_bits
    return _Numbers(dtype, DTYPES[dtype].bits, width, floating)


def _known(dataflow: str) -> None:
    if dataflow not in ("ws", "os", "is"):
        raise InputError(f"dataflow must be one of ws, os, is; got '{dataflow}'")


def _log2(terms: int) -> int:
    return (terms - 1).bit_length()


def pe_parts(array: Array, dtype: str = "int8", dataflow: str = "ws") -> Parts:
    """Return what one tensor PE holds.

    Multipliers, the tree that adds their products, the adder of partial sums, an n:m multiplexer
    before each multiplier, the registers of what streams through, stays, and is summed. Control
    bits, clock gating and repair logic are left out.
    """
    numbers, held = _numbers(array, dtype), 2 if array.double_buffering else 1
    _known(dataflow)
    weight, lanes = _weight_bits(array, numbers), array.lanes * numbers.bits
    registers = {
        "ws": lanes + held * weight + numbers.sum_bits,
        "is": weight + held * lanes + numbers.sum_bits,
        "os": lanes + weight + held * numbers.sum_bits,
    }
    return (
        numbers.multipliers(numbers.bits, numbers.bits, array.multipliers)
        + numbers.tree(array.multipliers, 2 * numbers.bits)
        + numbers.adders(numbers.sum_bits)
        + Parts(
            register_bits=registers[dataflow],
            mux_bits=array.multipliers * (array.lanes - 1) * numbers.bits,
        )
    )


def skew_parts(array: Array, dtype: str = "int8", dataflow: str = "ws") -> Parts:
    """Return the registers that delay row i by i cycles at the edges operands enter by.

    Results leave skewed: each column counts its own addresses in the y buffer.
    """
    numbers = _numbers(array, dtype)
    _known(dataflow)
    weight, lanes = _weight_bits(array, numbers), array.lanes * numbers.bits
    rows, cols = array.rows * (array.rows - 1) // 2, array.cols * (array.cols - 1) // 2
    bits = {"ws": rows * lanes, "is": rows * weight, "os": rows * lanes + cols * weight}
    return Parts(register_bits=bits[dataflow])


def array_parts(array: Array, dtype: str = "int8", dataflow: str = "ws") -> Parts:
    """Return what all arrays of a device hold: their PEs and the skew registers at their edges."""
    pes = array.rows * array.cols * pe_parts(array, dtype, dataflow)
    return array.count * (pes + skew_parts(array, dtype, dataflow))


def buffer_parts(device: Systolic) -> dict[str, Parts]:
    """Return the SRAMs of a device by name, one macro each."""
    memory = device.memory
    sizes = {f"sram_{name}": getattr(memory.sram, name).bytes for name in ("x", "w", "y")}
    sizes |= {level.name: level.bytes for level in getattr(memory, "onchip", ())}
    return {name: Parts(srams={size: 1}) for name, size in sizes.items()}


def _weight_bits(array: Array, numbers: _Numbers) -> int:
    """Bits of the weights of one PE with the index of the lane each selects."""
    return array.multipliers * (numbers.bits + _log2(array.lanes))


# --- checkers


def checker_parts(
    kind: str, array: Array, dtype: str = "int8", dataflow: str = "ws", *, rows: int = 4096
) -> Parts:
    """Return what a checker adds to all arrays of a device.

    Args:
        kind: one of :data:`CHECKERS`. ``column`` compares 1ᵀY with (1ᵀX)W, ``row`` Y1 with X(W1),
            ``two_sided`` both, ``scalar`` 1ᵀY1 with (1ᵀX)(W1) formed by one multiplier outside;
            ``digit_serial`` is ``scalar`` with a column of the array's own PEs as multiplier.
        rows: rows of X summed before a comparison, which sets the width of 1ᵀX.

    W1 is made offline and loaded like weights. docs/area.md lists each checker's parts.

    Raises:
        InputError: an unknown kind, or a dataflow other than ws.
    """
    if kind not in CHECKERS:
        hint = near(kind, CHECKERS)
        raise InputError(f"checker must be one of {one_of(CHECKERS)}; got '{kind}'{hint}")
    if dataflow != "ws":
        raise InputError(f"the area of a checker is known for dataflow ws only; got '{dataflow}'")
    if rows < 1:
        raise InputError(f"checker: rows must be at least 1; got {rows}")
    one = _Checker(array, _numbers(array, dtype), rows)
    bills = {
        "none": Parts,
        "column": one.column,
        "row": one.row,
        "two_sided": lambda: one.column() + one.row(),
        "scalar": one.scalar,
        "digit_serial": one.digit_serial,
    }
    return array.count * bills[kind]()


@dataclass(frozen=True)
class _Checker:
    """The parts of checkers of one weight-stationary array."""

    array: Array
    numbers: _Numbers
    rows: int

    @property
    def x_bits(self) -> int:
        return self.numbers.checksum_bits(self.rows)

    @property
    def w_bits(self) -> int:
        return self.numbers.checksum_bits(self.array.cols)

    def digits(self, bits: int) -> int:
        """Digits of a checksum; one bit less than an operand, so that they are not negative."""
        return 1 if self.numbers.floating else -(-bits // (self.numbers.bits - 1))

    def input_sums(self) -> Parts:
        """1ᵀX: an adder and a register for each lane at the west edge."""
        lanes = self.array.rows * self.array.lanes
        return self.numbers.adders(self.x_bits, lanes) + Parts(register_bits=lanes * self.x_bits)

    def column(self) -> Parts:
        """1ᵀX follows X through the array digit by digit; each column sums Y less its product."""
        lanes, n = self.array.rows * self.array.lanes, self.numbers
        digits = self.digits(self.x_bits)
        residual = n.sums(1) + Parts(mux_bits=(digits - 1) * n.sum_bits) + n.alarm()
        feed = Parts(mux_bits=lanes * digits * n.bits)  # X itself or one of the digits
        return self.input_sums() + feed + self.array.cols * residual

    def row(self) -> Parts:
        """A further column of PEs holds W1, with a multiplier a lane; Y is added up on leaving."""
        lanes, n = self.array.lanes, self.numbers
        held = 2 if self.array.double_buffering else 1
        pe = (
            n.multipliers(n.bits, self.w_bits, lanes)
            + n.tree(lanes, n.bits + self.w_bits)
            + n.sums(1)
            + Parts(register_bits=lanes * (n.bits + held * self.w_bits))
        )
        return self.array.rows * pe + n.sums(self.array.cols) + n.alarm()

    def scalar(self) -> Parts:
        """1ᵀX shifts out along W1 read from memory, one product a cycle; Y is added up whole."""
        lanes, n = self.array.rows * self.array.lanes, self.numbers
        registers = Parts(register_bits=self.x_bits + self.w_bits)
        product = n.multipliers(self.x_bits, self.w_bits) + n.sums(1) + registers
        shift_out = Parts(mux_bits=lanes * self.x_bits)
        return self.input_sums() + shift_out + product + self._output_sum()

    def digit_serial(self) -> Parts:
        """A further column of the array's PEs multiplies digits of 1ᵀX and W1 in turn."""
        lanes, n = self.array.rows * self.array.lanes, self.numbers
        x_digits, w_digits = self.digits(self.x_bits), self.digits(self.w_bits)
        feed = Parts(mux_bits=lanes * (x_digits - 1) * n.bits)
        align = n.sums(1) + Parts(mux_bits=(x_digits + w_digits - 2) * n.sum_bits)
        column = self.array.rows * pe_parts(self.array, n.dtype)
        return self.input_sums() + feed + column + align + self._output_sum()

    def _output_sum(self) -> Parts:
        """1ᵀY1: a chain of adders along the south edge, one more over time, and the comparison."""
        return self.numbers.sums(self.array.cols + 1) + self.numbers.alarm()


# --- in mm² and percent


def section_mm2(parts: Parts, table: AreaTable) -> dict[str, float]:
    """Return the placed area of a bill by section of the table; the total is their sum."""
    cells = {
        "multiplier": sum(
            n * (table.float_um2(key) if isinstance(key, str) else table.multiplier_um2(*key))
            for key, n in parts.multipliers.items()
        ),
        "adder": sum(
            n * (table.fp32_adder_um2 if isinstance(key, str) else table.adder_um2(key))
            for key, n in parts.adders.items()
        ),
        "register": parts.register_bits * table.register_um2_per_bit,
        "mux": parts.mux_bits * table.mux_um2_per_bit,
        "compare": parts.compare_bits * table.compare_um2_per_bit,
    }
    placed = {name: um2 * table.placed_per_cell * 1e-6 for name, um2 in cells.items()}
    srams = sum(n * table.sram_mm2(size) for size, n in parts.srams.items())
    return placed | {"sram": srams}


def parts_mm2(parts: Parts, table: AreaTable) -> Range:
    """Return the area of a bill, with its range corner to corner."""
    low, value, high = (
        sum(section_mm2(parts, at).values())
        for at in (table.corner("low"), table, table.corner("high"))
    )
    return Range(low, value, high)


def area_mm2(
    device: Systolic, table: AreaTable, dtype: str = "int8", checker: str = "none"
) -> dict[str, Range]:
    """Return the area of a device by part: ``pe``, ``skew``, its SRAMs, and a ``checker`` if any.

    Not in it: control, address generators, DRAM interface and pads.

    Raises:
        InputError: a number format the table does not have, or an unknown checker.
    """
    return {name: parts_mm2(bill, table) for name, bill in _bills(device, dtype, checker).items()}


def _bills(device: Systolic, dtype: str, checker: str) -> dict[str, Parts]:
    array, flow = device.array, device.dataflow
    pes = array.count * array.rows * array.cols
    bills = {
        "pe": pes * pe_parts(array, dtype, flow),
        "skew": array.count * skew_parts(array, dtype, flow),
        **buffer_parts(device),
    }
    if checker != "none":
        bills["checker"] = checker_parts(checker, array, dtype, flow)
    return bills


def overhead_percent(
    checker: str, device: Systolic, table: AreaTable, dtype: str = "int8", *, rows: int = 4096
) -> Overhead:
    """Return what a checker adds, in percent of the unprotected device.

    Checker and array are made of the same parts, so a section of the table moves in both at once:
    the range is the least and the most over all corners of the sections' ranges.
    """
    array = device.array
    added = checker_parts(checker, array, dtype, device.dataflow, rows=rows)
    logic = array_parts(array, dtype, device.dataflow)
    whole = logic + total(buffer_parts(device).values())
    return Overhead(*(_percent_range(added, base, table) for base in (logic, whole)))


def _percent_range(added: Parts, base: Parts, table: AreaTable) -> Range:
    names = [name for name in SECTIONS if name != "placement"]
    corners = [table.corner("low"), table.corner("high")]
    found = []
    for placed in (corner.placed_per_cell for corner in corners):
        ends = [corner.model_copy(update={"placed_per_cell": placed}) for corner in corners]
        pairs = [(section_mm2(added, end), section_mm2(base, end)) for end in ends]
        for choice in product((0, 1), repeat=len(names)):
            at = dict(zip(names, choice, strict=True))
            more, all_of_it = (sum(pairs[at[n]][i][n] for n in names) for i in (0, 1))
            found.append(100 * more / all_of_it)
    value = 100 * sum(section_mm2(added, table).values()) / sum(section_mm2(base, table).values())
    # Numbers of a section need not move in proportion, so the value may lie beyond all corners.
    return Range(min(value, *found), value, max(value, *found))


def area_table(
    device: Systolic, table: AreaTable, dtype: str = "int8", checker: str = "none"
) -> list[dict[str, Any]]:
    """Return rows to print: part, mm² with its range, and percent of the unprotected total.

    The PEs are also broken down by section, in rows named ``pe: multiplier`` …; the row ``total``
    is the sum of the others without those.
    """
    bills = _bills(device, dtype, checker)
    found = area_mm2(device, table, dtype, checker)
    whole = sum(area.value for name, area in found.items() if name != "checker")
    rows = []
    for name, area in found.items():
        rows.append(_row(name, area, whole))
        if name == "pe":
            by_section = [
                section_mm2(bills["pe"], at)
                for at in (table.corner("low"), table, table.corner("high"))
            ]
            rows += [
                _row(f"pe: {section}", Range(*(at[section] for at in by_section)), whole)
                for section in by_section[1]
                if by_section[1][section] > 0
            ]
    ends = zip(*found.values(), strict=True)
    return [*rows, _row("total", Range(*(sum(end) for end in ends)), whole)]


def _row(part: str, area: Range, whole: float) -> dict[str, Any]:
    return {
        "part": part,
        "low_mm2": area.low,
        "mm2": area.value,
        "high_mm2": area.high,
        "percent": 100 * area.value / whole,
    }
