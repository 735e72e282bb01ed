"""The same pools on held-out prompts: pass@1, pass@k, length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlframe.types import Prompt, Sampling, ScoredGroup

if TYPE_CHECKING:
    from rlframe.config.train import EvaluateConfig
    from rlframe.experience.flow import Experience
    from rlframe.record.console import Console
    from rlframe.record.directory import RunDir
    from rlframe.rollout.config import RolloutConfig


class HeldOut:
    """Held-out prompts, and what the policy made of them each time."""

    def __init__(
        self,
        config: EvaluateConfig,
        reward: str,
        rollout: RolloutConfig,
        seed: int,
        prompts: list[Prompt],
        experience: Experience,
        files: RunDir,
    ) -> None:
        self.config = config
        self.reward = reward  # that decides what is right
        self.sampling = Sampling(
            completions=config.samples, max_tokens=rollout.max_tokens, temperature=config.temperature, seed=seed
        )
        self.prompts = prompts
        self.experience = experience
        self.files = files
        self.examples: list[tuple[str, str]] = []  # two prompts and completions of the last time

    def run(self, step: int, console: Console) -> None:
        """Draws and scores every prompt, and adds a line to the run's evaluations."""
        if not self.config.every:
            return
        with console.phase("evaluating on held-out prompts"):
            groups = self.experience.score(self.prompts, self.sampling)
        figures = report(groups, self.reward)
        self.files.add_evaluation(step, figures)
        console.log(step, figures)
        self.examples = [
            (group.group.prompt.messages[-1]["content"], group.group.completions[0].text) for group in groups[:2]
        ]

    def before_and_after(self) -> tuple[dict[str, float], dict[str, float]]:
        """Figures of the run's first evaluation and of its last; empty where there was none."""
        rows = self.files.read_evaluations() or [{}]
        return _figures(rows[0]), _figures(rows[-1])


def report(groups: list[ScoredGroup], reward: str) -> dict[str, float]:
    """`eval/pass@1`, `eval/pass@k` (k: completions of a prompt), mean reward, mean length in tokens.

    A completion is right when the reward named `reward` gives it 1.
    """
    outcomes = [_outcomes(group, reward) for group in groups]
    judged = [outcome for outcome in outcomes if outcome]
    lengths = [float(len(completion.token_ids)) for group in groups for completion in group.group.completions]
    rewards = [value for group in groups for value in group.rewards if value is not None]
    k = max((len(outcome) for outcome in judged), default=1)
    passes = {
        f"eval/pass@{tries}": _mean([pass_at(tries, len(o), sum(o)) for o in judged if len(o) >= tries])
        for tries in sorted({1, k})
    }
    return passes | {"eval/reward": _mean(rewards), "eval/completion_tokens": _mean(lengths)}


def pass_at(k: int, n: int, correct: int) -> float:
    """The chance that one of k completions is right, from `correct` of n: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al., 2021, arXiv:2107.03374.
    """
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def _outcomes(group: ScoredGroup, reward: str) -> list[bool]:
    """Right or wrong, for every completion that has a verdict; none where the reward does not speak on the task."""
    return [verdict.score >= 1 for verdict in group.verdicts.get(reward, []) if verdict.score is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _figures(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step"}
