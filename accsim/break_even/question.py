"""What is asked: hardware, patterns, t and shapes, as words or values; refused in one line."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accsim.base.errors import InputError, near, one_of
from accsim.files.hardware import is_device, load_hardware
from accsim.spec.base import MAX_EXTENT
from accsim.spec.dtype import DTYPES
from accsim.spec.pattern import Pattern, parse_pattern
from accsim.spec.workload import Workload
from accsim.traces.load import load_workload

MOST_POINTS = 10_000
MOST_ROWS = 200_000
DEFAULT_T = "1:65536"
OPERANDS = ("w", "x")  # what may be made 2:4 at run time


class Shape(NamedTuple):
    """The weight matrix of a layer: k × n."""

    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.k}x{self.n}"


DEFAULT_SHAPES = {  # layers of published transformers, small to large
    Shape(768, 3072): "BERT-base, feed-forward",
    Shape(1024, 4096): "BERT-large, feed-forward",
    Shape(4096, 4096): "Llama-2-7B, attention",
    Shape(4096, 11008): "Llama-2-7B, gate and up",
    Shape(11008, 4096): "Llama-2-7B, down",
    Shape(8192, 8192): "Llama-2-70B, attention",
}


@dataclass(frozen=True)
class Question:
    """Every pattern on every device, at every t, for every k × n, against dense.

    ``dynamic``: the operand that is made sparse at run time, ``w`` or ``x``; None: W, beforehand.
    """

    hardware: tuple[Any, ...]
    patterns: tuple[Pattern, ...]
    t: tuple[int, ...]
    shapes: tuple[Shape, ...]
    dtype: str
    dynamic: str | None
    uncached_setup: bool
    seed: int

    def __post_init__(self) -> None:
        rows = len(self.hardware) * len(self.patterns) * len(self.t) * len(self.shapes)
        if rows > MOST_ROWS:
            raise InputError(
                f"t must leave at most {MOST_ROWS:,} rows (hardware × patterns × t × shapes); "
                f"got {rows:,}"
            )


def question(
    hardware: Any,
    patterns: Any,
    t: Any,
    shapes: Any,
    *,
    dtype: str,
    dynamic: bool | str,
    uncached_setup: bool,
    seed: int,
) -> Question:
    """Return what is asked, every part of it checked.

    Raises:
        InputError: its line begins with the name of the part.
    """
    return Question(
        hardware_of(hardware),
        patterns_of(patterns),
        ts_of(t),
        shapes_of(shapes),
        dtype_of(dtype),
        dynamic_of(dynamic),
        bool(uncached_setup),
        _whole(seed, "seed", 0, 2**63 - 1),
    )


def hardware_of(given: Any) -> tuple[Any, ...]:
    """Return devices of one or several names, files or nouns; words may be joined by commas."""
    devices = [_device(x) for x in _several(given, "hardware")]
    names = [device.name for device in devices]
    _once(names, "hardware")
    return tuple(devices)


def _device(given: Any) -> Any:
    if is_device(given):
        return given
    if not isinstance(given, str | Path):
        raise InputError(
            f"hardware must be names, files or what load_hardware returns; got {given!r}"
        )
    try:
        return load_hardware(given)
    except InputError as error:
        raise _named("hardware", error) from None


def patterns_of(given: Any) -> tuple[Pattern, ...]:
    """Return patterns of their words, which may be joined by commas.

    >>> [str(p) for p in patterns_of("2:4, tvw:128@0.75")]
    ['2:4', 'tvw:128@0.75']
    """
    found = []
    for word in _several(given, "patterns"):
        try:
            found.append(word if isinstance(word, Pattern) else parse_pattern(word))
        except InputError as error:
            raise _named("patterns", error) from None
    _once([str(pattern) for pattern in found], "patterns")
    return tuple(found)


def ts_of(given: Any) -> tuple[int, ...]:
    """Return ascending t of a number, a list, or a range ``LO:HI`` or ``LO:HI:POINTS``.

    A range is geometric: both ends and the powers of two between, or as many points as asked for.

    >>> ts_of("3:20"), ts_of("1:1000:4"), ts_of("512,1,64"), ts_of(16)
    ((3, 4, 8, 16, 20), (1, 10, 100, 1000), (1, 64, 512), (16,))
    """
    if isinstance(given, str) and ":" in given:
        return _range(given)
    found = [_whole(x, "t", 1, MAX_EXTENT) for x in _several(given, "t")]
    _once([str(x) for x in found], "t")
    return tuple(sorted(found))


def _range(word: str) -> tuple[int, ...]:
    parts = word.split(":")
    if len(parts) > 3:
        raise InputError(f"t must be LO:HI or LO:HI:POINTS, e.g. 1:65536; got '{word}'")
    low, high = (_whole(x, "t", 1, MAX_EXTENT) for x in parts[:2])
    if low >= high:
        raise InputError(f"t must be a range LO:HI with LO below HI; got '{word}'")
    if len(parts) == 3:
        points = _whole(parts[2], "t: POINTS", 2, MOST_POINTS)
        ratio = math.log(high / low) / (points - 1)
        return tuple(sorted({round(low * math.exp(i * ratio)) for i in range(points)}))
    powers = (2**i for i in range(MAX_EXTENT.bit_length()))
    return tuple(sorted({low, high, *(x for x in powers if low < x < high)}))


def shapes_of(given: Any) -> tuple[Shape, ...]:
    """Return weight matrices k × n: of ``KxN`` words, of pairs, of a workload's layers.

    A workload, or its name, stands for the distinct matrices of its layers with weights, in their
    order; a convolution's is the one it is lowered to.

    >>> shapes_of("4096x11008")[0].n, shapes_of([(64, 32)])
    (11008, (Shape(k=64, n=32),))
    """
    if given is None:
        return tuple(DEFAULT_SHAPES)
    if isinstance(given, str) and not re.fullmatch(r"[\s\d x×,*.+-]*", given):
        try:
            given = load_workload(given.strip())
        except InputError as error:
            raise _named("shapes", error) from None
    if isinstance(given, Workload):
        layers = [x.gemm for x in given.layers if x.has_weights]
        if not layers:
            raise InputError(f"shapes: workload '{given.name}' has no layer with weights")
        return tuple(dict.fromkeys(Shape(x.k, x.n) for x in layers))
    found = [_shape(x) for x in _several(given, "shapes")]
    _once([str(shape) for shape in found], "shapes")
    return tuple(found)


def _shape(given: Any) -> Shape:
    words = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", given) if isinstance(given, str) else None
    sides = words.groups() if words else given
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
        raise InputError(
            f"shapes must be KxN, e.g. 4096x11008, or a workload's name; got {_word(given)}"
        )
    return Shape(*(_whole(side, f"shapes: {letter}", 1, MAX_EXTENT)
                   for letter, side in zip("kn", sides, strict=True)))  # fmt: skip


def dtype_of(word: Any) -> str:
    """Return a known number format."""
    if word not in DTYPES:
        raise InputError(
            f"dtype must be one of {one_of(DTYPES)}; got {_word(word)}{near(str(word), DTYPES)}"
        )
    return str(word)


def dynamic_of(given: Any) -> str | None:
    """Return which operand is made sparse at run time: True stands for W."""
    if given is None or given is False:
        return None
    if given is True:
        return "w"
    if given not in OPERANDS:
        raise InputError(
            f"dynamic must be w (weights) or x (activations), the operand made sparse at run "
            f"time; got {_word(given)}"
        )
    return str(given)


def _several(given: Any, part: str) -> list[Any]:
    """Return what was given as a list: words joined by commas are taken apart."""
    if isinstance(given, str):
        words = [word.strip() for word in given.split(",")]
        if not all(words):
            raise InputError(f"{part} must be values with commas between; got '{given}'")
        return words
    alone = isinstance(given, Path | Pattern) or is_device(given)
    found = list(given) if isinstance(given, Iterable) and not alone else [given]
    if not found:
        raise InputError(f"{part} must name at least one; got none")
    return found


def _once(names: Sequence[str], part: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{part} must differ from each other; '{twice}' stands twice")


def _whole(given: Any, part: str, low: int, high: int) -> int:
    try:
        value = int(given) if isinstance(given, str) else operator.index(given)
    except (TypeError, ValueError):
        value = low - 1
    if isinstance(given, bool) or not low <= value <= high:
        raise InputError(f"{part} must be a whole number from {low} to {high}; got {_word(given)}")
    return value


def _word(given: Any) -> str:
    return f"'{given}'" if isinstance(given, str) else repr(given)


def _named(part: str, error: InputError) -> InputError:
    """Return the error with the part's name before it; one with a file says enough."""
    return error if error.file else InputError(f"{part}: {error.message}")
