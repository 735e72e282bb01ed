"""`Records`, the base class of sources that read records: a JSONL file and a hub data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from rlframe.prompts.base import Source
from rlframe.types import Problem


class Records(Source):
    """Makes a problem from each record: a field holds the question, another field the reference answer.

    `reference_pattern` cuts the reference out of a worked answer; GSM8K's pattern is `####\\s*(.+)`.
    Slices [offset, offset + size) that do not overlap keep training and held-out problems of one file apart.
    """

    prompt_field: str
    reference_field: str
    reference_pattern: str | None  # its one group is the reference; null: the whole field
    task: str  # of a record without `task_field`
    task_field: str | None  # the field with a record's task; null: every record has `task`
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
        """Indices of the slice within `total` records. Raises ValueError if the slice goes beyond the last record."""
        end = total if self.size is None else self.offset + self.size
        if end > total or self.offset >= total:
            slice_text = f"offset {self.offset}, size {'null' if self.size is None else self.size}"
            raise ValueError(f"{where}: {slice_text} asks for more than its {total} records")
        return range(self.offset, end)

    def problem(self, record: Mapping[str, Any], problem_id: str, where: str) -> Problem:
        """The problem in a record. Raises ValueError, whose message starts with `where`, if a field cannot be used."""
        question = _text(record, self.prompt_field, where)
        reference = _text(record, self.reference_field, where)
        if self.reference_pattern is not None:
            match = re.search(self.reference_pattern, reference)
            # The group is None if it stands in an alternative that did not match.
            if match is None or match[1] is None:
                problem = f"reference_pattern {self.reference_pattern!r} finds nothing in {reference[-80:]!r}"
                raise ValueError(f"{where}: field {self.reference_field!r}: {problem}")
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
