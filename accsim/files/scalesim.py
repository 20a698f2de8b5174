"""SCALE-Sim's files: topology CSV → Workload, .cfg → hardware overrides.

What differs from SCALE-Sim 3.0.0's own readers (``topology_utils.py``, ``scale_config.py``), which
go by position, skip the first line unseen and drop whatever follows a line's last comma:

- The header decides between convolution and GEMM columns, and must name them in SCALE-Sim's order.
- A trailing comma is optional. Sparsity is read from a column named so, or from ``n:m`` in the
  first column after the sizes. Cells from one that begins with ``#`` on are a comment.
- A row with a name and no numbers is a heading: ``AlphaGoZero,`` puts ``AlphaGoZero.`` in front of
  the names below it. A name used again becomes ``name#2``.
- Only ``DP`` standing alone in a name (``Conv2_DP``) means depthwise; SCALE-Sim makes 64 layers of
  one called ENDPOINT. Both take "Num Filter" as filters *per channel*. ``dw`` means nothing: the
  numbers of such a row are kept as they stand.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accsim.base.errors import InputError, near
from accsim.files.validate import build
from accsim.files.workload import MAX_LAYERS
from accsim.files.yaml import Node, read_text
from accsim.spec.base import MAX_EXTENT
from accsim.spec.pattern import parse_pattern
from accsim.spec.workload import Layer, Workload

CONV = (
    "Layer name", "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels",
    "Num Filter", "Strides",
)  # fmt: skip
GEMM = ("Layer", "M", "N", "K")

# Other spellings of a column, letters and digits only.
_SPELLINGS = {
    "Layer name": {"layer", "layers", "l", "name"},
    "Layer": {"layername", "layers", "l", "name"},
    "IFMAP Height": {"ifmaph", "inputheight"},
    "IFMAP Width": {"ifmapw", "inputwidth"},
    "Filter Height": {"filterh", "kernelheight"},
    "Filter Width": {"filterw", "kernelwidth"},
    "Channels": {"channel", "numchannels"},
    "Num Filter": {"numfilters", "filters"},
    "Strides": {"stride", "strideheight"},
    "Stride Width": {"stridew"},  # SCALE-Sim's write_topo_file writes it; its reader cannot read it
    "Sparsity": {"sparsityratio", "sparsitypattern", "nm"},
}
# Output sizes noted in Resnet50.csv; SCALE-Sim does not use them and they are not its own.
_NOTES = {"eh", "ew", "e2"}

_DEPTHWISE = re.compile(r"(?<![A-Za-z0-9])DP(?![A-Za-z0-9])")
_PATTERN = re.compile(r"[0-9]+ *: *[0-9]+")


class _Form(NamedTuple):
    """The columns of a file: the sizes by position, then what each later named column holds."""

    titles: tuple[str, ...]
    later: dict[int, str]


def read_topology(path: str | Path) -> Workload:
    """Return the workload of a SCALE-Sim topology, convolution or GEMM, int8 and batch 1.

    A convolution has no padding and ``ceil_mode``: ⌈(H − F)/S⌉ + 1 outputs a side. A GEMM row
    M, N, K is a linear layer of t = M, k = K, n = N; the file does not say where the second
    operand is an activation, so all of them count as weights.

    Raises:
        InputError: with file and line for anything that is not a topology.
    """
    file = str(path)
    rows = _rows(read_text(path), file)
    first = next(rows, None)
    if first is None:
        raise InputError(
            "must not be empty; a topology has a header and one line a layer", file=file
        )
    at, cells = first
    layers = _layers(rows, _form(cells, at))
    if not layers:
        raise InputError("a header and no layers: give at least one layer", file=file)
    name = Path(path).stem
    source = f"SCALE-Sim topology {Path(path).name}"
    return build(Workload, {"name": name, "sources": (source,), "layers": layers}, at)


def _rows(text: str, file: str) -> Iterator[tuple[Node, list[str]]]:
    """Yield the place and the stripped cells of every line that holds something."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        at = Node(None, file, reader.line_num + 1)
        try:
            cells = _without_comment([cell.strip() for cell in next(reader)])
        except StopIteration:
            return
        except csv.Error as error:
            raise at.error(f"not valid CSV: {error}") from None
        if any(cells):
            yield at, cells


def _without_comment(cells: list[str]) -> list[str]:
    start = next((i for i, cell in enumerate(cells) if cell.startswith("#")), len(cells))
    return cells[:start]


def _plain(title: str) -> str:
    """Letters and digits only, so that ``IFMAP_height`` and ``IFMAP Height`` are one title."""
    return re.sub(r"[^a-z0-9]", "", title.lower())


def _is(cell: str, title: str) -> bool:
    return _plain(cell) == _plain(title) or _plain(cell) in _SPELLINGS.get(title, set())


def _form(cells: list[str], at: Node) -> _Form:
    """Read the header."""
    if len(cells) == 1 and re.search(r"[;\t]", cells[0]):
        raise at.error("columns must be separated by commas")
    titles = GEMM if {_plain(cell) for cell in cells} & {"m", "n", "k"} else CONV
    for i, title in enumerate(titles):
        cell = cells[i] if i < len(cells) else ""
        if not _is(cell, title):
            slip = "" if any(_is(cell, other) for other in titles) else near(cell, titles)
            raise at.error(
                f"the first line must be a header: {', '.join(CONV)} or {', '.join(GEMM)}; "
                f"column {i + 1} must be '{title}'; got {_got(cell)}{slip}"
            )
    return _Form(titles, _later_columns(cells, titles, at))


def _later_columns(cells: list[str], titles: tuple[str, ...], at: Node) -> dict[int, str]:
    optional = ("Sparsity", "Stride Width") if titles is CONV else ("Sparsity",)
    later: dict[int, str] = {}
    for i, cell in enumerate(cells[len(titles) :], start=len(titles)):
        role = next((title for title in optional if _is(cell, title)), None)
        if role in later.values():
            raise at.error(f"column '{role}' stands twice")
        if role or _plain(cell) in _NOTES:
            later[i] = role or "note"
        elif cell:
            raise at.error(f"unknown column {_got(cell)}{near(cell, [*titles, *optional])}")
    return later


def _layers(rows: Iterator[tuple[Node, list[str]]], form: _Form) -> tuple[Layer, ...]:
    section, found = "", []
    for at, cells in rows:
        if not any(cells[1:]):
            section = f"{cells[0]}."
            continue
        if not cells[0]:
            raise at.error("a layer needs a name in the first column")
        found.append((at, section + cells[0], _layer_data(cells, form, at)))
        if len(found) > MAX_LAYERS:
            raise at.error(f"at most {MAX_LAYERS} layers")
    names = _unique([name for _, name, _ in found])
    return tuple(
        build(Layer, data | {"name": name}, at, extra=f"layer '{name[:200]}': ")
        for name, (at, _, data) in zip(names, found, strict=True)
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Give a repeated name the suffix #2, #3 …, past any name the file itself uses."""
    taken, seen = set(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        new = name
        while seen[name] > 1 and (new := f"{name}#{seen[name]}") in taken:
            seen[name] += 1
        unique.append(new)
    return unique


def _layer_data(cells: list[str], form: _Form, at: Node) -> dict[str, Any]:
    """Return the operator and the pattern of one row."""
    count = len(form.titles)
    padded = cells + [""] * (count - len(cells))
    sizes = [_number(padded[i], form.titles[i], at) for i in range(1, count)]
    stride_width, pattern = sizes[-1], "dense"
    for i, cell in enumerate(cells[count:], start=count):
        role = form.later.get(i)
        if role is None and i == count and _PATTERN.fullmatch(cell):
            role = "Sparsity"  # where SCALE-Sim looks for it, whatever the header says
        if cell and role is None:
            raise at.error(f"column {i + 1} has no title in the header; got {_got(cell)}")
        if cell and role == "Stride Width":
            stride_width = _number(cell, role, at)
        elif cell and role == "Sparsity":
            pattern = _pattern(cell, at)
    op = _linear(sizes) if form.titles is GEMM else _conv(cells[0], sizes, stride_width, at)
    return {"op": op, "pattern": pattern}


def _number(cell: str, title: str, at: Node, most: int = MAX_EXTENT) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", cell) or not 1 <= int(cell) <= most:
        raise at.error(f"{title} must be a whole number from 1 to {most}; got {_got(cell)}")
    return int(cell)


def _got(cell: str) -> str:
    return f"'{cell[:80]}'" if cell else "nothing"


def _pattern(cell: str, at: Node) -> str:
    """Return the pattern's short string; 1:1 is how SCALE-Sim writes dense."""
    text = cell.replace(" ", "")
    if not _PATTERN.fullmatch(text):
        raise at.error(f"Sparsity must be n:m, such as 2:4; got {_got(cell)}")
    try:
        parse_pattern(text)
    except InputError as error:
        raise at.error(error.message) from None
    return "dense" if text == "1:1" else text


def _linear(sizes: list[int]) -> dict[str, Any]:
    m, n, k = sizes
    return {"kind": "linear", "tokens": m, "in_features": k, "out_features": n}


def _conv(name: str, sizes: list[int], stride_width: int, at: Node) -> dict[str, Any]:
    high, wide, filter_high, filter_wide, channels, filters, stride = sizes
    for side, ifmap, kernel in (("Height", high, filter_high), ("Width", wide, filter_wide)):
        if kernel > ifmap:
            raise at.error(f"Filter {side} must not exceed IFMAP {side} ({ifmap}); got {kernel}")
    groups = channels if _DEPTHWISE.search(name) else 1
    return {
        "kind": "conv2d",
        "in_channels": channels,
        "out_channels": filters * groups,
        "size": (high, wide),
        "kernel": (filter_high, filter_wide),
        "stride": (stride, stride_width),
        "groups": groups,
        "ceil_mode": True,
    }


# Per section of a .cfg: its keys and the dotted hardware key each one sets, or why it sets none.
_NAMING = "!names files"
_TRACE = "!places operands in SCALE-Sim's address traces"
_BANKS = "!banks and layouts of the SRAM are not modelled"
_RATIO = "!the pattern of a layer is in the workload"
_WORDS = "!words per cycle, which SCALE-Sim applies to output writes only; set memory.dram"
_MODE = "!stalls follow the memory of the device, always"
_DRAM = "!latencies of single DRAM requests are not modelled"
_CFG: dict[str, dict[str, str]] = {
    "general": {"run_name": _NAMING},
    "architecture_presets": {
        "ArrayHeight": "array.rows",
        "ArrayWidth": "array.cols",
        "IfmapSramSzkB": "memory.sram.x.bytes",
        "FilterSramSzkB": "memory.sram.w.bytes",
        "OfmapSramSzkB": "memory.sram.y.bytes",
        "Dataflow": "dataflow",
        "IfmapOffset": _TRACE,
        "FilterOffset": _TRACE,
        "OfmapOffset": _TRACE,
        "Bandwidth": _WORDS,
        "MemoryBanks": _BANKS,
        "ReadRequestBuffer": _BANKS,
        "WriteRequestBuffer": _BANKS,
    },
    "run_presets": {"InterfaceBandwidth": _MODE, "UseRamulatorTrace": _DRAM},
    "layout": {
        f"{operand}{key}": _BANKS
        for operand in ("Ifmap", "Filter")
        for key in ("CustomLayout", "SRAMBankBandwidth", "SRAMBankNum", "SRAMBankPort")
    },
    "sparsity": {
        "SparsitySupport": _RATIO,
        "SparseRep": _RATIO,
        "OptimizedMapping": _RATIO,
        "BlockSize": _RATIO,
        "NonZeroElems": _RATIO,
        "RandomNumberGeneratorSeed": _RATIO,
    },
    "network_presets": {"TopologyCsvLoc": _NAMING},
}
_MOST = {"array": 65_536, "memory": 2**32}  # PEs a side; kB of one SRAM


def read_cfg(path: str | Path) -> dict[str, int | str]:
    """Return the hardware a SCALE-Sim .cfg describes, as overrides for ``load_hardware``.

    Array rows and columns, dataflow, and the three SRAM sizes in bytes (1 kB there is 1024).
    :func:`ignored_keys` tells the rest. Upper-case ``WS``, which SCALE-Sim runs as ``os`` without
    a word, is refused.

    Raises:
        InputError: with file and line: an unknown or missing key, a value out of range.
    """
    overrides: dict[str, int | str] = {}
    for key, (value, at) in _entries(path).items():
        target = _target(key)
        if target == "dataflow":
            overrides[target] = _dataflow(value, at)
        elif not target.startswith("!"):
            size = _number(value, key, at, _MOST[target.split(".")[0]])
            overrides[target] = size * 1024 if target.startswith("memory") else size
    wanted = {key: to for key, to in _CFG["architecture_presets"].items() if to[0] != "!"}
    for key, target in wanted.items():
        if target not in overrides:
            raise InputError(f"missing key '{key}' in [architecture_presets]", file=path)
    return overrides


def ignored_keys(path: str | Path) -> dict[str, str]:
    """Return the keys of a .cfg that :func:`read_cfg` leaves out, each with the reason."""
    targets = {key: _target(key) for key in _entries(path)}
    return {key: target[1:] for key, target in targets.items() if target.startswith("!")}


def _target(key: str) -> str:
    return next(keys[key] for keys in _CFG.values() if key in keys)


def _dataflow(value: str, at: Node) -> str:
    if value not in ("ws", "os", "is"):
        hint = near(value, ["ws", "os", "is"])
        raise at.error(f"Dataflow must be one of ws, os, is; got {_got(value)}{hint}")
    return value


def _entries(path: str | Path) -> dict[str, tuple[str, Node]]:
    """Return key → (value, place) of an INI file, keys spelled as in ``_CFG``."""
    entries: dict[str, tuple[str, Node]] = {}
    title = ""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        at, text = Node(None, str(path), number), line.strip()
        if not text or text[0] in "#;":
            continue
        if text.startswith("["):
            title = text.strip("[] ").lower()
            if title not in _CFG:
                raise at.error(f"unknown section {_got(text)}{near(title, _CFG)}")
            continue
        key, value = _key_value(text, title, at)
        if key in entries:
            raise at.error(f"key '{key}' stands twice")
        entries[key] = (value, at)
    if not entries:
        raise InputError("must not be empty; a .cfg has [section] lines and keys", file=path)
    return entries


def _key_value(text: str, title: str, at: Node) -> tuple[str, str]:
    parts = re.fullmatch(r"([^:=]+)[:=](.*)", text)
    if not parts or not title:
        raise at.error(f"must be 'key : value' below a [section]; got {_got(text)}")
    word, value = parts[1].strip(), parts[2].strip()
    by_lower = {key.lower(): key for key in _CFG[title]}
    if word.lower() not in by_lower:
        raise at.error(f"unknown key {_got(word)} in [{title}]{near(word, _CFG[title])}")
    return by_lower[word.lower()], value
