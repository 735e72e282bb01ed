"""Several sources as one: maths beside code beside general questions, each meeting the rewards of its task."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from rlframe.prompts.arithmetic import Arithmetic
from rlframe.prompts.base import Problems, Source
from rlframe.prompts.hub import Hub
from rlframe.prompts.jsonl import Jsonl
from rlframe.prompts.reasoning_gym import ReasoningGym
from rlframe.schema import one_of
from rlframe.types import Problem

PARTS: dict[str, type[Source]] = {
    "arithmetic": Arithmetic,
    "reasoning_gym": ReasoningGym,
    "jsonl": Jsonl,
    "hub": Hub,
}

# SerializeAsAny: a saved config keeps the fields of the class picked, not only those of Source.
Part = Annotated[SerializeAsAny[Source], BeforeValidator(lambda value: one_of(value, Source, PARTS))]


class Mixture(Source):
    """Every problem of every part once an epoch, shuffled together: a part weighs as much as it has problems.

    Parts have names so that a command line can reach into one: `prompts.train.parts.code.size=500`.
    """

    name: Literal["mixture"]
    parts: dict[str, Part] = Field(min_length=1)

    def load(self) -> Problems:
        return _Joined({name: part.load() for name, part in self.parts.items()})


class _Joined:
    """Lists end to end; ids carry their part's name, so that those of two parts never meet."""

    def __init__(self, parts: dict[str, Problems]) -> None:
        self._parts = list(parts.items())
        self._ends = list(accumulate(len(problems) for problems in parts.values()))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = bisect_right(self._ends, index)
        name, problems = self._parts[place]
        problem = problems[index - (self._ends[place - 1] if place else 0)]
        return Problem(
            id=f"{name}/{problem.id}", messages=problem.messages, reference=problem.reference, task=problem.task
        )
