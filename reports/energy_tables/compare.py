"""Set our energy and area tables beside a maintained library, hwcomponents: writes compare.csv.

    python reports/energy_tables/compare.py

Needs ``pip install hwcomponents hwcomponents-library hwcomponents-cacti hwcomponents-neurosim`` in
accsim's environment. compare.csv stays in the repository, so that it can be read without them.
``relation`` says what a row is worth:

- *same*: our number was taken from this call. Agrees by construction and says nothing.
- *range*: this call set the low or high end of our range. Lies inside by construction.
- *extended*: our value or range comes from this model at other sizes or nodes. Says how well it was
  carried over.
- *independent*: ours, value and range, comes from elsewhere.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import accsim
from accsim.cost.area import Parts, Range, section_mm2
from accsim.files.area import load_area
from accsim.spec.area import power_law
from accsim.spec.hardware import Systolic
from accsim.spec.sourced import Sourced

HERE = Path(__file__).parent
NODES = (45, 22, 16, 7)
KIB = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
POINTS_KIB = (1, 8, 32, 64, 256, 1024, 4096)
NEUROSIM, CACTI = "hwcomponents-neurosim", "hwcomponents_cacti"
DEVICE = "systolic_ws_32x32"  # carries the energy table it is given


class Row(NamedTuple):
    """One component both have, in our table and in the library."""

    component: str
    unit: str
    ours: Range
    relation: str
    package: str
    call: str
    library: float


def main() -> None:
    """Compare at every node and write the table."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = _library()
    except ImportError as error:
        sys.exit(f"compare.py: needs hwcomponents and its plug-ins (see its head): {error}")
    rows = []
    for node in NODES:
        for row in [*energy_rows(node, library), *area_rows(node, library)]:
            rows.append({"node_nm": node, **_columns(row)})
    table = pd.DataFrame(rows)
    table.to_csv(HERE / "compare.csv", index=False, lineterminator="\n")
    print(summary(table).to_string())


def _library() -> dict[str, Callable[..., Any]]:
    """Return the library's classes, at a node in nm; NeuroSim's with a period of 1 ns."""
    from hwcomponents_cacti import DDR3, HBM2, HBM3, LPDDR4, SRAM
    from hwcomponents_library.library import aladdin
    from hwcomponents_neurosim.main import Adder, AdderTree, FlipFlop, Mux

    found: dict[str, Callable[..., Any]] = {}
    for name in ("Adder", "Multiplier", "IntMAC", "Register", "Comparator"):
        found[f"Aladdin{name}"] = getattr(aladdin, f"Aladdin{name}")
    for made in (Adder, AdderTree, FlipFlop, Mux):
        found[made.__name__] = lambda made=made, **given: made(cycle_period=1e-9, **given)
    return found | {made.__name__: made for made in (SRAM, DDR3, LPDDR4, HBM2, HBM3)}


def _columns(row: Row) -> dict[str, Any]:
    inside = row.ours.low <= row.library * 1.005 and row.library <= row.ours.high * 1.005
    return {
        "component": row.component,
        "unit": row.unit,
        **{name: float(f"{v:.4g}") for name, v in row.ours._asdict().items()},
        "library": float(f"{row.library:.4g}"),
        "library_over_ours": float(f"{row.library / row.ours.value:.3g}"),
        "inside_our_range": inside,  # to half a percent: the tables have three digits
        "relation": row.relation,
        "class": row.call,
        "package": f"{row.package} {version(row.package)}",
        "run": date.today().isoformat(),
    }


# --- energy


def energy_rows(node: int, library: dict[str, Callable[..., Any]]) -> Iterator[Row]:
    """Yield arithmetic, registers, multiplexers, SRAM and DRAM, in pJ."""
    device = accsim.load_hardware(DEVICE, {"energy": f"cmos_{node}nm"})
    tech, lib = node * 1e-9, "hwcomponents_library"
    adder, eight, sixteen = (
        ours(device, f"mac.{key}_pj") for key in ("int8.add", "int8.mult", "int16.mult")
    )
    for bits, mult in ((8, eight), (16, sixteen)):
        found = library["AladdinMultiplier"](tech_node=tech, width=bits).multiply().energy
        call = f"AladdinMultiplier(width={bits}).multiply"
        yield Row(f"int{bits} multiplier", "pJ", mult, "range", lib, call, found * 1e12)
    found = library["AladdinAdder"](tech_node=tech, width=32).add().energy
    # At 22 and 16 nm the ends of the adder's range are Horowitz and Jouppi, scaled.
    relation = "range" if node in (45, 7) else "independent"
    call = "AladdinAdder(width=32).add"
    yield Row("32-bit adder", "pJ", adder, relation, lib, call, found * 1e12)
    found = library["Adder"](tech_node=tech, n_bits=32).read().energy
    call = "Adder(n_bits=32).read"
    yield Row("32-bit adder", "pJ", adder, "independent", NEUROSIM, call, found * 1e12)
    for bits, mult in ((8, eight), (16, sixteen)):
        mac = Range(*(a + b for a, b in zip(mult, adder, strict=True)))
        made = library["AladdinIntMAC"](tech_node=tech, adder_width=32, multiplier_width=bits)
        call = f"AladdinIntMAC(adder_width=32, multiplier_width={bits}).mac"
        yield Row(f"int{bits} MAC", "pJ", mac, "range", lib, call, made.mac().energy * 1e12)
    register = ours(device, "register_pj_per_bit")
    found = library["AladdinRegister"](tech_node=tech, width=1).write().energy
    call = "AladdinRegister(width=1).write"
    yield Row("register bit", "pJ", register, "same", lib, call, found * 1e12)
    found = library["FlipFlop"](tech_node=tech, n_bits=32).read().energy / 32
    call = "FlipFlop(n_bits=32).read / 32"
    yield Row("register bit", "pJ", register, "range", NEUROSIM, call, found * 1e12)
    select = ours(device, "select_pj_per_bit")
    for inputs, relation in ((2, "range"), (4, "same"), (8, "extended")):
        made = library["Mux"](tech_node=tech, n_mux_inputs=inputs, n_bits=8)
        call = f"Mux(n_mux_inputs={inputs}, n_bits=8).read / 8"
        name = f"{inputs}-input multiplexer bit"
        yield Row(name, "pJ", select, relation, NEUROSIM, call, made.read().energy / 8 * 1e12)
    yield from sram_rows(node, device, library)
    if node == NODES[0]:  # the same in all four tables
        yield from dram_rows(device, library)


def sram_rows(node: int, device: Systolic, library: dict[str, Callable[..., Any]]) -> Iterator[Row]:
    """Yield 64-bit reads and writes, and the area, of SRAMs at and between our points."""
    area = load_area(f"cmos_{node}nm")
    corners = (area.corner("low"), area, area.corner("high"))
    for kib in KIB:
        made = library["SRAM"](tech_node=node * 1e-9, width=64, size=kib * 8192, depth=kib * 128)
        call = f"SRAM(width=64, size={kib} KiB)"
        point = POINTS_KIB.index(kib) if kib in POINTS_KIB else None
        relation = "extended" if point is None else "same"
        for which, action in (("read", made.read), ("write", made.write)):
            cost = access(device, which, kib * 1024)
            name = f"SRAM {kib} KiB {which}"
            found = action().energy * 1e12
            yield Row(name, "pJ/64 bit", cost, relation, CACTI, f"{call}.{which}", found)
        size = Range(*(at.sram_mm2(kib * 1024) for at in corners))
        yield Row(f"SRAM {kib} KiB", "mm2", size, relation, CACTI, f"{call}.area", made.area * 1e6)


def access(device: Systolic, which: str, size: int) -> Range:
    """Return our energy of a 64-bit access with its range, by power law between the points."""
    sizes = [point.bytes for point in device.energy.sram]
    ends = [ours(device, f"sram.{i}.{which}_pj") for i in range(len(sizes))]
    return Range(
        *(power_law(list(zip(sizes, end, strict=True)), size) for end in zip(*ends, strict=True))
    )


def dram_rows(device: Systolic, library: dict[str, Callable[..., Any]]) -> Iterator[Row]:
    """Yield DRAM energy per bit where the library has the protocol, or its successor."""
    for protocol, name, width, relation in (
        ("ddr3", "DDR3", 64, "range"),
        ("lpddr4", "LPDDR4", 64, "same"),
        ("hbm2", "HBM2", 2048, "independent"),
        ("hbm3e", "HBM3", 2048, "range"),
    ):
        found = library[name](width=width).read().energy / width
        bit = ours(device, f"dram_pj_per_bit.{protocol}")
        call = f"{name}(width={width}).read / {width}"
        yield Row(protocol, "pJ/bit", bit, relation, CACTI, call, found * 1e12)


def ours(device: Systolic, path: str) -> Range:
    """Return one number of the device's energy table with its range."""
    return _range(device.sources[f"energy.{path}"])


def _range(source: Sourced) -> Range:
    low = source.value if source.low is None else source.low
    high = source.value if source.high is None else source.high
    return Range(low, source.value, high)


# --- area


def area_rows(node: int, library: dict[str, Callable[..., Any]]) -> Iterator[Row]:
    """Yield cell areas in µm² (SRAM areas stand with their energies)."""
    tech, lib = node * 1e-9, "hwcomponents_library"
    for bits in (8, 16, 32):
        mult = cells(node, Parts(multipliers={(bits, bits): 1}))
        call = f"AladdinMultiplier(width={bits}).area"
        made = library["AladdinMultiplier"](tech_node=tech, width=bits)
        relation = "extended" if bits == 16 else "range"
        yield Row(f"int{bits} multiplier", "um2", mult, relation, lib, call, made.area * 1e12)
        add = cells(node, Parts(adders={bits: 1}))
        made = library["AladdinAdder"](tech_node=tech, width=bits)
        call = f"AladdinAdder(width={bits}).area"
        yield Row(f"{bits}-bit adder", "um2", add, "range", lib, call, made.area * 1e12)
        made = library["Adder"](tech_node=tech, n_bits=bits)
        call = f"Adder(n_bits={bits}).area"
        yield Row(f"{bits}-bit adder", "um2", add, "independent", NEUROSIM, call, made.area * 1e12)
    tree = cells(node, Parts(adders={17: 4, 18: 2, 19: 1}))
    made = library["AdderTree"](tech_node=tech, n_bits=16, n_adder_tree_inputs=8)
    call = "AdderTree(n_bits=16, n_adder_tree_inputs=8).area"
    yield Row("tree of 8 16-bit", "um2", tree, "independent", NEUROSIM, call, made.area * 1e12)
    register = cells(node, Parts(register_bits=1))
    made = library["AladdinRegister"](tech_node=tech, width=1)
    call = "AladdinRegister(width=1).area"
    yield Row("register bit", "um2", register, "range", lib, call, made.area * 1e12)
    made = library["FlipFlop"](tech_node=tech, n_bits=32)
    relation = "same" if node == 45 else "range"
    call = "FlipFlop(n_bits=32).area / 32"
    yield Row("register bit", "um2", register, relation, NEUROSIM, call, made.area / 32 * 1e12)
    for inputs in (2, 4, 8):
        mux = cells(node, Parts(mux_bits=inputs - 1))
        made = library["Mux"](tech_node=tech, n_mux_inputs=inputs, n_bits=8)
        call = f"Mux(n_mux_inputs={inputs}, n_bits=8).area / 8"
        relation = {2: "range", 4: "same" if node == 45 else "extended", 8: "extended"}[inputs]
        name = f"{inputs}-input multiplexer bit"
        yield Row(name, "um2", mux, relation, NEUROSIM, call, made.area / 8 * 1e12)
    compare = cells(node, Parts(compare_bits=32))
    made = library["AladdinComparator"](tech_node=tech, width=32)
    call = "AladdinComparator(width=32).area"
    yield Row("32-bit comparator", "um2", compare, "same", lib, call, made.area * 1e12)


def cells(node: int, parts: Parts) -> Range:
    """Return the cell area of a bill in µm², before placement."""
    table = load_area(f"cmos_{node}nm")
    low, value, high = (
        sum(section_mm2(parts, at.model_copy(update={"placed_per_cell": 1.0})).values()) * 1e6
        for at in (table.corner("low"), table, table.corner("high"))
    )
    return Range(low, value, high)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return, by relation, how many rows lie inside and the spread of the ratios."""
    grouped = table.groupby("relation")
    return pd.DataFrame(
        {
            "rows": grouped.size(),
            "inside": grouped["inside_our_range"].sum(),
            "least ratio": grouped["library_over_ours"].min(),
            "median ratio": grouped["library_over_ours"].median(),
            "greatest ratio": grouped["library_over_ours"].max(),
        }
    )


if __name__ == "__main__":
    main()
