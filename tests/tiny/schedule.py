"""A run on simulated time: engines with slots that load versions late, a learner, and the real ledger between them."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rlframe.experience.ledger import Ledger
from rlframe.types import Attempt, Late, Prompt
from tests.tiny.groups import make_record

EQUAL_REWARDS, DIFFERENT_REWARDS = make_record([1.0, 1.0], [1, 1]), make_record([1.0, 0.0], [1, 1])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run, and the random seconds of its parts."""

    late: Late
    max_staleness: int
    prompts_per_step: int
    group_size: int
    engines: int
    slots: int  # of an engine
    ahead: float = 0.1
    completion_s: Callable[[], float]
    scoring_s: Callable[[], float] = lambda: 0.0  # of a whole group
    load_s: Callable[[int], float] = lambda engine: 0.0  # from the publication of a version to the end of its load
    step_s: Callable[[], float]
    equal_rewards: Callable[[], bool] | None = None  # of a group, under dynamic sampling


@dataclass(kw_only=True)
class Engine:
    version: int = 0
    free_slots: int
    queue: deque[Group] = field(default_factory=deque)  # an entry for each completion


@dataclass(kw_only=True)
class Group:
    """A prompt's completions."""

    attempt: Attempt
    unfinished: int
    seconds: list[float] = field(default_factory=list)  # of each finished completion, its length
    oldest_version: int = 10**9  # of all tokens


@dataclass(kw_only=True)
class Taken:
    """A step's groups."""

    version: int
    groups: list[Group]


class Run:
    """Takes the ledger's groups for `steps` steps. Admission is the feed's: one prompt while the engines have room."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ledger = Ledger(
            prompts_per_step=plan.prompts_per_step,
            max_staleness=plan.max_staleness,
            dynamic_sampling=plan.equal_rewards is not None,
            late=plan.late,
        )
        self.engines = [Engine(free_slots=plan.slots) for _ in range(plan.engines)]
        self.version = 0  # the newest
        self.unfinished = 0  # completions
        self.groups: dict[str, Group] = {}  # by prompt id, until taken or dropped
        self.dropped: list[str] = []
        self.steps: list[Taken] = []
        self.now = 0.0
        self._learner_waits = True
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def go(self, steps: int) -> list[Taken]:
        """Raises IndexError where nothing happens any more: a deadlock."""
        self._decide()
        while len(self.steps) < steps:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            self._decide()
        return self.steps

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), happen))

    def _decide(self) -> None:
        """The decisions of the feed after an event."""
        on_policy = self.plan.max_staleness == 0
        for group in self.ledger.drop_without_signal():
            self.dropped.append(self.groups.pop(group.prompt_id).attempt.prompt.id)
        takes = self._learner_waits and self._engines_are_young()
        if takes and (taken := self.ledger.take(self.plan.prompts_per_step, self.version)) is not None:
            groups = [self.groups.pop(group.prompt_id) for group in taken]
            self.steps.append(Taken(version=self.version, groups=groups))
            self._learner_waits = takes = False
            self._at(self.plan.step_s(), self._publish)
        if on_policy and takes:
            for attempt in self.ledger.admit(prompt_at, self.version, self.plan.prompts_per_step):
                self._sample(attempt)
        oldest_version = min(engine.version for engine in self.engines)
        while not on_policy and self._has_room():
            if not (attempts := self.ledger.admit(prompt_at, oldest_version, limit=1)):
                break
            self._sample(attempts[0])

    def _engines_are_young(self) -> bool:
        """True if no engine is older than a step may train on: WeightSync waits for such engines."""
        return all(self.version - engine.version <= self.plan.max_staleness for engine in self.engines)

    def _has_room(self) -> bool:
        return self.unfinished < self.plan.engines * self.plan.slots * (1 + self.plan.ahead)

    def _sample(self, attempt: Attempt) -> None:
        group = Group(attempt=attempt, unfinished=self.plan.group_size)
        assert attempt.prompt.id not in self.groups
        self.groups[attempt.prompt.id] = group
        self.unfinished += self.plan.group_size
        engine = min(self.engines, key=lambda engine: len(engine.queue) - engine.free_slots)
        engine.queue += [group] * self.plan.group_size
        self._fill(engine)

    def _fill(self, engine: Engine) -> None:
        while engine.free_slots and engine.queue:
            engine.free_slots -= 1
            group, seconds = engine.queue.popleft(), self.plan.completion_s()
            group.oldest_version = min(group.oldest_version, engine.version)
            self._at(seconds, lambda engine=engine, group=group, seconds=seconds: self._end(engine, group, seconds))

    def _end(self, engine: Engine, group: Group, seconds: float) -> None:
        engine.free_slots += 1
        self.unfinished -= 1
        group.unfinished -= 1
        group.seconds.append(seconds)
        self._fill(engine)
        if not group.unfinished:
            self._at(self.plan.scoring_s(), lambda: self._score(group))

    def _score(self, group: Group) -> None:
        equal = self.plan.equal_rewards is not None and self.plan.equal_rewards()
        record = replace(EQUAL_REWARDS if equal else DIFFERENT_REWARDS, prompt_id=group.attempt.prompt.id)
        assert self.ledger.record_score(group.attempt.key, record)

    def _publish(self) -> None:
        self.version += 1
        self._learner_waits = True
        for index, engine in enumerate(self.engines):
            self._at(self.plan.load_s(index), lambda engine=engine, version=self.version: self._load(engine, version))

    def _load(self, engine: Engine, version: int) -> None:
        engine.version = max(engine.version, version)


def prompt_at(position: int) -> Prompt:
    return Prompt(id=f"o{position}", messages=[], token_ids=[1], reference="", task="math")


def lognormal(rng: random.Random, *, median: float, sigma: float, cap: float) -> Callable[[], float]:
    return lambda: min(cap, median * math.exp(rng.gauss(0.0, sigma)))
