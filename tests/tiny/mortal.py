"""Ranks that die where a test says, engines that note what they load, and a feed that hands out batches again.

An order is a file `learner-1.backward.3`, whose content is a signal's number: rank 1 sends itself the signal in the
backward pass of step 3. The rank removes the file first, so that the ranks of the next life go on. The order
`learner-1.connect.0` is for a rank in the place of another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from rlframe.actors.background import Background
from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.cluster.engines import EngineActors
from rlframe.cluster.placement import Slot
from rlframe.cluster.ranks import Ranks
from rlframe.cluster.starter import Starter
from rlframe.config.run import RunConfig
from rlframe.training import GroupRecord, Loaded
from rlframe.weights.snapshot import RankShards, Snapshot
from tests.tiny.learner import InspectedRank

ORDERS = "RLFRAME_TEST_ORDERS"  # environment variable of a rank: the folder of orders


class MortalRank(InspectedRank):
    """A rank that obeys orders."""

    taking = 0  # the step that is being taken, or was taken last

    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        from deepspeed.runtime.zero import stage3

        from rlframe.learner import rank as learner_rank

        earlier = Path(os.environ[ORDERS]).parent / f"{self.name}.connected"
        if earlier.exists():
            self.obey("connect")
        earlier.touch()
        super().connect(address, rank, timeout_s)
        self.engine.module.register_forward_pre_hook(lambda *_: self.obey("forward"))
        self.engine.backward = self.before("backward", self.engine.backward)
        stage3.reduce_scatter_coalesced = self.before("reduction", stage3.reduce_scatter_coalesced)
        self.optimizer.optimizer.step = self.before("optimizer", self.optimizer.optimizer.step)
        learner_rank.write = self.before("checkpoint", learner_rank.write)

    def step(self, *arguments: Any) -> dict[str, float]:
        self.taking = arguments[-1] + 1
        return super().step(*arguments)

    def load(self, folder: Path) -> None:
        super().load(folder)
        self.obey("load")

    def publish(self, version: int, *, whole: bool) -> RankShards:
        shards = super().publish(version, whole=whole)  # which die with this process
        self.obey("publish")
        return shards

    def before(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def obeying(*arguments: Any, **named: Any) -> Any:
            self.obey(phase)
            return function(*arguments, **named)

        return obeying

    def obey(self, phase: str) -> None:
        order = Path(os.environ[ORDERS]) / f"{self.name}.{phase}.{self.taking}"
        if order.exists():
            number = int(order.read_text())
            order.unlink()
            os.kill(os.getpid(), number)


class MortalRanks(Ranks):
    kind = MortalRank


class NotingEngine:
    """An engine that reads each version's values, and notes version and hash of what it loads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loads: list[tuple[int, str]] = []

    def __repr__(self) -> str:
        return self.name

    async def stamp(self, version: int) -> None: ...

    async def join_object_store(self, address: str, namespace: str) -> None: ...

    async def load(self, snapshot: Snapshot) -> Loaded:
        snapshot.fetch()
        digest = hashlib.sha256()
        for shards in snapshot.read():
            for shard in shards:
                digest.update(shard.values.tobytes())
        self.loads.append((snapshot.version, digest.hexdigest()))
        return Loaded(stall_s=0.0, mismatched_tensors=[])

    async def loaded(self) -> list[tuple[int, str]]:
        return self.loads


class NotingEngines(EngineActors):
    """Makes engines without a model."""

    def make(self, slot: Slot, gang: Any) -> Replica:
        handle = ray.remote(NotingEngine).options(name=slot.name, num_cpus=0).remote(slot.name)
        self.handles[slot.name] = handle
        return Replica(name=slot.name, handle=handle, state=ReplicaState.STARTING)


class MortalStarter(Starter):
    """Starts ranks that obey the orders in a folder, and engines without a model."""

    orders: Path

    def __init__(self, run: RunConfig, model_path: Path, namespace: str, *arguments: Any) -> None:
        super().__init__(run, model_path, namespace, *arguments)
        self.engines = NotingEngines(run, model_path, namespace, self.handles)

    def _start_ranks(self, slots: list[Slot], gang: Any) -> Ranks:
        obedient = [replace(slot, environment=slot.environment | {ORDERS: str(self.orders)}) for slot in slots]
        ranks = MortalRanks(self.run, self.model_path, self.packing, obedient, gang, self.handles)
        ranks.start()
        return ranks


class MemoryFeed:
    """Batches of a run in memory: the one of version n is taken for step n + 1."""

    def __init__(self, batches: list[list[GroupRecord]], background: Background) -> None:
        self.batches = batches
        self.background = background
        self.taken_at = 0.0
        self.written: list[int] = []  # steps
        self._next = self._taken = 0

    @property
    def replaying(self) -> bool:
        return self._next < self._taken

    def rewind(self, version: int) -> None:
        self._next = version

    def open_log(self, step: int, *, resume: bool) -> int:
        return step

    def begin_epoch(self, step: int) -> None: ...

    def take(self, count: int) -> list[GroupRecord]:
        batch = self.batches[self._next]
        assert len(batch) == count
        self._next += 1
        self._taken = max(self._taken, self._next)
        self.taken_at = self.background.now()
        return batch

    def metrics(self) -> dict[str, float]:
        return {"time/rollout_wait_s": 0.0}

    def write(self, step: int, *_: Any) -> None:
        self.written.append(step)

    def check_folder(self, folder: Path) -> None: ...

    def skipped(self) -> dict[str, int]:
        return {}

    def state(self) -> dict[str, int]:
        return {"next": self._next}

    def restore(self, state: dict[str, int]) -> None:
        self._next = state["next"]
