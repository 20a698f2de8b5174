"""What a design takes of its FPGA, by part, and whether the card has it (docs/fpga.md).

Counts of operators follow the array's equations; what an operator takes is the board's table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from accsim.base.errors import InputError
from accsim.devices.fpga_ops import SUM_BYTES
from accsim.sparsity.nm import index_bits
from accsim.spec.corner import Side, at_corner
from accsim.spec.dtype import DTYPES
from accsim.spec.fpga import Fpga, FpgaBuffer, TensorPes
from accsim.spec.fpga_parts import Amounts, FpgaParts, MemoryShape

SUM_BITS = 8 * SUM_BYTES

# Multiplications, additions, divisions and square roots of one element's update.
UPDATE = {"sgd": (1, 1, 0, 0), "momentum": (2, 2, 0, 0), "adam": (6, 4, 1, 1)}
NORM = (2, 2, 0, 0)  # batch norm: scale and shift; mean and variance, or their gradients

ARRAY = (
    "pe_multipliers", "pe_adders", "pe_select", "pe_sums", "pe_operands", "pe_control", "skew",
)  # fmt: skip
BUFFERS = ("buffer_x", "buffer_w", "buffer_y")
SHOWN = {"dsp": "DSPs", "lut": "LUTs", "ff": "flip-flops", "bram36": "BRAM36", "uram": "URAM"}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of a part or a design; they add."""

    dsp: int = 0
    lut: int = 0
    ff: int = 0
    bram36: int = 0
    uram: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


Bill = dict[str, Resources]


def total(bill: Mapping[str, Resources]) -> Resources:
    """Return the sum of a bill's parts."""
    return sum(bill.values(), start=Resources())


def resources(device: Fpga) -> Bill:
    """Return what each part of a design takes; a shell is not in it."""
    return _array_bill(device) | {
        "selection": _selection(device),
        "vector": _vector(device),
        **{part: _blocks(device, part) for part in BUFFERS},
        "controllers": _of((device.ddr.channels, device.board.parts.controller)),
        "control": _of((1, device.board.parts.control)),
    }


def cornered(device: Fpga, side: Side) -> Fpga:
    """Return the device with its board's costs at one end: watts, joules, and what parts take."""
    inside = {
        path.removeprefix("board."): source
        for path, source in device.sources.items()
        if path.startswith("board.")
    }
    board = at_corner(device.board, dict(device.board.sources) or inside, side)
    return device.model_copy(update={"board": board})


def check(device: Fpga) -> None:
    """Refuse a design that its card has no room for.

    Every resource must be available; DSPs are those of all die regions (SLRs) together where these
    are known. The array may span regions, since what PEs pass on is registered; a PE may not.

    Raises:
        InputError: what lacks most, with what takes most of it.
    """
    bill, board = resources(device), device.board
    whole, room = total(bill), _room(device)
    name = max(room, key=lambda name: _shortage(getattr(whole, name), room[name]))
    if getattr(whole, name) > room[name]:
        where = " in its SLRs" if room[name] < getattr(board.available, name) else ""
        part = max(bill, key=lambda part: getattr(bill[part], name))
        raise InputError(
            f"fpga '{device.name}' needs {getattr(whole, name):,} {SHOWN[name]}, "
            f"board '{board.name}' has {room[name]:,}{where}; {part} takes most of them "
            f"({getattr(bill[part], name):,})"
        )
    if device.ddr.channels > board.available.channels:
        raise InputError(
            f"fpga '{device.name}' needs {device.ddr.channels} memory channels, "
            f"board '{board.name}' has {board.available.channels}"
        )
    _check_regions(device)


def _check_regions(device: Fpga) -> None:
    regions, array = device.board.available.slr_dsp, device.array
    one = math.ceil(_pe_dsp(device))
    if regions is None or not one:
        return
    places = sum(dsp // one for dsp in regions.values())
    if array.rows * array.cols > places:
        raise InputError(
            f"fpga '{device.name}' needs {array.rows * array.cols:,} PEs of {one} DSPs, board "
            f"'{device.board.name}' has room for {places:,}: its {len(regions)} SLRs have "
            f"{', '.join(f'{dsp:,}' for dsp in regions.values())} DSPs, and a PE lies within one"
        )


def _room(device: Fpga) -> dict[str, int]:
    available = device.board.available
    room = {name: int(getattr(available, name)) for name in SHOWN}
    if available.slr_dsp is not None:
        room["dsp"] = min(room["dsp"], sum(available.slr_dsp.values()))
    return room


def _shortage(needed: int, room: int) -> float:
    return needed / room if room else math.inf if needed else 0.0


# --- the array


def _array_bill(device: Fpga) -> Bill:
    """Return the array by part: PEs times what one of them holds, and the registers that skew."""
    array, table = device.array, device.board.parts
    pes, bits = array.rows * array.cols, DTYPES[device.format].bits
    multiplier: Amounts = getattr(table.multiplier, device.format)
    choice = array.multipliers * _mux_lut(_choices(array), table) * bits
    turns = array.adder_latency if array.interleave and "os" in array.flows else 0
    sums = math.ceil(turns / table.shift_depth) * SUM_BITS
    operands = array.lanes * bits + _weight_bits(array, bits)
    west = _delays(array.rows, array.lanes * bits, table)
    streamed = _streamed_bits(array, bits) if "os" in array.flows else 0
    return {
        "pe_multipliers": _of((pes * array.multipliers, multiplier)),
        "pe_adders": _of(*((pes * count, adder) for count, adder in _adders(device))),
        "pe_select": Resources(lut=pes * choice),
        "pe_sums": Resources(lut=pes * sums, ff=pes * SUM_BITS),
        "pe_operands": Resources(ff=pes * operands),
        "pe_control": _of((pes, table.pe_control)),
        "skew": west + _delays(array.cols, streamed, table),
    }


def _adders(device: Fpga) -> tuple[tuple[int, Amounts], ...]:
    """Return the adders of one PE: M − 1 that join its products and the one that accumulates."""
    array, table = device.array, device.board.parts
    if not DTYPES[device.format].floating:
        return ((array.multipliers, table.int32_adder),)
    with_dsp = array.multipliers if array.dsp_adders is None else array.dsp_adders
    return (
        (with_dsp, table.fp32_adder),
        (array.multipliers - with_dsp, table.fp32_adder_lut),
    )


def _pe_dsp(device: Fpga) -> float:
    multiplier: Amounts = getattr(device.board.parts.multiplier, device.format)
    products = device.array.multipliers * multiplier.dsp
    return products + sum(count * adder.dsp for count, adder in _adders(device))


def _choices(array: TensorPes) -> int:
    """Return the operands one multiplier may take: any lane, or in turn those left to it."""
    if _sparse(array):
        return array.lanes
    return -(-array.lanes // array.multipliers)


def _streamed_bits(array: TensorPes, bits: int) -> int:
    """Return the bits of W one column takes a cycle, positions of kept values included."""
    return array.multipliers * (bits + max([0, *(index_bits(m) for _, m in _sparse(array))]))


def _weight_bits(array: TensorPes, bits: int) -> int:
    """Return the bits of W a PE holds: what it multiplies now, or in ws two groups."""
    if "ws" not in array.flows:
        return _streamed_bits(array, bits)
    groups = [array.lanes * bits]
    for n, m in _sparse(array):
        groups.append(n * (array.lanes // m) * (bits + index_bits(m)))
    return 2 * max(groups)


def _sparse(array: TensorPes) -> list[tuple[int, int]]:
    """Return n and m of the levels that are not dense."""
    words = [level.split(":") for level in array.levels if level != "dense"]
    return [(int(n), int(m)) for n, m in words]


def _delays(lines: int, bits: int, table: FpgaParts) -> Resources:
    """Return the shift registers that delay line i by i clocks, each with a register behind."""
    depth = int(table.shift_depth)
    luts = sum(math.ceil(i / depth) for i in range(1, lines))
    return Resources(lut=luts * bits, ff=(lines - 1) * bits)


def _mux_lut(inputs: int, table: FpgaParts) -> int:
    return 0 if inputs == 1 else math.ceil(inputs / table.mux_inputs)


# --- beside the array


def _selection(device: Fpga) -> Resources:
    """Return the engines that rank m magnitudes pair by pair and pack the n largest."""
    table, bits = device.board.parts, DTYPES[device.format].bits
    lut = ff = 0
    for n, m in _sparse(device.array):
        pairs, packed = m * (m - 1) // 2, n * (bits + index_bits(m))
        # a comparison for each pair, ranks by counting m - 1 outcomes each, n multiplexers
        compare = pairs * math.ceil(bits / table.compare_width)
        lut = max(lut, compare + m * (m - 1) + packed * _mux_lut(m, table))
        ff = max(ff, m * bits + pairs + packed)
    engines = math.ceil(device.selection.groups_per_cycle)
    return Resources(lut=engines * lut, ff=engines * ff)


def _vector(device: Fpga) -> Resources:
    """Return the lanes of the vector engine: update and batch norm, all in fp32."""
    table = device.board.parts
    operators = (table.multiplier.fp32, table.fp32_adder, table.fp32_divider, table.fp32_root)
    update = UPDATE[device.vector.optimiser]
    lanes = device.vector.lanes
    return _of(
        *(
            (lanes * (a + b), one)
            for a, b, one in zip(update, NORM, operators, strict=True)
        )
    )  # fmt: skip


def buffer_widths(device: Fpga) -> dict[str, int]:
    """Return the bits the array exchanges with each buffer in a cycle."""
    array, bits = device.array, DTYPES[device.format].bits
    return {
        "buffer_x": array.rows * array.lanes * bits,
        "buffer_w": array.cols * _streamed_bits(array, bits),
        "buffer_y": array.cols * SUM_BITS,
    }


def block_of(device: Fpga, part: str) -> MemoryShape:
    """Return the memory blocks a buffer of the bill is made of."""
    table = device.board.parts
    return table.uram if _buffer(device, part).memory == "uram" else table.bram36


def _buffer(device: Fpga, part: str) -> FpgaBuffer:
    buffer: FpgaBuffer = getattr(device.buffers, part.removeprefix("buffer_"))
    return buffer


def _blocks(device: Fpga, part: str) -> Resources:
    """Return the blocks of two halves, each as many as its width or its capacity needs."""
    buffer, block = _buffer(device, part), block_of(device, part)
    wide = math.ceil(buffer_widths(device)[part] / block.wires)
    count = 2 * max(wide, math.ceil(buffer.kib * 8 / 2 / block.kibit))
    return Resources(uram=count) if buffer.memory == "uram" else Resources(bram36=count)


def _of(*parts: tuple[int, Amounts]) -> Resources:
    """Return what counts of parts take together, rounded up."""
    return Resources(
        **{
            name: math.ceil(sum(count * getattr(one, name, 0) for count, one in parts))
            for name in ("dsp", "lut", "ff", "bram36")
        }
    )
