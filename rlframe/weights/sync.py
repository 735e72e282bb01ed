"""`WeightSync`: brings a version from the learner to every engine: publish, deliver, verify, repair."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.errors import RunFailed
from rlframe.training import Loaded
from rlframe.weights.snapshot import Snapshot
from rlframe.weights.transport import Engines, Transport
from rlframe.weights.turns import SeparateDevices, Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """The report on a version that every engine has loaded."""

    version: int
    publish_s: float  # engines sample with the old version meanwhile
    load_s: float  # delivery, verification and repair
    stall_s: float  # pause of generation, on the engine with the longest
    bytes: int  # published; a repair counts too
    repaired: list[str]  # engines that received the version twice

    @property
    def seconds(self) -> float:
        """Of the whole sync."""
        return self.publish_s + self.load_s

    def metrics(self) -> dict[str, float]:
        return {
            "time/weight_publish_s": self.publish_s,
            "time/weight_load_s": self.load_s,
            "time/weight_sync_s": self.seconds,
            "rollout/stall_s": self.stall_s,
        }


class WeightSync:
    """Publishes, delivers, verifies and repairs. Late engines may be brought from any thread."""

    def __init__(self, transport: Transport, engines: Engines, turns: Turns | None = None) -> None:
        """`turns`: of learner and engines on the same GPUs; None: each side has its own GPUs."""
        self.transport = transport
        self.engines = engines
        self.turns: Turns = turns or SeparateDevices()
        self.current: Snapshot | None = None  # for late engines; None: the weights with which every engine starts
        self._lock = Lock()  # a late engine is brought between two syncs

    def sync(self, version: int) -> Synced:
        """Brings the learner's `version` to every engine. Requests in flight freeze, then go on with the new version.

        Where learner and engines share GPUs, the engines have the GPUs afterwards.

        An engine whose weights differ from the learner's, by their checksums, is quarantined, and receives every value
        of the version once more. Raises Stalled when an actor does not answer within the bound, RunFailed when the
        checksums differ even then, ValueError when the learner is at another version.
        """
        with self._lock, self.turns.handover():
            # 1. Publish: ranks make the version available; engines still sample with the old version.
            started = time.monotonic()
            snapshot = self.transport.publish(whole=False)
            if snapshot.version != version:
                raise ValueError(f"the learner published version {snapshot.version}, not {version}")
            published = time.monotonic()
            self.engines.announce(version)
            size = snapshot.bytes
            # 2. Deliver and verify: engines load the version and compare checksums.
            states = [ReplicaState.SERVING, ReplicaState.DRAINING, ReplicaState.QUARANTINED]
            if not snapshot.lasting:
                states.append(ReplicaState.STARTING)  # late engines, which `bring` left to this sync
            loaded = self._deliver(snapshot, self.engines.replicas.in_state(*states))
            # 3. Repair: engines with wrong values receive all values.
            repaired = [name for name, answer in loaded.items() if answer.mismatched_tensors]
            if repaired:
                snapshot = self.transport.publish(whole=True)
                size += snapshot.bytes
                loaded |= self._deliver(snapshot, [self.engines.replicas[name] for name in repaired])
            broken = [
                f"{name} ({', '.join(answer.mismatched_tensors)})"
                for name, answer in loaded.items()
                if answer.mismatched_tensors
            ]
            if broken:
                raise RunFailed(f"weights of version {version} arrived broken, twice: {', '.join(broken)}")
            self.current = snapshot
            return Synced(
                version=version,
                publish_s=published - started,
                load_s=time.monotonic() - published,
                stall_s=max((answer.stall_s for answer in loaded.values()), default=0.0),
                bytes=size,
                repaired=repaired,
            )

    def bring(self, replica: Replica) -> None:
        """Brings a late or restarted engine to the current version; then the engine serves.

        An engine whose checksums differ is quarantined until the next sync. A version that the ranks themselves sent
        (nccl, ipc) is gone: the engine keeps starting, and serves from the next sync on. Raises Stalled.
        """
        with self._lock:
            if self.current is None:
                self.engines.replicas.serve(replica)
            elif self.current.lasting:
                self._deliver(self.current, [replica])

    def _deliver(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        """Name -> the engine's answer. Engines with wrong weights are quarantined; engines with right weights serve."""
        loaded = self.transport.deliver(snapshot, replicas)
        for replica in replicas:
            if loaded[replica.name].mismatched_tensors:
                self.engines.replicas.quarantine(replica)
            else:
                self.engines.replicas.serve(replica)
        return loaded
