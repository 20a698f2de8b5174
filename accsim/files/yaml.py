"""Read YAML into a tree that remembers where every value stood.

YAML 1.2 scalars: ``2:4`` stays a string (YAML 1.1 reads 124), ``1e9`` is a number, ``no`` a word.
Anchors, aliases, tags and duplicate keys are refused: none of our files needs them, and an alias
bomb is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from accsim.base.errors import InputError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 40

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "true": True, "false": False,
    "True": True, "False": False, ".inf": float("inf"), "-.inf": float("-inf"),
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A value with its place: a dict of nodes, a list of nodes, or a scalar."""

    value: Any
    file: str
    line: int | None
    key_lines: dict[str, int] = field(default_factory=dict)

    def plain(self) -> Any:
        """Return the value as ordinary Python data."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def error(self, message: str) -> InputError:
        """Return an error that points here."""
        return InputError(message, file=self.file, line=self.line)

    def find(self, path: tuple[int | str, ...]) -> Node:
        """Return the node at ``path``, or the deepest one on the way that exists."""
        node = self
        for step in path:
            inside = node.value
            in_list = isinstance(inside, list) and isinstance(step, int) and step < len(inside)
            if in_list or (isinstance(inside, dict) and step in inside):
                node = inside[step]
        return node


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """Return a UTF-8 file's text (a byte-order mark is dropped).

    Raises:
        InputError: missing, a directory, unreadable, over ``limit`` bytes, or not UTF-8.
    """
    try:
        with open(path, "rb") as handle:
            raw = handle.read(limit + 1)
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", file=path) from None
    if len(raw) > limit:
        raise InputError(f"must be at most {limit} bytes", file=path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        bad = raw[error.start]
        raise InputError(
            f"must be UTF-8 text; got byte 0x{bad:02x}", file=path, line=line
        ) from None


def read_yaml(path: str | Path) -> Node:
    """Return the tree of a YAML file; InputError with file and line for anything wrong."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, file: str) -> Node:
    """Return the tree of one YAML document in ``text``; ``file`` is only named in errors."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = iter(yaml.parse(text, Loader=loader))
        node = _document(events, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise InputError(f"not valid YAML: {error.problem}", file=file, line=line) from None
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"not valid YAML: {first}", file=file) from None
    if not isinstance(node.value, dict):
        raise InputError("must be a mapping of keys to values; got " + _name(node.value), file=file)
    return node


def scalar(text: str) -> Any:
    """Return what a plain YAML 1.2 scalar means.

    >>> scalar("2:4"), scalar("64"), scalar("1e9"), scalar("true"), scalar("no")
    ('2:4', 64, 1000000000.0, True, 'no')
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 30:
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _name(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return names.get(type(value), f"'{value}'")


def _document(events: Iterator[Any], file: str) -> Node:
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            node = _node(next(events), events, file, 0)
            for rest in events:
                if isinstance(rest, yaml.DocumentStartEvent):
                    raise InputError(
                        "must hold one YAML document; a second starts here",
                        file=file, line=_line(rest),
                    )  # fmt: skip
            return node
    raise InputError("must not be empty", file=file)


def _node(event: Any, events: Iterator[Any], file: str, depth: int) -> Node:
    line = _line(event)
    if isinstance(event, yaml.AliasEvent) or event.anchor:
        raise InputError("anchors and aliases (& and *) are not accepted", file=file, line=line)
    if event.tag is not None and event.tag != "!":
        raise InputError(f"tags are not accepted; got '{event.tag}'", file=file, line=line)
    if depth > MAX_DEPTH:
        raise InputError(f"must nest at most {MAX_DEPTH} levels", file=file, line=line)
    if isinstance(event, yaml.ScalarEvent):
        plain = event.implicit[0]
        return Node(scalar(event.value) if plain else event.value, file, line)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, file, depth + 1))
        return Node(items, file, line)
    return _mapping(events, file, line, depth)


def _mapping(events: Iterator[Any], file: str, line: int, depth: int) -> Node:
    inside: dict[str, Node] = {}
    lines: dict[str, int] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        at = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise InputError("a key must be a word", file=file, line=at)
        key = event.value
        if key in inside:
            raise InputError(f"key '{key}' stands twice", file=file, line=at)
        inside[key] = _node(next(events), events, file, depth + 1)
        lines[key] = at
    return Node(inside, file, line, lines)
