"""NetworkPolicies: nothing by default, then what a run needs, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from kubernetes.check.pods import HEAD, SUBMITTER, Pod
from kubernetes.check.problem import Manifest, Problem, of_kind, title
from kubernetes.check.selectors import LEARNER, ROLLOUT, matches

Way = Literal["ingress", "egress"]
PORTS = ("node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port")
OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
DNS = {"kubernetes.io/metadata.name": "kube-system"}


def check(manifests: list[Manifest], pods: list[Pod], judged: set[str]) -> Iterator[Problem]:
    """`judged`: groups whose rewards ask an endpoint outside."""
    policies = of_kind(manifests, "NetworkPolicy")
    if not any(_denies_all(policy["spec"]) for policy in policies):
        text = "there is none that selects every pod, for Ingress and Egress, and allows nothing"
        yield Problem(where="NetworkPolicy", text=text, rule="network/deny-all")
    for policy in policies:
        yield from _selectors(policy, pods)
        yield from _outside(policy, pods, judged)
    for source, target, ports in _connections(pods):
        missing = [port for port in ports if not allows(policies, source, target, port)]
        if missing:
            text = f"pods of {source.group} cannot reach pods of {target.group} on TCP {_ranges(missing)}"
            yield Problem(where="NetworkPolicy", text=text, rule="network/ray-ports")
    yield from _from_outside(policies, pods, judged)


def allows(policies: list[Manifest], source: Pod, target: Pod, port: int) -> bool:
    """True if a connection between two pods of the namespace passes the policies of both."""
    return _passes(policies, "egress", source, target.labels, port) and _passes(
        policies, "ingress", target, source.labels, port
    )


def _passes(policies: list[Manifest], way: Way, pod: Pod, peer: dict[str, str], port: int) -> bool:
    chosen = [policy["spec"] for policy in policies if matches(policy["spec"].get("podSelector"), pod.labels)]
    chosen = [spec for spec in chosen if way.capitalize() in spec.get("policyTypes", [])]
    key = "from" if way == "ingress" else "to"
    return not chosen or any(
        _has_port(rule, port)
        and (
            not rule.get(key)
            or any("namespaceSelector" not in p and matches(p.get("podSelector"), peer) for p in rule[key])
        )
        for spec in chosen
        for rule in spec.get(way) or []
    )


def _has_port(rule: dict[str, Any], port: int, protocol: str = "TCP") -> bool:
    listed = rule.get("ports")
    return not listed or any(
        each.get("protocol", "TCP") == protocol
        and (each.get("port") is None or each["port"] <= port <= each.get("endPort", each["port"]))
        for each in listed
    )


def _denies_all(spec: dict[str, Any]) -> bool:
    types = {*(spec.get("policyTypes") or [])}
    return spec.get("podSelector") == {} and types == {"Ingress", "Egress"} and not {"ingress", "egress"} & {*spec}


def _selectors(policy: Manifest, pods: list[Pod]) -> Iterator[Problem]:
    spec = policy["spec"]
    peers = [peer for way in ("ingress", "egress") for rule in spec.get(way) or [] for peer in _peers(rule)]
    inside = [peer["podSelector"] for peer in peers if "podSelector" in peer and "namespaceSelector" not in peer]
    known = pods if any(pod.group == SUBMITTER for pod in pods) else [*pods, _submitter()]
    for field, selector in [("podSelector", spec.get("podSelector")), *(("peer", each) for each in inside)]:
        if not any(matches(selector, pod.labels) for pod in known):
            yield Problem(where=f"{title(policy)} spec.{field}", text="matches no pod", rule="selector/policy")


def _submitter() -> Pod:
    """The pod that submits a RayJob: policies name it in a standing cluster too."""
    return Pod(group=SUBMITTER, where="", labels={"rlframe.io/role": SUBMITTER}, spec={})


def _peers(rule: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(rule.get("from") or []), *(rule.get("to") or [])]


def _outside(policy: Manifest, pods: list[Pod], judged: set[str]) -> Iterator[Problem]:
    """Only the head, and groups that ask a judge, may leave the namespace; nobody may ask the cloud's metadata."""
    spec = policy["spec"]
    groups = {pod.group for pod in pods if matches(spec.get("podSelector"), pod.labels)}
    for rule in spec.get("egress") or []:
        blocks = [peer["ipBlock"] for peer in rule.get("to") or [] if "ipBlock" in peer]
        is_open = not rule.get("to")
        if (blocks or is_open) and (others := sorted(groups - {HEAD} - judged)):
            text = f"lets pods of {', '.join(others)} out, and no reward there asks an endpoint outside; remove it"
            yield Problem(where=f"{title(policy)} spec.egress", text=text, rule="network/egress")
        for block in blocks:
            if block["cidr"] == "0.0.0.0/0" and "169.254.0.0/16" not in block.get("except", []):
                text = "allows 169.254.0.0/16, where a cloud's metadata has credentials; add it to except"
                yield Problem(where=f"{title(policy)} spec.egress", text=text, rule="network/metadata")


def _connections(pods: list[Pod]) -> Iterator[tuple[Pod, Pod, list[int]]]:
    """(source, target, ports) that a run needs inside the namespace."""
    ray = [pod for pod in pods if pod.is_ray]
    for source in ray:
        for target in ray:
            params = target.params
            ports = [int(params[key]) for key in PORTS if key in params]
            ports += [int(params.get("min-worker-port", 10002)), int(params.get("max-worker-port", 19999))]
            ports += [int(params.get("port", 6379))] if target.group == HEAD else []
            yield source, target, ports
            if {source.group, target.group} <= {LEARNER, ROLLOUT}:
                yield source, target, [1024, 32768, 65535]  # torch's rendezvous, NCCL, gloo: any port
    for source in pods:
        if source.group == SUBMITTER:
            for target in ray:
                if target.group == HEAD:
                    yield source, target, [int(target.params.get("dashboard-port", 8265))]


def _from_outside(policies: list[Manifest], pods: list[Pod], judged: set[str]) -> Iterator[Problem]:
    for pod in pods:
        wanted: list[tuple[Way, str, int, str, str]] = [("egress", "DNS", 53, "UDP", "kube-system")]
        if pod.is_ray:
            wanted.append(
                ("ingress", "Prometheus", int(pod.params.get("metrics-export-port", 8080)), "TCP", "monitoring")
            )
        if pod.group == HEAD:
            wanted.append(
                ("ingress", "KubeRay's operator", int(pod.params.get("dashboard-port", 8265)), "TCP", "operator")
            )
            wanted.append(("egress", "the Kubernetes API", 443, "TCP", "outside"))
        elif pod.group in judged:
            wanted.append(("egress", "the judge", 443, "TCP", "outside"))
        for way, name, port, protocol, place in wanted:
            chosen = [each["spec"] for each in policies if matches(each["spec"].get("podSelector"), pod.labels)]
            rules = [rule for spec in chosen for rule in spec.get(way) or [] if _has_port(rule, port, protocol)]
            if chosen and not any(_is_place(peer, place) for rule in rules for peer in _peers(rule) or [{}]):
                text = f"no {way} of pods of {pod.group} for {name} on {protocol} {port}"
                yield Problem(where="NetworkPolicy", text=text, rule="network/services")


def _is_place(peer: dict[str, Any], place: str) -> bool:
    if not peer:
        return True
    if place == "outside":
        return "ipBlock" in peer
    namespaces = peer.get("namespaceSelector")
    if place == "operator":
        return namespaces is not None and matches(peer.get("podSelector", {}), OPERATOR)
    return namespaces is not None and matches(namespaces, MONITORING if place == "monitoring" else DNS)


def _ranges(ports: list[int]) -> str:
    return ", ".join(str(port) for port in sorted({*ports}))
