"""Sums of two or more numbers: a task that a small policy learns in minutes, made without any file."""

from __future__ import annotations

import random
from typing import Literal

from pydantic import Field, model_validator

from rlframe.prompts.base import Source
from rlframe.types import Problem

MOST_SUMS = 1_000_000  # which are shuffled in memory


class Arithmetic(Source):
    """`What is a + b?` with all operands in [0, below).

    `seed` shuffles all below ** terms sums, and the source is the slice [offset, offset + size) of the sums.
    Two sources with the same `terms`, `below` and `seed` share no sum if their slices do not overlap: this keeps
    held-out problems apart from training problems. Example: offset 0 and size 64, offset 64 and size 2436.
    """

    name: Literal["arithmetic"]
    terms: int = Field(default=2, ge=2)  # a config of an older version has none
    below: int = Field(ge=1)
    seed: int
    offset: int = Field(ge=0)
    size: int = Field(ge=1)

    @model_validator(mode="after")
    def _slice_lies_within_the_sums(self) -> Arithmetic:
        sums = self.below**self.terms
        if sums > MOST_SUMS:
            raise ValueError(f"{sums} sums of {self.terms} numbers below {self.below} are more than {MOST_SUMS}")
        if self.offset + self.size > sums:
            raise ValueError(
                f"offset {self.offset} + size {self.size} is more than the {sums} sums of {self.terms} numbers below "
                f"{self.below}: raise below, or lower size"
            )
        return self

    def load(self) -> list[Problem]:
        return [_problem(operands) for operands in self.operands()]

    def operands(self) -> list[list[int]]:
        """The numbers of each sum in the slice."""
        sums = list(range(self.below**self.terms))  # sum 17 of two numbers below 10 is 1 + 7
        random.Random(self.seed).shuffle(sums)
        powers = [self.below**power for power in reversed(range(self.terms))]
        return [
            [number // power % self.below for power in powers] for number in sums[self.offset : self.offset + self.size]
        ]


def _problem(operands: list[int]) -> Problem:
    question = {"role": "user", "content": f"What is {' + '.join(map(str, operands))}?"}
    name = "+".join(map(str, operands))
    return Problem(id=f"arithmetic/{name}", messages=[question], reference=str(sum(operands)), task="math")
