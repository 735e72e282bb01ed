"""Problems that reasoning_gym makes: a hundred families of puzzles, each endless and with a known answer."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from pydantic import Field

from rlframe.prompts.base import Problems, Source
from rlframe.types import Problem

MAX_SIZE = 1_000_000


class ReasoningGym(Source):
    """`size` problems of one family, e.g. `chain_sum` with params {"min_terms": 2, "max_terms": 4}.

    reasoning_gym draws entry i from `seed + i`, so its neighbouring seeds share all entries but one. Here seeds lie
    MAX_SIZE apart: sources of different seeds draw apart, and a held-out set needs only another seed. (A family
    with few puzzles can still draw the same one twice.)
    """

    name: Literal["reasoning_gym"]
    family: str
    params: dict[str, Any]  # the family's own settings; its defaults where they say nothing
    seed: int = Field(ge=0)
    size: int = Field(ge=1, le=MAX_SIZE)
    task: str

    def load(self) -> Problems:
        """Raises ValueError: no such family, or settings that the family refuses."""
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if self.family not in DATASETS:
            near = difflib.get_close_matches(self.family, DATASETS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(DATASETS))}"
            raise ValueError(f"family: reasoning_gym has no {self.family!r}; {hint}")
        try:
            entries = reasoning_gym.create_dataset(
                self.family, seed=self.seed * MAX_SIZE, size=self.size, **self.params
            )
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"params: {self.family} refuses {self.params}: {error}") from error
        return _Drawn(entries, self)


class _Drawn:
    """Entries as problems, each drawn when it is asked for."""

    def __init__(self, entries: Any, source: ReasoningGym) -> None:
        self._entries = entries
        self._source = source

    def __len__(self) -> int:
        return self._source.size

    def __getitem__(self, index: int) -> Problem:
        entry, source = self._entries[index], self._source
        problem_id = f"{source.family}/{source.seed}/{index}"
        if entry["answer"] is None:
            raise ValueError(f"{problem_id}: the family {source.family} gives no answer to compare with")
        question = {"role": "user", "content": entry["question"]}
        return Problem(id=problem_id, messages=[question], reference=str(entry["answer"]), task=source.task)
