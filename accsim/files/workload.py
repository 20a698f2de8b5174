"""workloads/*.yaml → Workload. ``blocks`` expand to numbered layers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from accsim.base.errors import InputError, near, one_of
from accsim.files import catalogue
from accsim.files.validate import build
from accsim.files.yaml import Node, read_yaml
from accsim.spec.base import Spec
from accsim.spec.elementwise import Elementwise
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload

OPERATORS: dict[str, type[Conv2d] | type[Linear] | type[Matmul]] = {
    "conv2d": Conv2d,
    "linear": Linear,
    "matmul": Matmul,
}
ELEMENTWISE = "elementwise"
MAX_LAYERS = 100_000


def load_workload(name: str | Path, batch: int | None = None, dtype: str | None = None) -> Workload:
    """Return the workload of a catalogue name, a YAML path or a SCALE-Sim topology CSV.

    Args:
        name: ``"resnet50"``, ``"my/net.yaml"`` or ``"topology.csv"``.
        batch: items processed together; the file's own value (1) if None.
        dtype: number format of every layer; the file's own if None.

    Raises:
        InputError: no such name, or a file that breaks a rule.
    """
    path = catalogue.find("workloads", name)
    if path.suffix.lower() == ".csv":
        from accsim.files.scalesim import read_topology

        workload = read_topology(path)
    else:
        workload = _read(path)
    if dtype is not None:
        workload = workload.with_dtype(_dtype(dtype))
    return workload if batch is None else workload.with_batch(batch)


def _dtype(text: str) -> str:
    from accsim.spec.dtype import DTYPES

    if text not in DTYPES:
        raise InputError(f"dtype must be one of {one_of(DTYPES)}; got '{text}'{near(text, DTYPES)}")
    return text


def _read(path: Path) -> Workload:
    tree = read_yaml(path)
    top = dict(tree.value)
    defaults: dict[str, Any] = {"dtype": "int8", "batch": 1}
    defaults |= {key: top.pop(key).plain() for key in ("dtype", "batch") if key in top}
    listed = top.pop("layers", None)
    if listed is None or not isinstance(listed.value, list) or not listed.value:
        raise tree.error("layers must be a list of at least one layer")
    expanded = (each for node in listed.value for each in _layers(node, "", defaults))
    entries = list(islice(expanded, MAX_LAYERS + 1))
    if len(entries) > MAX_LAYERS:
        raise listed.error(f"layers must expand to at most {MAX_LAYERS}; got more")
    layers, between = _parted(entries)
    if not layers:
        raise listed.error("layers must have at least one that multiplies; all are elementwise")
    if ELEMENTWISE in top:
        raise top[ELEMENTWISE].error("elementwise kernels stand among the layers, in their order")
    data = {key: node.plain() for key, node in top.items()}
    data.setdefault("name", path.stem)
    return build(Workload, data | {"layers": layers, ELEMENTWISE: between}, tree)


def _parted(
    entries: list[Layer | Elementwise],
) -> tuple[tuple[Layer, ...], tuple[Elementwise, ...]]:
    """Return the layers, and what stands between them with the layer each follows."""
    layers: list[Layer] = []
    between: list[Elementwise] = []
    for each in entries:
        if isinstance(each, Layer):
            layers.append(each)
        else:
            after = layers[-1].name if layers else ""
            between.append(each.model_copy(update={"after": after}))
    return tuple(layers), tuple(between)


def _layers(node: Node, prefix: str, defaults: dict[str, Any]) -> Iterator[Layer | Elementwise]:
    if not isinstance(node.value, dict):
        raise node.error(f"a layer must be a mapping; got '{str(node.plain())[:80]}'")
    if "blocks" in node.value:
        yield from _blocks(node, prefix, defaults)
    elif ELEMENTWISE in node.value:
        yield _elementwise(node, prefix, defaults)
    else:
        yield _layer(node, prefix, defaults)


def _blocks(node: Node, prefix: str, defaults: dict[str, Any]) -> Iterator[Layer | Elementwise]:
    """Expand ``blocks: {count, name, start}`` with its own ``layers``."""
    unknown = set(node.value) - {"blocks", "layers"}
    head, inner = node.value["blocks"], node.value.get("layers")
    if unknown:
        word = sorted(unknown)[0]
        raise node.error(f"unknown key '{word}' beside blocks{near(word, ['layers'])}")
    if not isinstance(head.value, dict) or inner is None or not isinstance(inner.value, list):
        raise node.error("blocks needs {count, name} and a list of layers")
    data = head.plain()
    extra = set(data) - {"count", "name", "start"}
    if extra:
        word = sorted(extra)[0]
        raise head.error(f"unknown key '{word}' in blocks{near(word, ['count', 'name', 'start'])}")
    count, start, name = data.get("count"), data.get("start", 0), str(data.get("name", "{i}"))
    for key, value, least in (("count", count, 1), ("start", start, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 10_000:
            raise head.error(f"blocks.{key} must be from {least} to 10000; got {value!r}")
    if "{i}" not in name:
        raise head.error(f"blocks.name must contain {{i}}; got '{name}'")
    for i in range(start, start + count):
        for child in inner.value:
            yield from _layers(child, f"{prefix}{name.replace('{i}', str(i))}.", defaults)


def _elementwise(node: Node, prefix: str, defaults: dict[str, Any]) -> Elementwise:
    """Return ``{name, elementwise: {kind, shape, …}}``."""
    extra = set(node.value) - {"name", ELEMENTWISE}
    place = node.value[ELEMENTWISE]
    if extra:
        word = sorted(extra)[0]
        raise node.error(f"unknown key '{word}' beside elementwise{near(word, ['name'])}")
    own = place.plain()
    if not isinstance(own, dict):
        raise place.error(f"elementwise must be a mapping of kind and shape; got '{own}'")
    for key in ("name", "batch", "dtype", "after"):
        if key in own:
            raise place.error(f"elementwise: unknown key '{key}'")
    if "name" not in node.value:
        raise node.error("missing key 'name'")
    name = f"{prefix}{node.value['name'].plain()}"
    return build(Elementwise, {**defaults, **own, "name": name}, place, extra="elementwise: ")


def _layer(node: Node, prefix: str, defaults: dict[str, Any]) -> Layer:
    data = node.plain()
    kinds = [key for key in OPERATORS if key in data]
    if len(kinds) != 1:
        unknown = [k for k in data if k not in Layer.model_fields and k not in OPERATORS]
        hint = f"; unknown key '{unknown[0]}'{near(unknown[0], OPERATORS)}" if unknown else ""
        raise node.error(f"a layer needs exactly one of {one_of(OPERATORS)}{hint}")
    kind = kinds[0]
    place = node.value[kind]
    operator = data.pop(kind)
    if not isinstance(operator, dict):
        raise place.error(f"{kind} must be a mapping of its sizes; got '{operator}'")
    op: Spec = build(OPERATORS[kind], operator, place, extra=f"{kind}: ")
    if "name" in data:
        data["name"] = f"{prefix}{data['name']}"
    return build(Layer, {**defaults, **data, "op": op}, node)
