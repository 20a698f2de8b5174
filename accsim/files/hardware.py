"""hwconfigs/*.yaml → a device noun. Every number carries its source; ``extends`` and overrides.

A number is written ``{value: 1.41, source: "…"}`` (optionally ``low``, ``high``, ``status``), or
stands in a mapping whose own ``source`` (and ``status``) covers all numbers below it.
"""

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
from accsim.files.validate import build
from accsim.files.yaml import Node, parse_yaml, read_yaml, scalar
from accsim.spec.hardware import Sourced, Systolic

GROUP = "accsim.devices"
SCALESIM_BASE = "systolic_ws_32x32"  # what a .cfg does not say: clock, DRAM, energy table
_QUANTITY = set(Sourced.model_fields)
_BESIDE_OVERRIDE = {
    "source": Node("override of this run", "override", None),
    "status": Node("chosen", "override", None),
}


def load_hardware(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Systolic:
    """Return the device of a catalogue name or a YAML path.

    Args:
        name: ``"systolic_nm_32x32"``, ``"my/array.yaml"``, or a SCALE-Sim ``"array.cfg"``.
        overrides: dotted keys to values, e.g. ``{"array.rows": 64, "dataflow": "os"}``.

    Raises:
        InputError: no such name, or a file or override that breaks a rule.
    """
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InputError(f"overrides must be a dict of dotted keys; got {overrides!r}")
    path = catalogue.find("hwconfigs", name)
    if path.suffix.lower() == ".cfg":
        return _from_scalesim(path, overrides or {})
    tree = _extended(_read(path), path, ())
    given = overrides or {}
    inside_table = [key for key in given if key.startswith("energy.")]
    for key in [key for key in given if key not in inside_table]:
        tree = _override(tree, key.split("."), given[key], key)
    tree = _with_energy(tree, path)
    for key in inside_table:
        tree = _override(tree, key.split("."), given[key], key)
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
    if "sources" in tree.value:
        raise tree.value["sources"].error(
            "unknown key 'sources': a source stands beside its number"
        )
    sources: dict[str, Sourced] = {}
    data = _unwrap(tree, "", sources)
    data["sources"] = sources
    device: Systolic = build(device_of(kind.value).spec, data, tree)
    return device


def _read(path: Path) -> Node:
    return _explicit(read_yaml(path), "", {})


def _extended(tree: Node, path: Path, seen: tuple[str, ...]) -> Node:
    """Lay ``tree`` over the file it extends, key by key."""
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base.value, str):
        raise base.error("extends must be the name or path of a hardware file")
    beside = path.parent / f"{base.value}.yaml"
    try:
        parent = beside if beside.is_file() else catalogue.find("hwconfigs", base.value)
    except InputError as error:
        raise base.error(f"extends: {error}") from None
    if not parent.is_absolute() and not parent.is_file():
        parent = path.parent / parent
    key = str(parent.resolve())
    if key in seen or key == str(path.resolve()):
        raise base.error(f"extends runs in a circle through '{base.value}'")
    below = _extended(_read(parent), parent, (*seen, str(path.resolve())))
    below.value.pop("name", None)
    return _lay_over(below, tree)


def _lay_over(base: Node, top: Node) -> Node:
    both = isinstance(base.value, dict) and isinstance(top.value, dict)
    if not both or "value" in top.value:
        return top
    merged = dict(base.value)
    for key, node in top.value.items():
        merged[key] = _lay_over(merged[key], node) if key in merged else node
    return replace(top, value=merged, key_lines=base.key_lines | top.key_lines)


def _override(tree: Node, keys: list[str], value: Any, key: str) -> Node:
    """Return the tree with one dotted ``key`` set; a string value is read as YAML."""
    if not all(keys):
        raise InputError(
            f"an override needs a dotted key such as array.rows; got '{'.'.join(keys)}'"
        )
    if not isinstance(tree.value, dict):
        raise InputError(f"override: '{'.'.join(keys)}' has no keys below it", file="override")
    if len(keys) > 1:
        child = tree.value.get(keys[0], Node({}, "override", None))
        new = _override(child, keys[1:], value, key)
    else:
        new = _explicit(_given(value), key, _BESIDE_OVERRIDE)
        new = _lay_over(tree.value.get(keys[0], new), new)
    return replace(tree, value=tree.value | {keys[0]: new})


def _given(value: Any) -> Node:
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("[", "{"):
            inside: Node = parse_yaml(f"v: {text}", "override").value["v"]
            return replace(inside, line=None)
        return Node(scalar(text), "override", None)
    if isinstance(value, list | tuple):
        return Node([_given(v) for v in value], "override", None)
    if isinstance(value, Mapping):
        return Node({str(k): _given(v) for k, v in value.items()}, "override", None)
    return Node(value, "override", None)


def _with_energy(tree: Node, path: Path) -> Node:
    """Replace ``energy: cmos_22nm`` by the table of that name."""
    energy = tree.value.get("energy")
    if energy is None:
        return tree
    if isinstance(energy.value, str):
        energy = _energy_file(energy, path)
    elif isinstance(energy.value, dict) and "extends" in energy.value:
        base = energy.value.pop("extends")
        energy = _lay_over(_energy_file(base, path), energy)
    return replace(tree, value=tree.value | {"energy": energy})


def _energy_file(name: Node, path: Path) -> Node:
    if not isinstance(name.value, str):
        raise name.error("energy: a table is named by a word")
    beside = path.parent / str(name.value)
    try:
        file = beside if beside.is_file() else catalogue.find("hwconfigs", name.value, "energy")
    except InputError as error:
        raise name.error(f"energy: {error}") from None
    tree = _read(file)
    tree.value.setdefault("table", Node(file.stem, str(file), 1))
    return tree


def _explicit(node: Node, path: str, beside: dict[str, Node]) -> Node:
    """Return one file's tree with a source at every number, before another file is laid over it.

    ``beside`` holds the ``source`` and ``status`` of the nearest mapping above that has a source.
    """
    inside = node.value
    if isinstance(inside, dict):
        if "value" in inside and set(inside) <= _QUANTITY:
            return replace(node, value=inside if "source" in inside else beside | inside)
        own = {key: inside[key] for key in ("source", "status") if key in inside}
        below = {
            key: _explicit(child, f"{path}.{key}" if path else key, own or beside)
            for key, child in inside.items()
            if key not in own
        }
        return replace(node, value=below)
    if isinstance(inside, list):
        items = [_explicit(child, f"{path}.{i}", beside) for i, child in enumerate(inside)]
        return replace(node, value=items)
    number = isinstance(inside, int | float) and not isinstance(inside, bool)
    if number and "source" not in beside:
        raise node.error(f"{path}: a number needs a source beside it; got {inside}")
    if number or (isinstance(inside, str) and unit_of(path)):  # "64 KiB" is a number too
        return replace(node, value={"value": node} | beside)
    return node


def _unwrap(node: Node, path: str, sources: dict[str, Sourced]) -> Any:
    """Return plain data with the sourced numbers replaced by their values, recorded by path."""
    inside = node.value
    if isinstance(inside, dict):
        if "value" in inside:
            for key in inside:
                if key not in _QUANTITY:
                    raise node.error(f"unknown key '{key}' in '{path}'{near(key, _QUANTITY)}")
            return _quantity(node, path, sources)
        return {
            key: _unwrap(child, f"{path}.{key}" if path else key, sources)
            for key, child in inside.items()
        }
    if isinstance(inside, list):
        return [_unwrap(child, f"{path}.{i}", sources) for i, child in enumerate(inside)]
    return inside


def _quantity(node: Node, path: str, sources: dict[str, Sourced]) -> Any:
    unit = unit_of(path)
    data = node.plain()
    for key in ("value", "low", "high"):
        if isinstance(data.get(key), str):
            try:
                data[key] = parse_quantity(data[key], data.get("unit", unit))
            except InputError as error:
                raise node.value[key].error(f"{path}: {error.message}") from None
    if data.setdefault("unit", unit) != unit:
        raise node.error(f"{path}: unit must be '{unit}'; got '{data['unit']}'")
    if not isinstance(data["value"], int | float) or isinstance(data["value"], bool):
        return data["value"]  # the noun's own check says what is wrong
    sources[path] = build(Sourced, data, node, extra=f"{path}: ")
    return data["value"]
