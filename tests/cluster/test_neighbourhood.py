"""Episode workers as actors on two nodes: a worker follows the engines when the last one leaves the worker's node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rlframe.actors.replicas import Handle, Replica
from rlframe.cluster import ray_cluster
from rlframe.cluster.actor import node_of
from rlframe.cluster.episodes import episode_pool
from rlframe.cluster.placement import reward_slots
from rlframe.cluster.reward_actors import start_reward_actors
from rlframe.config.run import RunConfig
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.schema import user_modules
from tests.conftest import compose, tiny_overrides
from tests.tiny.fleet import WAIT_S, open_fleet
from tests.tiny.nodes import two_nodes


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> Iterator[RunConfig]:
    """On two nodes, which this process has joined, each with room for an engine."""
    with (
        TemporaryDirectory(prefix="ray") as folder,
        pytest.MonkeyPatch.context() as patch,
        two_nodes(Path(folder), cpus=3) as nodes,
    ):
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        sizes = ["rollout.cpus=2", "rollout.engines={min: 1, max: 2}", "rollout.episode_workers=1", "reward.cpus=0"]
        address = ["cluster=existing", f"cluster.address={nodes.address}"]
        run = compose([*tiny_overrides(tiny_model), *address, *sizes])
        user_modules.add("benchmarks.async_parts")
        user_modules.add("tests.tiny")
        ray_cluster.connect(run.cluster, namespace="test", cpus=0, store_bytes=0)
        yield run
        ray_cluster.end({})


@pytest.mark.long
def test_a_worker_moves_to_the_node_of_the_engine_that_is_left(run: RunConfig, tmp_path: Path) -> None:
    def start_workers(engines: list[Replica], handles: dict[str, Handle]) -> EpisodePool:
        rewards = start_reward_actors(run.reward, reward_slots(run.reward), handles)
        return episode_pool(run, engines, rewards, handles, time.monotonic() + WAIT_S, print)

    with open_fleet(run, tmp_path, start_workers) as fleet_run:
        handles: dict[str, Any] = fleet_run.handles
        fleet_run.background.run(fleet_run.episodes.open_segments(tmp_path / "ledger" / "000001"))
        fleet_run.scale(2)
        fleet_run.until(lambda: fleet_run.seated() == ["rollout-0", "rollout-1"])
        first, second = node_of(handles["rollout-0"]), node_of(handles["rollout-1"])
        left = handles["episodes-0"]
        assert first != second and node_of(left) == first
        fleet_run.order("o0", 400, 500)
        fleet_run.order("o1", 500, 400)
        fleet_run.background.run(fleet_run.fleet.remove("rollout-0"))
        fleet_run.until(lambda: list(fleet_run.episodes.workers) == ["episodes-1"])
        assert node_of(handles["episodes-1"]) == second
        # A group that was whole before the move has its record; the other is sampled to its end by the successor.
        fleet_run.until(lambda: {"o0@0#1", "o1@0#1"} <= fleet_run.followed.records.keys())
        fleet_run.until(lambda: "episodes-0" not in fleet_run.episodes.workers and not node_of(left))
