"""Joins several sources: mathematics, code and general questions in one run, each scored by the rewards of its task."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from rlframe.prompts.arithmetic import Arithmetic
from rlframe.prompts.base import Problems, Source, in_order
from rlframe.prompts.hub import Hub
from rlframe.prompts.jsonl import Jsonl
from rlframe.prompts.parquet import Parquet
from rlframe.prompts.reasoning_gym import ReasoningGym
from rlframe.schema import one_of
from rlframe.types import Problem

SIMPLE_SOURCES: dict[str, type[Source]] = {
    "arithmetic": Arithmetic,
    "reasoning_gym": ReasoningGym,
    "jsonl": Jsonl,
    "parquet": Parquet,
    "hub": Hub,
}

# SerializeAsAny: a saved config keeps all fields of the chosen class; pydantic alone would keep the fields of Source.
Part = Annotated[SerializeAsAny[Source], BeforeValidator(lambda value: one_of(value, Source, SIMPLE_SOURCES))]


class Mixture(Source):
    """Every problem of every part once an epoch, all shuffled together: a part's share is its number of problems.

    Each part has a name, so that a command line can set its keys: `prompts.train.parts.code.size=500`.
    """

    name: Literal["mixture"]
    parts: dict[str, Part] = Field(min_length=1)

    def load(self) -> Problems:
        return _Joined({name: part.load() for name, part in self.parts.items()})


class _Joined:
    """Lists of problems end to end. An id starts with the name of its part, so that ids of two parts always differ."""

    def __init__(self, parts: dict[str, Problems]) -> None:
        self._parts = list(parts.items())
        self._ends = list(accumulate(len(problems) for problems in parts.values()))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Problem]:
        for name, problems in self._parts:
            for problem in in_order(problems):
                yield replace(problem, id=f"{name}/{problem.id}")

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part_index = bisect_right(self._ends, index)
        name, problems = self._parts[part_index]
        problem = problems[index - (self._ends[part_index - 1] if part_index else 0)]
        return replace(problem, id=f"{name}/{problem.id}")
