"""hwconfigs/*.yaml → a device noun: its energy table, its DRAM part, and SCALE-Sim's .cfg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from accsim.base.errors import InputError, near, one_of
from accsim.base.units import parse_quantity, unit_of
from accsim.files import catalogue
from accsim.files.sourced import checked, extended, lay_over, override, read_tree, taken_apart
from accsim.files.validate import build
from accsim.files.yaml import Node
from accsim.spec.hardware import Systolic

GROUP = "accsim.devices"
STREAM_BYTES = 2**16  # a run after which the next one follows: streaming
SCALESIM_BASE = "systolic_ws_32x32"  # what a .cfg does not say: clock, DRAM, energy table


def load_hardware(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Systolic:
    """Return the device of a catalogue name or a YAML path.

    Args:
        name: ``"systolic_nm_32x32"``, ``"my/array.yaml"``, or a SCALE-Sim ``"array.cfg"``.
        overrides: dotted keys to values, e.g. ``{"array.rows": 64, "dataflow": "os"}``.

    Raises:
        InputError: no such name, or a file or override that breaks a rule.
    """
    given = checked(overrides)
    path = catalogue.find("hwconfigs", name)
    if path.suffix.lower() == ".cfg":
        return _from_scalesim(path, given)
    tree = extended(read_tree(path), path, ())
    inside_table = [key for key in given if key.startswith("energy.")]
    for key in [key for key in given if key not in inside_table]:
        tree = override(tree, key.split("."), given[key], key)
    tree = _with_dram(_with_energy(tree, path))
    for key in inside_table:
        tree = override(tree, key.split("."), given[key], key)
    if "name" not in tree.value:
        tree.value["name"] = Node(path.stem, str(path), 1)
    return _device(tree)


def _from_scalesim(path: Path, overrides: Mapping[str, Any]) -> Systolic:
    """Return the array a SCALE-Sim .cfg describes, in its timing; the rest as in our own array."""
    from accsim.files.scalesim import read_cfg

    own = {"name": path.stem, "title": f"read from {path.name}", "timing": "scalesim_v3"}
    return load_hardware(SCALESIM_BASE, {**read_cfg(path), **own, **overrides})


def device_kinds() -> dict[str, Any]:
    """Return the registered device families by their ``kind``, built-in and third-party."""
    return dict(_entry_points())


@cache
def _entry_points() -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((point.name, point) for point in entry_points(group=GROUP)))


def device_of(kind: str) -> Any:
    """Return the device family registered as ``kind``: its noun ``spec`` and its ``schedule``."""
    return device_kinds()[kind].load()


def _device(tree: Node) -> Systolic:
    kind = tree.value.get("kind", Node("systolic", tree.file, tree.line))
    if kind.value not in device_kinds():
        known = sorted(device_kinds())
        raise kind.error(
            f"kind must be one of {one_of(known)}; got '{kind.value}'{near(str(kind.value), known)}"
        )
    data = taken_apart(tree)
    device: Systolic = build(device_of(kind.value).spec, data, tree)
    return device


def _with_dram(tree: Node) -> Node:
    """Replace ``memory.dram.part`` by the bandwidth it sustains, and its protocol."""
    dram = tree
    for key in ("memory", "dram", "part"):
        inside = dram.value if isinstance(dram.value, dict) else {}
        if key not in inside:
            return tree
        dram, above = inside[key], dram
    part, dram = dram, above
    if "bandwidth_gb_per_s" in dram.value:
        raise part.error("memory.dram: give part or bandwidth_gb_per_s, not both")
    new = replace(dram, value=dram.value | _sustained(part, dram))
    memory = tree.value["memory"]
    return replace(tree, value=tree.value | {
        "memory": replace(memory, value=memory.value | {"dram": new})
    })  # fmt: skip


def _sustained(part: Node, dram: Node) -> dict[str, Node]:
    """Return bandwidth and protocol of a part for the accesses its section describes."""
    from accsim.files.dram import load_dram
    from accsim.spec.dram_access import sustained_gb_per_s

    try:
        found = load_dram(part.value)
    except InputError as error:
        raise part.error(f"memory.dram.part: {error}") from None
    parts, run, written = (
        _number(dram, key, default)
        for key, default in (("parts", 1), ("run_bytes", 0), ("write_share", 0))
    )
    run_bytes, stride = (int(run), None) if run else (STREAM_BYTES, STREAM_BYTES)
    try:
        rate = parts * sustained_gb_per_s(found, run_bytes, stride, written)
    except InputError as error:
        raise part.error(f"memory.dram: {error}") from None
    how = f"random runs of {run_bytes} bytes" if run else "streaming"
    words = f"docs/dram.md: {parts:g} × {found.name}, {how}, {written:.0%} written"
    about = {"source": replace(part, value=words), "status": replace(part, value="derived")}
    bandwidth = replace(part, value={"value": replace(part, value=rate), **about})
    return {"bandwidth_gb_per_s": bandwidth, "protocol": replace(part, value=found.protocol)}


def _number(section: Node, key: str, default: float) -> float:
    node = section.value.get(key)
    if node is None:
        return default
    value = node.value["value"].value if isinstance(node.value, dict) else node.value
    if isinstance(value, str):
        try:
            value = parse_quantity(value, unit_of(key))
        except InputError as error:
            raise section.error(f"memory.dram.{key}: {error.message}") from None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise section.error(f"memory.dram.{key} must be a number; got {value!r}")
    return value


def _with_energy(tree: Node, path: Path) -> Node:
    """Replace ``energy: cmos_22nm`` by the table of that name."""
    energy = tree.value.get("energy")
    if energy is None:
        return tree
    if isinstance(energy.value, str):
        energy = _energy_file(energy, path)
    elif isinstance(energy.value, dict) and "extends" in energy.value:
        base = energy.value.pop("extends")
        energy = lay_over(_energy_file(base, path), energy)
    return replace(tree, value=tree.value | {"energy": energy})


def _energy_file(name: Node, path: Path) -> Node:
    if not isinstance(name.value, str):
        raise name.error("energy: a table is named by a word")
    beside = path.parent / str(name.value)
    try:
        file = beside if beside.is_file() else catalogue.find("hwconfigs", name.value, "energy")
    except InputError as error:
        raise name.error(f"energy: {error}") from None
    tree = read_tree(file)
    tree.value.setdefault("table", Node(file.stem, str(file), 1))
    return tree
