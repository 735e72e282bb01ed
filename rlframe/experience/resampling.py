"""`Resampling`: the bound of dynamic sampling, and the words for a run that replaces many groups. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

from rlframe.errors import RunFailed
from rlframe.experience.outcome import Outcome, outcome_of
from rlframe.training import GroupRecord

# By the outcome of most replaced groups, all of which have equal rewards.
CAUSES: dict[Outcome, str] = {
    "failed": "The problems are too hard for this model, or the reward cannot read its answers: show a worked example "
    "(prompts.template.examples), take easier problems, raise rollout.group_size, or try the reward on saved rollouts "
    "(rlframe reward try)",
    "solved": "The problems are too easy, or all learned: take harder ones, or draw solved ones less often "
    "(prompts.curriculum)",
    "mixed": "The reward gives right and wrong answers the same score, or all completions of a prompt are alike: look "
    "at reward.terms and rollout.temperature",
}

CUT_OFF = "Most completions end before their answer: raise rollout.max_tokens, or ask for shorter ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A group without signal, in numbers."""

    outcome: Outcome
    reward: float | None  # mean over completions; None: no completion has a reward
    cut_off: float  # share of completions that ended at rollout.max_tokens


class Resampling:
    """Counts the groups that dynamic sampling replaces during a step. Too many end the run; many are warned about.

    With 8 prompts a step and `max_resampled` 10, the 81st replaced group of a step ends the run. More than 8 replaced
    groups are over half of the step's groups: a warning, and no other until a step has fewer.
    """

    def __init__(self, *, prompts_per_step: int, max_resampled: float, reward: str) -> None:
        """`reward`: the name of the reward that decides which completions are right."""
        self.prompts_per_step = prompts_per_step
        self.max_resampled = max_resampled
        self.reward = reward
        self._replaced: list[Replaced] = []  # since the last step
        self._warned = False

    def add(self, groups: list[GroupRecord]) -> None:
        """Notes replaced groups. Raises RunFailed beyond the bound, with their mean reward and the likely cause."""
        self._replaced += [self._in_numbers(group) for group in groups]
        if len(self._replaced) > self.max_resampled * self.prompts_per_step:
            outcomes = self._outcomes()
            cause = CUT_OFF if self._cut_off() > 0.5 else CAUSES[max(outcomes, key=outcomes.__getitem__)]
            raise RunFailed(
                f"dynamic sampling replaced {len(self._replaced)} groups for one step of {self.prompts_per_step} "
                f"prompts, more than max_resampled={self.max_resampled:g} times the step's prompts: {self._shares()}. "
                f"{cause}. dynamic_sampling=false trains on such groups too"
            )

    def end_step(self, step: int) -> str | None:
        """Starts the count of the next step -> a warning if most groups of this step were replaced, once a streak."""
        replaced = len(self._replaced)
        many = replaced > self.prompts_per_step
        warning = None
        if many and not self._warned:
            total = replaced + self.prompts_per_step
            warning = f"step {step}: dynamic sampling replaced {replaced} of {total} groups: {self._shares()}"
        self._warned = many
        self._replaced = []
        return warning

    def _in_numbers(self, group: GroupRecord) -> Replaced:
        rewards = [reward for reward in group.rewards if reward is not None]
        return Replaced(
            outcome=outcome_of(group, self.reward) or "mixed",
            reward=fmean(rewards) if rewards else None,
            cut_off=fmean(reason == "length" for reason in group.finish_reasons),
        )

    def _outcomes(self) -> Counter[Outcome]:
        return Counter([group.outcome for group in self._replaced])

    def _cut_off(self) -> float:
        return fmean(group.cut_off for group in self._replaced)

    def _shares(self) -> str:
        outcomes = self._outcomes()
        rewards = [group.reward for group in self._replaced if group.reward is not None]
        mean = f"mean reward {fmean(rewards):.3g}, " if rewards else ""
        wrong, right = (f"{outcomes[outcome] / outcomes.total():.0%}" for outcome in ("failed", "solved"))
        return f"{mean}{wrong} of them all wrong, {right} all right, {self._cut_off():.0%} of completions cut off"
