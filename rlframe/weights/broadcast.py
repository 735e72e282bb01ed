"""`Broadcast`: vLLM's own transports between GPUs (nccl, ipc), from ranks to paused engines."""

from __future__ import annotations

from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.errors import LearnerLost
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
        self.arrivals = Arrivals(engines)
        self.together = True
        self.members: list[Replica] = []  # the group's engines
        self._sent = False

    def make_room(self) -> None:
        """Does nothing: the engines hold the only copies."""

    def publish(self, *, whole: bool) -> Snapshot:
        self._sent = True
        return Snapshot(version=self.learner.version, ranks=[])

    def deliver(self, snapshot: Snapshot, replicas: list[Replica], *, whole: bool) -> None:
        """Sends every value, and returns once all `replicas` have answered.

        Engines that die before the values travel are left out. The death of an engine while they travel leaves the
        others with a part of the values, and everybody waiting in NCCL: all engines are lost: raises LearnerLost.
        """
        # A pause comes first, because a data-parallel engine's workers cannot meet and compute at once.
        if not (paused := self.engines.pause(replicas)):
            return
        version = snapshot.version
        try:
            self.meet(paused)
            fingerprints = self.learner.send()
        except Exception as error:
            for replica in paused:
                self.engines.lose(replica, f"{replica.name} may hold a part of version {version}: {error}")
            raise LearnerLost(f"weights of version {version} did not reach all engines: {error}") from error
        loaded = self.engines.resume(paused, version, fingerprints)
        for replica in paused:
            if replica.name in loaded:
                self.arrivals.note(replica, version, loaded[replica.name])

    def unrepaired(self) -> list[Replica]:
        """Engines with wrong weights, and late engines where none serves: no step, and so no sync, would follow."""
        replicas = self.arrivals.replicas
        late = [] if replicas.serving() else replicas.in_state(ReplicaState.STARTING)
        return self.arrivals.wrong() + late

    def wait(self, oldest_version: int | None) -> None:
        """Does nothing: `deliver` has waited for all engines."""

    async def bring(self, replica: Replica) -> None:
        """Lets a late engine serve if no version was sent. A sent version is gone, so the engine waits for a sync."""
        if not self._sent:
            self.arrivals.replicas.serve(replica)

    def learner_lost(self) -> None:
        """Lets new ranks meet the engines before they send."""
        self.members = []

    def meet(self, replicas: list[Replica]) -> None:
        """Forms the group of the ranks and these engines, unless it is the current group."""
        if replicas != self.members:
            self.members = []  # until all have met
            handles = {replica.name: replica.handle for replica in replicas}
            self.learner.join_engines(self.backend, handles, self.workers, self.chunk_bytes)
            self.members = list(replicas)
