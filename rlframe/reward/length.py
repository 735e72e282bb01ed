"""Rewards of length: DAPO's penalty near the token limit, and Kimi k1.5's preference for a group's short answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict


class SoftOverlong(Reward):
    """0 up to `max_tokens - cache_tokens`, then linearly down to -1 at `max_tokens`, and -1 beyond.

    DAPO's soft overlong punishment (Yu et al., 2025, arXiv:2503.14476, eq. 13). DAPO stops generation at `max_tokens`
    (20,480 tokens, of which 4,096 are the cache).
    """

    reads_tokens = True
    name: Literal["soft_overlong"]
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
    """λ = 0.5 - (length - shortest) / (longest - shortest) for a correct completion, min(0, λ) for a wrong one.

    Kimi k1.5's length reward (Kimi Team, 2025, arXiv:2501.12599, section 2.3.3). Correct completions score from 0.5
    (the group's shortest) to -0.5 (the longest); a short wrong answer gains nothing. Equal lengths score 0.
    """

    reads_tokens = True
    name: Literal["kimi_length"]
    correct: str  # name of the reward whose score of 1 or more marks a completion as correct

    def refers_to(self) -> list[str]:
        return [*self.requires, self.correct]

    def score_group(self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]) -> list[float | Verdict]:
        """[G] scores; `failed` for a completion on which `correct` failed.

        Raises ValueError if no reward has the name `correct`.
        """
        if self.correct not in verdicts:
            raise ValueError(f"correct: no reward of single completions is named {self.correct!r}: {sorted(verdicts)}")
        lengths = [len(completion.token_ids) for completion in group.completions]
        shortest, spread = min(lengths), max(lengths) - min(lengths)
        lambdas = [0.5 - (length - shortest) / spread if spread else 0.0 for length in lengths]
        return [self._score(*pair) for pair in zip(lambdas, verdicts[self.correct], strict=True)]

    def _score(self, length_term: float, correct: Verdict) -> float | Verdict:
        if correct.score is None:
            detail = f"{self.correct!r} has no verdict: {correct.detail}"
            return Verdict(score=None, status="failed", seconds=0.0, detail=detail, final=True)
        return length_term if correct.score >= 1 else min(0.0, length_term)
