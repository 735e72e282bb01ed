"""`Actors`: a run's roles behind typed handles. Engines can be added and removed while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.errors import RunFailed

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.actors.replicas import Replica
    from rlframe.cluster.fleet import Fleet
    from rlframe.cluster.learner_starter import LearnerStarter
    from rlframe.cluster.supervisor import Supervisor
    from rlframe.learner.group import LearnerGroup
    from rlframe.reward.pool import RewardPool
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.rollout.pool import RolloutPool
    from rlframe.weights.sync import WeightSync


@dataclass(frozen=True, slots=True, kw_only=True)
class Actors:
    """A run's roles. A role that the run did not ask for is None. Methods are for any thread but the background's."""

    starter: LearnerStarter
    background: Background  # the event loop of the run's calls to actors
    learner: LearnerGroup | None = None
    rollouts: RolloutPool | None = None
    episodes: EpisodePool | None = None  # of a run with engines and rewards
    rewards: RewardPool | None = None  # of a run with rewards and no engines, for the background's event loop
    weights: WeightSync | None = None  # of a run with engines and a learner
    fleet: Fleet | None = None  # of a run with engines
    supervisor: Supervisor | None = None  # likewise

    def add_engine(self) -> Replica:
        """Starts a further engine, which serves with the current weights once this returns.

        With weights.backend=nccl it serves from the next sync on. Raises the engine's error, and RunFailed in a run
        without engines.
        """
        if self.fleet is None:
            raise RunFailed("this run has no engines, so none can be added: the role rollout was not started")
        return self.background.run(self.fleet.add())

    def remove_engine(self, name: str) -> None:
        """Lets an engine hand over its unfinished completions, and ends it."""
        assert self.fleet is not None, "no engine can be removed from a run without engines"
        self.background.run(self.fleet.remove(name))
