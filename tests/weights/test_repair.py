"""Which engines receive a version, and which are repaired; without actors."""

from __future__ import annotations

from typing import Any

import pytest

from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.errors import RunFailed
from rlframe.training import Loaded
from rlframe.weights.snapshot import RankShards, Snapshot
from rlframe.weights.sync import WeightSync
from rlframe.weights.transport import Broadcast


class Pool:
    """A pool of engines that records the calls to it."""

    def __init__(self, *replicas: Replica) -> None:
        self.replicas = Replicas("engine", replicas)
        self.version = 0
        self.calls: list[str] = []
        self.breaks: list[str] = []  # engines whose next weights are broken

    def announce(self, version: int) -> None:
        self.version = version

    def pause(self, replicas: list[Replica]) -> None:
        self.calls += [f"pause {replica.name}" for replica in replicas]

    def resume(self, replicas: list[Replica], version: int, fingerprints: dict[str, int]) -> dict[str, Loaded]:
        assert fingerprints == {"w": 7}
        names = [replica.name for replica in replicas]
        self.calls += [f"resume {name} at {version}" for name in names]
        broken, self.breaks = self.breaks, []
        return {name: Loaded(stall_s=1.0, mismatched_tensors=["w"] if name in broken else []) for name in names}


class Transport:
    """Delivers broken weights to the engines in `breaks`; whole versions are broken if `always`."""

    def __init__(self, version: int = 1, breaks: tuple[str, ...] = (), *, always: bool = False) -> None:
        self.version = version
        self.breaks, self.always = breaks, always
        self.whole = False
        self.deliveries: list[tuple[bool, list[str]]] = []

    def publish(self, *, whole: bool) -> Snapshot:
        self.whole = whole
        shards = RankShards(base=self.version, buckets=[], deltas=[], checksums=[], names=[], bytes=0)
        return Snapshot(version=self.version, ranks=[shards])

    def deliver(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        names = [replica.name for replica in replicas]
        self.deliveries.append((self.whole, names))
        broken = self.breaks if self.always or not self.whole else ()
        return {name: Loaded(stall_s=1.0, mismatched_tensors=["w"] if name in broken else []) for name in names}


def engine(name: str, state: ReplicaState = ReplicaState.SERVING, load: int = 1) -> Replica:
    return Replica(name=name, handle=None, state=state, load=load)


def test_only_the_engine_with_broken_weights_gets_the_whole_version() -> None:
    pool, transport = Pool(engine("a"), engine("b")), Transport(breaks=("b",))
    synced = WeightSync(transport, pool).sync(1)
    assert transport.deliveries == [(False, ["a", "b"]), (True, ["b"])]
    assert (synced.version, synced.repaired, synced.stall_s, pool.version) == (1, ["b"], 1.0, 1)
    assert [replica.state for replica in pool.replicas] == ["serving", "serving"]


def test_an_engine_that_is_broken_twice_is_quarantined_and_ends_the_run() -> None:
    pool = Pool(engine("a"), engine("b"))
    with pytest.raises(RunFailed, match=r"weights of version 1 arrived broken, twice: b \(w\)"):
        WeightSync(Transport(breaks=("b",), always=True), pool).sync(1)
    assert [replica.state for replica in pool.replicas] == ["serving", "quarantined"]


def test_draining_engines_get_weights_and_dead_or_starting_ones_do_not() -> None:
    states = dict(zip("abcd", ("DRAINING", "DEAD", "STARTING", "QUARANTINED"), strict=True))
    pool = Pool(*[engine(name, ReplicaState[state]) for name, state in states.items()])
    transport = Transport()
    WeightSync(transport, pool).sync(1)
    assert transport.deliveries == [(False, ["a", "d"])]
    assert [replica.state for replica in pool.replicas] == ["draining", "dead", "starting", "serving"]


def test_a_late_engine_with_broken_weights_is_quarantined_until_a_sync() -> None:
    pool, transport = Pool(engine("a")), Transport()
    weights = WeightSync(transport, pool)
    weights.sync(1)
    pool.replicas.join(late := engine("b", ReplicaState.STARTING))
    transport.breaks = ("b",)
    weights.bring(late)
    assert late.state == "quarantined"
    transport.version, transport.breaks = 2, ()
    weights.sync(2)
    assert late.state == "serving"


def test_before_any_sync_a_late_engine_serves_with_the_weights_of_its_start() -> None:
    pool, transport = Pool(late := engine("a", ReplicaState.STARTING)), Transport()
    WeightSync(transport, pool).bring(late)
    assert late.state == "serving" and transport.deliveries == []


class Ranks:
    """The learner's ranks, which record their calls beside those of the pool."""

    def __init__(self, pool: Pool, version: int = 1) -> None:
        self.pool = pool
        self.version = version

    def publish(self, *, whole: bool) -> Snapshot:
        raise AssertionError("nothing is put into the object store")

    def join_engines(self, backend: str, engines: dict[str, Any], workers: int, chunk_bytes: int) -> None:
        self.pool.calls.append(f"meet {' '.join(engines)} by {backend}")

    def send(self) -> dict[str, int]:
        self.pool.calls.append("send")
        return {"w": 7}


def broadcast(pool: Pool) -> tuple[Ranks, WeightSync]:
    ranks = Ranks(pool)
    return ranks, WeightSync(Broadcast(ranks, pool, backend="nccl", workers=1, chunk_bytes=1), pool)


def test_a_broadcast_sends_between_pause_and_resume() -> None:
    pool = Pool(engine("a"), engine("b"))
    ranks, weights = broadcast(pool)
    synced = weights.sync(1)
    assert pool.calls == ["pause a", "pause b", "meet a b by nccl", "send", "resume a at 1", "resume b at 1"]
    assert (synced.version, synced.bytes, synced.repaired, pool.version) == (1, 0, [], 1)
    pool.calls.clear()
    ranks.version = 2
    weights.sync(2)
    assert pool.calls[2] == "send"  # the same engines need no new group


def test_a_broadcast_repairs_in_a_group_of_the_broken_engine() -> None:
    pool = Pool(engine("a"), engine("b"))
    pool.breaks = ["b"]
    ranks, weights = broadcast(pool)
    assert weights.sync(1).repaired == ["b"]
    assert pool.calls[6:] == ["pause b", "meet b by nccl", "send", "resume b at 1"]
    pool.calls.clear()
    ranks.version = 2
    weights.sync(2)
    assert pool.calls[2:4] == ["meet a b by nccl", "send"]


def test_by_a_broadcast_a_late_engine_serves_from_the_next_sync_on() -> None:
    pool = Pool(engine("a"))
    ranks, weights = broadcast(pool)
    weights.sync(1)
    pool.replicas.join(late := engine("b", ReplicaState.STARTING))
    weights.bring(late)
    assert late.state == "starting"
    pool.calls.clear()
    ranks.version = 2
    weights.sync(2)
    assert late.state == "serving"
    assert pool.calls[2:4] == ["meet a b by nccl", "send"]
