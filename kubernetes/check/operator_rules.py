"""Rules of the KubeRay operator (v1.7) that no schema has: it accepts an object that breaks one, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from kubernetes.check.pods import ray_specs
from kubernetes.check.problem import Manifest, Problem, of_kind, title

MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
LONGEST_NAME = {"RayCluster": 53, "RayJob": 47}
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?")
RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"


def check(manifests: list[Manifest]) -> Iterator[Problem]:
    for manifest in manifests:
        kind, name = manifest.get("kind", ""), manifest.get("metadata", {}).get("name", "")
        if kind in LONGEST_NAME and (len(name) > LONGEST_NAME[kind] or not NAME.fullmatch(name)):
            text = f"must be lower-case letters, digits and dashes, {LONGEST_NAME[kind]} at most"
            yield Problem(where=f"{title(manifest)} metadata.name", text=text, rule="operator/name")
    for _, where, spec in ray_specs(manifests):
        for field, text, rule in _cluster(spec):
            yield Problem(where=f"{where}.{field}", text=text, rule=f"operator/{rule}")
    for manifest in of_kind(manifests, "RayJob"):
        for field, text, rule in _job(manifest.get("spec") or {}):
            yield Problem(where=f"{title(manifest)} spec.{field}", text=text, rule=f"operator/{rule}")


def _cluster(spec: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    head, workers = spec.get("headGroupSpec") or {}, spec.get("workerGroupSpecs") or []
    scales = bool(spec.get("enableInTreeAutoscaling"))
    options = spec.get("autoscalerOptions") or {}
    version_2 = scales and options.get("version") == "v2"
    names = [group.get("groupName") for group in workers]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        yield "workerGroupSpecs", f"groupName {', '.join(twice)} stands twice", "group-name"
    for field, group in [("headGroupSpec", head)] + [
        (f"workerGroupSpecs[{i}]", each) for i, each in enumerate(workers)
    ]:
        for key, text, rule in _group(group, version_2):
            yield f"{field}.{key}", text, rule
    for index, group in enumerate(workers):
        for key, text, rule in _numbers(group, scales):
            yield f"workerGroupSpecs[{index}].{key}", text, rule
        if group.get("idleTimeoutSeconds") is not None and not version_2:
            yield f"workerGroupSpecs[{index}].idleTimeoutSeconds", "needs autoscalerOptions.version: v2", "idle-timeout"
    variables = {each.get("name") for each in _main(head).get("env") or []}
    if AUTOSCALER_V2 in variables:
        yield "headGroupSpec", f"sets {AUTOSCALER_V2}; use autoscalerOptions.version: v2", "autoscaler-variable"
    yield from _fault_tolerance(spec.get("gcsFaultToleranceOptions"), variables, head)


def _numbers(group: dict[str, Any], scales: bool) -> Iterator[tuple[str, str, str]]:
    least, most, now = (group.get(key) for key in ("minReplicas", "maxReplicas", "replicas"))
    if least is None or most is None:
        yield "minReplicas", "minReplicas and maxReplicas must be set", "replicas"
        return
    if not all(isinstance(number, int) for number in (least, most, now or 0)):
        return  # the schema's affair
    if least > most:
        yield "minReplicas", f"{least} is above maxReplicas={most}", "replicas"
    elif now is not None and not least <= now <= most:
        yield "replicas", f"{now} is outside minReplicas={least} to maxReplicas={most}", "replicas"
    elif not scales and least != most:
        yield "maxReplicas", f"differs from minReplicas={least}, but enableInTreeAutoscaling is off", "replicas"


def _group(group: dict[str, Any], version_2: bool) -> Iterator[tuple[str, str, str]]:
    params = group.get("rayStartParams") or {}
    pod = (group.get("template") or {}).get("spec") or {}
    if not pod.get("containers"):
        yield "template.spec.containers", "has no container", "containers"
    if version_2 and pod.get("restartPolicy", "Never") != "Never":
        text = f"{pod['restartPolicy']}, but the autoscaler v2 replaces pods itself; use Never"
        yield "template.spec.restartPolicy", text, "restart-policy"
    if "labels" in params:
        yield "rayStartParams.labels", "is refused; use the group's own field labels", "labels"
    if group.get("resources") and any(key in params for key in RESOURCES):
        yield "resources", "stand in rayStartParams too; use one of them", "resources"
    for key, value in (group.get("labels") or {}).items():
        if not LABEL_KEY.fullmatch(str(key)) or not LABEL_VALUE.fullmatch(str(value)):
            yield "labels", f"{key}: {value} is no label of Kubernetes", "labels"
    for key in sorted({*params} - _ray_options()):
        yield f"rayStartParams.{key}", f"`ray start` has no --{key}", "ray-start"


@cache
def _ray_options() -> set[str]:
    from ray.scripts.scripts import start

    return {option.lstrip("-") for parameter in start.params for option in parameter.opts}


def _fault_tolerance(
    options: dict[str, Any] | None, variables: set[Any], head: dict[str, Any]
) -> Iterator[tuple[str, str, str]]:
    if options is None:
        if "RAY_REDIS_ADDRESS" in variables:
            yield "headGroupSpec", "sets RAY_REDIS_ADDRESS; use gcsFaultToleranceOptions", "gcs"
        return
    field = "gcsFaultToleranceOptions"
    if options.get("backend", "redis") == "redis":
        if not options.get("redisAddress"):
            yield f"{field}.redisAddress", "must be set, as host:port", "gcs"
        if "storage" in options:
            yield f"{field}.storage", "is for backend: rocksdb", "gcs"
    elif keys := {*options} & {"redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace"}:
        yield field, f"{', '.join(sorted(keys))} are for backend: redis", "gcs"
    if "redis-password" in (head.get("rayStartParams") or {}) or variables & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}:
        yield "headGroupSpec", "sets Redis's address or password; use gcsFaultToleranceOptions", "gcs"


def _job(spec: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    mode, retries = spec.get("submissionMode", "K8sJobMode"), spec.get("backoffLimit", 0)
    if mode not in MODES:
        yield "submissionMode", f"{mode} is none of {', '.join(MODES)}", "submission-mode"
    if ("rayClusterSpec" in spec) == bool(spec.get("clusterSelector")):
        yield "rayClusterSpec", "one of rayClusterSpec and clusterSelector must be set", "cluster"
    if retries and (spec.get("clusterSelector") or mode == "InteractiveMode"):
        yield "backoffLimit", f"{retries} works neither with clusterSelector nor with InteractiveMode", "backoff-limit"
    if mode == "SidecarMode" and {*spec} & {"submitterPodTemplate", "submitterConfig"}:
        yield "submissionMode", "SidecarMode has no submitterPodTemplate and no submitterConfig", "submission-mode"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if isinstance(seconds := spec.get(key, 1), int) and seconds <= 0:
            yield key, f"{seconds} is no deadline; use seconds above 0", "deadline"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend", "needs shutdownAfterJobFinishes: true", "suspend"
    if spec.get("ttlSecondsAfterFinished", 0) and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished", "needs shutdownAfterJobFinishes: true", "suspend"
    template = (spec.get("submitterPodTemplate") or {}).get("spec") or {"restartPolicy": "Never"}
    if template.get("restartPolicy") not in ("Never", "OnFailure"):
        text = "must be Never or OnFailure, since a Job of Kubernetes runs the pod"
        yield "submitterPodTemplate.spec.restartPolicy", text, "restart-policy"
    try:
        settings = yaml.safe_load(spec.get("runtimeEnvYAML", "") or "{}")
    except yaml.YAMLError as error:
        yield "runtimeEnvYAML", f"is no YAML: {error}", "runtime-env"
    else:
        if not isinstance(settings, dict):
            yield "runtimeEnvYAML", "is no mapping", "runtime-env"


def _main(group: dict[str, Any]) -> dict[str, Any]:
    containers = ((group.get("template") or {}).get("spec") or {}).get("containers") or [{}]
    return containers[0]
