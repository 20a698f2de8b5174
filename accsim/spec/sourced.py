"""Where one number of a device comes from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from accsim.spec.base import Spec


class Sourced(Spec):
    """Where one number of a device comes from: value, unit, source, range, and how it was had."""

    value: float | int
    unit: str = ""
    source: str = Field(min_length=1)
    low: float | None = None
    high: float | None = None
    status: Literal["published", "measured", "assumed", "chosen", "fitted", "derived"] = "published"

    @model_validator(mode="after")
    def _range_holds_value(self) -> Sourced:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"must lie in its range {low} … {high}; got {self.value}")
        return self
