"""JSON Schemas of the file formats, as the loaders accept them: sourced numbers included."""

from __future__ import annotations

from typing import Any

from accsim.base.errors import InputError, one_of
from accsim.files.hardware import device_kinds, device_of
from accsim.spec.elementwise import Elementwise
from accsim.spec.energy import Energy
from accsim.spec.sourced import Sourced
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Published

# What pydantic calls a bound on a number that passes through a check of ours first.
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_OWN = Sourced.model_json_schema()["properties"]
# What a mapping may say once for all numbers below it that have no source of their own.
_COVERING = {name: _OWN[name] for name in ("source", "status")}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(what: str) -> dict[str, Any]:
    """Return the JSON Schema of ``hw``, ``workload`` or ``energy`` files.

    Raises:
        InputError: another word.
    """
    makers = {"hw": _hardware, "workload": _workload, "energy": _energy}
    if what not in makers:
        raise InputError(f"schema must be one of {one_of(makers)}; got '{what}'")
    return {"$schema": DIALECT, "title": f"accsim {what} file"} | makers[what]()


def _hardware() -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    schemas: list[dict[str, Any]] = []
    for kind in device_kinds():
        schema = _with_prefix(_device(kind), kind)
        definitions |= {f"{kind}.{name}": own for name, own in schema.pop("$defs", {}).items()}
        schemas.append(schema)
    return {"$defs": definitions, "anyOf": schemas}


def _with_prefix(schema: Any, kind: str) -> Any:
    """Return a schema that refers to ``kind.Name`` for ``Name``: families may share names."""
    if isinstance(schema, list):
        return [_with_prefix(item, kind) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _with_prefix(value, kind) for key, value in schema.items()}
    if isinstance(copy.get("$ref"), str):
        copy["$ref"] = copy["$ref"].replace("#/$defs/", f"#/$defs/{kind}.")
    return copy


def _device(kind: str) -> dict[str, Any]:
    family = device_of(kind)
    schema: dict[str, Any] = _sourced(family.spec.model_json_schema(), partial=True)
    properties = schema["properties"]
    properties.pop("sources", None)
    properties["extends"] = {
        "type": "string",
        "description": "name or path of a file to lay this over",
    }
    for key, (folder, _) in family.tables.items():
        word = {"type": "string", "description": f"name of a table in {folder}/"}
        properties[key] = {"anyOf": [word, properties[key]]}
    return schema


def _energy() -> dict[str, Any]:
    schema: dict[str, Any] = _sourced(Energy.model_json_schema())
    schema["required"] = [key for key in schema["required"] if key != "table"]
    return schema


def _workload() -> dict[str, Any]:
    layer = Layer.model_json_schema()
    definitions = layer.pop("$defs", {})
    fields = layer["properties"]
    for name in ("op", "batch"):
        fields.pop(name, None)
    for key, operator in (("conv2d", Conv2d), ("linear", Linear), ("matmul", Matmul)):
        own = operator.model_json_schema()
        own["properties"].pop("kind")
        own["properties"] = {k: _pairs(k, v) for k, v in own["properties"].items()}
        fields[key] = own
    one = {
        "type": "object",
        "properties": fields,
        "required": ["name"],
        "additionalProperties": False,
    }
    one["oneOf"] = [{"required": [key]} for key in ("conv2d", "linear", "matmul")]
    between = {
        "type": "object",
        "properties": {"name": fields["name"], "elementwise": _between()},
        "required": ["name", "elementwise"],
        "additionalProperties": False,
    }
    head = {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 1},
            "start": {"type": "integer", "minimum": 0},
            "name": {"type": "string", "pattern": r"\{i\}"},
        },
        "required": ["count", "name"],
        "additionalProperties": False,
    }
    layers = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/entry"}}
    blocks = {
        "type": "object",
        "properties": {"blocks": head, "layers": layers},
        "required": ["blocks", "layers"],
        "additionalProperties": False,
    }
    published = {"type": "object", "additionalProperties": Published.model_json_schema()}
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "name": text, "title": text, "license": text,
            "sources": {"type": "array", "items": text},
            "dtype": fields["dtype"], "batch": {"type": "integer", "minimum": 1},
            "published": published, "layers": layers,
        },
        "required": ["layers"],
        "additionalProperties": False,
        "$defs": definitions | {"entry": {"anyOf": [one, between, blocks]}},
    }  # fmt: skip


def _between() -> dict[str, Any]:
    """Return what an elementwise entry says by itself: the file and its layers say the rest."""
    own = Elementwise.model_json_schema()
    for name in ("name", "batch", "dtype", "after"):
        own["properties"].pop(name)
    own["required"].remove("name")
    return own


def _pairs(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Let one number stand for a pair, as the loader does."""
    if schema.get("type") != "array":
        return schema
    default = {"default": schema["default"]} if "default" in schema else {}
    return {
        "anyOf": [schema["items"] if "items" in schema else schema["prefixItems"][0], schema]
    } | default


def _sourced(schema: Any, *, partial: bool = False) -> Any:
    """Let every number be written with its source, and a mapping carry one for all below it.

    ``partial``: nothing is required, because a file it extends may bring the rest.
    """
    if isinstance(schema, list):
        return [_sourced(item, partial=partial) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("integer", "number"):
        number = {BOUNDS.get(str(key), str(key)): value for key, value in schema.items()}
        return {"anyOf": [number, {"type": "string"}, _quantity(number)]} | {
            key: schema[key] for key in ("title", "description", "default") if key in schema
        }
    copy = {key: _sourced(value, partial=partial) for key, value in schema.items()}
    if copy.get("type") == "object":
        copy.setdefault("properties", {}).update(_COVERING)
        if "propertyNames" in copy:
            copy["propertyNames"] = {"anyOf": [copy["propertyNames"], {"enum": list(_COVERING)}]}
        if partial:
            copy.pop("required", None)
    return copy


def _quantity(number: dict[str, Any]) -> dict[str, Any]:
    fields = dict(_OWN)
    for name in ("low", "high"):
        fields[name] = {"anyOf": [{"type": "number"}, {"type": "string"}]}
    fields["value"] = {"anyOf": [number, {"type": "string"}]}
    return {
        "type": "object",
        "properties": fields,
        "required": ["value"],  # the source may stand above
        "additionalProperties": False,
    }
