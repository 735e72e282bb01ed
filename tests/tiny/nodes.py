"""Two Ray nodes on this machine: a head at 127.0.0.2 and a second raylet at 127.0.0.3, behind a token."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
HEAD_IP, SECOND_IP = "127.0.0.2", "127.0.0.3"
START_S, END_S = 60.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """A running cluster. The raylets' own addresses tell the nodes apart."""

    address: str  # host:port of the head
    dashboard: str  # URL of the jobs API
    environment: dict[str, str]  # of a driver that may join


@contextmanager
def two_nodes(folder: Path, *, cpus: int = 4) -> Iterator[Nodes]:
    """Starts a cluster whose head has the label rlframe.io/role=learner and whose second node has =rollout.

    Ends exactly the processes that it started.
    """
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    dashboard_port, port = free_ports(HEAD_IP, 2)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    head = ["--head", f"--port={port}", "--include-dashboard=true", f"--dashboard-port={dashboard_port}"]
    with ExitStack() as stack:
        for ip, role, arguments in (
            (HEAD_IP, "learner", head),
            (SECOND_IP, "rollout", [f"--address={HEAD_IP}:{port}"]),
        ):
            labels = json.dumps({"rlframe.io/role": role})
            command = [RAY, "start", *arguments, *node_arguments(ip, folder / role), f"--num-cpus={cpus}"]
            command += ["--num-gpus=0", f"--labels={labels}", f"--object-store-memory={128 << 20}"]
            stack.enter_context(node(command, os.environ | environment, folder / f"{role}.log"))
        yield Nodes(
            address=f"{HEAD_IP}:{port}", dashboard=f"http://127.0.0.1:{dashboard_port}", environment=environment
        )


def node_arguments(ip: str, folder: Path) -> list[str]:
    """Arguments of `ray start` for a node among several on a machine: an address, ports and a folder of its own."""
    names = ["node-manager", "object-manager", "dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent"]
    names.append("metrics-export")
    ports = [f"--{name}-port={port}" for name, port in zip(names, free_ports(ip, len(names)), strict=True)]
    return [f"--node-ip-address={ip}", f"--temp-dir={folder}", *ports, "--disable-usage-stats", "--block"]


def free_ports(ip: str, count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((ip, 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def node(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process group of its own, once `ray start` says that it runs; ends it with all its offspring."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, process_group=0)
    try:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        offspring = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(offspring, timeout=END_S)
        for child in alive:
            child.kill()
        process.wait(END_S)
