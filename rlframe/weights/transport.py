"""The two ways of a version from the learner to the engines, behind the same interface."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from rlframe.actors.replicas import Replica, Replicas
from rlframe.training import Loaded
from rlframe.weights.snapshot import Snapshot


class Learner(Protocol):
    """The learner's side: `learner/group.py`."""

    version: int

    def publish(self, *, whole: bool) -> Snapshot: ...

    def send(self) -> None: ...


class Engines(Protocol):
    """The engines' side: `rollout/pool.py`."""

    version: int
    replicas: Replicas

    def load(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]: ...

    def pause(self, replicas: list[Replica]) -> None: ...

    def resume(self, replicas: list[Replica], version: int) -> None: ...


class Transport(Protocol):
    """Both methods raise Stalled where an actor does not answer within the bound."""

    def publish(self, *, whole: bool) -> Snapshot:
        """The learner's current version. `whole`: every value travels, also where deltas would do."""
        ...

    def deliver(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        """Name -> the engine's answer, once all `replicas` have loaded the version."""
        ...


@dataclass
class ObjectStore:
    """Ranks put buckets into Ray's object store, and engines load the buckets. Runs on any machine."""

    learner: Learner
    engines: Engines

    def publish(self, *, whole: bool) -> Snapshot:
        return self.learner.publish(whole=whole)

    def deliver(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        return self.engines.load(snapshot, replicas)


@dataclass
class Broadcast:
    """vLLM's own transports between GPUs (nccl, ipc): ranks send to paused engines. All engines meet at the start."""

    learner: Learner
    engines: Engines

    def publish(self, *, whole: bool) -> Snapshot:
        return Snapshot(version=self.learner.version, ranks=[])

    def deliver(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        started = time.monotonic()
        self.engines.pause(replicas)
        self.learner.send()
        self.engines.resume(replicas, snapshot.version)
        stall_s = time.monotonic() - started
        return {replica.name: Loaded(stall_s=stall_s, mismatched_tensors=[]) for replica in replicas}
