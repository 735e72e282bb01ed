"""Which replica gets calls, and how replicas join, heal and end; no actors."""

from __future__ import annotations

import pytest

from rlframe.actors.replicas import Replica, Replicas, ReplicasDown, ReplicaState


def workers(*calls: int, state: ReplicaState = ReplicaState.SERVING) -> Replicas:
    replicas = [Replica(name=f"reward-{n}", handle=None, calls=count, state=state) for n, count in enumerate(calls)]
    return Replicas("worker", replicas)


def assigned(replicas: Replicas, count: int = 1) -> list[str | None]:
    return [replica and replica.name for replica in (replicas.assign() for _ in range(count))]


def test_calls_go_to_the_least_busy_and_ties_to_the_first() -> None:
    replicas = workers(2, 0, 0)
    assert assigned(replicas, 6) == ["reward-1", "reward-2", "reward-1", "reward-2", "reward-0", "reward-1"]
    assert [replica.calls for replica in replicas] == [3, 3, 2]


def test_a_finished_call_makes_room_for_the_next() -> None:
    replicas = workers(2, 2)
    replicas.release(replicas["reward-1"])
    assert assigned(replicas) == ["reward-1"]


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.QUARANTINED, ReplicaState.DEAD])
def test_a_replica_that_does_not_serve_gets_no_calls(state: ReplicaState) -> None:
    replicas = workers(0, 7)
    replicas["reward-0"].state = state
    assert assigned(replicas) == ["reward-1"]
    assert [replica.name for replica in replicas.serving()] == ["reward-1"]


def test_a_starting_replica_is_worth_waiting_for() -> None:
    replicas = workers(0, state=ReplicaState.STARTING)
    assert assigned(replicas) == [None]
    replicas.serve(replicas["reward-0"])
    assert assigned(replicas) == ["reward-0"]


def test_a_healed_replica_serves_again() -> None:
    replicas = workers(0)
    replicas.quarantine(replicas["reward-0"])
    assert replicas.serving() == []
    replicas.serve(replicas["reward-0"])
    assert assigned(replicas) == ["reward-0"]


def test_without_a_replica_that_serves_or_starts_the_error_names_all() -> None:
    replicas = workers(0, 0)
    replicas.end("reward-0")
    replicas.end("reward-1")
    with pytest.raises(ReplicasDown, match="no worker is left of reward-0, reward-1"):
        replicas.assign()


def test_a_late_replica_gets_the_next_call() -> None:
    replicas = workers(1)
    replicas.join(Replica(name="reward-1", handle=None))
    assert assigned(replicas, 2) == ["reward-1", "reward-0"]


def test_a_name_cannot_join_twice() -> None:
    with pytest.raises(ValueError, match="there is already worker reward-0"):
        workers(0).join(Replica(name="reward-0", handle=None))


def test_a_dead_replica_never_serves_again() -> None:
    replicas = workers(0)
    replicas.end("reward-0")
    replicas.serve(replicas["reward-0"])
    replicas.quarantine(replicas["reward-0"])
    assert replicas["reward-0"].state == "dead"
