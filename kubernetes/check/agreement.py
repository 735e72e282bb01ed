"""Images, ports, paths, volumes, accounts and secrets agree over all pods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import yaml

from kubernetes.check.pods import HEAD, SUBMITTER, Pod, quantity, ray_specs
from kubernetes.check.problem import Manifest, Problem, of_kind, title
from kubernetes.check.selectors import LEARNER, REWARD

SHM = "/dev/shm"
PORTS = (
    *("node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port"),
    *("dashboard-agent-listen-port", "metrics-export-port", "min-worker-port", "max-worker-port"),
)
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
ENDING_S = 30  # for a raylet's processes, after the drain
SECRET_NAME = re.compile(r"(key|token|password|secret|credentials?)$", re.IGNORECASE)
QUEUE = "kueue.x-k8s.io/queue-name"
MARKET = "ray.io/market-type"
ELASTIC = "kueue.x-k8s.io/elastic-job"


def check(manifests: list[Manifest], pods: list[Pod]) -> Iterator[Problem]:
    yield from _namespace(manifests)
    yield from _cluster(manifests)
    yield from _images(pods)
    accounts = {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}
    claims = {claim["metadata"]["name"]: claim for claim in of_kind(manifests, "PersistentVolumeClaim")}
    for pod in pods:
        yield from _secrets(pod)
        yield from _volumes(pod, claims)
        account = pod.spec.get("serviceAccountName")
        if account is not None and account not in accounts:
            yield Problem(where=pod.where, text=f"there is no ServiceAccount {account}", rule="account")
        if pod.is_ray:
            yield from _ports(pod, pods)
            yield from _memory(pod)
            yield from _grace(pod)
        if pod.group == REWARD:
            yield from _reward(pod)
    yield from _spot(pods)


def _namespace(manifests: list[Manifest]) -> Iterator[Problem]:
    namespaces = of_kind(manifests, "Namespace")
    used = {str(each["metadata"].get("namespace")) for each in manifests if each.get("kind") != "Namespace"}
    names = {each["metadata"]["name"] for each in namespaces}
    if used != names:
        text = f"objects are in {', '.join(sorted(used))}, and the Namespace is {', '.join(sorted(names)) or 'missing'}"
        yield Problem(where="metadata.namespace", text=text, rule="namespace")
    for each in namespaces:
        level = (each["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce")
        if level != "restricted":
            yield Problem(where=title(each), text=f"enforces {level}, not restricted", rule="namespace/pod-security")


def _cluster(manifests: list[Manifest]) -> Iterator[Problem]:
    installed = metadata.version("ray")
    for _, where, spec in ray_specs(manifests):
        if spec.get("rayVersion") != installed:
            text = f"{spec.get('rayVersion')}, and rlframe's lock has Ray {installed}"
            yield Problem(where=f"{where}.rayVersion", text=text, rule="ray-version")
        if (spec.get("authOptions") or {}).get("mode") != "token":
            text = "is not token, so whoever reaches the head's ports runs code on every pod"
            yield Problem(where=f"{where}.authOptions.mode", text=text, rule="token")
    for manifest in manifests:
        about, spec = manifest["metadata"], manifest.get("spec") or {}
        scales = (spec.get("rayClusterSpec") or spec).get("enableInTreeAutoscaling")
        if QUEUE in (about.get("labels") or {}) and scales and (about.get("annotations") or {}).get(ELASTIC) != "true":
            text = f"Kueue refuses enableInTreeAutoscaling without the annotation {ELASTIC}: true and its feature gate"
            yield Problem(where=title(manifest), text=text, rule="kueue")
        if manifest.get("kind") == "RayJob":
            yield from _job(manifest)


def _job(manifest: Manifest) -> Iterator[Problem]:
    spec = manifest.get("spec") or {}
    for key in ("backoffLimit", "activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if not spec.get(key):
            yield Problem(where=f"{title(manifest)} spec.{key}", text="is not set", rule="job/bounds")
    if not spec.get("shutdownAfterJobFinishes"):
        text = "is not true, so the GPUs stay reserved after the run"
        yield Problem(where=f"{title(manifest)} spec.shutdownAfterJobFinishes", text=text, rule="job/shutdown")
    settings = yaml.safe_load(spec.get("runtimeEnvYAML") or "{}")
    for name, value in ((settings or {}).get("env_vars") or {}).items():
        if SECRET_NAME.search(name) and value:
            text = "everyone who may read jobs sees this value; give it to the head by secretKeyRef"
            yield Problem(where=f"{title(manifest)} spec.runtimeEnvYAML {name}", text=text, rule="secret/plain")


def _images(pods: list[Pod]) -> Iterator[Problem]:
    """Every image has a version, and all pods of a cluster have the same: rlframe:0.1.0 and rlframe-gpu:0.1.0."""
    kinds: dict[tuple[str, str], str] = {}
    for pod in pods:
        for container in pod.containers:
            image, where = str(container.get("image")), f"{pod.where} {container.get('name')} image"
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                yield Problem(where=where, text=f"{image} has no version", rule="image/pinned")
            if pod.is_ray or pod.group == SUBMITTER:
                repository = image.partition("@")[0].removesuffix(f":{tag}").removesuffix("-gpu")
                kinds.setdefault((repository, "" if "@sha256:" in image else tag), image)
    if len(kinds) > 1:
        text = f"Ray needs the same version on all pods, and there are {', '.join(sorted(kinds.values()))}"
        yield Problem(where="image", text=text, rule="image/one")


def _ports(pod: Pod, pods: list[Pod]) -> Iterator[Problem]:
    head = next((each for each in pods if each.group == HEAD), pod)
    for key in PORTS:
        if pod.params.get(key) != head.params.get(key) or key not in pod.params:
            text = f"{pod.params.get(key)}, and on the head {head.params.get(key)}; policies know one port"
            yield Problem(where=f"{pod.where}.rayStartParams.{key}", text=text, rule="ports/same")
    if int(pod.params.get("min-worker-port", 10002)) > int(pod.params.get("max-worker-port", 19999)):
        text = "is above max-worker-port"
        yield Problem(where=f"{pod.where}.rayStartParams.min-worker-port", text=text, rule="ports/range")
    named = {each.get("name"): each.get("containerPort") for each in pod.main.get("ports") or []}
    expected = {"metrics": "metrics-export-port"} | (
        {"gcs-server": "port", "dashboard": "dashboard-port"} if pod.group == HEAD else {}
    )
    for name, key in expected.items():
        if str(named.get(name)) != pod.params.get(key):
            text = f"the port {name} is {named.get(name)}, and rayStartParams.{key} is {pod.params.get(key)}"
            yield Problem(where=f"{pod.where} ports", text=text, rule="ports/named")


def _volumes(pod: Pod, claims: dict[str, Manifest]) -> Iterator[Problem]:
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or []}
    own = {"data"} if not pod.is_ray and pod.group != SUBMITTER else set()  # a StatefulSet's templates
    for container in pod.containers:
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in {*volumes} | own:
                text = f"there is no volume {mount['name']}"
                yield Problem(where=f"{pod.where} {container.get('name')} volumeMounts", text=text, rule="volume")
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            text = "must be true; /tmp and /dev/shm are volumes"
            where = f"{pod.where} {container.get('name')} readOnlyRootFilesystem"
            yield Problem(where=where, text=text, rule="read-only-root")
    for name, volume in volumes.items():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim is not None and claim not in claims:
            yield Problem(where=f"{pod.where} volumes {name}", text=f"there is no claim {claim}", rule="volume")
        elif claim is not None and "ReadWriteMany" not in claims[claim]["spec"].get("accessModes", []):
            text = "pods on several nodes mount it; use ReadWriteMany"
            yield Problem(where=f"{title(claims[claim])} spec.accessModes", text=text, rule="volume/shared")


def _memory(pod: Pod) -> Iterator[Problem]:
    """/dev/shm is in memory, holds the object store, and fits into the container's memory."""
    mounts = {mount.get("mountPath"): mount.get("name") for mount in pod.main.get("volumeMounts") or []}
    volume = next((each for each in pod.spec.get("volumes") or [] if each["name"] == mounts.get(SHM)), {})
    directory = volume.get("emptyDir") or {}
    if directory.get("medium") != "Memory" or "sizeLimit" not in directory:
        yield Problem(
            where=f"{pod.where} {SHM}", text="must be an emptyDir with medium: Memory and sizeLimit", rule="shm"
        )
        return
    size, store = quantity(directory["sizeLimit"]), float(pod.params.get("object-store-memory", "inf"))
    limits = pod.main.get("resources", {}).get("limits", {})
    if store > 0.95 * size:
        text = f"object-store-memory {store:g} leaves less than 5 % of {SHM} ({size:g}) to others"
        yield Problem(where=f"{pod.where}.rayStartParams.object-store-memory", text=text, rule="shm/object-store")
    if size >= quantity(limits.get("memory", 0)):
        text = f"{SHM} counts as memory: {directory['sizeLimit']} of a limit of {limits.get('memory')}"
        yield Problem(where=f"{pod.where} resources.limits.memory", text=text, rule="shm/memory")


def _grace(pod: Pod) -> Iterator[Problem]:
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    drain = 0 if pod.group == HEAD else float(pod.variables().get(DRAIN, {}).get("value", 0))
    if pod.group != HEAD and not drain:
        yield Problem(where=f"{pod.where} env", text=f"{DRAIN} is not set; use 90", rule="grace/drain")
    if grace < drain + ENDING_S:
        text = f"{grace} s are too short for {drain:g} s of drain; use {drain + ENDING_S:g}"
        yield Problem(where=f"{pod.where} terminationGracePeriodSeconds", text=text, rule="grace/period")


def _secrets(pod: Pod) -> Iterator[Problem]:
    for container in pod.containers:
        for variable in container.get("env") or []:
            if SECRET_NAME.search(variable["name"]) and variable.get("value"):
                text = "a secret stands in the manifest; use secretKeyRef"
                yield Problem(where=f"{pod.where} env {variable['name']}", text=text, rule="secret/plain")


def _reward(pod: Pod) -> Iterator[Problem]:
    """The code of models runs here: no token of Kubernetes, no secret, no shared volume."""
    if pod.spec.get("automountServiceAccountToken") is not False:
        text = "must be false: code of models runs here"
        yield Problem(where=f"{pod.where} automountServiceAccountToken", text=text, rule="reward/account-token")
    sources = [each for container in pod.containers for each in _references(container)]
    sources += [f"volume {each['name']}" for each in pod.spec.get("volumes") or [] if _is_secret(each)]
    for source in sources:
        yield Problem(where=f"{pod.where} {source}", text="gives a secret to code of models", rule="reward/secret")
    for volume in pod.spec.get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            text = "gives the run's files to code of models; remove it"
            yield Problem(where=f"{pod.where} volumes {volume['name']}", text=text, rule="reward/volume")


def _references(container: dict[str, Any]) -> list[str]:
    names = [each["name"] for each in container.get("env") or [] if "secretKeyRef" in (each.get("valueFrom") or {})]
    return [f"env {name}" for name in names] + [
        "envFrom" for each in container.get("envFrom") or [] if "secretRef" in each
    ]


def _is_secret(volume: dict[str, Any]) -> bool:
    projected = (volume.get("projected") or {}).get("sources") or []
    return "secret" in volume or any({"secret", "serviceAccountToken"} & {*source} for source in projected)


def _spot(pods: list[Pod]) -> Iterator[Problem]:
    for pod in pods:
        tolerated = [each for each in pod.spec.get("tolerations") or [] if each.get("value") == "spot"]
        if pod.group in (HEAD, LEARNER) and tolerated:
            text = "would run on spot nodes, and its loss costs the steps since the newest checkpoint"
            yield Problem(where=f"{pod.where} tolerations", text=text, rule="spot")
        elif pod.is_ray and tolerated and pod.node_labels.get(MARKET) != "spot":
            text = f"pods may be on spot nodes, and drivers avoid only those with the label {MARKET}: spot"
            yield Problem(where=f"{pod.where}.labels", text=text, rule="spot/label")
