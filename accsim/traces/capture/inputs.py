"""Inputs of a captured model, as words: ``1x3x32x32``, ``int:1x128:30522``, ``mask=ones:1x128``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError, near, one_of
from accsim.base.rng import stream

if TYPE_CHECKING:
    import numpy.typing as npt

KINDS = ("normal", "uniform", "ones", "int")
MAX_INPUT_ELEMENTS = 2**30
_WORD = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?:(?P<kind>[a-z]+):)?(?P<shape>\d{1,9}(?:x\d{1,9})*)"
    r"(?::(?P<high>\d{1,18}))?"
)


@dataclass(frozen=True)
class InputSpec:
    """One input: values drawn from N(0, 1), from [0, 1), from the integers below ``high``, or 1.

    With a ``name`` it is passed by keyword, else by position.
    """

    kind: str
    shape: tuple[int, ...]
    high: int = 2
    name: str = ""

    def draw(self, seed: int, *words: object) -> npt.NDArray[Any]:
        """Return the values: float32 or int64, the same for the same seed and words."""
        if self.kind == "ones":
            return np.ones(self.shape, dtype=np.int64)
        values = stream(seed, "input", *words)
        if self.kind == "int":
            return values.integers(0, self.high, self.shape)
        drawn = values.random if self.kind == "uniform" else values.standard_normal
        return np.asarray(drawn(self.shape, dtype=np.float32))


def parse_input(word: str) -> InputSpec:
    """Return the input a word stands for: ``[name=][kind:]SHAPE[:HIGH]``.

    >>> parse_input("ids=int:1x128:30522")
    InputSpec(kind='int', shape=(1, 128), high=30522, name='ids')

    Raises:
        InputError: not of this form, or an extent of 0.
    """
    found = _WORD.fullmatch(word)
    if found is None:
        raise InputError(f"input must be like 1x3x32x32 or int:1x128:30522; got '{word}'")
    kind, high = found["kind"] or "normal", found["high"]
    if kind not in KINDS:
        raise InputError(f"input must be one of {one_of(KINDS)}; got '{kind}'{near(kind, KINDS)}")
    if (high is not None) != (kind == "int"):
        raise InputError(f"input int:SHAPE:HIGH, and only int, has a HIGH; got '{word}'")
    shape = tuple(int(x) for x in found["shape"].split("x"))
    if not 1 <= math.prod(shape) <= MAX_INPUT_ELEMENTS or (high and not int(high)):
        raise InputError(f"input must have 1 to {MAX_INPUT_ELEMENTS} elements; got '{word}'")
    return InputSpec(kind, shape, int(high or 2), found["name"] or "")
