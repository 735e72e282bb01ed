"""Which replica gets work, and how replicas join, drain and are replaced; no actors."""

from __future__ import annotations

import pytest

from rlframe.actors.replicas import Replica, Replicas, ReplicasDown, ReplicaState


def engines(*loads: int, state: ReplicaState = ReplicaState.SERVING) -> Replicas:
    replicas = [Replica(name=f"rollout-{index}", handle=None, load=load) for index, load in enumerate(loads)]
    for replica in replicas:
        replica.state = state
    return Replicas("engine", replicas)


def names(replicas: list[Replica]) -> list[str]:
    return [replica.name for replica in replicas]


def test_work_goes_to_the_least_busy_and_ties_to_the_first() -> None:
    replicas = engines(5, 0, 0)
    assert names(replicas.assign(3, count=4)) == ["rollout-1", "rollout-2", "rollout-1", "rollout-2"]
    assert replicas.loads == [5, 6, 6]
    assert names(replicas.assign(3)) == ["rollout-0"]


def test_a_draining_replica_gets_no_work_and_is_dead_once_its_load_is_0() -> None:
    replicas = engines(2, 9)
    first = replicas["rollout-0"]
    replicas.drain("rollout-0")
    assert names(replicas.assign(1)) == ["rollout-1"]
    replicas.release(first, 1)
    assert first.state == "draining"
    replicas.release(first, 1)
    assert first.state == "dead"
    assert replicas.loads == [10]


def test_an_idle_replica_that_drains_is_dead_at_once() -> None:
    replicas = engines(0, 0)
    replicas.drain("rollout-1")
    assert replicas["rollout-1"].state == "dead"


def test_a_quarantined_replica_gets_work_only_when_none_serves() -> None:
    replicas = engines(0, 7)
    replicas.quarantine(replicas["rollout-0"])
    assert names(replicas.assign(1)) == ["rollout-1"]
    replicas.quarantine(replicas["rollout-1"])
    assert names(replicas.assign(1)) == ["rollout-0"]
    replicas.serve(replicas["rollout-1"])
    assert names(replicas.serving()) == ["rollout-1"]


def test_a_starting_replica_gets_no_work_but_is_worth_waiting_for() -> None:
    replicas = engines(0, state=ReplicaState.STARTING)
    assert replicas.least_busy() is None
    assert replicas.assign(1) == []
    replicas.serve(replicas["rollout-0"])
    assert names(replicas.assign(1)) == ["rollout-0"]


def test_without_a_replica_that_serves_or_starts_the_error_names_all() -> None:
    replicas = engines(0, 0, state=ReplicaState.DEAD)
    with pytest.raises(ReplicasDown, match="no engine is left of rollout-0, rollout-1"):
        replicas.assign(1)


def test_a_late_replica_gets_the_next_work() -> None:
    replicas = engines(4)
    replicas.join(Replica(name="rollout-1", handle=None))
    assert names(replicas.assign(4, count=2)) == ["rollout-1", "rollout-0"]


def test_a_name_cannot_join_twice() -> None:
    with pytest.raises(ValueError, match="there is already engine rollout-0"):
        engines(0).join(Replica(name="rollout-0", handle=None))


def test_a_new_replica_takes_the_place_of_a_dead_one() -> None:
    replicas = engines(0, 0)
    dead = replicas["rollout-0"]
    replicas.replace("rollout-0", Replica(name="rollout-2", handle=None))
    assert dead.state == "dead"
    assert names(list(replicas)) == ["rollout-2", "rollout-1"]
    assert names(replicas.assign(1)) == ["rollout-2"]


@pytest.mark.parametrize("state", [ReplicaState.DRAINING, ReplicaState.DEAD])
def test_a_replica_that_drains_or_died_never_serves_again(state: ReplicaState) -> None:
    replicas = engines(1, state=state)
    replicas.serve(replicas["rollout-0"])
    replicas.quarantine(replicas["rollout-0"])
    assert replicas["rollout-0"].state == state
