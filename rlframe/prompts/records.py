"""`Records`, the base class of sources that read records: JSONL and Parquet files, and hub data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from rlframe.prompts.base import Source
from rlframe.prompts.fields import messages_of, reference_of, references_of, text_of, value_of
from rlframe.prompts.table import columns
from rlframe.types import Message, Problem

if TYPE_CHECKING:
    import pyarrow


class Records(Source):
    """Makes a problem from each record. Keys name the fields, a field inside a field by a dot.

    For verl's layout `messages_field` is `prompt` and `reference_field` is `reward_model.ground_truth`:

        {"prompt": [{"role": "user", "content": "2 + 3?"}], "reward_model": {"ground_truth": "5"}, "level": 1}

    With `extra_fields: [level]` a reward finds `prompt.extra["level"]`. `reference_pattern` cuts the reference out of
    a worked answer; GSM8K's pattern is `####\\s*(.+)`. Slices [offset, offset + size) that do not overlap keep training
    and held-out problems of one file apart.
    """

    prompt_field: str | None  # the question, as text; null: `messages_field` has it
    messages_field: str | None  # a list of {role, content} that ends with the user; null: `prompt_field` has it
    # Text, a number, or JSON; null: the reference is empty. Several fields: a JSON object of these fields.
    reference_field: str | list[str] | None
    reference_pattern: str | None  # its one group is the reference; null: the whole field
    task: str  # of a record without `task_field`
    task_field: str | None  # the field with a record's task, or with null for `task`; null: every record has `task`
    extra_fields: list[str]  # further JSON values, for rewards
    offset: int = Field(ge=0)
    size: int | None = Field(ge=1)  # at most; null: to the end

    @field_validator("reference_pattern")
    @classmethod
    def _pattern_has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
            if groups != 1:
                raise ValueError(f"{pattern!r} has {groups} groups; exactly one must hold the reference")
        return pattern

    @model_validator(mode="after")
    def _one_field_holds_the_question(self) -> Records:
        if (self.prompt_field is None) == (self.messages_field is None):
            raise ValueError("one of prompt_field and messages_field must name a field, and the other be null")
        return self

    @model_validator(mode="after")
    def _a_pattern_cuts_one_field(self) -> Records:
        if isinstance(self.reference_field, list):
            if not self.reference_field:
                raise ValueError("reference_field: an empty list names no field; null: the rewards need none")
            if self.reference_pattern is not None:
                raise ValueError("reference_pattern: cuts the reference out of one field, and there are several")
        return self

    def fields(self) -> list[str]:
        """Names of all fields in use."""
        named = (self.prompt_field, self.messages_field, *self._reference_fields(), self.task_field)
        return [name for name in named if name is not None] + self.extra_fields

    def columns(self, schema: pyarrow.Schema, where: str) -> list[str]:
        """The columns that hold the fields. Raises ValueError for a field that is missing."""
        return columns(schema, self.fields(), where)

    def bounds(self, total: int, where: str) -> range:
        """Indices of the slice within `total` records. Raises ValueError if it begins after the last record."""
        if self.offset >= total:
            raise ValueError(f"{where}: offset {self.offset} skips all of its {total} records")
        return range(self.offset, total if self.size is None else min(total, self.offset + self.size))

    def problem(self, record: Mapping[str, Any], problem_id: str, where: str) -> Problem:
        """The problem in a record. Raises ValueError, whose message starts with `where`, if a field cannot be used."""
        return Problem(
            id=problem_id,
            messages=self._messages(record, where),
            reference=self._reference(record, where),
            task=self._task(record, where),
            extra={name: value_of(record, name, where) for name in self.extra_fields},
        )

    def _messages(self, record: Mapping[str, Any], where: str) -> list[Message]:
        if self.messages_field is not None:
            return messages_of(record, self.messages_field, where)
        assert self.prompt_field is not None
        return [{"role": "user", "content": text_of(record, self.prompt_field, where)}]

    def _reference(self, record: Mapping[str, Any], where: str) -> str:
        if self.reference_field is None:
            return ""
        if isinstance(self.reference_field, list):
            return references_of(record, self.reference_field, where)
        reference = reference_of(record, self.reference_field, where)
        if self.reference_pattern is None:
            return reference
        match = re.search(self.reference_pattern, reference)
        # The group is None if it stands in an alternative that did not match.
        if match is None or match[1] is None:
            problem = f"reference_pattern {self.reference_pattern!r} finds nothing in {reference[-80:]!r}"
            raise ValueError(f"{where}: field {self.reference_field!r}: {problem}")
        return match[1].strip()

    def _reference_fields(self) -> list[str]:
        if isinstance(self.reference_field, list):
            return self.reference_field
        return [self.reference_field] if self.reference_field is not None else []

    def _task(self, record: Mapping[str, Any], where: str) -> str:
        if self.task_field is None or value_of(record, self.task_field, where) is None:
            return self.task
        return text_of(record, self.task_field, where)
