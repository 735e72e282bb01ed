"""Faults that an operator makes, one at a time in a good overlay: the checker names the rule and the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubernetes.check.check import check
from kubernetes.check.problem import Manifest, of_kind

Change = Callable[[list[Manifest]], object]


def named(objects: list[Manifest], kind: str, name: str = "rlframe") -> dict[str, Any]:
    return next(each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)


def job(objects: list[Manifest]) -> dict[str, Any]:
    return named(objects, "RayJob")["spec"]


def cluster(objects: list[Manifest]) -> dict[str, Any]:
    return job(objects)["rayClusterSpec"]


def group(objects: list[Manifest], name: str) -> dict[str, Any]:
    return next(each for each in cluster(objects)["workerGroupSpecs"] if each["groupName"] == name)


def pod(objects: list[Manifest], name: str) -> dict[str, Any]:
    spec = cluster(objects)["headGroupSpec"] if name == "head" else group(objects, name)
    return spec["template"]["spec"]


def main(objects: list[Manifest], name: str) -> dict[str, Any]:
    return pod(objects, name)["containers"][0]


def put(place: dict[str, Any], **values: Any) -> None:
    place.update(values)


def entrypoint(old: str, new: str) -> Change:
    def change(objects: list[Manifest]) -> None:
        assert old in job(objects)["entrypoint"]
        job(objects)["entrypoint"] = job(objects)["entrypoint"].replace(old, new)

    return change


def without(kind: str, name: str) -> Change:
    return lambda objects: objects.remove(named(objects, kind, name))


def policy(objects: list[Manifest], name: str) -> dict[str, Any]:
    return named(objects, "NetworkPolicy", name)["spec"]


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wandb", "namespace": "rlframe"}}
OPEN = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"protocol": "TCP", "port": 443}]}
HEAD_SECRET = {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "rlframe-secrets", "key": "k"}}}

# rule -> part of the place or text, and the fault
FAULTS: dict[str, tuple[str, str, Change]] = {
    "typo in a core field": (
        "schema",
        "minAvailble",
        lambda o: put(named(o, "PodDisruptionBudget", "rlframe-head")["spec"], minAvailble=1),
    ),
    "typo in a field of KubeRay": (
        "schema",
        "maxReplica",
        lambda o: put(group(o, "rollout"), maxReplica=3),
    ),
    "amount with a wrong unit": (
        "schema",
        "64GiB",
        lambda o: put(main(o, "learner")["resources"]["limits"], memory="64GiB"),
    ),
    "number as a text": ("schema", "maxReplicas", lambda o: put(group(o, "rollout"), maxReplicas="3")),
    "wrong version of the API": (
        "schema",
        "ray.io/v2",
        lambda o: put(named(o, "RayJob"), apiVersion="ray.io/v2"),
    ),
    "two ways of deletion": (
        "schema-cel",
        "deletionStrategy",
        lambda o: put(job(o), deletionStrategy={"onSuccess": {"policy": "DeleteSelf"}}),
    ),
    "swapped minimum and maximum": (
        "operator/replicas",
        "3 is above maxReplicas=1",
        lambda o: put(group(o, "rollout"), minReplicas=3, maxReplicas=1, replicas=1),
    ),
    "typo in submissionMode": (
        "operator/submission-mode",
        "K8JobMode",
        lambda o: put(job(o), submissionMode="K8JobMode"),
    ),
    "restart policy": (
        "operator/restart-policy",
        "workerGroupSpecs[1].template.spec.restartPolicy",
        lambda o: put(pod(o, "rollout"), restartPolicy="Always"),
    ),
    "labels in rayStartParams": (
        "operator/labels",
        "workerGroupSpecs[1].rayStartParams.labels",
        lambda o: put(group(o, "rollout")["rayStartParams"], labels="rlframe.io/role=rollout"),
    ),
    "typo in an option of ray start": (
        "operator/ray-start",
        "--object-store-memroy",
        lambda o: put(group(o, "learner")["rayStartParams"], **{"object-store-memroy": "1"}),
    ),
    "upper case in the name": (
        "operator/name",
        "RayJob/Rlframe",
        lambda o: put(named(o, "RayJob")["metadata"], name="Rlframe"),
    ),
    "root": (
        "restricted/run-as-user",
        "workerGroupSpecs[2] (reward)",
        lambda o: put(pod(o, "reward")["securityContext"], runAsUser=0),
    ),
    "root allowed": (
        "restricted/run-as-non-root",
        "workerGroupSpecs[2] (reward)",
        lambda o: pod(o, "reward")["securityContext"].pop("runAsNonRoot"),
    ),
    "folder of the node": (
        "restricted/volume-types",
        "hostPath",
        lambda o: pod(o, "rollout")["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    "capability": (
        "restricted/capabilities",
        "SYS_PTRACE",
        lambda o: put(main(o, "learner")["securityContext"]["capabilities"], add=["SYS_PTRACE"]),
    ),
    "privileged autoscaler": (
        "restricted/privilege-escalation",
        "containers autoscaler",
        lambda o: put(cluster(o)["autoscalerOptions"], securityContext={"readOnlyRootFilesystem": True}),
    ),
    "missing selector": (
        "selector/budget",
        "PodDisruptionBudget/rlframe-rollout",
        lambda o: named(o, "PodDisruptionBudget", "rlframe-rollout")["spec"].pop("selector"),
    ),
    "typo in the selector of a policy": (
        "selector/policy",
        "NetworkPolicy/prometheus",
        lambda o: put(policy(o, "prometheus")["podSelector"], matchLabels={"ray.io/is-ray-node": "true"}),
    ),
    "typo in the selector of the monitor": (
        "selector/monitor",
        "PodMonitor/rlframe",
        lambda o: put(named(o, "PodMonitor")["spec"]["selector"], matchLabels={"ray.io/cluster": "rlfame"}),
    ),
    "budget in percent": (
        "budget/integer",
        "rlframe-rollout",
        lambda o: put(named(o, "PodDisruptionBudget", "rlframe-rollout")["spec"], minAvailable="50%"),
    ),
    "learner without a budget": ("budget/one", "learner", without("PodDisruptionBudget", "rlframe-learner")),
    "no policy that denies": ("network/deny-all", "NetworkPolicy", without("NetworkPolicy", "deny-all")),
    "worker ports closed": (
        "network/ray-ports",
        "TCP 11001",
        lambda o: policy(o, "ray")["ingress"][0].update(
            ports=[
                {"protocol": "TCP", "port": 6379, "endPort": 6383},
                {"protocol": "TCP", "port": 10002, "endPort": 11000},
            ]
        ),
    ),
    "way out of the reward group": (
        "network/egress",
        "pods of learner, reward, rollout",
        lambda o: policy(o, "ray")["egress"].append(OPEN),
    ),
    "metadata of the cloud": (
        "network/metadata",
        "NetworkPolicy/head-to-outside",
        lambda o: put(policy(o, "head-to-outside"), egress=[OPEN]),
    ),
    "port of another name": (
        "monitor/port",
        "no pod of the selector has a port metric",
        lambda o: put(named(o, "PodMonitor")["spec"]["podMetricsEndpoints"][0], port="metric"),
    ),
    "typo in an alert": (
        "metrics/alert",
        "ray_rlframe_seconds_since_progres",
        lambda o: put(
            named(o, "PrometheusRule")["spec"]["groups"][0]["rules"][0], expr="ray_rlframe_seconds_since_progres > 9"
        ),
    ),
    "typo in a dashboard": (
        "metrics/dashboard",
        "state=servin",
        lambda o: put(
            named(o, "ConfigMap", "rlframe-dashboard"),
            data={
                "a": '{"panels": [{"title": "E", "targets": [{"expr": "ray_rlframe_engines{state=\\"servin\\"}"}]}]}'
            },
        ),
    ),
    "secret of the overlay": (
        "secret/plain",
        "Secret/wandb",
        lambda o: o.append({**SECRET, "stringData": {"key": "0123"}}),
    ),
    "secret in a variable": (
        "secret/plain",
        "env WANDB_API_KEY",
        lambda o: main(o, "head")["env"].append({"name": "WANDB_API_KEY", "value": "0123"}),
    ),
    "secret in the runtime environment": (
        "secret/plain",
        "runtimeEnvYAML HF_TOKEN",
        lambda o: put(job(o), runtimeEnvYAML="env_vars: {HF_TOKEN: hf_0123}"),
    ),
    "secret in the reward group": (
        "reward/secret",
        "env WANDB_API_KEY",
        lambda o: main(o, "reward")["env"].append(HEAD_SECRET),
    ),
    "token of Kubernetes in the reward group": (
        "reward/account-token",
        "reward",
        lambda o: pod(o, "reward").pop("automountServiceAccountToken"),
    ),
    "run's files in the reward group": (
        "reward/volume",
        "volumes runs",
        lambda o: pod(o, "reward")["volumes"].append(
            {"name": "runs", "persistentVolumeClaim": {"claimName": "rlframe-runs"}}
        ),
    ),
    "open cluster": ("token", "authOptions", lambda o: cluster(o).pop("authOptions")),
    "another Ray": ("ray-version", "2.6.0", lambda o: put(cluster(o), rayVersion="2.6.0")),
    "another image": ("image/one", "rlframe:0.0.9", lambda o: put(main(o, "rollout"), image="lab/rlframe:0.0.9")),
    "another port": (
        "ports/same",
        "node-manager-port",
        lambda o: put(group(o, "reward")["rayStartParams"], **{"node-manager-port": "6390"}),
    ),
    "short grace period": (
        "grace/period",
        "30 s are too short for 90 s",
        lambda o: put(pod(o, "rollout"), terminationGracePeriodSeconds=30),
    ),
    "small shared memory": (
        "shm/object-store",
        "learner",
        lambda o: put(pod(o, "learner")["volumes"][2]["emptyDir"], sizeLimit="6Gi"),
    ),
    "volume of one node": (
        "volume/shared",
        "rlframe-runs",
        lambda o: put(named(o, "PersistentVolumeClaim", "rlframe-runs")["spec"], accessModes=["ReadWriteOnce"]),
    ),
    "volume that is not there": (
        "volume",
        "rlframe-run",
        lambda o: put(pod(o, "head")["volumes"][0]["persistentVolumeClaim"], claimName="rlframe-run"),
    ),
    "learner on spot nodes": (
        "spot",
        "learner",
        lambda o: put(pod(o, "learner"), tolerations=[{"key": "c", "value": "spot", "effect": "NoSchedule"}]),
    ),
    "spot nodes that drivers do not know": (
        "spot/label",
        "rollout",
        lambda o: put(pod(o, "rollout"), tolerations=[{"key": "c", "value": "spot", "effect": "NoSchedule"}]),
    ),
    "endless retries": ("job/bounds", "activeDeadlineSeconds", lambda o: job(o).pop("activeDeadlineSeconds")),
    "relative run_dir": (
        "entrypoint/run_dir",
        "run_dir=runs/small",
        entrypoint("run_dir=/runs/small", "run_dir=runs/small"),
    ),
    "run_dir on no volume": (
        "entrypoint/run_dir",
        "run_dir=/scratch/small",
        entrypoint("run_dir=/runs/small", "run_dir=/scratch/small"),
    ),
    "no resume": ("entrypoint/resume", "resume=auto", entrypoint("resume=auto ", "")),
    "unknown key": ("entrypoint/config", "rollout.engine", entrypoint("rollout.engines", "rollout.engine")),
    "braces that the shell expands": (
        "entrypoint/quoting",
        "rollout.engines={min:1,max:3}",
        entrypoint("{min: 1, max: 3}", "{min:1,max:3}"),
    ),
    "more engines than pods": (
        "entrypoint/fits",
        "the pods of rollout have no room left",
        entrypoint("max: 3", "max: 4"),
    ),
    "label of no group": (
        "entrypoint/fits",
        "no pod is like that",
        entrypoint("role: rollout", "role: rollouts"),
    ),
    "judge in the reward group": (
        "entrypoint/judge",
        "actors.labels",
        entrypoint("gsm8k", "gsm8k reward=judge reward.terms.judge.base_url=https://judge.example.com/v1"),
    ),
    "autoscaler under Kueue": (
        "kueue",
        "elastic-job",
        lambda o: put(named(o, "RayJob")["metadata"], labels={"kueue.x-k8s.io/queue-name": "rlframe"}),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault, manifests, definitions):
    rule, words, change = FAULTS[fault]
    objects = manifests("small/job")
    change(objects)
    problems = [str(problem) for problem in check(objects, definitions)]
    assert [problem for problem in problems if f"[{rule}]" in problem and words in problem], problems


def test_there_are_at_least_thirty_faults():
    assert len(FAULTS) >= 30
