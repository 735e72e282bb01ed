"""`Kubelet`: KubeRay's operator and a kubelet for one RayCluster, whose pods are `ray start` processes here."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kubernetes.check.pods import HEAD, Pod, pods

NAMESPACE = "rlframe"
RAY = str(Path(sys.executable).with_name("ray"))
LOOK_S = 0.1
FAMILY_S = 1.0  # between two looks at the processes of pods
KINDS = (
    "node-manager",
    "object-manager",
    "dashboard-agent-listen",
    "dashboard-agent-grpc",
    "runtime-env-agent",
    "metrics-export",
)
# Options of `ray start` that come from the manifest as they are. Pods of one machine need ports of their own.
KEPT = ("num-cpus", "object-store-memory")


@dataclass(kw_only=True)
class RunningPod:
    """A pod, whose container is a process and its offspring."""

    name: str
    group: str
    labels: dict[str, str]
    ip: str
    grace_s: float
    process: psutil.Popen
    began: float = field(default_factory=time.time)
    terminated: float | None = None  # time of its SIGTERM
    busy: float | None = None  # last time at which an actor was seen on it

    def object(self) -> dict[str, Any]:
        """The pod as the API server tells it."""
        ending = {} if self.terminated is None else {"deletionTimestamp": str(self.terminated)}
        about = {"name": self.name, "namespace": NAMESPACE, "resourceVersion": "1", "labels": self.labels} | ending
        running = [{"name": "ray", "state": {"running": {}}}]
        status = {"phase": "Running", "podIP": self.ip, "containerStatuses": running}
        return {"metadata": about, "spec": {"containers": [{"name": "ray", "resources": {}}]}, "status": status}

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    time: float
    kind: str  # "start", "terminate", "end"
    pod: RunningPod


class Kubelet:
    """Keeps as many pods of each group as the cluster's spec says, deletes those that the autoscaler names, and ends
    pods as Kubernetes does: SIGTERM, and SIGKILL after the grace period."""

    def __init__(self, cluster: dict[str, Any], folder: Path, environment: dict[str, str], first_ip: int) -> None:
        """`cluster`: a RayCluster. `first_ip`: the head is at 127.0.FIRST.1, pods at .2, .3, ..."""
        self.cluster = cluster
        self.name = cluster["metadata"]["name"]
        self.folder = folder
        self.environment = environment
        self.pods: dict[str, RunningPod] = {}
        self.events: list[Event] = []
        self.lock = threading.RLock()
        self.version = 1
        self.seen: set[psutil.Process] = set()
        self.extremes: dict[str, tuple[int, int]] = {}  # group -> least and most pods that were there and not ending
        self._next_families = 0.0
        self._count = 0
        self._net = f"127.0.{first_ip}"
        self._closed = threading.Event()
        self.port, self.dashboard_port = free_ports(2)
        self.address = f"{self._net}.1:{self.port}"
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"
        self.head_name = f"{self.name}-head"
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def open(self, timeout_s: float) -> None:
        """Starts the head's pod, and the others once it answers."""
        self._start(self.templates()[HEAD])
        log, deadline = self.folder / f"{self.head_name}.log", time.monotonic() + timeout_s
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(LOOK_S)
        self._thread.start()

    def members(self, group: str) -> list[RunningPod]:
        """Pods of a group that are not ending."""
        with self.lock:
            return [pod for pod in self.pods.values() if pod.group == group and pod.terminated is None]

    def evict(self, pod: RunningPod) -> None:
        """SIGTERM, as for a reclaimed node."""
        with self.lock:
            pod.terminated = time.time()
            self._note("terminate", pod)
            self.version += 1
            with suppress(psutil.NoSuchProcess):
                pod.process.send_signal(signal.SIGTERM)

    def kill(self, pod: RunningPod) -> None:
        """The end of a node without a word."""
        for process in pod.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def close(self) -> None:
        """Ends every process that it started."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        for pod in self.pods.values():
            self.seen.update(pod.family())
        for process in self.seen:
            with suppress(psutil.NoSuchProcess):
                if process.is_running():
                    process.kill()
        psutil.wait_procs([*self.seen], timeout=20)

    def templates(self) -> dict[str, Pod]:
        return {pod.group: pod for pod in pods([self.cluster])}

    def _loop(self) -> None:
        while not self._closed.wait(LOOK_S):
            with self.lock:
                for pod in list(self.pods.values()):
                    self._look(pod)
                for pod in self.templates().values():
                    if pod.group != HEAD:
                        self._reconcile(pod)
            if time.time() >= self._next_families:
                self._next_families = time.time() + FAMILY_S
                self._look_at_families()

    def _look_at_families(self) -> None:
        for pod in list(self.pods.values()):
            family = pod.family()
            self.seen.update(family)
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::") and not process.name().startswith("ray::IDLE"):
                        pod.busy = time.time()

    def _look(self, pod: RunningPod) -> None:
        if pod.process.poll() is not None:
            self._note("end", pod)
            del self.pods[pod.name]
            self.version += 1
        elif pod.terminated is not None and time.time() > pod.terminated + pod.grace_s:
            self.kill(pod)

    def _reconcile(self, template: Pod) -> None:
        group = template.ray
        for name in group.get("scaleStrategy", {}).get("workersToDelete") or []:
            if name in self.pods and self.pods[name].terminated is None:
                self.evict(self.pods[name])
        wanted = min(max(group.get("replicas", 0), template.least), template.most)
        for _ in range(wanted - len(self.members(template.group))):
            self._start(template)
        count = len(self.members(template.group))
        least, most = self.extremes.get(template.group, (count, count))
        self.extremes[template.group] = min(least, count), max(most, count)

    def _start(self, template: Pod) -> None:
        is_head = template.group == HEAD
        self._count += 1
        ip = f"{self._net}.{self._count}"
        name = self.head_name if is_head else f"{self.name}-{template.group}-worker-{self._count:04d}"
        variables = {each["name"]: each["value"] for each in template.main.get("env") or [] if "value" in each}
        environment = os.environ | variables | self.environment
        environment |= {"RAY_CLOUD_INSTANCE_ID": name, "RAY_NODE_TYPE_NAME": template.group}
        command = [RAY, "start", *self._arguments(template, name, ip)]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = psutil.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        grace_s = template.spec["terminationGracePeriodSeconds"]
        pod = RunningPod(
            name=name, group=template.group, labels=template.labels, ip=ip, grace_s=grace_s, process=process
        )
        self.pods[name] = pod
        self.version += 1
        self._note("start", pod)

    def _arguments(self, template: Pod, name: str, ip: str) -> Iterator[str]:
        if template.group == HEAD:
            yield from ("--head", "--no-monitor", f"--port={self.port}", f"--dashboard-port={self.dashboard_port}")
            yield f"--ray-client-server-port={free_ports(1)[0]}"
        else:
            yield f"--address={self.address}"
        for kind, port in zip(KINDS, free_ports(len(KINDS)), strict=True):
            yield f"--{kind}-port={port}"
        params = {"num-cpus": f"{template.cpus:g}"} | template.params
        yield from (f"--{key}={params[key]}" for key in KEPT)
        yield "--labels=" + ",".join(f"{key}={value}" for key, value in template.node_labels.items())
        yield from (f"--node-ip-address={ip}", f"--temp-dir={self.folder / name[-4:]}")
        yield from ("--num-gpus=0", "--disable-usage-stats", "--block")

    def _note(self, kind: str, pod: RunningPod) -> None:
        self.events.append(Event(time=time.time(), kind=kind, pod=pod))


GIVEN: set[int] = set()  # ports that `free_ports` has returned


def free_ports(count: int) -> list[int]:
    """Ports that are free on all addresses, between those of Ray's workers and those of the kernel; each once."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        if port not in GIVEN:
            with suppress(OSError), socket.create_server(("", port)):
                found.append(port)
                GIVEN.add(port)
    return found


def autoscaler(kubelet: Kubelet, variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Ray's own autoscaler, as in the container beside the head."""
    code = "import sys; from ray.autoscaler._private.kuberay.run_autoscaler import run_kuberay_autoscaler as run; "
    code += "run(*sys.argv[1:])"
    path = f"{Path(RAY).parent}:{os.environ['PATH']}"  # it runs `ray health-check`
    environment = os.environ | kubelet.environment | variables | {"PATH": path}
    command = [sys.executable, "-c", code, kubelet.name, NAMESPACE, kubelet.address]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)
