"""`RolloutFeed`: samples and scores the ledger's prompts on an event loop, beside the training thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rlframe.experience.background import Background
from rlframe.experience.statistics import Throughput
from rlframe.types import Completion, Prompt, RolloutGroup, SampledCompletion, Sampling, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rlframe.experience.ledger import Ledger
    from rlframe.experience.resampling import Resampling
    from rlframe.prompts.stream import PromptStream
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


class RolloutFeed:
    """Scored groups for the loop. Sampling and scoring go on while the driver waits for the learner."""

    def __init__(
        self,
        ledger: Ledger,
        stream: PromptStream,
        rollouts: RolloutPool,
        rewards: RewardPool,
        sampling: Sampling,
        resampling: Resampling,
        *,
        stall_timeout_s: float,
        warn: Callable[[str], None],
    ) -> None:
        """`warn` gets lines for the console."""
        self.ledger = ledger
        self.stream = stream
        self.rollouts = rollouts
        self.rewards = rewards
        self.sampling = sampling
        self.resampling = resampling
        self.warn = warn
        self.throughput = Throughput()
        self.taken_at = 0.0  # time.monotonic() at the end of the last `take`
        self._wait_s = 0.0
        self._in_progress: dict[str, GroupInProgress] = {}  # by prompt id; training prompts only
        self._reported_drops = 0
        self._background = Background("experience", stall_timeout_s)

    def __enter__(self) -> RolloutFeed:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels whatever is in flight."""
        self._background.close()

    def take(self, count: int) -> list[ScoredGroup]:
        """The next `count` groups in the order of admission. Admits as many new prompts as the ledger allows.

        Raises an engine's or a reward worker's error, Stalled when nothing is sampled or scored for too long, and
        RunFailed when dynamic sampling replaces too many groups.
        """
        start = time.monotonic()
        groups = self._background.run(self._take(count))
        if warning := self.resampling.end_step(self.rollouts.version + 1):
            self.warn(warning)
        self.taken_at = time.monotonic()
        self._wait_s = self.taken_at - start
        return groups

    def score(self, prompts: list[Prompt], sampling: Sampling) -> list[ScoredGroup]:
        """Samples and scores held-out prompts beside the training prompts; groups come in the order of `prompts`."""
        groups = [GroupInProgress(prompt=prompt, on_scored=lambda _: None) for prompt in prompts]
        return self._background.run(self._score(groups, sampling))

    def metrics(self) -> dict[str, float]:
        """Seconds of the last `take`; sampling speed and replaced groups since the last call; reward metrics.

        `prompts/skipped_<reason>`: positions of the prompt stream that the run has skipped so far; absent at 0.
        """
        replaced, self._reported_drops = self.ledger.dropped - self._reported_drops, self.ledger.dropped
        skipped = {f"prompts/skipped_{reason}": float(count) for reason, count in self.ledger.skipped.items()}
        return (
            self.rewards.metrics()
            | skipped
            | (self.ledger.curriculum.metrics() if self.ledger.curriculum else {})
            | {
                "rollout/tokens_per_s": self.throughput.take(),
                "rollout/groups_replaced": float(replaced),
                "time/rollout_wait_s": self._wait_s,
            }
        )

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint: see `Ledger.state`."""

        # On the event loop: after a signal, an interrupted `take` may still be changing the ledger there.
        async def read() -> dict[str, Any]:
            return self.ledger.state()

        return self._background.run(read())

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        self.ledger.restore(state)

    async def _take(self, count: int) -> list[ScoredGroup]:
        self._admit()
        while True:
            if dropped := self.ledger.drop_without_signal():
                self.resampling.add(dropped)
                self._admit()
            if (groups := self.ledger.take(count, self.rollouts.version)) is not None:
                return groups
            await self._background.wait(lambda: self._describe_stall(list(self._in_progress.values())))

    def _admit(self) -> None:
        groups = [
            GroupInProgress(prompt=attempt.prompt, on_scored=partial(self.ledger.record_score, attempt))
            for attempt in self.ledger.admit(self.stream.at, self.rollouts.version)
        ]
        self._in_progress |= {group.prompt.id: group for group in groups}
        if groups:
            self._background.start(self._sample(groups, self.sampling))

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
            if self._in_progress.get(group.prompt.id) is group:
                del self._in_progress[group.prompt.id]
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
