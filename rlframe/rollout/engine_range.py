"""`EngineRange`: the number of engines of a run, fixed or between two bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_serializer, model_validator

from rlframe.schema import Config


class EngineRange(Config):
    """`rollout.engines`: `4`, or `{min: 2, max: 8}` for a pool that grows and shrinks.

    >>> EngineRange.model_validate(4)
    EngineRange(min=4, max=4)
    """

    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError(f"a run needs at least 1 engine, not {value}")
            return {"min": value, "max": value}
        if not isinstance(value, dict | EngineRange):
            raise ValueError(f"must be a number of engines, or {{min: 2, max: 8}}, not {value!r}")
        return value

    @model_validator(mode="after")
    def _is_a_range(self) -> EngineRange:
        if self.min > self.max:
            raise ValueError(f"min: {self.min} is above max: {self.max}; set max to {self.min} or more, or lower min")
        return self

    @model_serializer
    def _written(self) -> int | dict[str, int]:
        return self.min if self.fixed else {"min": self.min, "max": self.max}

    @property
    def fixed(self) -> bool:
        """True for a number: a pool that is only repaired."""
        return self.min == self.max

    def __str__(self) -> str:
        return str(self.min) if self.fixed else f"{{min: {self.min}, max: {self.max}}}"
