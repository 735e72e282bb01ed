"""Selectors of budgets and monitors match the pods that KubeRay makes, and nothing is watched or guarded twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes.check.pods import HEAD, Pod
from kubernetes.check.problem import Manifest, Problem, of_kind, title

LEARNER, ROLLOUT, REWARD = "learner", "rollout", "reward"
GUARDED = (HEAD, LEARNER, ROLLOUT)  # groups with a budget of their own


def matches(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """True if a selector of Kubernetes accepts the labels. An empty selector accepts all, None nothing."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or []:
        value, values = labels.get(each["key"]), each.get("values") or []
        accepted = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not accepted.get(each["operator"], False):
            return False
    return True


def check(manifests: list[Manifest], pods: list[Pod]) -> Iterator[Problem]:
    yield from _budgets(of_kind(manifests, "PodDisruptionBudget"), pods)
    yield from _monitors(of_kind(manifests, "PodMonitor"), pods)
    for service in of_kind(manifests, "Service"):
        if not any(matches({"matchLabels": service["spec"].get("selector")}, pod.labels) for pod in pods):
            yield Problem(where=f"{title(service)} spec.selector", text="matches no pod", rule="selector/service")


def _budgets(budgets: list[Manifest], pods: list[Pod]) -> Iterator[Problem]:
    guards: dict[str, list[str]] = {}
    for budget in budgets:
        spec, where = budget.get("spec") or {}, title(budget)
        chosen = [pod for pod in pods if matches(spec.get("selector"), pod.labels)]
        if not chosen:
            yield Problem(where=f"{where} spec.selector", text="matches no pod", rule="selector/budget")
        for pod in chosen:
            guards.setdefault(pod.group, []).append(where)
        ray = any(pod.is_ray for pod in chosen)
        if ray and ("maxUnavailable" in spec or not isinstance(spec.get("minAvailable"), int)):
            text = (
                "RayCluster has no scale subresource, so Kubernetes would allow no eviction at all; use minAvailable "
                "with an integer"
            )
            yield Problem(where=f"{where} spec", text=text, rule="budget/integer")
            continue
        least, number = sum(pod.least for pod in chosen), spec.get("minAvailable", 0)
        if any(pod.group in (HEAD, LEARNER) for pod in chosen) and number < least:
            text = f"{number} lets {least - number} of {least} pods of head or learner be evicted; use {least}"
            yield Problem(where=f"{where} spec.minAvailable", text=text, rule="budget/all-stay")
        if any(pod.group == ROLLOUT for pod in chosen) and number > max(1, least // 2 + least % 2):
            text = f"{number} of {least} rollout pods hold up the drain of nodes; use half of minReplicas"
            yield Problem(where=f"{where} spec.minAvailable", text=text, rule="budget/half-stay")
    for group in sorted({pod.group for pod in pods} & {*GUARDED}):
        names = guards.get(group, [])
        if len(names) != 1:
            text = "the eviction of a pod with two budgets fails" if names else "has no PodDisruptionBudget"
            yield Problem(where=f"group {group}", text=f"{text} ({', '.join(names) or 'none'})", rule="budget/one")


def _monitors(monitors: list[Manifest], pods: list[Pod]) -> Iterator[Problem]:
    watched: set[str] = set()
    for monitor in monitors:
        spec, where = monitor.get("spec") or {}, title(monitor)
        chosen = [pod for pod in pods if matches(spec.get("selector"), pod.labels)]
        if not chosen:
            yield Problem(where=f"{where} spec.selector", text="matches no pod", rule="selector/monitor")
        for endpoint in spec.get("podMetricsEndpoints") or []:
            port = endpoint.get("port")
            having = {pod.group for pod in chosen if port in ports(pod)}
            if chosen and not having:
                text = f"no pod of the selector has a port {port}"
                yield Problem(where=f"{where} spec.podMetricsEndpoints", text=text, rule="monitor/port")
            if port == "metrics":
                watched |= having
    if monitors and (blind := sorted({pod.group for pod in pods if pod.is_ray} - watched)):
        text = f"reads no metrics of the groups {', '.join(blind)}"
        yield Problem(where="PodMonitor", text=text, rule="monitor/group")


def ports(pod: Pod) -> dict[str, int]:
    """Named ports of a pod's containers."""
    return {
        port["name"]: port["containerPort"]
        for container in pod.containers
        for port in container.get("ports") or []
        if "name" in port
    }
