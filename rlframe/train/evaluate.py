"""`Evaluation`: samples and judges the held-out sets with engines and rewards of a run, and records the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.record.evaluations import MAIN_SET, add_evaluation, figure_key, first_and_last
from rlframe.record.rollouts import write_step
from rlframe.train.figures import figures_of
from rlframe.types import Prompt, Sampling, ScoredGroup

if TYPE_CHECKING:
    from rlframe.config.evaluate import SamplingKeys, SetConfig
    from rlframe.config.run import RunConfig
    from rlframe.experience.scoring import Scorer
    from rlframe.record.console import Console
    from rlframe.record.directory import RunDir


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSet:
    """A held-out set, ready to be sampled."""

    settings: SetConfig
    prompts: list[Prompt]
    sampling: Sampling
    reward: str  # name of the reward that decides if a completion is right


class Evaluation:
    """Evaluations of every held-out set."""

    def __init__(self, run: RunConfig, heldout: Mapping[str, list[Prompt]], scorer: Scorer, files: RunDir) -> None:
        """`heldout`: the prompts of each set."""
        self.sets = {
            name: OpenSet(
                settings=settings,
                prompts=heldout[name],
                sampling=sampling_of(settings, run),
                reward=settings.reward or run.deciding_reward,
            )
            for name, settings in run.held_out_sets.items()
        }
        self.run_config = run
        self.scorer = scorer
        self.files = files
        self.examples: list[tuple[str, str]] = []  # two prompts and completions of the last evaluation

    def due(self, step: int) -> bool:
        """True before the first step, after the last one, and every `evaluate.every` steps; never where that is 0."""
        every = self.run_config.evaluate.every
        return bool(every) and (step % every == 0 or step == self.run_config.steps)

    def run(self, step: int, console: Console) -> dict[str, float]:
        """Samples and scores every set; adds a line to the run's evaluations, and a file of rollouts for each set."""
        figures: dict[str, float] = {}
        for name, heldout in self.sets.items():
            with console.phase("evaluating on held-out prompts" if name == MAIN_SET else f"evaluating on {name}"):
                groups = self.scorer.score(heldout.prompts, heldout.sampling)
                figures |= self._figures(name, groups)
            unrated = [(group, [None] * len(group.rewards)) for group in groups]
            write_step(self.files.evaluation_rollouts / name, step, unrated)
            if name == MAIN_SET:
                self.examples = [
                    (group.group.prompt.messages[-1]["content"], group.group.completions[0].text)
                    for group in groups[:2]
                ]
        add_evaluation(self.files.evaluations, step, figures)
        return figures

    def first_and_last(self) -> tuple[dict[str, float], dict[str, float]]:
        """Figures of the run's first and last evaluation; empty without any."""
        return first_and_last(self.files.evaluations)

    def _figures(self, name: str, groups: list[ScoredGroup]) -> dict[str, float]:
        heldout = self.sets[name]
        reward = self.run_config.reward.terms[heldout.reward]
        try:
            figures = figures_of(groups, heldout.reward, reward, heldout.settings.tries)
        finally:
            reward.close()  # a comparison of answers may have started a process
        return {figure_key(name, figure): value for figure, value in figures.items()}


def sampling_of(settings: SamplingKeys, run: RunConfig) -> Sampling:
    """The sampling of a held-out set or a draw; a key that is null is that of training."""
    rollout = run.rollout
    return Sampling(
        completions=settings.samples,
        max_tokens=settings.max_tokens or rollout.max_tokens,
        temperature=settings.temperature,
        seed=run.seed,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_p=settings.min_p,
        stop=rollout.stop if settings.stop is None else settings.stop,
        stop_token_ids=rollout.stop_token_ids if settings.stop_token_ids is None else settings.stop_token_ids,
    )
