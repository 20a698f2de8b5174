"""Sparse matrices as one-layer networks: .smtx (DLMC), .mtx (MatrixMarket), .npy, .npz.

W is (k, n) in accsim: k the reduction, n the outputs. A file whose rows are outputs (``rows="n"``:
.smtx and .mtx, whose matrices stand on the left of a product) is transposed; .npy and .npz hold W
as it is (``rows="k"``). Weights saved by a framework as (out, in) need ``rows="n"``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, near, one_of
from accsim.spec.workload import Workload, gemm
from accsim.traces.container import regular_size, unreadable
from accsim.traces.draft import Draft
from accsim.traces.pattern import TRACED
from accsim.traces.trace import Trace

DEFAULT_TOKENS = 256
MAX_TEXT_BYTES = 256 * 2**20
MAX_ELEMENTS = 2**28  # of a dense mask made from a sparse file
MAX_VALUES = 2**26  # of dense weights made from one

Ints = npt.NDArray[np.int64]


class Matrix(NamedTuple):
    """A matrix as its file has it: bools (which entries are kept), or values (kept: not zero)."""

    name: str
    entries: npt.NDArray[Any]
    kept: npt.NDArray[np.bool_]


def read_matrix(
    path: str | Path,
    *,
    tokens: int = DEFAULT_TOKENS,
    rows: Literal["k", "n"] | None = None,
    dtype: str = "int8",
) -> Trace:
    """Return a trace of one linear layer whose W is the matrix (of one layer an array: .npz).

    Args:
        path: a .smtx, .mtx, .npy or .npz file. Booleans are a mask, numbers are weights; stored
            zeros of an .mtx count as kept.
        tokens: t of the layer, the columns of the dense operand.
        rows: whether the file's rows are k or n; None for the format's own convention.
        dtype: number format the layer computes in.

    Raises:
        InputError: a file that breaks its format, or a size past the limits.
    """
    from accsim.traces.npy import read_npy, read_npz

    readers = {".smtx": read_smtx, ".mtx": read_mtx, ".npy": read_npy, ".npz": read_npz}
    suffix, file = Path(path).suffix.lower(), str(path)
    if suffix not in readers:
        raise InputError(
            f"suffix must be one of {one_of(readers)}; got '{suffix}'{near(suffix, readers)}",
            file=file,
        )
    if rows not in ("k", "n", None):
        raise InputError(f"rows must be k or n; got {rows!r}")
    found = readers[suffix](path)
    turn = (rows or ("n" if suffix in (".smtx", ".mtx") else "k")) == "n"
    try:
        return _trace(Path(path), found, turn, tokens, dtype)
    except InputError as error:
        raise InputError(error.message, file=file) from None


def _trace(path: Path, found: list[Matrix], turn: bool, tokens: int, dtype: str) -> Trace:
    layers = []
    for matrix in found:
        k, n = matrix.kept.shape[::-1] if turn else matrix.kept.shape
        layer = gemm(tokens, k, n, dtype=dtype, name=matrix.name).layers[0]
        layers.append(layer.model_copy(update={"pattern": TRACED}))
    network = Workload(name=path.stem, layers=tuple(layers), sources=(path.name,))
    draft = Draft(network, provenance={"source": path.name})
    for matrix in found:
        draft.mask(matrix.name, matrix.kept.T if turn else matrix.kept)
        if matrix.entries.dtype != np.bool_:
            draft.weights(matrix.name, matrix.entries.T if turn else matrix.entries)
    made = draft.finish()
    made.file = str(path)
    return made


def read_bytes(path: str | Path) -> bytes:
    """Return a file's bytes; InputError if missing, unreadable or over ``MAX_TEXT_BYTES``."""
    if regular_size(path) > MAX_TEXT_BYTES:
        raise InputError(f"must be at most {MAX_TEXT_BYTES} bytes", file=path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(error, path) from None


def check_size(shape: tuple[int, ...], file: str | Path, most: int = MAX_ELEMENTS) -> None:
    """Refuse empty matrices and those too large to hold dense."""
    if min(shape) < 1:
        raise InputError(f"rows and columns must be at least 1; got {list(shape)}", file=file)
    if shape[0] * shape[1] > most:
        raise InputError(
            f"rows × columns must be at most {most}; got {shape[0]} × {shape[1]}", file=file
        )


def read_smtx(path: str | Path) -> list[Matrix]:
    """Read a matrix of the Deep Learning Matrix Collection: rows, cols, nnz; offsets; columns."""
    lines = read_bytes(path).rstrip().split(b"\n")

    def refuse(line: int, rule: str) -> InputError:
        return InputError(rule, file=path, line=line)

    if len(lines) != 3 and not (
        len(lines) == 2 and re.fullmatch(rb"[^,]*,[^,]*,\s*0+\s*", lines[0])
    ):
        raise refuse(1, f"must be 3 lines (sizes, row offsets, columns); got {len(lines)}")
    sizes = re.fullmatch(rb"\s*(\d{1,18})\s*,\s*(\d{1,18})\s*,\s*(\d{1,18})\s*", lines[0])
    if sizes is None:
        raise refuse(1, f"must be 'rows, cols, nnz'; got {ascii(lines[0][:40])[1:]}")
    rows, cols, nnz = (int(x) for x in sizes.groups())
    check_size((rows, cols), path)
    offsets = _whole_numbers(lines[1], rows + 1, "row offsets", path, 2)
    if offsets[0] != 0 or offsets[-1] != nnz or (np.diff(offsets) < 0).any():
        raise refuse(2, f"row offsets must rise from 0 to nnz = {nnz}")
    columns = _whole_numbers(lines[2] if nnz else b"", nnz, "columns", path, 3)
    if nnz and columns.max() >= cols:
        raise refuse(3, f"columns must be below {cols}; got {columns.max()}")
    kept = np.zeros((rows, cols), dtype=np.bool_)
    kept[np.repeat(np.arange(rows), np.diff(offsets)), columns] = True
    if int(np.count_nonzero(kept)) != nnz:
        raise refuse(3, "a row must name each column once")
    return [Matrix(Path(path).stem, kept, kept)]


def _whole_numbers(text: bytes, count: int, what: str, path: str | Path, line: int) -> Ints:
    """Return the numbers of a line; there must be ``count``."""
    odd = text.translate(None, b"0123456789 \t\r")
    if odd or re.search(rb"\d{19}", text):
        got = ascii(odd[:10])[1:] if odd else "a number of over 18 digits"
        raise InputError(f"{what} must be whole numbers; got {got}", file=path, line=line)
    numbers = (
        np.fromstring(text, dtype=np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
    )
    if len(numbers) != count:
        raise InputError(f"must be {count} {what}; got {len(numbers)}", file=path, line=line)
    return numbers


_BANNER = re.compile(
    rb"%%MatrixMarket[ \t]+matrix[ \t]+(\w+)[ \t]+(\w+)[ \t]+([\w-]+)[ \t]*\r?\n", re.IGNORECASE
)
# Possessive (*+, ++) throughout: no text makes them go back, so they take linear time.
_SIZES = re.compile(
    rb"(?:%[^\n]*+\n|[ \t]*+\r?\n)*+[ \t]*+(\d++)[ \t]++(\d++)[ \t]++(\d++)[ \t]*+(?:\r?\n|\Z)"
)
_REAL = rb"[-+]?+(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?+\d{1,4}+)?+"
_FIELDS = {b"real": _REAL, b"integer": rb"[-+]?+\d{1,18}+", b"pattern": None}
_SYMMETRIES = (b"general", b"symmetric")


def read_mtx(path: str | Path) -> list[Matrix]:
    """Read a MatrixMarket coordinate matrix: real, integer or pattern, general or symmetric."""
    text = read_bytes(path)
    banner = _BANNER.match(text)
    if banner is None:
        raise InputError("must begin with '%%MatrixMarket matrix …'", file=path, line=1)
    words = [word.lower() for word in banner.groups()]
    for word, known in zip(words, ((b"coordinate",), tuple(_FIELDS), _SYMMETRIES), strict=True):
        if word not in known:
            names = one_of(x.decode() for x in known)
            raise InputError(
                f"must be one of {names}; got '{ascii(word)[2:-1]}'", file=path, line=1
            )
    sizes = _SIZES.match(text, banner.end())
    line = text.count(b"\n", 0, banner.end()) + 1
    if sizes is None or any(len(x) > 18 for x in sizes.groups()):
        raise InputError("must hold a line 'rows cols entries'", file=path, line=line)
    rows, cols, entries = (int(x) for x in sizes.groups())
    pattern, symmetric = words[1] == b"pattern", words[2] == b"symmetric"
    check_size((rows, cols), path, MAX_ELEMENTS if pattern else MAX_VALUES)
    if symmetric and rows != cols:
        raise InputError(f"a symmetric matrix must be square; got {rows} × {cols}", file=path)
    row, col, values = _entries(text, sizes.end(), words[1], path)
    if len(row) != entries:
        raise InputError(f"must have {entries} entries; got {len(row)}", file=path)
    return [_filled(path, (rows, cols), row - 1, col - 1, values, symmetric)]


def _entries(
    text: bytes, start: int, field: bytes, path: str | Path
) -> tuple[Ints, Ints, npt.NDArray[np.float64] | None]:
    """Return rows, columns (from 1) and values of the lines from ``start`` on."""
    value = _FIELDS[field]
    place = rb"[ \t]*+\d{1,18}+[ \t]++\d{1,18}+"
    entry = place if value is None else place + rb"[ \t]++" + value
    whole = re.compile(rb"(?:(?:" + entry + rb")?+[ \t]*+\r?\n)*+")
    last = re.compile(rb"(?:" + entry + rb")?+\s*+\Z")
    lines = whole.match(text, start)
    at = lines.end() if lines else start
    if last.match(text, at) is None:
        bad, line = ascii(text[at : at + 60].split(b"\n")[0])[1:], text.count(b"\n", 0, at) + 1
        kind = "row column" if value is None else f"row column {field.decode()}"
        raise InputError(f"must be '{kind}'; got {bad}", file=path, line=line)
    wide = 2 if value is None else 3
    rest = text[start:]
    numbers = np.fromstring(rest, sep=" ") if rest.strip() else np.zeros(0)
    row, col = (numbers[i::wide].astype(np.int64) for i in (0, 1))
    return row, col, None if value is None else numbers[2::3]


def _filled(
    path: str | Path,
    shape: tuple[int, int],
    row: Ints,
    col: Ints,
    values: npt.NDArray[np.float64] | None,
    symmetric: bool,
) -> Matrix:
    for at, most, what in ((row, shape[0], "row"), (col, shape[1], "column")):
        if len(at) and not (at.min() >= 0 and at.max() < most):
            worst = int(at.max()) + 1 if at.max() >= most else 0
            raise InputError(f"{what}s must be from 1 to {most}; got {worst}", file=path)
    kept = np.zeros(shape, dtype=np.bool_)
    kept[row, col] = True
    if int(np.count_nonzero(kept)) != len(row):
        raise InputError("an entry must stand once", file=path)
    if symmetric:
        if (row < col).any():
            raise InputError("a symmetric matrix must hold its lower triangle only", file=path)
        kept |= kept.T.copy()
    if values is None:
        return Matrix(Path(path).stem, kept, kept)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InputError("values must fit float32", file=path)
    dense = np.zeros(shape, dtype=np.float32)
    dense[row, col] = narrow
    if symmetric:
        dense[col, row] = narrow
    return Matrix(Path(path).stem, dense, kept)
