"""`Actors`: a run's roles behind typed handles. Engines can be added and replaced while the run goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.errors import RunFailed
from rlframe.rollout.messages import EngineSeat

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.cluster.starter import Starter
    from rlframe.learner.group import LearnerGroup
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.rollout.pool import RolloutPool
    from rlframe.weights.sync import WeightSync

JOIN_POLL_S = 0.1  # between two looks whether an engine serves


@dataclass(frozen=True, slots=True, kw_only=True)
class Actors:
    """A run's roles. A role that the run did not ask for is None."""

    starter: Starter
    background: Background  # the event loop of the run's calls to actors
    rollouts: RolloutPool | None
    episodes: EpisodePool | None  # of a run with engines and rewards
    learner: LearnerGroup | None
    weights: WeightSync | None  # of a run with engines and a learner

    def add_engine(self) -> Replica:
        """Starts a further engine, which serves with the current weights once this returns.

        For any thread but the background's. An engine that received wrong weights is quarantined until the next sync;
        with weights.backend=nccl a further engine serves from the next sync on. Raises Stalled where the engine does
        not start within `cluster.start_timeout_s`, perhaps for lack of resources, and RunFailed in a run without
        engines.
        """
        if self.rollouts is None:
            raise RunFailed("this run has no engines, so none can be added: the role rollout was not started")
        replica = self.starter.start_late_engine()
        self.rollouts.replicas.join(replica)
        try:
            self.weights.bring(replica) if self.weights else self.rollouts.replicas.serve(replica)
            self.background.run(self._join(replica))
        except BaseException:
            self.rollouts.replicas.end(replica.name)
            ray.kill(replica.handle)
            raise
        return replica

    def replace_engine(self, name: str, reason: str) -> None:
        """Ends a broken engine, whose devices another engine may need, and adds an engine in its place.

        For any thread but the background's. Episode workers have given the completions of a broken engine to others
        already. Raises RunFailed with the reason where no engine can be added.
        """
        if self.rollouts is None or self.episodes is None:
            raise RunFailed(f"{name} is broken, and this run has no role to replace it: {reason}")
        self.starter.warn(f"{name} is broken, and another engine takes its place: {reason}")
        broken = self.rollouts.replicas[name]
        self.rollouts.replicas.end(name)
        self.background.run(self.episodes.leave_engine(name))
        ray.kill(broken.handle)
        try:
            self.add_engine()
        except RunFailed as error:
            raise RunFailed(f"{name} was broken ({reason}), and no engine can take its place: {error}") from error

    async def _join(self, replica: Replica) -> None:
        """Gives an engine work: now if it serves, else once it does."""
        if replica.state == ReplicaState.SERVING:
            await self._seat(replica)
        else:
            self.background.start(self._join_later(replica))

    async def _join_later(self, replica: Replica) -> None:
        while replica.state in (ReplicaState.STARTING, ReplicaState.QUARANTINED):
            await asyncio.sleep(JOIN_POLL_S)
        if replica.state == ReplicaState.SERVING:
            await self._seat(replica)

    async def _seat(self, replica: Replica) -> None:
        if self.episodes is not None:
            slots = self.starter.run.rollout.slots
            await self.episodes.join_engine(EngineSeat(name=replica.name, handle=replica.handle, slots=slots))
