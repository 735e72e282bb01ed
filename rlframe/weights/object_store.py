"""`ObjectStore`: ranks put buckets into Ray's object store, and each engine loads them at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from rlframe.actors.background import Background
from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.actors.waits import waiting
from rlframe.weights.arrivals import Arrivals
from rlframe.weights.snapshot import Snapshot
from rlframe.weights.transport import Engines, Learner

BOUND = "cluster.stall_timeout_s"
VERSIONS = 3  # that may be alive: engines load one or two, and ranks publish the next


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """A version on its way to the engines."""

    snapshot: Snapshot
    whole: bool  # also where deltas would do, for engines whose weights are wrong
    reference: Any  # to the snapshot: it is pickled once, not for each engine


class ObjectStore:
    """Engines load the newest version on the background's event loop. Runs on any machine.

    An engine loads one version at a time. Versions that were published meanwhile are skipped, except for the newest:

        published   v1    v2    v3
        engine a    v1..  v2..  v3..
        engine b    v1...........v3..     # slow
    """

    def __init__(
        self, learner: Learner, engines: Engines, background: Background, put: Callable[[Snapshot], Any] = ray.put
    ) -> None:
        """`put`: makes the reference of a snapshot."""
        self.learner = learner
        self.engines = engines
        self.background = background
        self.put = put
        self.arrivals = Arrivals(engines)
        self.together = False
        self._newest: Delivery | None = None  # None: the weights with which every engine starts
        self._loading: dict[Replica, Delivery] = {}
        self._gone = False  # the ranks that held the newest version have died

    def make_room(self) -> None:
        """Returns once two versions at most are alive: those that engines load, and the newest."""
        self.background.run(self._make_room())

    def publish(self, *, whole: bool) -> Snapshot:
        return self.learner.publish(whole=whole)

    def deliver(self, snapshot: Snapshot, replicas: list[Replica], *, whole: bool) -> None:
        """Lets engines begin to load; an engine that loads an older version goes on to this version by itself.

        An engine that began to serve an older version since `replicas` were chosen loads too, and so does a late
        engine that waits for weights.
        """

        async def begin() -> None:
            older = [each for each in self.arrivals.replicas.serving() if each.version < snapshot.version]
            receivers = [*replicas, *older, *self._waiting()]
            self._newest = Delivery(snapshot=snapshot, whole=whole, reference=self.put(snapshot))
            self._gone = False
            for replica in receivers:
                self._begin(replica)

        self.background.run(begin())

    def unrepaired(self) -> list[Replica]:
        return [replica for replica in [*self.arrivals.wrong(), *self._waiting()] if replica not in self._loading]

    def wait(self, oldest_version: int | None) -> None:
        self.background.run(self._wait(oldest_version))

    async def bring(self, replica: Replica) -> None:
        """Lets a late engine load the newest version, and serve; without a version that lasts, it waits for the next.

        Returns at the end of the load.
        """
        if self._newest is None:
            self.arrivals.replicas.serve(replica)
        elif not self._gone:
            self._loading[replica] = self._newest
            await self._catch_up(replica)
            self.background.notify()

    def learner_lost(self) -> None:
        self._gone = self._newest is not None

    def _waiting(self) -> list[Replica]:
        """Late engines that nobody could bring weights to."""
        return self.arrivals.replicas.in_state(ReplicaState.STARTING) if self._gone else []

    async def _make_room(self) -> None:
        while len({*self._loading.values(), self._newest}) >= VERSIONS:
            oldest = min(delivery.snapshot.version for delivery in self._loading.values())
            late = [replica for replica, delivery in self._loading.items() if delivery.snapshot.version == oldest]
            await self._progress(late)

    async def _wait(self, oldest_version: int | None) -> None:
        while late := [replica for replica in self._loading if _is_late(replica, oldest_version)]:
            await self._progress(late)

    async def _progress(self, late: list[Replica]) -> None:
        """Waits for an engine to have loaded."""
        seconds = f"{self.background.stall_timeout_s:g} s ({BOUND})"
        lines = [f"{replica.name} did not load version {self._loading[replica].snapshot.version}" for replica in late]
        with waiting([replica.name for replica in late], "load new weights", self.background.stall_timeout_s, BOUND):
            await self.background.wait(lambda: f"{', '.join(lines)} within {seconds}")

    def _begin(self, replica: Replica) -> None:
        if self._newest is not None and replica not in self._loading:
            self._loading[replica] = self._newest
            self.background.start(self._catch_up(replica))

    async def _catch_up(self, replica: Replica) -> None:
        """Loads the newest version, and again where other values came meanwhile, or whole values for a repair."""
        loaded = None
        try:
            while self._newest is not None and self._should_load(replica, self._newest, loaded):
                loaded = self._newest
                await self._load(replica, loaded)
        finally:
            del self._loading[replica]

    async def _load(self, replica: Replica, delivery: Delivery) -> None:
        """Loads a version. An engine whose load fails may hold a part of the version, so it is lost.

        If ranks have died, the load failed because of them, and the engine waits for whole weights.
        """
        self._loading[replica] = delivery
        version = delivery.snapshot.version
        try:
            loaded = await self.engines.load(replica, version, delivery.reference)
        except Exception as error:
            if replica.state != ReplicaState.DEAD and await asyncio.to_thread(self.learner.dead_ranks):
                self.learner_lost()
                return self.arrivals.quarantine(replica)
            return self.engines.lose(replica, f"{replica.name} failed to load version {version}: {error!r}")
        self.arrivals.note(replica, version, loaded)
        self.background.notify()

    def _should_load(self, replica: Replica, newest: Delivery, loaded: Delivery | None) -> bool:
        if replica.state == ReplicaState.DEAD or newest is loaded or self._gone:
            return False
        if replica in self.arrivals.broken:
            return newest.whole
        if loaded is None or newest.snapshot.version > loaded.snapshot.version:
            return True
        return not newest.snapshot.equals(loaded.snapshot)  # new ranks may have trained the version again


def _is_late(replica: Replica, oldest_version: int | None) -> bool:
    """True for an engine that a wait is for. Nobody waits for a late engine's first load."""
    if oldest_version is None:
        return replica.state in (ReplicaState.SERVING, ReplicaState.QUARANTINED)
    return replica.state == ReplicaState.SERVING and replica.version < oldest_version
