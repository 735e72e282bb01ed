"""A real Ray cluster of one node with a token and a dashboard, to which tests submit runs as from a laptop."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tiny.nodes import DASHBOARD_IP, FIRST_IP, RAY, end_offspring, free_ports, node_arguments, wait_until_started

ROOT = Path(__file__).parents[2]
CPUS = 8
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsCluster:
    """A running cluster whose node has secrets in its environment that the laptop lacks."""

    url: str  # of the dashboard
    folder: Path  # of Ray's files: sessions and logs
    token: str
    planted: dict[str, str]  # names and values of the node's secrets
    laptop: dict[str, str]  # environment of a process that may submit

    def rlframe(self, *arguments: str, folder: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """The finished command, with its output."""
        command = [sys.executable, "-m", "rlframe.cli", *arguments]
        return subprocess.run(
            command, cwd=folder, env=self.laptop, capture_output=True, text=True, timeout=timeout, check=False
        )


@contextmanager
def jobs_cluster(folder: Path) -> Iterator[JobsCluster]:
    """Starts the node, and ends exactly the processes that it started."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    [port], [dashboard_port] = free_ports(FIRST_IP, 1), free_ports(DASHBOARD_IP, 1)
    url = f"http://{DASHBOARD_IP}:{dashboard_port}"
    planted = {"WANDB_API_KEY": secrets.token_hex(20), "RLFRAME_TEST_KEY": f"sk-{secrets.token_hex(16)}"}
    bare = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, *planted)}
    bare |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    laptop = bare | {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_API_SERVER_ADDRESS": url}
    node = bare | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)} | planted
    command = [RAY, "start", "--head", f"--port={port}", f"--dashboard-port={dashboard_port}"]
    command += [*node_arguments("head", FIRST_IP, folder), f"--num-cpus={CPUS}"]
    log = folder / "head.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=node, cwd=folder, stdout=output, stderr=output)
    try:
        wait_until_started(log)
        yield JobsCluster(url=url, folder=folder / "head", token=token.read_text(), planted=planted, laptop=laptop)
    finally:
        end_offspring(process)
