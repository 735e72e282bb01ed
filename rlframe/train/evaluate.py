"""Evaluation on held-out prompts by the run's own engines and rewards: pass@1, pass@k, mean reward, mean length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlframe.record.evaluations import add_evaluation, read_evaluations
from rlframe.types import Prompt, Sampling, ScoredGroup

if TYPE_CHECKING:
    from rlframe.config.train import EvaluateConfig
    from rlframe.experience.flow import RolloutFeed
    from rlframe.record.console import Console
    from rlframe.record.directory import RunDir
    from rlframe.rollout.config import RolloutConfig


class Evaluation:
    """Evaluations on held-out prompts."""

    def __init__(
        self,
        config: EvaluateConfig,
        reward: str,
        rollout: RolloutConfig,
        seed: int,
        prompts: list[Prompt],
        feed: RolloutFeed,
        files: RunDir,
    ) -> None:
        """`reward`: the name of the reward that decides which completions are right."""
        self.config = config
        self.reward = reward
        self.sampling = Sampling(
            completions=config.samples, max_tokens=rollout.max_tokens, temperature=config.temperature, seed=seed
        )
        self.prompts = prompts
        self.feed = feed
        self.files = files
        self.examples: list[tuple[str, str]] = []  # two prompts and completions of the last evaluation

    def run(self, step: int, console: Console) -> None:
        """Samples and scores every prompt, and adds a line to the run's evaluations."""
        if not self.config.every:
            return
        with console.phase("evaluating on held-out prompts"):
            groups = self.feed.score(self.prompts, self.sampling)
        figures = figures_of(groups, self.reward)
        add_evaluation(self.files.evaluations, step, figures)
        console.log(step, figures)
        self.examples = [
            (group.group.prompt.messages[-1]["content"], group.group.completions[0].text) for group in groups[:2]
        ]

    def first_and_last(self) -> tuple[dict[str, float], dict[str, float]]:
        """Figures of the run's first and last evaluation; empty without any."""
        evaluations = read_evaluations(self.files.evaluations) or [{}]
        first, last = (
            {name: value for name, value in evaluation.items() if name != "step"}
            for evaluation in (evaluations[0], evaluations[-1])
        )
        return first, last


def figures_of(groups: list[ScoredGroup], reward: str) -> dict[str, float]:
    """`eval/pass@1`, `eval/pass@k` (k: completions of a prompt), mean reward, mean length in tokens.

    A completion is right when the reward named `reward` gives it 1.
    """
    outcomes = [outcome for group in groups if (outcome := _outcomes(group, reward))]
    lengths = [float(length) for group in groups for length in group.lengths]
    rewards = [value for group in groups for value in group.rewards if value is not None]
    k = max(map(len, outcomes), default=1)
    passes = {
        f"eval/pass@{tries}": _mean(
            [pass_at(tries, len(outcome), sum(outcome)) for outcome in outcomes if len(outcome) >= tries]
        )
        for tries in sorted({1, k})
    }
    return passes | {"eval/reward": _mean(rewards), "eval/completion_tokens": _mean(lengths)}


def pass_at(k: int, n: int, correct: int) -> float:
    """The chance that at least one of k completions is right, from `correct` right completions of n.

    The unbiased estimator 1 - C(n - correct, k) / C(n, k) of Chen et al., 2021, arXiv:2107.03374.
    """
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def _outcomes(group: ScoredGroup, reward: str) -> list[bool]:
    """Right or wrong for every completion with a verdict; empty where the reward does not apply to the task."""
    return [verdict.score >= 1 for verdict in group.verdicts.get(reward, []) if verdict.score is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
