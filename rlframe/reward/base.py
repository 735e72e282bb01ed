"""`Reward`: what a completion is worth, as a validated config and one method."""

from __future__ import annotations

from abc import ABC

from rlframe.schema import Config
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict


class Reward(Config, ABC):
    """One term of the reward. A subclass adds its settings as fields and implements `__call__` or `score_group`.

    A researcher's own lives in any file, and YAML names it by its path (`name: my_rewards.py:Short`):

        class Short(Reward):
            max_tokens: int

            def __call__(self, prompt: Prompt, completion: Completion) -> float:
                return float(len(completion.token_ids) <= self.max_tokens)

    A handle that is no setting (a process, a client) is a pydantic `PrivateAttr`, made in `start`.
    """

    name: str
    weight: float  # multiplies the score in the sum; negative: a penalty

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict:
        """The score before weighting, or a whole verdict where there is more to say than a number.

        May raise: the worker turns that into a `failed` verdict, which has no score.
        """
        raise NotImplementedError

    def score_group(self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]) -> list[float | Verdict]:
        """[G], instead of `__call__`, for a reward that compares a group's completions.

        verdicts: of the rewards of single completions, name -> [G].
        """
        raise NotImplementedError

    def start(self) -> None:
        """Begins what is slow to start, without waiting for it. Called once in each worker."""

    def close(self) -> None:
        """Gives back what `start` or a call took. Called once in each worker, at its end."""
