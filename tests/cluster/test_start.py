"""Starting some of a run's roles, and the meeting of its ranks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.cluster.actor import meeting_point
from rlframe.errors import RunFailed
from tests.conftest import compose, tiny_overrides


@pytest.fixture(scope="module")
def rewards_alone(tiny_model: Path) -> Iterator[cluster.Actors]:
    with cluster.start(compose(tiny_overrides(tiny_model)), tiny_model, ["reward"]) as actors:
        yield actors
    assert not ray.is_initialized()


def test_a_run_starts_only_the_roles_that_it_asks_for(rewards_alone: cluster.Actors) -> None:
    assert list(rewards_alone.starter.handles) == ["reward-0"]
    assert ray.cluster_resources()["CPU"] == 1  # reward.workers x reward.cpus
    roles = (rewards_alone.rollouts, rewards_alone.episodes, rewards_alone.learner, rewards_alone.weights)
    assert roles == (None, None, None, None)
    with pytest.raises(RunFailed, match="this run has no engines"):
        rewards_alone.add_engine()


def test_ranks_get_their_meeting_point_once_all_have_started(rewards_alone: cluster.Actors, tmp_path: Path) -> None:
    class Rank:
        def __init__(self, seconds: float) -> None:
            time.sleep(seconds)
            (tmp_path / f"{seconds}").touch()

        def connect(self, address: str) -> tuple[str, int]:
            return address, len(list(tmp_path.iterdir()))

    ranks = [ray.remote(Rank).options(num_cpus=0).remote(seconds) for seconds in (0.0, 1.0)]
    address = meeting_point(ranks)
    (first, started), (second, _) = ray.get([rank.connect.remote(address) for rank in ranks])
    assert first == second and first.rpartition(":")[0] == "127.0.0.1"
    assert started == 2  # rank 0 did not connect before rank 1 had started
