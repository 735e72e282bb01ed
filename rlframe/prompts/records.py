"""`Records`: what sources of ready-made records share, a JSONL file as well as a hub data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from rlframe.prompts.base import Source
from rlframe.types import Problem


class Records(Source):
    """One problem a record: its question in one field, its reference answer in another.

    Where the reference stands inside a worked answer, `reference_pattern` cuts it out; GSM8K's is `####\\s*(.+)`.
    Slices [offset, offset + size) that do not overlap keep training and held-out problems of one file apart.
    """

    prompt_field: str
    reference_field: str
    reference_pattern: str | None  # one group, which is the reference; null: the whole field
    task: str  # of every record, or of those without a field of their own
    task_field: str | None  # the field with a record's task; null: all are of `task`
    offset: int = Field(ge=0)
    size: int | None = Field(ge=1)  # null: to the end

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

    def bounds(self, total: int, where: str) -> range:
        """The records to read out of `total`; ValueError where there are not as many."""
        end = total if self.size is None else self.offset + self.size
        if end > total or self.offset >= total:
            asked = f"offset {self.offset}, size {'null' if self.size is None else self.size}"
            raise ValueError(f"{where}: {asked} asks for more than its {total} records")
        return range(self.offset, end)

    def problem(self, record: Mapping[str, Any], problem_id: str, where: str) -> Problem:
        """The problem in one record; `where` opens the message of the ValueError where a field will not do."""
        question = _text(record, self.prompt_field, where)
        reference = _text(record, self.reference_field, where)
        if self.reference_pattern is not None:
            match = re.search(self.reference_pattern, reference)
            # A group inside an alternative that was not taken is None.
            if match is None or match[1] is None:
                found = f"reference_pattern {self.reference_pattern!r} finds nothing in {reference[-80:]!r}"
                raise ValueError(f"{where}: field {self.reference_field!r}: {found}")
            reference = match[1].strip()
        task = _text(record, self.task_field, where) if self.task_field and self.task_field in record else self.task
        messages = [{"role": "user", "content": question}]
        return Problem(id=problem_id, messages=messages, reference=reference, task=task)


def _text(record: Mapping[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise ValueError(f"{where}: no field {field!r}; it has {', '.join(map(repr, record)) or 'none'}")
    value = record[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: field {field!r} holds {type(value).__name__}, not text or a number")
    if not str(value).strip():
        raise ValueError(f"{where}: field {field!r} is empty")
    return str(value)
