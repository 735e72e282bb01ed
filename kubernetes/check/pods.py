"""`Pod`: the pods that KubeRay and Kubernetes make of manifests, with the labels and containers that KubeRay adds.

groupName: rollout, minReplicas: 1, maxReplicas: 3, labels {rlframe.io/role: rollout}
-> Pod(group="rollout", least=1, most=3, labels={ray.io/group: rollout, ray.io/node-type: worker, ...})
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kubernetes.check.problem import Manifest, title

HEAD = "headgroup"  # ray.io/group of the head
SUBMITTER = "submitter"
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The equal pods of a group."""

    group: str
    where: str  # object and field of the template
    labels: dict[str, str]
    spec: dict[str, Any]
    ray: dict[str, Any] = field(default_factory=dict)  # the group of a RayCluster; empty for other pods
    least: int = 1
    most: int = 1

    @property
    def is_ray(self) -> bool:
        return bool(self.ray)

    @property
    def main(self) -> dict[str, Any]:
        """The first container, in which Ray runs."""
        return (self.spec.get("containers") or [{}])[0]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*(self.spec.get("initContainers") or []), *(self.spec.get("containers") or [])]

    @property
    def params(self) -> dict[str, str]:
        return self.ray.get("rayStartParams") or {}

    @property
    def node_labels(self) -> dict[str, str]:
        return self.ray.get("labels") or {}

    @property
    def cpus(self) -> float:
        """CPUs that Ray gives to actors on the pod."""
        limits = self.main.get("resources", {}).get("limits", {})
        return float(self.params.get("num-cpus", math.ceil(quantity(limits.get("cpu", 0)))))

    @property
    def gpus(self) -> float:
        return quantity(self.main.get("resources", {}).get("limits", {}).get(GPU, 0))

    def variables(self) -> dict[str, dict[str, Any]]:
        """Environment variables of the first container by name."""
        return {each["name"]: each for each in self.main.get("env") or []}


def ray_specs(manifests: list[Manifest]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name of the cluster, object and field, RayClusterSpec) of each RayCluster and RayJob."""
    for manifest in manifests:
        spec = manifest.get("spec") or {}
        if manifest.get("kind") == "RayCluster":
            yield manifest["metadata"]["name"], f"{title(manifest)} spec", spec
        elif manifest.get("kind") == "RayJob" and spec.get("rayClusterSpec"):
            yield (
                f"{manifest['metadata']['name']}-x7k2p",
                f"{title(manifest)} spec.rayClusterSpec",
                spec["rayClusterSpec"],
            )


def pods(manifests: list[Manifest]) -> list[Pod]:
    """All pods that the manifests lead to."""
    found = [pod for name, where, spec in ray_specs(manifests) for pod in _ray_pods(name, where, spec)]
    for manifest in manifests:
        spec = manifest.get("spec") or {}
        if manifest.get("kind") == "RayJob" and "submitterPodTemplate" in spec:
            template = spec["submitterPodTemplate"]
            labels = _template_labels(template) | {"ray.io/originated-from-crd": "RayJob"}
            where = f"{title(manifest)} spec.submitterPodTemplate"
            found.append(Pod(group=SUBMITTER, where=where, labels=labels, spec=template.get("spec") or {}))
        elif manifest.get("kind") in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
            template, where = spec.get("template") or {}, f"{title(manifest)} spec.template"
            name = manifest["metadata"]["name"]
            found.append(
                Pod(group=name, where=where, labels=_template_labels(template), spec=template.get("spec") or {})
            )
    return found


def _ray_pods(cluster: str, where: str, spec: dict[str, Any]) -> Iterator[Pod]:
    head = spec.get("headGroupSpec") or {}
    head_spec = dict((head.get("template") or {}).get("spec") or {})
    if spec.get("enableInTreeAutoscaling"):
        head_spec["containers"] = [*(head_spec.get("containers") or []), _autoscaler(spec, head_spec)]
    yield Pod(
        group=HEAD,
        where=f"{where}.headGroupSpec",
        labels=_ray_labels(cluster, HEAD, "head", head),
        spec=head_spec,
        ray=head,
    )
    for index, group in enumerate(spec.get("workerGroupSpecs") or []):
        name = group.get("groupName", str(index))
        yield Pod(
            group=name,
            where=f"{where}.workerGroupSpecs[{index}] ({name})",
            labels=_ray_labels(cluster, name, "worker", group),
            spec=(group.get("template") or {}).get("spec") or {},
            ray=group,
            least=group.get("minReplicas", 0),
            most=group.get("maxReplicas", 0),
        )


def _ray_labels(cluster: str, group: str, kind: str, spec: dict[str, Any]) -> dict[str, str]:
    """Labels that KubeRay gives to a pod. Those of the group and its template cannot replace the last three."""
    return (
        {"ray.io/is-ray-node": "yes", "app.kubernetes.io/name": "kuberay"}
        | _template_labels(spec.get("template") or {})
        | (spec.get("labels") or {})
        | {"ray.io/cluster": cluster, "ray.io/node-type": kind, "ray.io/group": group}
    )


def _autoscaler(spec: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """The container of the autoscaler that KubeRay puts beside the head, with the image of the head."""
    options = spec.get("autoscalerOptions") or {}
    chosen = ("resources", "securityContext", "env", "envFrom", "volumeMounts", "image")
    first = (head.get("containers") or [{}])[0]
    return {"name": "autoscaler", "image": first.get("image")} | {key: options[key] for key in chosen if key in options}


def _template_labels(template: dict[str, Any]) -> dict[str, str]:
    return (template.get("metadata") or {}).get("labels") or {}


SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)
}


def quantity(value: str | int | float) -> float:
    """Kubernetes' amounts as a number: "500m" is 0.5, "2Gi" is 2147483648."""
    text = str(value)
    suffix = text.lstrip("+-.0123456789")
    return float(text.removesuffix(suffix)) * (SUFFIXES[suffix] if suffix else 1)
