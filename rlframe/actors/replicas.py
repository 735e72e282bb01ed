"""`Replicas`: interchangeable actors, for example the engines of a run. Pure bookkeeping; calls no actor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Any, TypeAlias

from rlframe.errors import RunFailed

Handle: TypeAlias = Any  # ray.actor.ActorHandle, whose methods Ray creates at run time


class ReplicaState(StrEnum):
    STARTING = "starting"  # gets no work; will serve
    SERVING = "serving"
    DRAINING = "draining"  # finishes old work and gets no new work
    QUARANTINED = "quarantined"  # holds wrong weights; gets work, which waits until healed, only when no replica serves
    DEAD = "dead"  # gets neither work nor weights; the process can be ended


class ReplicasDown(RunFailed):
    """No replica of a kind serves, and none is starting."""


@dataclass(slots=True, kw_only=True, eq=False)
class Replica:
    """An actor, the amount of its unfinished work, and its policy version."""

    name: str
    handle: Handle
    load: int = 0  # unfinished pieces of work: completions of an engine, calls of a reward worker
    state: ReplicaState = ReplicaState.SERVING
    version: int = 0  # of the policy that an engine has loaded


class Replicas:
    """Replicas by name, in the order of joining. Any thread may join, drain or replace a replica.

    >>> engines = Replicas("engine", [Replica(name="rollout-0", handle=None), Replica(name="rollout-1", handle=None)])
    >>> [replica.name for replica in engines.assign(4, count=3)]  # 3 groups of 4 completions
    ['rollout-0', 'rollout-1', 'rollout-0']
    >>> engines.loads
    [8, 4]
    """

    def __init__(self, kind: str, replicas: Iterable[Replica] = ()) -> None:
        """`kind`: the noun for a replica in error texts."""
        self.kind = kind
        self._lock = Lock()
        self._replicas = {replica.name: replica for replica in replicas}

    def __iter__(self) -> Iterator[Replica]:
        return iter(list(self._replicas.values()))

    def __len__(self) -> int:
        return len(self._replicas)

    def __getitem__(self, name: str) -> Replica:
        return self._replicas[name]

    @property
    def loads(self) -> list[int]:
        """The load of each replica that is not dead."""
        return [replica.load for replica in self if replica.state != ReplicaState.DEAD]

    def in_state(self, *states: ReplicaState) -> list[Replica]:
        return [replica for replica in self if replica.state in states]

    def serving(self) -> list[Replica]:
        return self.in_state(ReplicaState.SERVING)

    def least_busy(self) -> Replica | None:
        """The serving replica with the least load.

        If no replica serves: a quarantined replica, or None while replicas are starting. Raises ReplicasDown where no
        replica is starting either.
        """
        if candidates := self.serving() or self.in_state(ReplicaState.QUARANTINED):
            return min(candidates, key=lambda replica: replica.load)
        if self.in_state(ReplicaState.STARTING):
            return None
        raise ReplicasDown(f"no {self.kind} is left of {', '.join(self._replicas)}")

    def assign(self, load: int, *, count: int = 1) -> list[Replica]:
        """Gives each of `count` pieces of work to the least busy replica, whose load grows by `load`: [count] replicas.

        Empty while replicas are starting and no replica serves. Raises ReplicasDown.
        """
        chosen = []
        with self._lock:  # a replica that drains meanwhile gets all of the pieces or none
            for _ in range(count):
                replica = self.least_busy()
                if replica is None:
                    return []
                replica.load += load
                chosen.append(replica)
        return chosen

    def release(self, replica: Replica, load: int) -> None:
        """Takes finished work off a replica. A draining replica whose load is 0 is dead."""
        with self._lock:
            replica.load -= load
            self._end_drained(replica)

    def join(self, replica: Replica) -> None:
        """Adds a replica. Raises ValueError where the name is taken."""
        with self._lock:
            if replica.name in self._replicas:
                raise ValueError(f"there is already {self.kind} {replica.name}")
            self._replicas[replica.name] = replica

    def serve(self, replica: Replica) -> None:
        """Gives work to a replica that has started or is healed."""
        self._move(replica, ReplicaState.SERVING)

    def quarantine(self, replica: Replica) -> None:
        """Gives no work to a replica that holds wrong weights, as long as another replica serves."""
        self._move(replica, ReplicaState.QUARANTINED)

    def drain(self, name: str) -> None:
        """Gives a replica no new work. Once the load is 0, the replica is dead."""
        with self._lock:
            self._replicas[name].state = ReplicaState.DRAINING
            self._end_drained(self._replicas[name])

    def replace(self, name: str, replica: Replica) -> None:
        """Puts a replica in the place of the replica `name`, which is dead from now on."""
        with self._lock:
            if replica.name != name and replica.name in self._replicas:
                raise ValueError(f"there is already {self.kind} {replica.name}")
            self._replicas[name].state = ReplicaState.DEAD
            self._replicas = {
                new.name: new for old in self._replicas.values() for new in [replica if old.name == name else old]
            }

    def _move(self, replica: Replica, state: ReplicaState) -> None:
        with self._lock:
            if replica.state not in (ReplicaState.DRAINING, ReplicaState.DEAD):  # no way back from either
                replica.state = state

    def _end_drained(self, replica: Replica) -> None:
        if replica.state == ReplicaState.DRAINING and replica.load == 0:
            replica.state = ReplicaState.DEAD
