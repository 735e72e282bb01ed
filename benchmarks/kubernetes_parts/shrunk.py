"""`ray_cluster`: the cluster of the rendered overlay `small`, with sizes that fit on a machine of two cores."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from kubernetes.check.problem import of_kind
from kubernetes.check.render import render

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "kubernetes" / "overlays" / "small" / "job"
IDLE_S = 5
STORE_BYTES = 128 << 20
CPUS = {"learner": 2, "rollout": 1, "reward": 2}  # of a pod: two ranks, an engine, two workers


def ray_job() -> dict[str, Any]:
    """The RayJob of the overlay."""
    (job,) = of_kind(render(OVERLAY), "RayJob")
    return job


def ray_cluster(attempt: int) -> dict[str, Any]:
    """The RayCluster that KubeRay makes for an attempt of the RayJob."""
    spec = copy.deepcopy(ray_job()["spec"]["rayClusterSpec"])
    spec["autoscalerOptions"]["idleTimeoutSeconds"] = IDLE_S
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        group["rayStartParams"]["object-store-memory"] = str(STORE_BYTES)
        if (name := group.get("groupName")) is not None:
            group["idleTimeoutSeconds"] = IDLE_S
            amounts = {"cpu": str(CPUS[name]), "memory": "4Gi"}
            group["template"]["spec"]["containers"][0]["resources"] = {"limits": amounts, "requests": amounts}
    about = {"name": f"rlframe-{attempt:05d}", "namespace": "rlframe"}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": about, "spec": spec}
