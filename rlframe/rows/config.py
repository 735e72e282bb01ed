"""Settings of a tuning run's rows: their sources, their tokens, and the number that a step takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlframe.prompts.template import ChatTemplate
from rlframe.rows.sources import AnyRowSource, Files, RowSource
from rlframe.schema import Config

PartName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]


class RowSet(Config):
    """Rows of one path, or a mixture of named parts."""

    path: str | None
    parts: dict[PartName, AnyRowSource]

    @model_validator(mode="after")
    def _has_at_most_one_origin(self) -> RowSet:
        if self.path is not None and self.parts:
            raise ValueError("path and parts both name rows; set path=null, or parts={}")
        return self

    @property
    def sources(self) -> dict[str, RowSource]:
        """The sources by the names of their parts; empty where no rows are named."""
        return self.parts if self.path is None else {"": Files(path=self.path)}


class RowsConfig(RowSet):
    """`rows` in `conf/tune.yaml`."""

    heldout: RowSet
    per_step: int = Field(ge=1)
    turns: Literal["last", "all"]
    max_tokens: int = Field(ge=2)
    max_dropped_share: float = Field(ge=0, lt=1)
    template: ChatTemplate

    @model_validator(mode="after")
    def _has_rows(self) -> RowsConfig:
        if not self.sources:
            raise ValueError("path: names no rows; set rows.path=rows.jsonl, a folder, or a pattern, or rows.parts")
        return self
