"""Ray's own autoscaler on the shrunk overlay, over a Kubernetes API in memory whose pods are processes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import ray
import yaml

from benchmarks.kubernetes_parts.api import Api
from benchmarks.kubernetes_parts.pods import Kubelet, autoscaler
from benchmarks.kubernetes_parts.shrunk import IDLE_S, ray_cluster
from rlframe.cluster import ray_cluster as connection
from rlframe.config.compose import conf_dir
from rlframe.config.train import ClusterConfig

WAIT_S = 120.0  # far longer than on an idle machine
ROLLOUT = {"rlframe.io/role": "rollout"}


class Engine:
    """Takes the CPU of a rollout pod."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubelet]:
    """A head, a rollout pod and the autoscaler; this process has joined. Other groups are empty, to save time."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in token.items():
        monkeypatch.setenv(name, value)
    cluster = ray_cluster(1)
    for group in cluster["spec"]["workerGroupSpecs"]:
        if group["groupName"] != "rollout":
            group |= {"replicas": 0, "minReplicas": 0}
    with TemporaryDirectory(prefix="k8s") as short, ExitStack() as stack:
        folder = Path(short)
        kubelet = Kubelet(cluster, folder, token | {"RAY_enable_autoscaler_v2": "1"}, 31)
        stack.callback(kubelet.close)
        api = Api(kubelet, folder)
        stack.callback(api.close)
        kubelet.open(WAIT_S)
        scaler = autoscaler(kubelet, api.environment(), folder / "autoscaler.log")
        stack.callback(scaler.wait)
        stack.callback(scaler.kill)
        settings = yaml.safe_load((conf_dir() / "cluster" / "existing.yaml").read_text())
        config = ClusterConfig.model_validate(settings | {"address": kubelet.address})
        connection.connect(config, namespace="test", cpus=0, store_bytes=0)
        stack.callback(connection.end, {})
        yield kubelet


def until(pods: Kubelet, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, (pods.events, (pods.folder / "autoscaler.log").read_text()[-3000:])
        time.sleep(0.1)


@pytest.mark.long
def test_pods_follow_the_demand_and_a_killed_pod_is_replaced(pods: Kubelet) -> None:
    most = 0

    def count() -> int:
        nonlocal most
        most = max(most, len(pods.members("rollout")))
        return len(pods.members("rollout"))

    options: dict[str, Any] = {"num_cpus": 1, "label_selector": ROLLOUT, "max_restarts": -1, "max_task_retries": -1}
    engines = [ray.remote(Engine).options(**options).remote() for _ in range(3)]
    until(pods, lambda: count() == 3)
    homes = ray.get([engine.node.remote() for engine in engines], timeout=WAIT_S)
    assert len(set(homes)) == 3  # a pod for each engine

    killed = pods.members("rollout")[-1]
    pods.kill(killed)
    until(pods, lambda: killed.name not in pods.pods and count() == 3)
    homes = ray.get([engine.node.remote() for engine in engines], timeout=WAIT_S)
    assert len(set(homes)) == 3

    for engine in engines:
        ray.kill(engine)
    began = time.monotonic()
    until(pods, lambda: count() == 1)
    assert time.monotonic() - began > IDLE_S - 1
    until(
        pods, lambda: sum(pod.group == "rollout" for pod in pods.pods.values()) == 1
    )  # drained, and gone before 120 s
    assert most == 3
