"""A whole run of the real feed on a virtual clock: engines, rewards and a learner that only take time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from benchmarks.async_parts.clock import VirtualBackground
from benchmarks.async_parts.engine import TimedEngine
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.experience.flow import RolloutFeed
from rlframe.experience.journal import Journal
from rlframe.experience.ledger import Ledger
from rlframe.experience.resampling import Resampling
from rlframe.record.generation import Generation
from rlframe.record.ledger_log import LedgerLog
from rlframe.reward import build
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineSeat
from rlframe.rollout.pool import RolloutPool
from rlframe.training import GroupRecord
from rlframe.types import Completion, Late, Prompt, Sampling, Verdict
from tests.tiny.episodes import BOUNDS, MATH


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a run, and the seconds of its parts."""

    late: Late
    max_staleness: int
    prompts_per_step: int = 8
    group_size: int = 8
    engines: int = 4
    slots: int = 32  # of an engine
    ahead: float = 0.1
    workers: int = 1  # episode workers
    token_s: float = 0.001
    lengths: Callable[[int], list[int]]  # position of a prompt -> tokens of its completions
    scoring_s: Callable[[], float] = lambda: 0.0
    load_s: Callable[[int], float] = lambda engine: 0.0  # from the publication of a version to the engine's load
    step_s: Callable[[], float]
    dynamic_sampling: bool = False


@dataclass(kw_only=True)
class TimedJudge:
    """Every second verdict is right, in the order of the verdicts, and of some prompts all are wrong."""

    seconds: Callable[[], float]
    hopeless: Callable[[Prompt], bool]
    scored: int = 0

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        if seconds := self.seconds():
            await asyncio.sleep(seconds)
        self.scored += 1
        score = 0.0 if self.hopeless(prompt) else float(self.scored % 2)
        return {name: [Verdict(score=score, status="scored", seconds=0.0, detail="")] for name in names}

    async def facts(self) -> dict[str, float]:
        return {}


@dataclass(kw_only=True)
class TimedRun:
    """The open parts of a run; `step` makes one step of the loop."""

    shape: Shape
    feed: RolloutFeed
    engines: list[TimedEngine]
    version: int = 0  # of the learner
    admitted: list[str] = field(default_factory=list)  # prompt ids
    _loads: list[asyncio.Task[None]] = field(default_factory=list)

    def step(self) -> list[GroupRecord]:
        """A take at the current version, then the learner's step and the publication of the next version.

        Engines load on their own time; the loop waits for an engine that would be older than the bound.
        """
        groups = self.feed.take(self.shape.prompts_per_step)
        self.feed.background.run(self._learn())
        return groups

    async def _learn(self) -> None:
        await asyncio.sleep(self.shape.step_s())
        self.version += 1
        if not self.feed.replaying:
            await self.publish()

    async def publish(self) -> None:
        """Lets all engines load the learner's version, and waits for those that are too old."""
        self.feed.rollouts.version = self.version
        await self.feed.episodes.announce(self.version)
        loads = [asyncio.create_task(self._load(number, self.version)) for number in range(len(self.engines))]
        self._loads += loads
        while self.version - self.feed.rollouts.oldest_version > self.shape.max_staleness:
            await asyncio.wait([load for load in self._loads if not load.done()], return_when=asyncio.FIRST_COMPLETED)

    async def _load(self, number: int, version: int) -> None:
        await asyncio.sleep(self.shape.load_s(number))
        engine = self.engines[number]
        replica = self.feed.rollouts.replicas[engine.name]
        if version > replica.version:
            await engine.load(SimpleNamespace(version=version))
            replica.version = version


@contextmanager
def timed_run(
    shape: Shape, seed: int = 0, stall_timeout_s: float = 1e6, run_dir: Path | None = None
) -> Iterator[TimedRun]:
    """Opens a run. A group of every fourth prompt has no signal under dynamic sampling. `run_dir`: of its log."""
    rng = random.Random(seed)
    background = VirtualBackground("timed", stall_timeout_s=stall_timeout_s)
    engines = [
        TimedEngine(f"rollout-{number}", slots=shape.slots, token_s=shape.token_s, load_s=0.0)
        for number in range(shape.engines)
    ]
    judge = TimedJudge(seconds=shape.scoring_s, hopeless=lambda _: shape.dynamic_sampling and rng.random() < 0.25)
    run = TimedRun(shape=shape, feed=_feed(shape, background, engines, judge), engines=engines)
    if run_dir is not None:
        log = LedgerLog(run_dir / "ledger", Generation.take(run_dir / "generations"))
        run.feed.journal = Journal(run.feed.ledger, log, run.feed.episodes)
    run.feed.stream = SimpleNamespace(at=lambda position: _prompt(run, position))  # pyright: ignore
    try:
        with run.feed:
            yield run
        background.run(run.feed.episodes.close())
    finally:
        background.close()


def _feed(shape: Shape, background: VirtualBackground, engines: list[TimedEngine], judge: TimedJudge) -> RolloutFeed:
    seated = {}
    for number in range(shape.workers):
        seats = [
            EngineSeat(name=engine.name, handle=InProcess(engine), slots=shape.slots)
            for engine in engines[number :: shape.workers]
        ]
        worker = EpisodeWorker(
            f"episodes-{number}",
            seats,
            lambda: _rewards(judge),
            ahead=shape.ahead,
            put=lambda scored: scored,
            bounds=BOUNDS,
        )
        seated[worker.name] = InProcess(worker), seats
    replicas = Replicas("engine", [Replica(name=engine.name, handle=InProcess(engine)) for engine in engines])
    size = shape.prompts_per_step
    return RolloutFeed(
        Ledger(
            prompts_per_step=size,
            max_staleness=shape.max_staleness,
            dynamic_sampling=shape.dynamic_sampling,
            late=shape.late,
        ),
        None,  # pyright: ignore
        RolloutPool(replicas, background, timeout_s=background.stall_timeout_s),
        EpisodePool(seated, ahead=shape.ahead),
        background,
        Sampling(completions=shape.group_size, max_tokens=16_000, temperature=1.0, seed=0),
        Resampling(prompts_per_step=size, max_resampled=100.0, reward="math"),
        slots=shape.slots,
        warn=lambda _: None,
    )


def _rewards(judge: TimedJudge) -> RewardPool:
    workers = Replicas("worker", [Replica(name="reward-0", handle=InProcess(judge))])
    shares = [RewardWorkers(["math"], workers, max_in_flight=1 << 20, max_deaths=1)]
    return RewardPool({"math": build(MATH)}, shares, attempts=1, max_failed_share=1.0)


def _prompt(run: TimedRun, position: int) -> Prompt:
    name = f"o{position}"
    run.admitted.append(name)
    lengths = run.shape.lengths(position)
    return Prompt(id=name, messages=[], token_ids=[1], reference="5", task="math", extra={"lengths": lengths})
