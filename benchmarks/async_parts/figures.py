"""`Figures`: what a run took, beside the bound on its speed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.async_parts.trace import Work

if TYPE_CHECKING:
    from benchmarks.async_parts.settings import Scale
    from rlframe.training import GroupRecord


@dataclass(kw_only=True)
class Figures:
    """Counts of a run, step by step. The age of a token: policy versions between its sampling and its training."""

    scale: Scale
    completions: int = 0  # trained
    longest: int = 0  # tokens of a trained completion
    tokens_by_age: Counter[int] = field(default_factory=Counter)  # trained
    seconds: float = 0.0  # to the end of the last step
    busy_slot_s: float = 0.0  # slots in use, integrated over the seconds
    driver_s: float = 0.0  # of CPU: episode pool, flow and ledger

    def note(self, step: int, groups: list[GroupRecord]) -> None:
        """Counts the groups on which `step` trained."""
        policy = step - 1
        for group in groups:
            for trajectory in group.trajectories:
                self.completions += 1
                self.longest = max(self.longest, trajectory.sampled_tokens)
                for span in trajectory.versions:
                    self.tokens_by_age[policy - span.version] += span.end - span.start

    def end(self, seconds: float, *, busy_slot_s: float, driver_s: float) -> None:
        self.seconds, self.busy_slot_s, self.driver_s = seconds, busy_slot_s, driver_s

    @property
    def tokens(self) -> int:
        return self.tokens_by_age.total()

    @property
    def work(self) -> Work:
        return Work(
            tokens=self.tokens,
            longest=self.longest,
            slots=self.scale.full_slots,
            token_s=self.scale.token_s,
            learner_s=self.scale.steps * self.scale.step_s,
        )

    @property
    def share_of_bound(self) -> float:
        return self.work.bound_s / self.seconds

    @property
    def mean_age(self) -> float:
        return sum(age * tokens for age, tokens in self.tokens_by_age.items()) / self.tokens

    @property
    def largest_age(self) -> int:
        return max(self.tokens_by_age)

    def older_than(self, age: int) -> float:
        """Share of tokens."""
        return sum(tokens for older, tokens in self.tokens_by_age.items() if older > age) / self.tokens

    @property
    def slots_idle(self) -> float:
        """Share of the slot seconds."""
        return 1 - self.busy_slot_s / (self.seconds * self.scale.engines * self.scale.slots)

    @property
    def learner_idle(self) -> float:
        """Share of the seconds."""
        return 1 - self.work.learner_s / self.seconds

    @property
    def driver_ms(self) -> float:
        """CPU milliseconds for each completion."""
        return 1000 * self.driver_s / self.completions
