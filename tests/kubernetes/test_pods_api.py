"""The Kubernetes API that the autoscaler asks, and the shrunk overlay, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from benchmarks.kubernetes_parts.api import Api
from benchmarks.kubernetes_parts.pods import Kubelet
from benchmarks.kubernetes_parts.shrunk import ray_cluster
from kubernetes.check import operator_rules, schemas
from kubernetes.check.pods import pods


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """The API of a cluster without pods."""
    api = Api(Kubelet(ray_cluster(1), tmp_path, {}, 99), tmp_path)
    yield api
    api.close()


def url(api: Api, path: str) -> str:
    environment = api.environment()
    return f"https://{environment['KUBERNETES_SERVICE_HOST']}:{environment['KUBERNETES_SERVICE_PORT_HTTPS']}{path}"


def test_a_patch_changes_the_replicas_that_the_kubelet_sees(api: Api) -> None:
    path = url(api, "/apis/ray.io/v1/namespaces/rlframe/rayclusters/rlframe-00001")
    patch = [{"op": "replace", "path": "/spec/workerGroupSpecs/1/replicas", "value": 3}]
    answer = requests.patch(path, json=patch, verify=str(api.certificate), timeout=10)
    assert answer.json()["spec"]["workerGroupSpecs"][1]["replicas"] == 3
    assert api.kubelet.cluster["spec"]["workerGroupSpecs"][1]["replicas"] == 3
    assert requests.get(path, verify=str(api.certificate), timeout=10).json() == api.kubelet.cluster


def test_an_unknown_request_is_answered_by_404_and_noted(api: Api) -> None:
    assert requests.get(url(api, "/apis/apps/v1"), verify=str(api.certificate), timeout=10).status_code == 404
    pods_url = url(api, "/api/v1/namespaces/rlframe/pods?labelSelector=x")
    assert requests.get(pods_url, verify=str(api.certificate), timeout=10).json()["items"] == []
    assert api.unknown == ["GET /apis/apps/v1"]


def test_the_shrunk_cluster_keeps_groups_and_rules(definitions: Path) -> None:
    cluster = ray_cluster(1)
    assert [*operator_rules.check([cluster]), *schemas.check([cluster], definitions)] == []
    made = {pod.group: (pod.least, pod.most, pod.cpus, pod.gpus) for pod in pods([cluster])}
    assert made == {
        "headgroup": (1, 1, 0, 0),
        "learner": (1, 1, 2, 0),
        "rollout": (1, 3, 1, 0),
        "reward": (1, 2, 2, 0),
    }
