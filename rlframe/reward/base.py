"""`Reward`, the base class of every reward: validated settings and a method that scores."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from rlframe.schema import Config, LabelSelector
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict

if TYPE_CHECKING:
    from typing import Self


class DedicatedWorkers(Config):
    """Worker processes that run a single reward: a model on a GPU, or packages that other rewards lack."""

    count: int = Field(ge=1)
    cpus: float = Field(ge=0)
    gpus: float = Field(ge=0)
    pip: list[str]  # packages that Ray installs for the workers of this reward only
    labels: LabelSelector | None = None  # of the workers' nodes; None: as reward.labels


class Reward(Config):
    """A term of a completion's reward: settings, and a method that scores.

    To write a reward, subclass this class in any file, declare the settings as fields, and define one method:
    `__call__` scores a completion, `score_group` compares all completions of a prompt. In `my_rewards.py`:

        class Short(Reward):
            reads_tokens = True
            max_tokens: int

            def __call__(self, prompt: Prompt, completion: Completion) -> float:
                return float(len(completion.token_ids) <= self.max_tokens)

    YAML picks the class by import path and gives the term a name:

        reward: {terms: {short: {name: my_rewards.py:Short, weight: 0.2, max_tokens: 100}}}

    The completion's reward is the weighted sum of its terms: math (weight 0.8) scores 1 and short (weight 0.2)
    scores 0.5, so the reward is 0.8 * 1 + 0.2 * 0.5 = 0.9.

    Before a run starts, the driver calls `check` on the references of all held-out problems, and of as many training
    problems as it reads in some seconds. Each worker process calls `start`, scores many completions, and calls `close`.
    Settings are frozen, so a process or a client is a pydantic `PrivateAttr` that `start` sets.
    """

    reads_tokens: ClassVar[bool] = False  # True: needs `completion.token_ids`, which completions of an endpoint lack
    max_calls: ClassVar[int | None] = None  # `async` calls of a worker at the same time; further ones wait, untimed

    name: str
    weight: float  # factor of the score in the sum; negative: a penalty
    # Optional settings default to off.
    tasks: list[str] | None = None  # tasks whose prompts are scored; None: all tasks
    requires: list[str] = Field(default_factory=list)  # count 0 unless these rewards score 1 or more
    clip: list[float] | None = Field(default=None, min_length=2, max_length=2)  # bounds of the score before weighting
    actors: DedicatedWorkers | None = None  # None: use the workers that all rewards share

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict | Awaitable[float | Verdict]:
        """Scores a completion, before weighting. Returns a number, or a `Verdict` to add a status and a detail.

        Use `async def` to wait for a server: a worker then awaits many calls at a time. All other rewards of a worker
        share one thread. An exception becomes a `failed` verdict, which has no score.
        """
        raise TypeError(f"{type(self).__name__} looks at groups: call score_group")

    def score_group(
        self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]
    ) -> list[float | Verdict] | Awaitable[list[float | Verdict]]:
        """Scores all G completions of a prompt, in the order of `group.completions`; may be `async def`.

        `verdicts`: reward name -> [G], of every reward that scores single completions. These are complete by now.
        """
        raise TypeError(f"{type(self).__name__} looks at one completion: call it")

    def looks_at_group(self) -> bool:
        """True for a reward that defines `score_group`."""
        return type(self).score_group is not Reward.score_group

    def refers_to(self) -> list[str]:
        """Names of other rewards in this reward's settings; the run must have them."""
        return self.requires

    def check(self, reference: str) -> None:
        """Raises ValueError for a reference that this reward cannot use."""

    def check_prompt(self, text: str) -> None:
        """Raises ValueError if no completion of `text`, a rendered prompt, can be scored as the settings say.

        The message starts with the setting.
        """

    def tags(self) -> list[str]:
        """Texts that the reward looks for in completions, such as `</think>`; none may be a special token."""
        return []

    def final_answer(self, completion: Completion) -> str | None:
        """The answer with which a completion votes in cons@n of an evaluation; None: no vote.

        A reward that defines this method gets the figure cons@n.
        """
        return None

    def same_answer(self, answer: str, other: str) -> bool:
        """True if two final answers vote together."""
        return answer == other

    def has_final_answers(self) -> bool:
        """True for a reward that defines `final_answer`."""
        return type(self).final_answer is not Reward.final_answer

    def slowest_s(self) -> float:
        """Seconds that a call may take by the reward's own settings; `reward.timeout_s` must be longer."""
        return 0.0

    def facts(self) -> dict[str, float]:
        """Metrics of a started reward for the run's log, such as the isolation of its sandbox."""
        return {}

    def start(self) -> None:
        """Starts slow resources, such as a process or a model. An exception ends the run at its start."""

    async def ready(self) -> None:
        """Waits for what `start` has begun, before each `async` call and outside of its time limit."""

    def close(self) -> None:
        """Releases all resources. Called at the end of each worker, and on the driver after the last `check`."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.looks_at_group() == (type(self).__call__ is not Reward.__call__):
            raise ValueError(f"{type(self).__name__} must define one of __call__ and score_group")
        if self.clip is not None and self.clip[0] > self.clip[1]:
            raise ValueError(f"clip: its lower bound {self.clip[0]} is above its upper bound {self.clip[1]}")
        return self
