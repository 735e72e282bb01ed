"""Which engines take part in a broadcast, and when one may end; without actors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rlframe.actors.background import Background
from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.errors import LearnerLost, RunFailed
from rlframe.training import Loaded
from rlframe.weights.broadcast import Broadcast
from rlframe.weights.snapshot import Snapshot
from rlframe.weights.sync import WeightSync


class Pool:
    """A pool of engines that records the calls to it."""

    def __init__(self, *replicas: Replica) -> None:
        self.replicas = Replicas("engine", replicas)
        self.version = 0
        self.calls: list[str] = []
        self.breaks: list[str] = []  # engines whose next weights are broken
        self.silent: list[str] = []  # engines that answer nothing

    def announce(self, version: int) -> None:
        self.version = version

    async def load(self, replica: Replica, version: int, snapshot: Any) -> Loaded:
        raise AssertionError("nothing comes from the object store")

    def lose(self, replica: Replica, reason: str) -> None:
        self.replicas.end(replica.name)
        self.calls.append(f"lose {reason}")

    def pause(self, replicas: list[Replica]) -> list[Replica]:
        self.calls += [f"pause {replica.name}" for replica in replicas]
        return [replica for replica in replicas if replica.name not in self.silent]

    def resume(self, replicas: list[Replica], version: int, fingerprints: dict[str, int]) -> dict[str, Loaded]:
        assert fingerprints == {"w": 7}
        names = [replica.name for replica in replicas]
        self.calls += [f"resume {name} at {version}" for name in names]
        broken, self.breaks = self.breaks, []
        return {name: Loaded(stall_s=1.0, mismatched_tensors=["w"] if name in broken else []) for name in names}


class Ranks:
    """The learner's ranks, which record their calls beside those of the pool."""

    def __init__(self, pool: Pool, version: int = 1) -> None:
        self.pool = pool
        self.version = version
        self.error: Exception | None = None  # of the next `send`

    def publish(self, *, whole: bool) -> Snapshot:
        raise AssertionError("nothing is put into the object store")

    def join_engines(self, backend: str, engines: dict[str, Any], workers: int, chunk_bytes: int) -> None:
        self.pool.calls.append(f"meet {' '.join(engines)} by {backend}")

    def send(self) -> dict[str, int]:
        self.pool.calls.append("send")
        if self.error:
            raise self.error
        return {"w": 7}


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    background = Background("weights under test", stall_timeout_s=20.0)
    yield background
    background.close()


def engine(name: str, state: ReplicaState = ReplicaState.SERVING) -> Replica:
    return Replica(name=name, handle=None, state=state)


def broadcast(pool: Pool, background: Background) -> tuple[Ranks, WeightSync]:
    ranks = Ranks(pool)
    transport = Broadcast(ranks, pool, backend="nccl", workers=1, chunk_bytes=1)
    return ranks, WeightSync(transport, pool, background)


def test_a_broadcast_sends_between_pause_and_resume(background: Background) -> None:
    pool = Pool(engine("a"), engine("b"))
    ranks, weights = broadcast(pool, background)
    synced = weights.sync(1)
    assert pool.calls == ["pause a", "pause b", "meet a b by nccl", "send", "resume a at 1", "resume b at 1"]
    assert (synced.version, synced.bytes, synced.repaired, pool.version) == (1, 0, [], 1)
    assert [replica.version for replica in pool.replicas] == [1, 1]
    pool.calls.clear()
    ranks.version = 2
    weights.sync(2)
    assert pool.calls[2] == "send"  # the same engines need no new group


def test_a_broadcast_repairs_in_a_group_of_the_broken_engine(background: Background) -> None:
    pool = Pool(engine("a"), engine("b"))
    pool.breaks = ["b"]
    ranks, weights = broadcast(pool, background)
    assert weights.sync(1).repaired == ["b"]
    assert pool.calls[6:] == ["pause b", "meet b by nccl", "send", "resume b at 1"]
    pool.calls.clear()
    ranks.version = 2
    weights.sync(2)
    assert pool.calls[2:4] == ["meet a b by nccl", "send"]


def test_by_a_broadcast_a_late_engine_serves_from_the_next_sync_on(background: Background) -> None:
    pool = Pool(engine("a"))
    ranks, weights = broadcast(pool, background)
    weights.sync(1)
    pool.replicas.join(late := engine("b", ReplicaState.STARTING))
    background.run(weights.bring(late))
    assert late.state == "starting"
    pool.calls.clear()
    ranks.version = 2
    weights.sync(2)
    assert late.state == "serving"
    assert pool.calls[2:4] == ["meet a b by nccl", "send"]


def test_before_any_broadcast_a_late_engine_serves_at_once(background: Background) -> None:
    pool = Pool(late := engine("a", ReplicaState.STARTING))
    background.run(broadcast(pool, background)[1].bring(late))
    assert late.state == "serving" and pool.calls == []


def test_a_late_engine_in_place_of_the_only_one_waits_for_no_sync(background: Background) -> None:
    """Without the engine no step would end, and a sync follows a step."""
    pool = Pool(engine("a"))
    _, weights = broadcast(pool, background)
    weights.sync(1)
    pool.replicas.end("a")
    late = engine("b", ReplicaState.STARTING)
    pool.replicas.join(late)
    background.run(weights.bring(late))
    assert (late.state, weights.needs_repair) == ("starting", True)
    weights.repair()
    assert (late.state, late.version, weights.needs_repair) == ("serving", 1, False)


def test_an_engine_that_dies_before_a_broadcast_is_left_out(background: Background) -> None:
    pool = Pool(engine("a"), engine("b"))
    pool.silent = ["a"]
    broadcast(pool, background)[1].sync(1)
    assert pool.calls == ["pause a", "pause b", "meet b by nccl", "send", "resume b at 1"]


def test_a_broadcast_without_engines_sends_nothing(background: Background) -> None:
    pool = Pool(engine("a", ReplicaState.DEAD))
    assert broadcast(pool, background)[1].sync(1).version == 1
    assert pool.calls == []


def test_an_engine_that_dies_in_a_broadcast_takes_its_peers_along(background: Background) -> None:
    """They hold a part of the values, and wait in NCCL for the rest."""
    pool = Pool(engine("a"), engine("b"))
    ranks, weights = broadcast(pool, background)
    ranks.error = RunFailed("rollout-7 is gone")
    with pytest.raises(LearnerLost, match="version 1 did not reach all engines: rollout-7 is gone"):
        weights.sync(1)
    assert pool.calls[-2:] == [f"lose {name} may hold a part of version 1: rollout-7 is gone" for name in "ab"]


def test_an_engine_is_ended_between_two_broadcasts_only(background: Background) -> None:
    pool = Pool(engine("a"), engine("b"))
    ranks, weights = broadcast(pool, background)
    sending, ending = threading.Event(), threading.Event()

    def send() -> dict[str, int]:
        sending.set()
        assert not ending.wait(0.2)  # the end waits for the broadcast
        return {"w": 7}

    def end() -> None:
        sending.wait()
        weights.end("a")
        ending.set()

    ranks.send = send  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=end)
    thread.start()
    weights.sync(1)
    thread.join()
    assert [replica.state for replica in pool.replicas] == ["dead", "serving"]
    assert pool.calls[-2:] == ["resume a at 1", "resume b at 1"]
