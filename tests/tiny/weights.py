"""Engines and a learner in this process, whose weights are version numbers; for `WeightSync`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakSet

from rlframe.actors.background import Background
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.rollout.pool import RolloutPool
from rlframe.training import Loaded
from rlframe.weights.object_store import ObjectStore
from rlframe.weights.snapshot import RankShards, Snapshot
from rlframe.weights.sync import Synced, WeightSync

STALL_S = 20.0  # longer than any test


class Reference:
    """The reference to a snapshot, counted while anyone holds it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


@dataclass
class Engine:
    """Loads at once, or while `slow` once for each `permit`."""

    slow: bool = False
    raises: Exception | None = None
    broken: list[bool] = field(default_factory=list)  # whether each of the next loads goes wrong
    loads: list[int] = field(default_factory=list)  # versions, as the loads began
    permits: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def load(self, reference: Reference) -> Loaded:
        self.loads.append(reference.snapshot.version)
        if self.slow:
            await self.permits.acquire()
        if self.raises is not None:
            raise self.raises
        wrong = bool(self.broken) and self.broken.pop(0)
        return Loaded(stall_s=float(reference.snapshot.version), mismatched_tensors=["w"] if wrong else [])


class Learner:
    """Publishes `version`, and records if every value was asked for, and how many versions were alive.

    Its values are `values_of` the version.
    """

    def __init__(self) -> None:
        self.version = 0
        self.values_of: Callable[[int], int] = lambda version: version
        self.published: list[tuple[int, bool]] = []
        self.alive: WeakSet[Reference] = WeakSet()
        self.most_alive = 0
        self.dead: list[str] = []  # names of ranks

    def publish(self, *, whole: bool) -> Snapshot:
        gc.collect()
        self.most_alive = max(self.most_alive, 1 + len(self.alive))
        self.published.append((self.version, whole))
        checksums = [[self.values_of(self.version)]]
        shards = RankShards(base=self.version, buckets=[], deltas=[], checksums=checksums, names=[], bytes=10)
        return Snapshot(version=self.version, ranks=[shards])

    def dead_ranks(self) -> list[str]:
        return self.dead

    def put(self, snapshot: Snapshot) -> Reference:
        reference = Reference(snapshot)
        self.alive.add(reference)
        return reference


class Run:
    """A pool of engines `a`, `b`, ... and their WeightSync."""

    def __init__(self, background: Background, engines: dict[str, Engine], max_lag: int, timeout_s: float) -> None:
        self.background = background
        self.engines = engines
        replicas = [Replica(name=name, handle=InProcess(engine)) for name, engine in engines.items()]
        self.pool = RolloutPool(Replicas("engine", replicas), background, timeout_s=timeout_s)
        self.learner = Learner()
        self.transport = ObjectStore(self.learner, self.pool, background, self.learner.put)  # pyright: ignore
        self.weights = WeightSync(self.transport, self.pool, background, max_lag=max_lag)
        self.threads = ThreadPoolExecutor(2)
        self.lost: dict[str, str] = {}  # engine -> reason
        self.pool.on_loss = self.lost.__setitem__

    def sync(self) -> Synced:
        """Takes a step, and syncs."""
        self.learner.version += 1
        return self.weights.sync(self.learner.version)

    def bring(self, replica: Replica) -> None:
        """Brings a late engine to the newest version."""
        self.background.run(self.weights.bring(replica))

    def beside(self, work: Callable[[], object]) -> Future:
        """Runs `work` in another thread."""
        return self.threads.submit(work)

    def permit(self, name: str) -> None:
        """Lets a slow engine end a load."""

        async def release() -> None:
            self.engines[name].permits.release()

        self.background.run(release())

    def until(self, condition: Callable[[], bool]) -> None:
        async def turn() -> None:
            while not condition():
                await asyncio.sleep(0)

        self.background.run(asyncio.wait_for(turn(), STALL_S))

    def versions(self) -> dict[str, int]:
        return {replica.name: replica.version for replica in self.pool.replicas}

    def states(self) -> dict[str, str]:
        return {replica.name: str(replica.state) for replica in self.pool.replicas}

    def join(self, name: str, engine: Engine) -> Replica:
        """A late engine, which has started and waits for weights."""
        self.engines[name] = engine
        replica = Replica(name=name, handle=InProcess(engine), state=ReplicaState.STARTING)
        self.pool.replicas.join(replica)
        return replica


@contextmanager
def open_run(max_lag: int, timeout_s: float = STALL_S, **engines: Engine) -> Iterator[Run]:
    background = Background("weights under test", STALL_S)
    run = Run(background, engines, max_lag, timeout_s)
    try:
        yield run
    finally:
        background.close()
        run.threads.shutdown()
