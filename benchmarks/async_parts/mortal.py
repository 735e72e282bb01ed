"""Timed parts that die: an engine whose process ends, a learner whose ranks are lost, and the actors of new engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from ray.exceptions import ActorDiedError

from benchmarks.async_parts.engine import TimedEngine
from benchmarks.async_parts.learner import TimedLearner
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.errors import LearnerLost
from rlframe.rollout.messages import EngineProgress
from rlframe.training import Loaded, PlannedSample, StepReport
from rlframe.types import SampledCompletion


class MortalEngine(TimedEngine):
    """A timed engine whose process may end. Tokens that it has not told are lost with it."""

    def __init__(self, name: str, *, slots: int, token_s: float, load_s: float) -> None:
        super().__init__(name, slots=slots, token_s=token_s, load_s=load_s)
        self.dead = False
        self.lost_tokens = 0  # sampled and not told before the death: another engine samples them again

    async def generate(self, *arguments: Any, **named: Any) -> AsyncIterator[SampledCompletion]:
        if not self.dead:
            async for sampled in super().generate(*arguments, **named):
                yield sampled
        if self.dead:
            raise ActorDiedError

    async def load(self, snapshot: Any) -> Loaded:
        loaded = await super().load(snapshot)
        if self.dead:
            raise ActorDiedError
        return loaded

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        if self.dead:
            raise ActorDiedError
        return await super().progress(with_partials)

    def die(self) -> None:
        self._look()
        self.dead = True
        unfinished = [*self._running, *self._queue]
        self.lost_tokens = sum(max(0, self._tokens(request).end - request.told) for request in self._running)
        self._abort(unfinished)
        for request in unfinished:
            request.arrivals.put_nowait(None)


class MortalLearner(TimedLearner):
    """A timed learner that is lost in the middle of a step, when `death` says so."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.death: Callable[[], float | None] = lambda: None  # asked at each step: its share until the ranks die
        self.furthest = 0  # the newest version so far
        self.steps_again = 0  # whole steps that were taken before
        self.again_s = 0.0  # in these
        self.cut_s = 0.0  # in steps that a death ended

    def step(self, *minibatches: list[PlannedSample]) -> StepReport:
        if (share := self.death()) is not None:
            self._work(share * self.step_s)
            self.cut_s += share * self.step_s
            raise LearnerLost(f"the ranks died in step {self.version + 1}")
        report = super().step(*minibatches)
        if report.policy_version <= self.furthest:
            self.steps_again += 1
            self.again_s += self.step_s
        self.furthest = max(self.furthest, report.policy_version)
        return report

    def begin_anew(self) -> None:
        self.version = 0

    def dead_ranks(self) -> list[str]:
        """Ranks are never dead while an engine loads: a publication outlives them."""
        return []


class TimedEngineActors:
    """Makes further engines, each of which takes `start_s` to start: the side of the actors, `cluster/engines.py`."""

    def __init__(self, make: Callable[[str], TimedEngine], made: int, start_s: float) -> None:
        """`made`: engines that there are already."""
        self.make = make
        self.made = made
        self.start_s = start_s

    def make_further(self) -> Replica:
        name, self.made = f"rollout-{self.made}", self.made + 1
        return Replica(name=name, handle=InProcess(self.make(name)), state=ReplicaState.STARTING)

    async def start(self, engine: Replica) -> None:
        await asyncio.sleep(self.start_s)

    async def end(self, engine: Replica) -> str:
        return ""
