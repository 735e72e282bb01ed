"""`measure`: the driver's CPU of a run over real Ray actors: episode workers with timed engines, and light ranks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray

from benchmarks.async_parts.figures import Figures
from benchmarks.async_parts.settings import Policy, Scale
from benchmarks.async_parts.simulation import TimedContext
from benchmarks.async_parts.trace import PromptTrace, Trace
from benchmarks.async_parts.workers import Parts, TimedEpisodes, seats
from rlframe.actors.background import Background
from rlframe.actors.replicas import Handle, Replicas
from rlframe.cluster import ray_cluster
from rlframe.cluster.learner_group import learner_group
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.messages import EngineSeat
from rlframe.rollout.pool import RolloutPool
from rlframe.schema import user_modules
from rlframe.train.feed import open_feed
from rlframe.train.loop import run_steps, take_step
from rlframe.training import GroupRecord, PlannedSample, RatedGroup, StepReport

RANKS = 2
STALL_S = 120.0
STORE_BYTES = 1 << 30  # for the tokens of a few steps
WARM_UP = 2  # steps that the CPU figures leave out
POLICY = Policy(max_staleness=8, late="keep")


class EpisodeActor(TimedEpisodes):
    """An episode worker whose engines load a version as soon as they hear of it."""

    async def announce(self, version: int) -> None:
        await super().announce(version)
        await asyncio.gather(*[engine.load(SimpleNamespace(version=version)) for engine in self.engines])


class LightRank:
    """A learner rank whose step takes seconds and fetches nothing."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s

    def step(self, minibatches: list[list[list[PlannedSample]]], objective: Any, version: int) -> dict[str, float]:
        time.sleep(self.step_s)
        tokens = float(sum(sample.tokens for share in minibatches for batch in share for sample in batch))
        zeros = ("loss", "grad_norm", "lr", "skipped", "skipped_in_a_row", "tokens", "current_tokens", "stale_tokens")
        return dict.fromkeys(zeros, 0.0) | {
            "ratio_max": 1.0,
            "updates": 1.0,
            "packed_tokens": tokens,
            "share_tokens": tokens,
        }


@dataclass(kw_only=True)
class DriverContext(TimedContext):
    """Writes rollouts, announces versions, and measures the driver's CPU after the warm-up."""

    rollouts: RolloutPool
    folder: Path
    began_s: float = 0.0  # of the process's CPU, at the end of the warm-up
    warm_completions: int = 0

    def sync(self, version: int) -> None:
        """Announces weights that nobody publishes."""
        self.rollouts.announce(version)

    def record(
        self, step: int, groups: list[GroupRecord], rated: list[RatedGroup], report: StepReport, synced: object
    ) -> None:
        self.feed.write(step, self.folder, groups, rated)
        self.figures.note(step, groups)
        if step == WARM_UP:
            self.began_s, self.warm_completions = time.process_time(), self.figures.completions


@dataclass(frozen=True, kw_only=True)
class DriverCpu:
    """CPU milliseconds of the driver's process for each completion, all threads together."""

    step: float  # everything: taking, rating, planning, submitting to ranks, announcing, writing
    take: float  # orders and reports alone, in steps without training
    completions: int  # measured with training, and as many without


def measure(scale: Scale, parts: Parts, folder: Path) -> tuple[Figures, DriverCpu]:
    """Runs all steps in real time, and as many takes without training. Rollouts are written into `folder`."""
    run = scale.run_config(POLICY)
    figures = Figures(scale=scale)
    with ExitStack() as stack:
        handles = stack.enter_context(_cluster(run))
        background = Background("driver", STALL_S)
        stack.callback(background.close)
        judge = parts.judge(seconds=scale.reward_s)
        workers: dict[str, tuple[Handle, list[EngineSeat]]] = {}
        for name, own in scale.of_workers(parts.engines(scale)).items():
            handles[name] = _actor(EpisodeActor, name, own, judge, run, put=ray.put, rest_s=scale.rest_s)
            workers[name] = handles[name], seats(own)
        ranks = [_actor(LightRank, scale.step_s) for _ in range(RANKS)]
        handles |= {f"learner-{number}": rank for number, rank in enumerate(ranks)}
        ray.get([handle.__ray_ready__.remote() for handle in handles.values()], timeout=STALL_S)
        episodes = EpisodePool(workers, ahead=run.rollout.ahead)
        rollouts = RolloutPool(Replicas("engine"), background, timeout_s=STALL_S)
        rollouts.subscribe(episodes.announce)
        stream = PromptTrace(Trace(scale.group, scale.seed))
        feed = stack.enter_context(open_feed(run, stream, rollouts, episodes, background, print))
        learner = learner_group(run, ranks, "shared")
        context = DriverContext(
            feed=feed, learner=learner, weights=None, figures=figures, rollouts=rollouts, folder=folder
        )
        context.weights = context
        started = time.monotonic()
        run_steps(run, context, take_step)
        stepped_s = time.process_time()
        figures.end(time.monotonic() - started, busy_slot_s=0.0, driver_s=stepped_s - context.began_s)
        for version in range(scale.steps, 2 * scale.steps - WARM_UP):
            rollouts.version = version  # which nobody announces; a batch trains each version once
            feed.take(scale.prompts)
        taken_s = time.process_time()
        background.run(episodes.close())
    completions = figures.completions - context.warm_completions
    step, take = (1000 * seconds / completions for seconds in (figures.driver_s, taken_s - stepped_s))
    return figures, DriverCpu(step=step, take=take, completions=completions)


def _actor(cls: type, *arguments: Any, **settings: Any) -> Handle:
    return ray.remote(cls).options(num_cpus=0).remote(*arguments, **settings)


@contextmanager
def _cluster(run: Any) -> Iterator[dict[str, Handle]]:
    """A cluster of this machine alone, on the loopback interface -> the actors that are ended with it."""
    user_modules.add("benchmarks.async_parts")  # the actors' processes may not find it
    handles: dict[str, Handle] = {}
    ray_cluster.connect(run.cluster, namespace="async-scale", cpus=1, store_bytes=STORE_BYTES)
    try:
        yield handles
    finally:
        ray_cluster.end(handles)
