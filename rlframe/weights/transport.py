"""Transports of weights from the learner to the engines: the object store, and vLLM's between GPUs (nccl, ipc)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from rlframe.actors.replicas import Handle, Replica, Replicas
from rlframe.training import Loaded
from rlframe.weights.snapshot import Snapshot

DeviceBackend: TypeAlias = Literal["nccl", "ipc"]  # vLLM's transports between GPUs


class Learner(Protocol):
    """The learner's side: `learner/group.py`."""

    version: int

    def publish(self, *, whole: bool) -> Snapshot: ...

    def join_engines(
        self, backend: DeviceBackend, engines: dict[str, Handle], workers: int, chunk_bytes: int
    ) -> None: ...

    def send(self) -> dict[str, int]: ...


class Engines(Protocol):
    """The engines' side: `rollout/pool.py`."""

    version: int
    replicas: Replicas

    def announce(self, version: int) -> None: ...

    def load(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]: ...

    def pause(self, replicas: list[Replica]) -> None: ...

    def resume(self, replicas: list[Replica], version: int, fingerprints: dict[str, int]) -> dict[str, Loaded]: ...


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
    """vLLM's own transports between GPUs (nccl, ipc): ranks send to paused engines.

    Ranks and engines form a group. A new group is formed whenever the set of receiving engines changes: for a repair,
    after an engine has died, and for a late engine.
    """

    learner: Learner
    engines: Engines
    backend: DeviceBackend
    workers: int  # vLLM's worker processes in each engine
    chunk_bytes: int  # of tensors that travel together
    members: list[Replica] = field(default_factory=list)  # the group's engines

    def publish(self, *, whole: bool) -> Snapshot:
        return Snapshot(version=self.learner.version, ranks=[])

    def deliver(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        self.engines.pause(replicas)  # first, because a data-parallel engine's workers cannot meet and compute at once
        self.meet(replicas)
        return self.engines.resume(replicas, snapshot.version, self.learner.send())

    def meet(self, replicas: list[Replica]) -> None:
        """Forms the group of the ranks and these engines, unless it is the current group."""
        if replicas != self.members:
            self.members = []  # until all have met
            handles = {replica.name: replica.handle for replica in replicas}
            self.learner.join_engines(self.backend, handles, self.workers, self.chunk_bytes)
            self.members = list(replicas)
