"""`RolloutFeed`: samples and scores the ledger's prompts on an event loop, beside the training thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rlframe.batch.records import to_record
from rlframe.experience.scoring import GroupInProgress, Scorer
from rlframe.training import GroupRecord
from rlframe.types import Attempt, Sampling, ScoredGroup

if TYPE_CHECKING:
    from rlframe.experience.ledger import Ledger
    from rlframe.experience.resampling import Resampling
    from rlframe.prompts.stream import PromptStream
    from rlframe.reward.pool import RewardPool
    from rlframe.rollout.pool import RolloutPool


class RolloutFeed(Scorer):
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
        super().__init__(rollouts, rewards, stall_timeout_s=stall_timeout_s)
        self.ledger = ledger
        self.stream = stream
        self.sampling = sampling
        self.resampling = resampling
        self.warn = warn
        self.taken_at = 0.0  # time.monotonic() at the end of the last `take`
        self._wait_s = 0.0
        self._in_progress: dict[tuple[str, int], GroupInProgress] = {}  # by prompt id and attempt
        self._reported_drops = 0

    def take(self, count: int) -> list[GroupRecord]:
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

    async def _take(self, count: int) -> list[GroupRecord]:
        self._admit()
        while True:
            if dropped := self.ledger.drop_without_signal():
                self.resampling.add(dropped)
                self._admit()
            if (groups := self.ledger.take(count, self.rollouts.version)) is not None:
                return groups
            await self._background.wait(lambda: self._describe_stall(list(self._in_progress.values())))

    def _admit(self) -> None:
        attempts = self.ledger.admit(self.stream.at, self.rollouts.version)
        groups = [
            GroupInProgress(prompt=attempt.prompt, on_scored=partial(self._record, attempt)) for attempt in attempts
        ]
        self._in_progress |= {
            (attempt.prompt.id, attempt.number): group for attempt, group in zip(attempts, groups, strict=True)
        }
        if groups:
            self._background.start(self._sample(groups, self.sampling))

    def _record(self, attempt: Attempt, group: ScoredGroup) -> None:
        self.ledger.record_score(attempt, to_record(group, self.rollouts.put(group), "driver"))
        del self._in_progress[attempt.prompt.id, attempt.number]
