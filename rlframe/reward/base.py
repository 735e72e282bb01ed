"""`Reward`: what a completion is worth, as a validated config and one method."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from rlframe.schema import Config
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict

if TYPE_CHECKING:
    from typing import Self


class ActorsOfItsOwn(Config):
    """Worker processes that run one reward and no other: for a model on a GPU, or for packages that others lack."""

    count: int = Field(ge=1)
    cpus: float = Field(ge=0)
    gpus: float = Field(ge=0)
    pip: list[str]  # installed into these workers' environment alone, by Ray


class Reward(Config):
    """One term of the reward. A subclass adds its settings as fields and implements `__call__` or `score_group`.

    A researcher's own lives in any file, and YAML names it by its path (`name: my_rewards.py:Short`):

        class Short(Reward):
            max_tokens: int

            def __call__(self, prompt: Prompt, completion: Completion) -> float:
                return float(len(completion.token_ids) <= self.max_tokens)

    A handle that is no setting (a process, a client) is a pydantic `PrivateAttr`, made in `start`. What may be left
    out of the YAML below is off where it is.
    """

    name: str
    weight: float  # multiplies the score in the sum; negative: a penalty
    tasks: list[str] | None = None  # of the prompts that it speaks on; None: all
    requires: list[str] = Field(default_factory=list)  # other rewards that must be 1, else this one counts 0
    clip: list[float] | None = Field(default=None, min_length=2, max_length=2)  # the score's bounds before weighting
    actors: ActorsOfItsOwn | None = None  # None: in the workers that all rewards share

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict | Awaitable[float | Verdict]:
        """The score before weighting, or a whole verdict where there is more to say than a number.

        `async def` lets one worker wait for many completions at a time. May raise: the worker turns that into a
        `failed` verdict, which has no score.
        """
        raise TypeError(f"{type(self).__name__} looks at groups: call score_group")

    def score_group(
        self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]
    ) -> list[float | Verdict] | Awaitable[list[float | Verdict]]:
        """[G] scores, for a reward that compares a prompt's completions; may be `async def`.

        `verdicts`: name -> [G], of the rewards that look at one completion. Called once all of those are there.
        """
        raise TypeError(f"{type(self).__name__} looks at one completion: call it")

    def looks_at_group(self) -> bool:
        return type(self).score_group is not Reward.score_group

    def refers_to(self) -> list[str]:
        """Names of the other rewards that this one's settings speak of."""
        return self.requires

    def check(self, reference: str) -> None:
        """Raises ValueError where a prompt's reference will not do. Asked for every problem before a run starts."""

    def facts(self) -> dict[str, float]:
        """What a worker's log should say of this reward once it has started: a level, a size."""
        return {}

    def start(self) -> None:
        """Begins what is slow to start. Called once in each worker; what it raises ends the run at its start."""

    def close(self) -> None:
        """Gives back what `start` or a call took. Called once in each worker, at its end."""

    @model_validator(mode="after")
    def _scores(self) -> Self:
        if self.looks_at_group() == (type(self).__call__ is not Reward.__call__):
            raise ValueError(f"{type(self).__name__} must define one of __call__ and score_group")
        if self.clip is not None and self.clip[0] > self.clip[1]:
            raise ValueError(f"clip: its lower bound {self.clip[0]} is above its upper bound {self.clip[1]}")
        return self
