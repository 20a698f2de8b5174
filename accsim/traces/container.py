"""The container of a trace: a safetensors file, read array by array.

Eight bytes of header length (little-endian), a JSON table {name: {dtype, shape, data_offsets}}
with a ``__metadata__`` mapping of strings, then the arrays one after the other. Nothing is
executed, nothing compressed (so nothing expands), and no name is ever a path.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accsim.base.errors import InputError, near, one_of
from accsim.traces import strict_json

MAX_HEADER_BYTES = 16 * 2**20
MAX_DIMENSIONS = 8
ALIGNMENT = 64
CHUNK_BYTES = 2**20

# Name → bytes an element.
TYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """One array of a file: its type, its shape, and where its bytes stand."""

    type: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Store(Protocol):
    """Where the bytes of arrays lie, by name."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an array, a piece at a time."""


class Container:
    """An open-able file of arrays: the table was read and checked, no array was."""

    def __init__(self, file: str, metadata: dict[str, str], spans: dict[str, Span]) -> None:
        self.file, self.metadata, self.spans = file, metadata, spans

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an array.

        Raises:
            InputError: the file can no longer be read, or became shorter.
        """
        span = self.spans[name]
        left = span.stop - span.start
        try:
            with open(self.file, "rb") as handle:
                handle.seek(span.start)
                while left:
                    piece = handle.read(min(CHUNK_BYTES, left))
                    if not piece:
                        raise InputError(f"'{name}' ends {left} bytes early", file=self.file)
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise unreadable(error, self.file) from None


def regular_size(path: str | Path) -> int:
    """Return a file's size; InputError for what is missing or no plain file (a pipe would hang)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(error, path) from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError("must be a plain file", file=path)
    return found.st_size


def unreadable(error: Exception, file: str | Path) -> InputError:
    """Return the one line for a file the system does not give."""
    if isinstance(error, FileNotFoundError):
        return InputError("no such file", file=file)
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"cannot be read: {reason}", file=file)


def open_container(path: str | Path) -> Container:
    """Return the container at ``path``: its header is read, nothing else.

    Raises:
        InputError: not such a file, or any array not exactly where and as large as its shape says.
    """
    file, size = str(path), regular_size(path)
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise InputError(
                    f"header length must be from 2 to {min(max(size - 8, 0), MAX_HEADER_BYTES)} "
                    f"bytes; got {length} (truncated, or not a trace)",
                    file=file,
                )
            raw = handle.read(length)
    except OSError as error:
        raise unreadable(error, path) from None
    table = strict_json.parse(raw, "header", file, one_line=False)
    if not isinstance(table, dict):
        raise InputError("header must be a mapping of names to arrays", file=file)
    metadata = table.pop("__metadata__", {})
    plain = isinstance(metadata, dict) and all(isinstance(x, str) for x in metadata.values())
    if not plain:
        raise InputError("header: __metadata__ must map words to strings", file=file)
    spans = {name: _span(name, entry, 8 + length, file) for name, entry in table.items()}
    _side_by_side(spans, 8 + length, size, file)
    return Container(file, metadata, spans)


def _span(name: str, entry: Any, base: int, file: str) -> Span:
    def refuse(rule: str, got: Any) -> InputError:
        return InputError(f"array {ascii(name)[:80]}: {rule}; got {ascii(got)[:80]}", file=file)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refuse("must hold dtype, shape and data_offsets", entry)
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in TYPES:
        hint = near(kind, TYPES) if isinstance(kind, str) else ""
        raise refuse(f"dtype must be one of {one_of(TYPES)}{hint}", kind)
    if not _whole(shape) or len(shape) > MAX_DIMENSIONS:
        raise refuse(f"shape must be at most {MAX_DIMENSIONS} whole numbers", shape)
    if not _whole(offsets) or len(offsets) != 2:
        raise refuse("data_offsets must be two whole numbers", offsets)
    start, stop = offsets
    if stop - start != (need := math.prod(shape) * TYPES[kind]):
        raise refuse(f"data_offsets must span {need} bytes", offsets)
    return Span(kind, tuple(shape), base + start, base + stop)


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)


def _side_by_side(spans: Mapping[str, Span], start: int, size: int, file: str) -> None:
    """Refuse arrays that overlap, leave holes, or do not end with the file."""
    for name, span in sorted(spans.items(), key=lambda item: (item[1].start, item[1].stop)):
        if span.start != start:
            raise InputError(
                f"array {ascii(name)[:80]} must start at byte {start}; got {span.start}", file=file
            )
        start = span.stop
    if start != size:
        raise InputError(f"must be {start} bytes as its header says; got {size}", file=file)


def write_container(
    path: str | Path,
    arrays: Mapping[str, tuple[str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    store: Store,
) -> None:
    """Write arrays (name → type, shape) from ``store``: the same content gives the same bytes.

    The file appears whole or not at all.

    Raises:
        InputError: the file cannot be written, or the header grows over its limit.
    """
    order = sorted(arrays, key=lambda name: (-TYPES[arrays[name][0]], name))
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        kind, shape = arrays[name]
        end = at + math.prod(shape) * TYPES[kind]
        table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    header = strict_json.dump(table).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    if len(header) > MAX_HEADER_BYTES:
        raise InputError(
            f"header must be at most {MAX_HEADER_BYTES} bytes; got {len(header)}", file=path
        )
    pieces = (piece for name in order for piece in store.chunks(name))
    _write_whole(Path(path), [len(header).to_bytes(8, "little"), header], pieces)


def _write_whole(path: Path, head: list[bytes], pieces: Iterator[bytes]) -> None:
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        try:
            with os.fdopen(number, "wb") as handle:
                handle.writelines(head)
                handle.writelines(pieces)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except (OSError, ValueError) as error:
        raise unwritable(error, path) from None


def unwritable(error: Exception, file: str | Path) -> InputError:
    """Return the one line for a file the system does not take."""
    return InputError(f"cannot be written: {getattr(error, 'strerror', None) or error}", file=file)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
