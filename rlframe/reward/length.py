"""Rewards of length: DAPO's punishment near the limit, and Kimi k1.5's preference for the group's shorter answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict


class SoftOverlong(Reward):
    """0 up to `max_tokens - cache_tokens`, then linearly down to -1 at `max_tokens`, and -1 beyond.

    DAPO's soft overlong punishment (Yu et al., 2025, arXiv:2503.14476, eq. 13). There the engine stops at `max_tokens`
    (20,480, of which 4,096 are the cache).
    """

    name: Literal["soft_overlong"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    max_tokens: int = Field(gt=0)
    cache_tokens: int = Field(gt=0)

    @model_validator(mode="after")
    def _cache_fits(self) -> Self:
        if self.cache_tokens > self.max_tokens:
            raise ValueError(f"cache_tokens: {self.cache_tokens} are more than max_tokens, {self.max_tokens}")
        return self

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        free = self.max_tokens - self.cache_tokens
        return min(0.0, max(-1.0, (free - len(completion.token_ids)) / self.cache_tokens))


class KimiLength(Reward):
    """λ = 0.5 - (length - shortest) / (longest - shortest) of the group for a right completion, min(0, λ) for a wrong.

    Kimi k1.5's length reward (Kimi Team, 2025, arXiv:2501.12599, section 2.3.3): from 0.5 for the shortest to -0.5 for
    the longest, and nothing for a short wrong answer. Where all are equally long, all get 0.
    """

    name: Literal["kimi_length"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    correct: str  # the reward, among the run's terms, whose score of 1 or more says that a completion is right

    def refers_to(self) -> list[str]:
        return [*self.requires, self.correct]

    def score_group(self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]) -> list[float | Verdict]:
        """[G]. Where `correct` failed, so does this. Raises ValueError where no reward has that name."""
        if self.correct not in verdicts:
            raise ValueError(f"correct: no reward of single completions is named {self.correct!r}: {sorted(verdicts)}")
        lengths = [len(completion.token_ids) for completion in group.completions]
        shortest, spread = min(lengths), max(lengths) - min(lengths)
        terms = [0.5 - (length - shortest) / spread if spread else 0.0 for length in lengths]
        return [self._of(term, verdict) for term, verdict in zip(terms, verdicts[self.correct], strict=True)]

    def _of(self, term: float, correct: Verdict) -> float | Verdict:
        if correct.score is None:
            detail = f"{self.correct!r} has no verdict: {correct.detail}"
            return Verdict(score=None, status="failed", seconds=0.0, detail=detail)
        return term if correct.score >= 1 else min(0.0, term)
