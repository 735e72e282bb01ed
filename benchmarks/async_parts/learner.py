"""`TimedLearner`: a learner that takes time, behind the interface of `learner/group.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rlframe.training import GroupRecord, PlannedSample, StepReport
from rlframe.weights.snapshot import RankShards, Snapshot

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.objective.objective import Objective


class TimedLearner:
    """A step takes `step_s` seconds, and a publication `publish_s`, in which engines go on."""

    def __init__(self, background: Background, objective: Objective, *, step_s: float, publish_s: float) -> None:
        self.background = background
        self.objective = objective
        self.step_s = step_s
        self.publish_s = publish_s
        self.version = 0

    def apply_kl_penalty(self, groups: list[GroupRecord]) -> list[GroupRecord]:
        return groups

    def step(self, *minibatches: list[PlannedSample]) -> StepReport:
        self._work(self.step_s)
        self.version += 1
        return StepReport(policy_version=self.version, metrics={})

    def publish(self, *, whole: bool) -> Snapshot:
        self._work(self.publish_s)
        shards = RankShards(base=self.version, buckets=[], deltas=[], checksums=[], names=[], bytes=0)
        return Snapshot(version=self.version, ranks=[shards])

    def _work(self, seconds: float) -> None:
        """Lets virtual time pass on the event loop, while this thread waits as for real ranks."""
        self.background.run(asyncio.sleep(seconds))
