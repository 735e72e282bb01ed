"""Problems that reasoning_gym generates: a hundred families of puzzles, each endless, with known answers."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from pydantic import Field

from rlframe.prompts.base import Problems, Source
from rlframe.types import Problem

MAX_SIZE = 1_000_000


class ReasoningGym(Source):
    """`size` problems of one family, e.g. `chain_sum` with params {"min_terms": 2, "max_terms": 4}.

    reasoning_gym generates entry i from `seed + i`, so neighbouring seeds would share nearly all entries. This source
    multiplies its seed by MAX_SIZE: two sources with different seeds share no entry seed, and a held-out set needs
    only another seed. (A family with few puzzles can still generate the same puzzle twice.)
    """

    name: Literal["reasoning_gym"]
    family: str
    params: dict[str, Any]  # settings of the family; a missing key has the family's default
    seed: int = Field(ge=0)
    size: int = Field(ge=1, le=MAX_SIZE)
    task: str

    def load(self) -> Problems:
        """Raises ValueError if the family does not exist, or refuses the settings."""
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
        return _Generated(entries, self)


class _Generated:
    """Entries as problems; an entry is generated on access."""

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
