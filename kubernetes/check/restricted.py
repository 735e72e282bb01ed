"""Pod Security "restricted", by its published rules (Kubernetes 1.37), for every pod of the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes.check.pods import Pod
from kubernetes.check.problem import Problem

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
}
SECCOMP = ("RuntimeDefault", "Localhost")


def check(pods: list[Pod]) -> Iterator[Problem]:
    for pod in pods:
        for field, text, rule in _pod(pod.spec):
            yield Problem(where=f"{pod.where} {field}", text=text, rule=f"restricted/{rule}")


def _pod(spec: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    whole = spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key, "true shares the node's namespace; remove it", "host-namespaces"
    for volume in spec.get("volumes") or []:
        if kinds := {*volume} - {"name"} - VOLUMES:
            yield f"volumes {volume.get('name')}", f"{', '.join(sorted(kinds))} is no allowed kind", "volume-types"
    for sysctl in whole.get("sysctls") or []:
        if sysctl.get("name") not in SYSCTLS:
            yield "securityContext.sysctls", f"{sysctl.get('name')} is not allowed", "sysctls"
    if whole.get("runAsUser") == 0:
        yield "securityContext.runAsUser", "0 is root; use 1000", "run-as-user"
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for field, text, rule in _container(container, whole):
            yield f"containers {container.get('name')} {field}", text, rule


def _container(container: dict[str, Any], whole: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    own = container.get("securityContext") or {}
    if own.get("privileged"):
        yield "privileged", "true gives the node to the container; remove it", "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation", "must be false", "privilege-escalation"
    if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot", "must be true, here or for the pod", "run-as-non-root"
    if own.get("runAsUser") == 0:
        yield "runAsUser", "0 is root; use 1000", "run-as-user"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities.drop", "must have ALL", "capabilities"
    if extra := {*(capabilities.get("add") or [])} - {"NET_BIND_SERVICE"}:
        yield "capabilities.add", f"{', '.join(sorted(extra))} is not allowed", "capabilities"
    if (own.get("seccompProfile") or whole.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield "seccompProfile", "must be RuntimeDefault or Localhost, here or for the pod", "seccomp"
    if own.get("procMount", "Default") != "Default":
        yield "procMount", "must be Default", "proc-mount"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield "hostPort", f"{port['hostPort']} opens a port of the node; remove it", "host-ports"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        for action in ("httpGet", "tcpSocket"):
            if ((container.get(probe) or {}).get(action) or {}).get("host"):
                yield f"{probe}.{action}.host", "must not be set", "probe-hosts"
