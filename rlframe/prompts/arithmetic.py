"""Sums of two numbers: a task that a small policy learns in minutes, made without any file."""

from __future__ import annotations

import random
from typing import Literal

from pydantic import Field, model_validator

from rlframe.prompts.base import Source
from rlframe.types import Problem


class Arithmetic(Source):
    """`What is a + b?` with both operands in [0, below).

    `seed` shuffles all below * below pairs, and the source is the slice [offset, offset + size) of the pairs.
    Two sources with the same `below` and `seed` share no pair if their slices do not overlap: this keeps
    held-out problems apart from training problems. Example: offset 0 and size 64, offset 64 and size 2436.
    """

    name: Literal["arithmetic"]
    below: int = Field(ge=1, le=1000)  # at most a million pairs, shuffled in memory
    seed: int
    offset: int = Field(ge=0)
    size: int = Field(ge=1)

    @model_validator(mode="after")
    def _slice_lies_within_the_pairs(self) -> Arithmetic:
        if self.offset + self.size > self.below**2:
            raise ValueError(
                f"offset {self.offset} + size {self.size} is more than the {self.below**2} pairs below {self.below}: "
                "raise below, or lower size"
            )
        return self

    def load(self) -> list[Problem]:
        pairs = list(range(self.below**2))  # pair p is (p // below, p % below)
        random.Random(self.seed).shuffle(pairs)
        return [self._problem(*divmod(pair, self.below)) for pair in pairs[self.offset : self.offset + self.size]]

    @staticmethod
    def _problem(a: int, b: int) -> Problem:
        question = {"role": "user", "content": f"What is {a} + {b}?"}
        return Problem(id=f"arithmetic/{a}+{b}", messages=[question], reference=str(a + b), task="math")
