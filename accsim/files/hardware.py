"""hwconfigs/*.yaml → a device noun: its energy table, its DRAM part, and SCALE-Sim's .cfg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from accsim.base.errors import AccsimError, InputError, near, one_of
from accsim.base.units import parse_quantity, unit_of
from accsim.files import catalogue
from accsim.files.sourced import checked, extended, lay_over, override, read_tree, taken_apart
from accsim.files.validate import build
from accsim.files.yaml import Node
from accsim.spec.device import Family

GROUP = "accsim.devices"
STREAM_BYTES = 2**16  # a run after which the next one follows: streaming
SCALESIM_BASE = "systolic_ws_32x32"  # what a .cfg does not say: clock, DRAM, energy table


def load_hardware(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Any:
    """Return the device of a catalogue name or a YAML path: the noun of its family.

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
    family = _family(override(tree, ["kind"], given["kind"], "kind") if "kind" in given else tree)
    within = tuple(f"{key}." for key in family.tables)
    inside_table = [key for key in given if key.startswith(within)]
    for key in [key for key in given if key not in inside_table]:
        tree = override(tree, key.split("."), given[key], key)
    tree = _with_dram(_with_tables(tree, path, family))
    for key in inside_table:
        tree = override(tree, key.split("."), given[key], key)
    if "name" not in tree.value:
        tree.value["name"] = Node(path.stem, str(path), 1)
    return build(family.spec, taken_apart(tree), tree)


def _from_scalesim(path: Path, overrides: Mapping[str, Any]) -> Any:
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


def device_of(kind: str) -> type[Family]:
    """Return the device family registered as ``kind``: see :mod:`accsim.spec.device`.

    Raises:
        AccsimError: it does not inherit Family.
    """
    family: type[Family] = device_kinds()[kind].load()
    if Family not in family.__mro__:
        raise AccsimError(
            f"device family '{kind}' must inherit accsim.spec.device.Family; "
            f"{family.__module__}.{family.__qualname__} does not"
        )
    return family


def is_device(value: Any) -> bool:
    """Return whether a value is the noun of a registered family."""
    kind = getattr(value, "kind", None)
    known = isinstance(kind, str) and kind in device_kinds()
    return known and isinstance(value, device_of(str(kind)).spec)


def _family(tree: Node) -> type[Family]:
    kind = tree.value.get("kind", Node("systolic", tree.file, tree.line))
    if kind.value not in device_kinds():
        known = sorted(device_kinds())
        raise kind.error(
            f"kind must be one of {one_of(known)}; got '{kind.value}'{near(str(kind.value), known)}"
        )
    return device_of(kind.value)


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


def _with_tables(tree: Node, path: Path, family: type[Family]) -> Node:
    """Replace words that name other files, such as ``energy: cmos_22nm``, by what these hold."""
    found = {}
    for key in family.tables:
        node = tree.value.get(key)
        if node is not None and isinstance(node.value, str):
            found[key] = _table(key, node, path, family)
        elif node is not None and isinstance(node.value, dict) and "extends" in node.value:
            base = node.value.pop("extends")
            found[key] = lay_over(_table(key, base, path, family), node)
    return replace(tree, value=tree.value | found)


def _table(key: str, name: Node, path: Path, family: type[Family]) -> Node:
    if not isinstance(name.value, str):
        raise name.error(f"{key}: a table is named by a word")
    folder, called = family.tables[key]
    beside = path.parent / str(name.value)
    try:
        file = beside if beside.is_file() else catalogue.find("hwconfigs", name.value, folder)
    except InputError as error:
        raise name.error(f"{key}: {error}") from None
    tree = extended(read_tree(file), file, (), folder)
    tree.value.setdefault(called, Node(file.stem, str(file), 1))
    return tree
