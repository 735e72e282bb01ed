"""A node that leaves the cluster: its engine gives everything back, and its other actors start elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import ray
from ray._private.state import available_resources_per_node
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # pyright: ignore

from rlframe.cluster import ray_cluster
from rlframe.cluster.actor import node_of
from rlframe.schema import user_modules
from tests.conftest import compose, tiny_overrides
from tests.tiny.fleet import WAIT_S, open_fleet
from tests.tiny.nodes import Nodes, two_nodes

ROLE = "rlframe.io/role"
CPUS = 3
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with TemporaryDirectory(prefix="ray") as folder, two_nodes(Path(folder), cpus=CPUS) as nodes:
        yield nodes


@pytest.fixture
def settings(nodes: Nodes, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Settings of a run on the two nodes, which this process has joined."""
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    overrides = [*tiny_overrides(tiny_model), "cluster=existing", f"cluster.address={nodes.address}", "rollout.cpus=2"]
    user_modules.add("benchmarks.async_parts")
    ray_cluster.connect(compose(overrides).cluster, namespace="test", cpus=0, store_bytes=0)
    yield overrides
    ray_cluster.end({})


class Worker:
    def ping(self) -> str:
        return ray.get_runtime_context().get_node_id()


def test_every_actor_of_a_draining_node_leaves_in_time(nodes: Nodes, settings: list[str], tmp_path: Path) -> None:
    ids = {node["Labels"][ROLE]: node["NodeID"] for node in ray.nodes()}
    with open_fleet(compose([*settings, "rollout.engines={min: 1, max: 2}"]), tmp_path) as run:
        run.scale(2)  # there is room for one engine on each node
        run.until(lambda: run.seated() == ["rollout-0", "rollout-1"])
        homes = {name: node_of(handle).pop() for name, handle in run.handles.items()}
        assert set(homes.values()) == set(ids.values())
        [leaving] = [name for name, home in homes.items() if home == ids["second"]]
        [staying] = homes.keys() - {leaving}
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "label_selector": {ROLE: "in(first, second)"}}
        run.handles["reward-0"] = ray.remote(Worker).options(**options).remote()
        run.order("o0", 600, 600)
        run.order("o1", 600, 600)
        run.until(lambda: sum(each.tokens > 100 for each in run.followed.engines.values()) == 2)

        began = time.monotonic()
        deadline_ms = int((time.time() + DEADLINE_S) * 1000)
        reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
        assert GcsClient(address=nodes.address).drain_node(ids["second"], reason, "spot", deadline_ms)[0]
        run.until(lambda: leaving not in run.handles)
        assert time.monotonic() - began < DEADLINE_S / 2
        assert len(run.groups("o0", "o1")) == 2
        assert sum(engine.tokens for engine in run.followed.engines.values()) <= 2400  # none is sampled twice
        run.until(lambda: ray.get(run.handles["reward-0"].ping.remote(), timeout=WAIT_S) == ids["first"])
        run.until(lambda: ids["second"] not in available_resources_per_node())  # empty, so Ray lets it go
        assert (run.seated(), list(run.fleet.coming)) == ([staying], ["rollout-2"])  # demand for a further node
