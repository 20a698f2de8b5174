"""YAML in which every number carries its source: reading, ``extends``, overrides, taking apart.

A number is written ``{value: 1.41, source: "…"}`` (optionally ``low``, ``high``, ``unit``,
``status``), or stands in a mapping whose own ``source`` (and ``status``) covers all numbers below
it. Hardware, DRAM parts, boards and area tables are such files, each in its folder of hwconfigs/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accsim.base.errors import InputError, near
from accsim.base.units import parse_quantity, unit_of
from accsim.files import catalogue
from accsim.files.validate import build
from accsim.files.yaml import Node, parse_yaml, read_yaml, scalar
from accsim.spec.sourced import Sourced

_QUANTITY = set(Sourced.model_fields)
# Of two keys that say the same thing, the one that is laid over the other takes its place.
_INSTEAD = {"part": "bandwidth_gb_per_s", "bandwidth_gb_per_s": "part"}
_BESIDE_OVERRIDE = {
    "source": Node("override of this run", "override", None),
    "status": Node("chosen", "override", None),
}


def load_tree(name: str | Path, overrides: Mapping[str, Any] | None, sub: str, called: str) -> Node:
    """Return the tree of a file in hwconfigs/``sub``, or of a path, overrides laid over it.

    Args:
        name: a catalogue name or a path.
        overrides: dotted keys to values.
        sub: the folder.
        called: the key that holds what the file is called, taken from its name unless given.
    """
    path = catalogue.find("hwconfigs", name, sub)
    tree = extended(read_tree(path), path, (), sub)
    for key, value in checked(overrides).items():
        tree = override(tree, key.split("."), value, key)
    if called not in tree.value:
        tree.value[called] = Node(path.stem, str(path), 1)
    return tree


def checked(overrides: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return overrides; refuse what is not a mapping."""
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InputError(f"overrides must be a dict of dotted keys; got {overrides!r}")
    return overrides or {}


def taken_apart(tree: Node) -> dict[str, Any]:
    """Return plain data of a whole file; ``sources`` in it say where each number comes from."""
    if "sources" in tree.value:
        raise tree.value["sources"].error(
            "unknown key 'sources': a source stands beside its number"
        )
    sources: dict[str, Sourced] = {}
    data: dict[str, Any] = _unwrap(tree, "", sources)
    return data | {"sources": sources}


def read_tree(path: Path) -> Node:
    """Return one file's tree with a source at every number."""
    return _explicit(read_yaml(path), "", {})


def extended(tree: Node, path: Path, seen: tuple[str, ...], sub: str = "") -> Node:
    """Lay ``tree`` over the file it extends, key by key."""
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base.value, str):
        raise base.error("extends must be the name or path of a hardware file")
    beside = path.parent / f"{base.value}.yaml"
    try:
        parent = beside if beside.is_file() else catalogue.find("hwconfigs", base.value, sub)
    except InputError as error:
        raise base.error(f"extends: {error}") from None
    if not parent.is_absolute() and not parent.is_file():
        parent = path.parent / parent
    key = str(parent.resolve())
    if key in seen or key == str(path.resolve()):
        raise base.error(f"extends runs in a circle through '{base.value}'")
    below = extended(read_tree(parent), parent, (*seen, str(path.resolve())), sub)
    below.value.pop("name", None)
    return lay_over(below, tree)


def lay_over(base: Node, top: Node) -> Node:
    """Return ``base`` with what ``top`` gives in its place, mapping by mapping."""
    both = isinstance(base.value, dict) and isinstance(top.value, dict)
    if not both or "value" in top.value:
        return top
    merged = {key: node for key, node in base.value.items() if _INSTEAD.get(key) not in top.value}
    for key, node in top.value.items():
        merged[key] = lay_over(merged[key], node) if key in merged else node
    return replace(top, value=merged, key_lines=base.key_lines | top.key_lines)


def override(tree: Node, keys: list[str], value: Any, key: str) -> Node:
    """Return the tree with one dotted ``key`` set; a string value is read as YAML."""
    if not all(keys):
        raise InputError(
            f"an override needs a dotted key such as array.rows; got '{'.'.join(keys)}'"
        )
    if not isinstance(tree.value, dict):
        raise InputError(f"nothing lies at '{key}'", file="override")
    if len(keys) > 1:
        child = tree.value.get(keys[0], Node({}, "override", None))
        new = override(child, keys[1:], value, key)
    else:
        new = _explicit(_given(value), key, _BESIDE_OVERRIDE)
        new = lay_over(tree.value.get(keys[0], new), new)
    kept = {name: node for name, node in tree.value.items() if _INSTEAD.get(name) != keys[0]}
    return replace(tree, value=kept | {keys[0]: new})


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
