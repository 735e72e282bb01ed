"""`WeightSync`: brings a version from the learner to every engine: publish, deliver, verify, repair."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock

from rlframe.actors.background import Background
from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.weights.arrivals import ArrivalReport
from rlframe.weights.snapshot import Snapshot
from rlframe.weights.transport import Engines, Transport
from rlframe.weights.turns import SeparateDevices, Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """The report on a published version, and on the loads that have ended since the previous report."""

    version: int
    publish_s: float  # engines sample with the old version meanwhile
    wait_s: float  # wait for engines: room for a further version, delivery, verification, repair
    bytes: int  # published; a repair counts too
    arrivals: ArrivalReport
    engines_behind: int  # serving with an older version than this

    @classmethod
    def nothing(cls, version: int) -> Synced:
        """The report on a version that was not published, since engines have had it."""
        return cls(version=version, publish_s=0.0, wait_s=0.0, bytes=0, arrivals=ArrivalReport(), engines_behind=0)

    @property
    def seconds(self) -> float:
        """Of the whole sync."""
        return self.publish_s + self.wait_s

    @property
    def repaired(self) -> list[str]:
        """Engines with right weights again since the previous report."""
        return list(self.arrivals.repaired)

    def metrics(self) -> dict[str, float]:
        return {
            "time/weight_publish_s": self.publish_s,
            "time/weight_wait_s": self.wait_s,
            "time/weight_sync_s": self.seconds,
            "rollout/stall_s": self.arrivals.stall_s,
            "weights/loads": float(self.arrivals.loads),
            "weights/engines_behind": float(self.engines_behind),
            "weights/engines_repaired": float(len(self.arrivals.repaired)),
        }


class WeightSync:
    """Publishes, delivers, verifies and repairs."""

    def __init__(
        self,
        transport: Transport,
        engines: Engines,
        background: Background,
        turns: Turns | None = None,
        *,
        max_lag: int = 0,
    ) -> None:
        """`turns`: of learner and engines on the same GPUs; None: each side has its own GPUs.

        `max_lag`: versions by which a serving engine may be older than the newest while the learner goes on; only with
        the object store.
        """
        self.transport = transport
        self.engines = engines
        self.background = background
        self.turns: Turns = turns or SeparateDevices()
        self.max_lag = max_lag
        self.current: Snapshot | None = None  # the newest version; None: the weights with which every engine starts
        self._lock = Lock()  # a sync at a time

    def sync(self, version: int) -> Synced:
        """Publishes the learner's `version`, and lets every engine load it. Requests in flight freeze meanwhile.

        Returns once no serving engine is older than `version - max_lag`. Where learner and engines share GPUs, the
        engines have the GPUs afterwards.

        An engine whose weights differ from the learner's, by their checksums, is quarantined, and receives every value:
        in this sync if `max_lag` is 0, else by the next `repair` or sync. An engine whose checksums differ even then,
        or that does not answer within the bound, is lost. A version that is published again, by new ranks, goes only to
        engines that do not hold the same values. Raises Stalled when a rank does not answer within the bound,
        and ValueError when the learner is at another version.
        """
        with self._lock, self.turns.handover():
            started = self.background.now()
            self.transport.make_room()
            room = self.background.now()
            whole = self.needs_repair
            before = self.current
            snapshot = self._publish(version, whole=whole)
            published = self.background.now()
            self.engines.announce(version)
            self.transport.deliver(snapshot, self._receivers(snapshot, before), whole=whole)
            size = snapshot.bytes
            if self.max_lag:
                self.transport.wait(version - self.max_lag)
            else:
                size += self._settle()
            return Synced(
                version=version,
                publish_s=published - room,
                wait_s=self.background.now() - published + room - started,
                bytes=size,
                arrivals=self.transport.arrivals.take(),
                engines_behind=sum(replica.version < version for replica in self.engines.replicas.serving()),
            )

    def settle(self) -> None:
        """Waits until every engine has loaded the newest version right, for an evaluation of this very version."""
        with self._lock:
            self._settle()

    @property
    def needs_repair(self) -> bool:
        """True while an engine has wrong weights, and no whole version is on its way."""
        return bool(self.transport.unrepaired())

    def repair(self) -> None:
        """Begins to bring every value to engines with wrong weights; while no step is running."""
        with self._lock:
            self._repair()

    async def bring(self, replica: Replica) -> None:
        """Brings a late engine to the current version; then the engine serves. On the background's event loop.

        An engine whose checksums differ is quarantined until the next sync. A version that the ranks themselves sent
        (nccl, ipc), or whose ranks have died, is gone: the engine keeps starting, and serves from the next sync on.
        """
        await self.transport.bring(replica)

    def end(self, name: str) -> None:
        """Marks an engine as dead. Where engines receive a version together, never while they do: others would hang.

        For any thread but the background's.
        """
        with self._lock if self.transport.together else nullcontext():
            self.engines.replicas.end(name)

    def learner_lost(self) -> None:
        """Notes that the ranks have died: what they published is gone, until the next sync, and new ranks get GPUs."""
        self.transport.learner_lost()
        self.turns.learner_lost()

    def _publish(self, version: int, *, whole: bool) -> Snapshot:
        snapshot = self.transport.publish(whole=whole)
        if snapshot.version != version:
            raise ValueError(f"the learner published version {snapshot.version}, not {version}")
        self.current = snapshot
        return snapshot

    def _receivers(self, snapshot: Snapshot, before: Snapshot | None) -> list[Replica]:
        """Engines to load a version. `before`: the version that was published last."""
        states = [ReplicaState.SERVING, ReplicaState.QUARANTINED]
        if not snapshot.lasting:
            states.append(ReplicaState.STARTING)  # late engines, which `bring` left to this sync
        receivers = self.engines.replicas.in_state(*states)
        if before is None or not snapshot.equals(before):
            return receivers
        serving = ReplicaState.SERVING
        return [each for each in receivers if each.state != serving or each.version != snapshot.version]

    def _settle(self) -> int:
        """Waits for all loads, and repairs engines with wrong weights -> bytes published for the repair."""
        self.transport.wait(None)
        size = self._repair()
        self.transport.wait(None)
        return size

    def _repair(self) -> int:
        """Begins to bring every value to engines with wrong weights -> bytes published."""
        if self.current is None or not self.needs_repair:
            return 0
        self.transport.make_room()
        snapshot = self._publish(self.current.version, whole=True)
        self.transport.deliver(snapshot, self.transport.unrepaired(), whole=True)
        return snapshot.bytes
