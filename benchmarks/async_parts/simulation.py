"""`simulate`: the real loop, feed, ledger, pools, episode workers and weight sync over parts that only take time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.async_parts.clock import VirtualBackground
from benchmarks.async_parts.figures import Figures
from benchmarks.async_parts.settings import Policy, Scale
from benchmarks.async_parts.trace import PromptTrace, Trace
from benchmarks.async_parts.workers import Parts, TimedEpisodes, seats
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.cluster.learner_group import objective
from rlframe.experience.flow import RolloutFeed
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.messages import EngineSeat
from rlframe.rollout.pool import RolloutPool
from rlframe.train.feed import open_feed
from rlframe.train.loop import run_steps, take_step
from rlframe.training import GroupRecord, RatedGroup, StepReport
from rlframe.weights.object_store import ObjectStore
from rlframe.weights.sync import WeightSync
from rlframe.weights.turns import SeparateDevices

if TYPE_CHECKING:
    from benchmarks.async_parts.engine import TimedEngine
    from benchmarks.async_parts.learner import TimedLearner
    from benchmarks.async_parts.stopwatch import Stopwatch
    from rlframe.config.run import RunConfig
    from rlframe.record.ledger_log import LedgerLog

STALL_S = 1e6  # virtual
DRIVER_TASKS = {"EpisodePool", "RolloutFeed", "Scorer"}


@dataclass(kw_only=True)
class TimedContext:
    """The open parts of a run, as `train/context.py` has them. A step is recorded by its figures only."""

    feed: RolloutFeed
    learner: Any  # a TimedLearner, or a LearnerGroup
    weights: Any  # a WeightSync, or whatever else has its `sync`
    figures: Figures
    turns: SeparateDevices = field(default_factory=SeparateDevices)

    @property
    def signals(self) -> TimedContext:
        return self

    @property
    def checkpoints(self) -> TimedContext:
        return self

    def wait(self) -> None:
        """No checkpoint is written."""

    def sync(self, step: int) -> Any:
        return self.weights.sync(step)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Nobody sends signals."""
        yield

    def restore(self) -> int:
        return 0

    def record(
        self, step: int, groups: list[GroupRecord], rated: list[RatedGroup], report: StepReport, synced: object
    ) -> None:
        self.figures.note(step, groups)

    def periodic(self, step: int) -> None: ...


@dataclass(kw_only=True)
class OpenParts:
    """The parts of a simulated run between its config and its loop."""

    run: RunConfig
    background: VirtualBackground
    stopwatch: Stopwatch
    engines: list[TimedEngine]
    rollouts: RolloutPool
    episodes: EpisodePool
    learner: TimedLearner
    weights: WeightSync
    feed: RolloutFeed


def open_parts(stack: ExitStack, scale: Scale, run: RunConfig, parts: Parts, log: LedgerLog | None = None) -> OpenParts:
    """Opens a run, which `stack` ends. `log`: of the prompts; None: nothing needs it without deaths."""
    background = VirtualBackground("simulation", STALL_S)
    stack.callback(background.close)
    stopwatch = background.measure(DRIVER_TASKS)
    engines = parts.engines(scale)
    replicas = Replicas("engine", [Replica(name=engine.name, handle=InProcess(engine)) for engine in engines])
    rollouts = RolloutPool(replicas, background, timeout_s=STALL_S)
    learner = parts.learner(background, objective(run), step_s=scale.step_s, publish_s=scale.publish_s)
    transport = ObjectStore(learner, rollouts, background, put=lambda snapshot: snapshot)
    weights = WeightSync(transport, rollouts, background, max_lag=run.max_staleness)
    judge = parts.judge(seconds=scale.reward_s)
    workers: dict[str, tuple[InProcess, list[EngineSeat]]] = {}
    for name, own in scale.of_workers(engines).items():
        worker = TimedEpisodes(name, own, judge, run, put=lambda scored: scored.group.prompt.id, rest_s=scale.rest_s)
        workers[name] = InProcess(worker), seats(own)
    episodes = EpisodePool(workers, ahead=run.rollout.ahead)
    rollouts.subscribe(episodes.announce)
    prompts: Any = PromptTrace(Trace(scale.group, scale.seed))
    feed = stack.enter_context(open_feed(run, prompts, rollouts, episodes, background, print, log=log))
    return OpenParts(
        run=run,
        background=background,
        stopwatch=stopwatch,
        engines=engines,
        rollouts=rollouts,
        episodes=episodes,
        learner=learner,
        weights=weights,
        feed=feed,
    )


def simulate(scale: Scale, policy: Policy, parts: Parts | None = None) -> Figures:
    """Runs all steps on a virtual clock."""
    figures = Figures(scale=scale)
    with ExitStack() as stack:
        opened = open_parts(stack, scale, scale.run_config(policy), parts or Parts())
        context: Any = TimedContext(feed=opened.feed, learner=opened.learner, weights=opened.weights, figures=figures)
        run_steps(opened.run, context, take_step)
        figures.end(
            opened.background.now(),
            busy_slot_s=sum(engine.busy_slot_s for engine in opened.engines),
            driver_s=opened.stopwatch.seconds,
        )
    return figures
