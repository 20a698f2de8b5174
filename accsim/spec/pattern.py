"""What a sparsity pattern is, and the one place where its short string is parsed.

A family registers under the entry-point group ``accsim.patterns``: a subclass of :class:`Pattern`
with a ``parse`` that recognises its own strings. The built-in families use the same door.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from accsim.base.errors import AccsimError, InputError, near

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.floating[Any]]

GROUP = "accsim.patterns"


class Pattern(ABC):
    """One sparsity pattern for a weight matrix W of shape (k, n).

    Subclasses are frozen dataclasses. ``str()`` is the canonical short string, and parsing that
    gives an equal pattern back.
    """

    family: ClassVar[str]
    grammar: ClassVar[str]  # how the short string is written, for help and errors
    summary: ClassVar[str]  # one line for `accsim show patterns`

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Pattern | None:
        """Return the pattern ``text`` names, None if it is another family's; InputError if bad."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Return which weights are kept: bool, the shape (k, n) of ``weights``."""

    @abstractmethod
    def check(self, mask: BoolArray) -> list[str]:
        """Return the rules ``mask`` breaks, in words with their place; empty when legal."""

    @abstractmethod
    def metadata_bits(self, mask: BoolArray) -> int:
        """Return the bits that say where the kept weights are."""

    @abstractmethod
    def kept(self, k: int, n: int) -> int | None:
        """Return how many of k × n weights the generator keeps: exact, without a mask.

        None when it depends on the weights: only the mask can tell.
        """

    @abstractmethod
    def block_bound(self, rows: int) -> int | None:
        """Return the most kept weights any ``rows`` aligned consecutive k of a column can hold.

        None when the pattern gives no bound below ``rows``: only the real mask can tell.
        """

    def stored(self, mask: BoolArray) -> int:
        """Return the values the packed format holds: the kept ones, and slots that stay empty."""
        return int(mask.sum())

    def packed_bits(self, mask: BoolArray, value_bits: int) -> int:
        """Return the size of the packed matrix: stored values and metadata."""
        return self.stored(mask) * value_bits + self.metadata_bits(mask)

    def density(self, mask: BoolArray) -> float:
        """Return the share of weights kept."""
        return float(mask.mean()) if mask.size else 0.0

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "description": "dense, 2:4, unstructured@0.9, …"}


@dataclass(frozen=True)
class Dense(Pattern):
    """Every weight is kept."""

    family: ClassVar[str] = "dense"
    grammar: ClassVar[str] = "dense"
    summary: ClassVar[str] = "every weight kept; no metadata"

    @classmethod
    def parse(cls, text: str) -> Dense | None:
        """Recognise ``dense``."""
        return DENSE if text == "dense" else None

    def __str__(self) -> str:
        return "dense"

    def mask(self, weights: FloatArray, seed: int = 0) -> BoolArray:
        """Return all True."""
        import numpy as np

        return np.ones(weights.shape, dtype=np.bool_)

    def check(self, mask: BoolArray) -> list[str]:
        """Every mask is legal: a kept slot may hold zero."""
        return []

    def metadata_bits(self, mask: BoolArray) -> int:
        """No metadata: 0."""
        return 0

    def kept(self, k: int, n: int) -> int:
        """All k × n."""
        return k * n

    def block_bound(self, rows: int) -> int:
        """A block may be full."""
        return rows


DENSE = Dense()


def _validate(value: Any) -> Pattern:
    if isinstance(value, Pattern):
        return value
    try:
        return parse_pattern(str(value))
    except AccsimError as error:
        raise ValueError(str(error)) from None


@cache
def families() -> dict[str, type[Pattern]]:
    """Return the registered pattern families by name, built-in and third-party, sorted."""
    found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    return {name: found[name].load() for name in sorted(found)}


@cache
def parse_pattern(text: str) -> Pattern:
    """Return the pattern a short string names.

    Raises:
        InputError: nothing registered knows the string, or its numbers break a rule.

    >>> str(parse_pattern("2:4"))
    '2:4'
    """
    if not isinstance(text, str):
        raise InputError(f"pattern must be a word such as '2:4'; got {text!r}")
    for family in families().values():
        pattern = family.parse(text.strip())
        if pattern is not None:
            return pattern
    close = [family.grammar for name, family in families().items() if near(text, [name])]
    hint = f"did you mean '{close[0]}'?" if close else "such as 2:4, unstructured@0.9 or dense"
    raise InputError(
        f"pattern must be one of those `accsim show patterns` lists, {hint}; got '{text}'"
    )
