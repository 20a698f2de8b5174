"""The common ground of all nouns: a frozen pydantic model and the number types they use."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from accsim.base.errors import InputError

# No extent of a real network comes near the first, no layer near the others (Llama-3-70B, 2048
# tokens: 2e12 multiply-accumulates and 2e8 weights a layer); with them, and the bounds on hardware
# numbers, every count of bits and cycles stays exact in int64.
MAX_EXTENT = 10**8
MAX_MACS = 10**15
MAX_ELEMENTS = 10**12
MAX_REPEATS = 10**6


class Spec(BaseModel):
    """A noun: frozen, keyword-only, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)


def _no_bool(value: Any) -> Any:
    """YAML's ``true`` must not pass as the number 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number; got a boolean")
    return value


Extent = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=MAX_EXTENT)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
PositiveInt = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
PositiveFloat = Annotated[float, BeforeValidator(_no_bool), Field(gt=0)]
FiniteFloat = Annotated[
    float, BeforeValidator(_no_bool), Field(ge=0, le=10**15, allow_inf_nan=False)
]
PositiveFinite = Annotated[
    float, BeforeValidator(_no_bool), Field(gt=0, le=10**15, allow_inf_nan=False)
]


def refusal(error: ValidationError, what: str) -> InputError:
    """Return pydantic's complaint about a value given in Python as one line that names it."""
    first = error.errors()[0]
    place = str(first["loc"][-1]) if first["loc"] else what
    rule = str(first["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    value = first.get("input")
    got = "" if isinstance(value, dict) else f"; got {value!r}"
    return InputError(f"{what}: {place} {rule}{got}" if first["loc"] else f"{what}: {rule}")
