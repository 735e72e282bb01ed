"""`Broadcast`: vLLM's own transports between GPUs (nccl, ipc), from ranks to paused engines."""

from __future__ import annotations

from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.weights.arrivals import Arrivals
from rlframe.weights.snapshot import Snapshot
from rlframe.weights.transport import DeviceBackend, Engines, Learner


class Broadcast:
    """Ranks and engines form a group, in which the ranks send.

    A new group is formed whenever the set of receiving engines changes: for a repair, after an engine has died, and for
    a late engine.
    """

    def __init__(
        self, learner: Learner, engines: Engines, *, backend: DeviceBackend, workers: int, chunk_bytes: int
    ) -> None:
        """`workers`: vLLM's worker processes in each engine. `chunk_bytes`: of tensors that travel together."""
        self.learner = learner
        self.engines = engines
        self.backend: DeviceBackend = backend
        self.workers = workers
        self.chunk_bytes = chunk_bytes
        self.arrivals = Arrivals(engines.replicas)
        self.members: list[Replica] = []  # the group's engines
        self._sent = False

    def make_room(self) -> None:
        """Does nothing: the engines hold the only copies."""

    def publish(self, *, whole: bool) -> Snapshot:
        self._sent = True
        return Snapshot(version=self.learner.version, ranks=[])

    def deliver(self, snapshot: Snapshot, replicas: list[Replica], *, whole: bool) -> None:
        """Sends every value, and returns once all `replicas` have answered."""
        self.engines.pause(replicas)  # first, because a data-parallel engine's workers cannot meet and compute at once
        self.meet(replicas)
        loaded = self.engines.resume(replicas, snapshot.version, self.learner.send())
        for replica in replicas:
            self.arrivals.note(replica, snapshot.version, loaded[replica.name])

    def unrepaired(self) -> list[Replica]:
        """Engines with wrong weights, and late engines where none serves: no step, and so no sync, would follow."""
        replicas = self.arrivals.replicas
        late = [] if replicas.serving() else replicas.in_state(ReplicaState.STARTING)
        return self.arrivals.wrong() + late

    def wait(self, oldest_version: int | None) -> None:
        """Does nothing: `deliver` has waited for all engines."""

    def bring(self, replica: Replica) -> None:
        """Lets a late engine serve if no version was sent. A sent version is gone, so the engine waits for a sync."""
        if not self._sent:
            self.arrivals.replicas.serve(replica)

    def meet(self, replicas: list[Replica]) -> None:
        """Forms the group of the ranks and these engines, unless it is the current group."""
        if replicas != self.members:
            self.members = []  # until all have met
            handles = {replica.name: replica.handle for replica in replicas}
            self.learner.join_engines(self.backend, handles, self.workers, self.chunk_bytes)
            self.members = list(replicas)
