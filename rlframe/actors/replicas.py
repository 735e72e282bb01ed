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
    QUARANTINED = "quarantined"  # holds wrong weights, and samples nothing until healed
    DEAD = "dead"  # gets neither work nor weights; the process can be ended


class ReplicasDown(RunFailed):
    """No replica of a kind serves, and none is starting."""


@dataclass(slots=True, kw_only=True, eq=False)
class Replica:
    """An actor and its state."""

    name: str
    handle: Handle
    calls: int = 0  # unfinished, of a reward worker; episode workers count an engine's completions themselves
    state: ReplicaState = ReplicaState.SERVING
    version: int = 0  # of the policy that an engine has loaded


class Replicas:
    """Replicas by name, in the order of joining. Any thread may join, assign or end a replica.

    >>> workers = Replicas("worker", [Replica(name="reward-0", handle=None), Replica(name="reward-1", handle=None)])
    >>> [workers.assign().name for call in range(3)]
    ['reward-0', 'reward-1', 'reward-0']
    >>> workers.release(workers["reward-0"])
    >>> [worker.calls for worker in workers]
    [1, 1]
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

    def in_state(self, *states: ReplicaState) -> list[Replica]:
        return [replica for replica in self if replica.state in states]

    def serving(self) -> list[Replica]:
        return self.in_state(ReplicaState.SERVING)

    def assign(self) -> Replica | None:
        """Counts a call at the serving replica with the fewest calls, ties to the first; None while replicas start.

        Raises ReplicasDown where no replica serves or starts.
        """
        with self._lock:
            if not (serving := self.serving()):
                if self.in_state(ReplicaState.STARTING):
                    return None
                raise ReplicasDown(f"no {self.kind} is left of {', '.join(self._replicas)}")
            replica = min(serving, key=lambda replica: replica.calls)
            replica.calls += 1
            return replica

    def release(self, replica: Replica) -> None:
        """Takes a finished call off a replica."""
        with self._lock:
            replica.calls -= 1

    def join(self, replica: Replica) -> None:
        """Adds a replica. Raises ValueError where the name is taken."""
        with self._lock:
            if replica.name in self._replicas:
                raise ValueError(f"there is already {self.kind} {replica.name}")
            self._replicas[replica.name] = replica

    def serve(self, replica: Replica) -> None:
        """Marks a replica as serving, after its start or a repair."""
        self._move(replica, ReplicaState.SERVING)

    def quarantine(self, replica: Replica) -> None:
        """Marks a replica as holding wrong weights: it gets no work."""
        self._move(replica, ReplicaState.QUARANTINED)

    def end(self, name: str) -> None:
        """Marks a replica as dead. No later call changes the mark."""
        with self._lock:
            self._replicas[name].state = ReplicaState.DEAD

    def _move(self, replica: Replica, state: ReplicaState) -> None:
        with self._lock:
            if replica.state != ReplicaState.DEAD:
                replica.state = state
