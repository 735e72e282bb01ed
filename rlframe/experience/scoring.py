"""`Scorer`: samples and scores prompts on an event loop, beside the owner's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rlframe.actors.background import Background
from rlframe.experience.statistics import Throughput
from rlframe.types import Completion, Prompt, RolloutGroup, SampledCompletion, Sampling, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rlframe.reward.pool import RewardPool
    from rlframe.rollout.pool import RolloutPool

NAMED_PROMPTS = 8  # prompts that a stall message lists


@dataclass(slots=True, kw_only=True)
class GroupInProgress:
    """A prompt's completions and verdicts, which arrive in any order."""

    prompt: Prompt
    on_scored: Callable[[ScoredGroup], object]
    completions: dict[int, Completion] = field(default_factory=dict)  # by index in the group
    verdicts: dict[int, dict[str, Verdict]] = field(default_factory=dict)  # likewise, then by reward name
    scored: ScoredGroup | None = None


class Scorer:
    """Scored groups of any prompts, as an evaluation needs them."""

    def __init__(self, rollouts: RolloutPool, rewards: RewardPool, *, stall_timeout_s: float) -> None:
        self.rollouts = rollouts
        self.rewards = rewards
        self.throughput = Throughput()
        self._background = Background("experience", stall_timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels whatever is in flight."""
        self._background.close()

    def score(self, prompts: list[Prompt], sampling: Sampling) -> list[ScoredGroup]:
        """Samples and scores prompts, held-out ones of a run beside its training prompts.

        The groups come in the order of `prompts`. Raises an engine's or a reward worker's error, and Stalled.
        """
        groups = [GroupInProgress(prompt=prompt, on_scored=lambda _: None) for prompt in prompts]
        return self._background.run(self._score(groups, sampling))

    async def _sample(self, groups: list[GroupInProgress], sampling: Sampling) -> None:
        """Samples all completions of `groups`. Completions are scored while the rest is still sampled."""
        by_prompt = {group.prompt.id: group for group in groups}
        scoring = []
        with self.throughput:
            async for sampled in self.rollouts.generate([group.prompt for group in groups], sampling):
                self.throughput.tokens += len(sampled.completion.token_ids)
                self._background.notify()
                group = by_prompt[sampled.prompt_id]
                scoring.append(asyncio.create_task(self._score_completion(group, sampled, sampling.completions)))
        await asyncio.gather(*scoring)

    async def _score_completion(self, group: GroupInProgress, sampled: SampledCompletion, size: int) -> None:
        """Scores a completion, and after the last of `size` completions the whole group."""
        group.completions[sampled.index] = sampled.completion
        group.verdicts[sampled.index] = await self.rewards.score(group.prompt, sampled.completion)
        if len(group.verdicts) == size:
            completions = [group.completions[index] for index in range(size)]
            rollouts = RolloutGroup.single_turn(group.prompt, completions)
            verdicts = [group.verdicts[index] for index in range(size)]
            group.scored = await self.rewards.score_group(rollouts, verdicts)
            group.on_scored(group.scored)
        self._background.notify()

    async def _score(self, groups: list[GroupInProgress], sampling: Sampling) -> list[ScoredGroup]:
        sampling_task = self._background.start(self._sample(groups, sampling))
        while not sampling_task.done():
            await self._background.wait(lambda: self._describe_stall(groups))
        await sampling_task
        return [group.scored for group in groups if group.scored is not None]

    def _describe_stall(self, groups: list[GroupInProgress]) -> str:
        waiting = [group for group in groups if group.scored is None]
        lines = [
            f"  {group.prompt.id}: {len(group.completions)} completions sampled, {len(group.verdicts)} scored"
            for group in waiting[:NAMED_PROMPTS]
        ]
        return (
            f"nothing was sampled or scored for {self._background.stall_timeout_s:.0f} s (cluster.stall_timeout_s); "
            f"{len(waiting)} prompts wait, engines have {self.rollouts.outstanding} completions to sample, "
            f"reward workers {self.rewards.in_flight} to score:\n" + "\n".join(lines)
        )
