"""NumPy's .npy and .npz, read without pickle, and never more than their headers promise."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, one_of
from accsim.traces.container import regular_size, unreadable
from accsim.traces.matrix import MAX_TEXT_BYTES, Matrix, read_bytes

MAX_MEMBERS = 10_000
_MAGIC = b"\x93NUMPY"
_TYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
_KEPT_TYPES = [np.dtype(x) for x in ("i1", "u1", "<i2", "<f2", "<f4")]  # others become float32
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<>|=]?)([a-zA-Z]\d{0,4})',\s*'fortran_order':\s*(True|False),"
    rb"\s*'shape':\s*\(([\d,\sL]{0,200})\),?\s*\}\s*"
)


def read_npy(path: str | Path) -> list[Matrix]:
    """Read one two-dimensional array: booleans are a mask, numbers are weights."""
    return [_matrix(read_bytes(path), Path(path).stem, str(path), "")]


def read_npz(path: str | Path) -> list[Matrix]:
    """Read an archive of such arrays: one layer each, in the archive's order."""
    regular_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked(archive.infolist(), path)
            return [
                _matrix(_member(archive, info, path), name, str(path), f"array '{name}': ")
                for name, info in members.items()
            ]
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError,
            NotImplementedError, OverflowError) as error:  # fmt: skip
        if isinstance(error, FileNotFoundError | PermissionError):
            raise unreadable(error, path) from None
        reason = ascii(str(error))[1:100].rstrip("'")
        raise InputError(f"must be a ZIP of .npy arrays: {reason}", file=path) from None


def _checked(listed: list[zipfile.ZipInfo], path: str | Path) -> dict[str, zipfile.ZipInfo]:
    """Return the members by layer name; their names and declared sizes obey the limits."""
    if not 1 <= len(listed) <= MAX_MEMBERS:
        raise InputError(f"must hold 1 to {MAX_MEMBERS} arrays; got {len(listed)}", file=path)
    members: dict[str, zipfile.ZipInfo] = {}
    for info in listed:
        name = info.filename.removesuffix(".npy")
        shown = ascii(info.filename)[:80]
        plain = name.isprintable() and not re.search(r"(^|[/\\])(\.\.)?([/\\]|$)|^\w:", name)
        if not (info.filename.endswith(".npy") and plain and len(name) <= 200):
            raise InputError(f"arrays must have plain names NAME.npy; got {shown}", file=path)
        if name in members:
            raise InputError(f"arrays must have names of their own; {shown} twice", file=path)
        if info.flag_bits & 1:
            raise InputError(f"arrays must not be encrypted; {shown} is", file=path)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"arrays must be stored or deflated; {shown} is not", file=path)
        members[name] = info
    total = sum(info.file_size for info in listed)
    if total > MAX_TEXT_BYTES:
        raise InputError(f"must unpack to at most {MAX_TEXT_BYTES} bytes; got {total}", file=path)
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str | Path) -> bytes:
    """Return a member's bytes, never more than it declares."""
    with archive.open(info) as handle:
        raw = handle.read(info.file_size + 1)
    if len(raw) != info.file_size:
        raise InputError(f"array '{info.filename}' must be {info.file_size} bytes", file=path)
    return raw


def _matrix(raw: bytes, name: str, file: str, place: str) -> Matrix:
    def refuse(rule: str) -> InputError:
        return InputError(f"{place}{rule}", file=file)

    values = _array(raw, refuse)
    if values.dtype == np.bool_:
        return Matrix(name, values, values)
    with np.errstate(over="ignore"):
        narrow = values if values.dtype in _KEPT_TYPES else values.astype(np.float32)
    if narrow.dtype.kind == "f" and not np.isfinite(narrow).all():
        raise refuse("numbers must be finite and fit float32")
    return Matrix(name, narrow, np.asarray(values != 0, dtype=np.bool_))


def _array(raw: bytes, refuse: Any) -> npt.NDArray[Any]:
    """Return the array of a .npy file; its header must account for every byte."""
    if raw[:6] != _MAGIC or raw[6:8] not in (b"\x01\x00", b"\x02\x00"):
        raise refuse("must be a .npy array of version 1 or 2")
    wide = 2 if raw[6] == 1 else 4
    start = 8 + wide + int.from_bytes(raw[8 : 8 + wide], "little")
    header = _HEADER.fullmatch(raw[8 + wide : min(start, 8 + wide + 4096)])
    if header is None:
        got = ascii(raw[8 + wide : 8 + wide + 60])[1:]
        raise refuse(f"must hold plain numbers or booleans under a .npy header; got {got}")
    order, kind = header[1].decode(), header[2].decode()
    if kind not in _TYPES:
        raise refuse(f"type must be one of {one_of(_TYPES)}; got '{order}{kind}'")
    words = [word for word in re.split(rb"[,\sL]+", header[4]) if word]
    if len(words) != 2 or max(map(len, words)) > 18:
        raise refuse(f"must have two dimensions; got ({ascii(header[4])[2:-1][:60]})")
    shape = (int(words[0]), int(words[1]))
    return _laid(raw, start, np.dtype(order.replace("|", "") + kind), shape, header[3], refuse)


def _laid(
    raw: bytes, start: int, kind: np.dtype[Any], shape: tuple[int, int], turned: bytes, refuse: Any
) -> npt.NDArray[Any]:
    need = math.prod(shape) * kind.itemsize
    if min(shape) < 1 or len(raw) - start != need:
        raise refuse(f"{list(shape)} of {kind} takes {need} bytes; got {len(raw) - start}")
    data = np.frombuffer(raw, dtype=np.uint8 if kind == np.bool_ else kind, offset=start)
    if kind == np.bool_:
        if (data > 1).any():
            raise refuse("booleans must be 0 or 1")
        data = data.view(np.bool_)
    plain = data.astype(kind.newbyteorder("<"), copy=False)
    return plain.reshape(shape, order="F" if turned == b"True" else "C")
