"""Our energy and area tables of today beside a maintained library (reports/energy_tables)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property

from accsim.cost.area import Parts, Range, section_mm2
from accsim.files.area import load_area
from accsim.files.hardware import load_hardware
from accsim.spec.area import power_law
from accsim.validate.row import Row, Status, read, slug

DEVICE = "systolic_ws_32x32"  # carries the energy table it is given
DIGITS = 0.005  # the tables have three
RELATIONS: dict[str, tuple[Status, str]] = {
    "independent": ("predicted", "ours, value and range, comes from elsewhere"),
    "same": ("fitted", "ours was taken from this call"),
    "range": ("fitted", "this call set an end of our range"),
    "extended": ("fitted", "ours comes from this model at other sizes or nodes"),
}


def rows() -> Iterator[Row]:
    """Yield every component of the library with our number of the same node."""
    tables = {node: Tables(node) for node in (45, 22, 16, 7)}
    for known in read("energy_tables.csv"):
        low, value, high = tables[int(known["node_nm"])].find(known["component"], known["unit"])
        status, remark = RELATIONS[known["relation"]]
        library = float(known["library"])
        what = "area" if known["unit"].endswith("m2") else "energy"
        made = known["class"].partition("(")[0]
        yield Row(
            id=f"energy_tables/{known['node_nm']}nm/{slug(known['component'])}/{what}/{made}",
            quantity=f"{what} of {known['component']}, {known['node_nm']} nm",
            unit=known["unit"].replace("um2", "µm²").replace("mm2", "mm²"),
            source=f"{known['package']}, {known['class']}, run {known['run']}",
            low=library, high=library, ours=value, ours_low=low, ours_high=high,
            tolerance=DIGITS, status=status, remark=remark,
        )  # fmt: skip


class Tables:
    """Our energy and area tables of one node, by the library's names of components."""

    def __init__(self, node: int) -> None:
        self.device = load_hardware(DEVICE, {"energy": f"cmos_{node}nm"})
        area = load_area(f"cmos_{node}nm")
        self.areas = (area.corner("low"), area, area.corner("high"))

    def find(self, component: str, unit: str) -> Range:
        """Return our number of a component with its range."""
        for pattern, how in (self._energy if "pJ" in unit else self._area).items():
            match = re.fullmatch(pattern, component)
            if match:
                return how(*match.groups())
        raise KeyError(f"no component '{component}' in {unit}")

    @cached_property
    def _energy(self) -> dict[str, Callable[..., Range]]:
        add = self._priced("mac.int8.add_pj")
        return {
            r"int(\d+) multiplier": lambda bits: self._priced(f"mac.int{bits}.mult_pj"),
            r"int(\d+) MAC": lambda bits: _sum(self._priced(f"mac.int{bits}.mult_pj"), add),
            r"32-bit adder": lambda: add,
            r"register bit": lambda: self._priced("register_pj_per_bit"),
            r"\d+-input multiplexer bit": lambda: self._priced("select_pj_per_bit"),
            r"SRAM (\d+) KiB (read|write)": self._access,
            r"(ddr3|lpddr4|hbm2|hbm3e)": lambda name: self._priced(f"dram_pj_per_bit.{name}"),
        }

    @cached_property
    def _area(self) -> dict[str, Callable[..., Range]]:
        def bill(**parts: int | dict[int, int] | dict[tuple[int, int], int]) -> Range:
            return self._cells(Parts(**parts))  # type: ignore[arg-type]

        return {
            r"int(\d+) multiplier": lambda bits: bill(multipliers={(int(bits), int(bits)): 1}),
            r"(\d+)-bit adder": lambda bits: bill(adders={int(bits): 1}),
            r"tree of 8 16-bit": lambda: bill(adders={17: 4, 18: 2, 19: 1}),
            r"register bit": lambda: bill(register_bits=1),
            r"(\d+)-input multiplexer bit": lambda inputs: bill(mux_bits=int(inputs) - 1),
            r"(\d+)-bit comparator": lambda bits: bill(compare_bits=int(bits)),
            r"SRAM (\d+) KiB": lambda kib: Range(
                *(at.sram_mm2(int(kib) * 1024) for at in self.areas)
            ),
        }

    def _priced(self, path: str) -> Range:
        source = self.device.sources[f"energy.{path}"]
        low = source.value if source.low is None else source.low
        high = source.value if source.high is None else source.high
        return Range(low, source.value, high)

    def _access(self, kib: str, way: str) -> Range:
        """Return a 64-bit access, by power law between our points, as Energy has it."""
        sizes = [point.bytes for point in self.device.energy.sram]
        ends = [self._priced(f"sram.{i}.{way}_pj") for i in range(len(sizes))]
        return Range(
            *(
                power_law(list(zip(sizes, end, strict=True)), int(kib) * 1024)
                for end in zip(*ends, strict=True)
            )
        )

    def _cells(self, parts: Parts) -> Range:
        """Return the cell area of a bill in µm², before placement."""
        bare = (at.model_copy(update={"placed_per_cell": 1.0}) for at in self.areas)
        return Range(*(sum(section_mm2(parts, at).values()) * 1e6 for at in bare))


def _sum(a: Range, b: Range) -> Range:
    return Range(*(x + y for x, y in zip(a, b, strict=True)))
