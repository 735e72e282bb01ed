"""Episode workers over timed engines and rewards: the same in the simulator's process and as Ray actors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.async_parts.engine import TimedEngine
from benchmarks.async_parts.judge import TimedJudge
from benchmarks.async_parts.learner import TimedLearner
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineSeat

if TYPE_CHECKING:
    from benchmarks.async_parts.settings import Scale
    from rlframe.config.run import RunConfig
    from rlframe.types import ScoredGroup


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The classes that take time; each may be a model of other hardware."""

    engine: type[TimedEngine] = TimedEngine
    judge: type[TimedJudge] = TimedJudge
    learner: type[TimedLearner] = TimedLearner

    def engines(self, scale: Scale) -> list[TimedEngine]:
        """All engines of a run; the first is slow by the factor `Scale.slow`."""
        speeds = [scale.token_s * scale.slow] + [scale.token_s] * (scale.engines - 1)
        return [
            self.engine(f"rollout-{number}", slots=scale.slots, token_s=token_s, load_s=scale.load_s)
            for number, token_s in enumerate(speeds)
        ]


class TimedEpisodes(EpisodeWorker):
    """An episode worker with engines of its own process."""

    def __init__(
        self,
        name: str,
        engines: list[TimedEngine],
        judge: TimedJudge,
        run: RunConfig,
        *,
        put: Callable[[ScoredGroup], Any],
        rest_s: float,
    ) -> None:
        self.engines = engines
        bounds = run.rollout.bounds(run.cluster.stall_timeout_s)
        settings = {"ahead": run.rollout.ahead, "put": put, "bounds": bounds, "rest_s": rest_s}
        super().__init__(name, seats(engines), lambda: _rewards(run, judge), **settings)


def seats(engines: list[TimedEngine]) -> list[EngineSeat]:
    return [EngineSeat(name=engine.name, handle=InProcess(engine), slots=engine.slots) for engine in engines]


def _rewards(run: RunConfig, judge: TimedJudge) -> RewardPool:
    """A pool of a single reward worker that any number of calls reach."""
    names = list(run.reward.terms)
    workers = Replicas("reward worker", [Replica(name="reward-0", handle=InProcess(judge))])
    shares = [RewardWorkers(names, workers, max_in_flight=1 << 30, max_deaths=1)]
    return RewardPool(run.reward.terms, shares, attempts=1, max_failed_share=1.0)
