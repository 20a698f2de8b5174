"""Turn a tree of nodes into a noun, and pydantic's complaints into errors with file and line."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from accsim.base.errors import InputError, near
from accsim.files.yaml import Node

M = TypeVar("M", bound=BaseModel)


def build(model: type[M], data: Any, place: Node, extra: str = "") -> M:
    """Return ``model`` built from plain ``data``; errors point into ``place``.

    Raises:
        InputError: every broken rule in one line, each with file, line, key, rule and value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _merge([_explain(model, e, place, extra) for e in error.errors()]) from None


def _merge(errors: list[InputError]) -> InputError:
    """Join several errors in one line; the first keeps its place, the others bring theirs."""
    unknown = " ".join(e.message for e in errors if "unknown key" in e.message)
    told = [
        e
        for e in errors
        if "missing key '" not in e.message
        or f"did you mean {e.message.split('missing key ')[1].split(' ')[0]}?" not in unknown
    ]
    unique = list({str(e): e for e in told}.values())
    first, rest = unique[0], unique[1:]
    if not rest:
        return first
    text = "; ".join(str(e) for e in rest[:4])
    more = f"; and {len(rest) - 4} more" if len(rest) > 4 else ""
    return InputError(f"{first.message}; {text}{more}", file=first.file, line=first.line)


def _explain(model: type[BaseModel], error: Any, place: Node, extra: str) -> InputError:
    path = tuple(step for step in error["loc"] if step != "[key]")
    shown = ".".join(str(step) for step in path)
    node = place.find(path)
    line = node.line
    if error["type"] == "extra_forbidden":
        parent = place.find(path[:-1])
        line = parent.key_lines.get(str(path[-1]), node.line)
        known = _fields(model, path[:-1])
        where = f" in '{'.'.join(map(str, path[:-1]))}'" if len(path) > 1 else ""
        message = f"unknown key '{path[-1]}'{where}{near(str(path[-1]), known)}"
    elif error["type"] == "missing":
        where = f" in '{'.'.join(map(str, path[:-1]))}'" if len(path) > 1 else ""
        message = f"missing key '{path[-1]}'{where}"
    else:
        message = f"{shown}: {_rule(error)}" if shown else _rule(error)
    return InputError(extra + message, file=node.file, line=line)


def _rule(error: Any) -> str:
    value = error.get("input")
    text = str(error["msg"]).removeprefix("Value error, ")
    text = text.replace("Input should be", "must be").replace("Input must", "must")
    if "; got" in text or isinstance(value, dict | BaseModel):
        return text
    if error["type"] == "literal_error" and isinstance(value, str):
        words = [w.strip("'") for w in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"must be one of {', '.join(words)}; got '{value}'{near(value, words)}"
    got = f"'{value}'" if isinstance(value, str) else repr(value)
    return f"{text}; got {got[:80]}"


def _fields(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model that stands at ``path`` inside ``model``."""
    found: list[type[BaseModel]] = [model]
    for step in path:
        deeper = [
            inner
            for owner in found
            if step in owner.model_fields
            for inner in _models(owner.model_fields[str(step)].annotation)
        ]
        found = deeper or found
    return [name for owner in found for name in owner.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, tuple, list, dict) or origin is typing.Annotated:
        return [m for arg in typing.get_args(annotation) for m in _models(arg)]
    return []
