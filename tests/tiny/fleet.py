"""A fleet of timed engines as Ray actors, over episode workers in this process and a learner of version numbers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray

from benchmarks.async_parts.engine import TimedEngine
from rlframe.actors.background import Background
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Handle, Replica, Replicas, ReplicaState
from rlframe.cluster.engines import EngineActors
from rlframe.cluster.fleet import Fleet
from rlframe.cluster.gang import Gang
from rlframe.cluster.placement import Slot, engine_slot
from rlframe.cluster.supervisor import Supervisor
from rlframe.config.run import RunConfig
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineBounds, EngineSeat, Order, Probe
from rlframe.rollout.pool import RolloutPool
from rlframe.training import Loaded
from rlframe.types import Completion, Prompt, Sampling, ScoredGroup, Verdict
from rlframe.weights.object_store import ObjectStore
from rlframe.weights.sync import Synced, WeightSync
from tests.tiny.episodes import Followed, TinyJudge
from tests.tiny.weights import Learner

TOKEN_S = 0.01
SLOTS = 8
WAIT_S = 240.0  # longer than anything that a test waits for
SAMPLING = Sampling(completions=2, max_tokens=4000, temperature=1.0, seed=0)
Workers = int | Callable[..., EpisodePool]
SILENCE_S = 30.0  # of an engine that is taken for dead; a busy machine stands still for seconds


class FaultyEngine(TimedEngine):
    """A timed engine as an actor. A fault is a file in `faults`, made before or after the engine starts:

    `rollout-1.start` and `rollout-1.load` raise, `rollout-1.hang` lets the start take an hour, `rollout-1.slow` lets a
    load take 30 s, with `rollout-1.odd` the engine computes other log-probabilities, and with `rollout-1.mute` none.
    """

    def __init__(self, name: str, faults: Path) -> None:
        super().__init__(name, slots=SLOTS, token_s=TOKEN_S, load_s=0.0)
        self.faults = faults
        if self._has("start"):
            print("no such device", flush=True)
            os._exit(3)
        if self._has("hang"):
            time.sleep(3600)

    async def stamp(self, version: int) -> None: ...

    async def join_object_store(self, address: str, namespace: str) -> None: ...

    async def load(self, snapshot: Any) -> Loaded:
        if self._has("load"):
            raise MemoryError("no room")
        if self._has("slow"):
            self.load_s = 30.0
        return await super().load(snapshot)

    async def probe(self, token_ids: list[int]) -> Probe:
        if self._has("mute"):
            await asyncio.sleep(3600)
        right = await super().probe(token_ids)
        shift = np.float32(0.5) if self._has("odd") else np.float32(0)
        return Probe(version=right.version, logprobs=right.logprobs + shift)

    def shutdown(self) -> None: ...

    def _has(self, fault: str) -> bool:
        return (self.faults / f"{self.name}.{fault}").exists()


class Judge(TinyJudge):
    """Every completion is right."""

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        return {name: [Verdict(score=1.0, status="scored", seconds=0.0, detail="")] for name in names}


class FaultyEngines(EngineActors):
    """Makes engines without a model; each asks for `rollout.cpus`."""

    faults: Path

    def engine_class(self, slot: Slot) -> tuple[type, tuple[Any, ...]]:
        return FaultyEngine, (self.faults,)


class FleetRun:
    """An open run. Methods are for the test's thread."""

    def __init__(self, run: RunConfig, faults: Path, workers: Workers, silence_s: float) -> None:
        self.run = run
        self.warnings: list[str] = []
        self.handles: dict[str, Handle] = {}
        self.background = Background("fleet under test", WAIT_S)
        self.engines = FaultyEngines(run, Path(), "test", self.handles)
        self.engines.faults = self.faults = faults
        slots = [engine_slot(run.rollout, index, 0) for index in range(run.rollout.engines.min)]
        first = [self.engines.make(slot, Gang([])) for slot in slots]
        ray.get([engine.handle.__ray_ready__.remote() for engine in first], timeout=WAIT_S)
        for engine in first:
            engine.state = ReplicaState.SERVING
        self.rollouts = RolloutPool(Replicas("engine", first), self.background, timeout_s=WAIT_S)
        if isinstance(workers, int):
            self.episodes = _episodes(first, workers, silence_s)
        else:
            self.episodes = workers(first, self.handles)
        self.rollouts.subscribe(self.episodes.announce)
        self.learner = Learner()
        transport = ObjectStore(self.learner, self.rollouts, self.background)
        self.weights = WeightSync(transport, self.rollouts, self.background, max_lag=run.max_staleness)
        self.fleet = Fleet(
            run, self.engines, self.rollouts, self.episodes, self.weights, self.background, self.warnings.append
        )
        self.episodes.replace_engine = self.fleet.lose
        self.supervisor = Supervisor(run, self.fleet, self.handles)
        self.followed = Followed(self.episodes)
        self.threads = ThreadPoolExecutor(1)

    def sync(self) -> Synced:
        """Takes a step, and syncs."""
        self.learner.version += 1
        return self.weights.sync(self.learner.version)

    def beside(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs `work` in another thread."""
        return self.threads.submit(work)

    def scale(self, target: int) -> None:
        self._on_loop(lambda: self.fleet.scale(target))

    def order(self, name: str, *lengths: int) -> None:
        """Orders a group of two completions of these lengths, in tokens."""
        prompt = Prompt(
            id=f"{name}@0", messages=[], token_ids=[7], reference="5", task="math", extra={"lengths": lengths}
        )
        self._on_loop(lambda: self.episodes.assign([Order(key=f"{name}@0#1", prompt=prompt, sampling=SAMPLING)]))

    def groups(self, *names: str) -> list[ScoredGroup]:
        """The finished groups. Each completion has every token once, 0, 1, 2, ..."""
        groups = self.background.run(self.followed.groups(*names))
        for group in groups:
            for completion in group.group.completions:
                assert completion.token_ids.tolist() == list(range(len(completion.token_ids)))
        return groups

    def kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the processes of engines."""
        for name in names:
            os.kill(ray.get(self.handles[name].__ray_call__.remote(_pid), timeout=WAIT_S), number)

    def until(self, happened: Callable[[], bool]) -> None:
        """Waits, and lets the supervisor look meanwhile. Raises the error of a task."""
        deadline = time.monotonic() + WAIT_S
        while not happened():
            assert time.monotonic() < deadline, (self.states(), self.warnings)
            self.background.run(self.supervisor.look())
            self.background.run(self._pause())

    def states(self) -> dict[str, str]:
        return {replica.name: str(replica.state) for replica in self.rollouts.replicas}

    def seated(self) -> list[str]:
        return list(self.fleet.seated)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.background.wait(lambda: "nothing happens"), 0.05)

    def _on_loop(self, act: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return act()

        return self.background.run(call())


@contextmanager
def open_fleet(run: RunConfig, faults: Path, workers: Workers = 1, silence_s: float = SILENCE_S) -> Iterator[FleetRun]:
    """Opens a run on the Ray cluster of this process.

    `workers`: number of episode workers in this process, or a function of engines and handles that starts actors.
    `silence_s`: without a token, after which workers in this process give up on an engine.
    """
    fleet_run = FleetRun(run, faults, workers, silence_s)
    try:
        fleet_run.background.run(fleet_run.followed.__aenter__())
        yield fleet_run
    finally:
        fleet_run.background.close()
        for handle in list(fleet_run.handles.values()):
            ray.kill(handle)


def _episodes(engines: list[Replica], workers: int, silence_s: float) -> EpisodePool:
    bounds = EngineBounds(silence_s=silence_s, first_token_s=silence_s, attempts=3)
    seated = {}
    for number in range(workers):
        seats = [EngineSeat(name=each.name, handle=each.handle, slots=SLOTS) for each in engines[number::workers]]
        name = f"episodes-{number}"
        worker = EpisodeWorker(
            name, seats, Judge().pool, ahead=0.0, put=lambda scored: scored, bounds=bounds, rest_s=0.0
        )
        seated[name] = InProcess(worker), seats
    return EpisodePool(seated, ahead=0.0)


def _pid(_: Any) -> int:
    return os.getpid()
