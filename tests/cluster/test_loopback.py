"""A run on one machine: all of its sockets are on the loopback interface, and its token is its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray

from rlframe.cluster import ray_cluster
from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.errors import RunFailed

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.fixture(autouse=True)
def ray_reads_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray in this process keeps what it has read at the end of a run, which later tests must not inherit."""
    yield
    monkeypatch.undo()
    ray_cluster._read_environment()


def listening(process: psutil.Process) -> list[tuple[str, str]]:
    """Name and address of every TCP socket that listens and every UDP socket of a process; none where it has ended."""
    try:
        name, sockets = process.name(), process.net_connections(kind="inet")
    except psutil.NoSuchProcess:
        return []
    return [
        (name, socket.laddr.ip)
        for socket in sockets
        if socket.laddr and (socket.status == psutil.CONN_LISTEN or socket.type.name == "SOCK_DGRAM")
    ]


def raylet_of_this_process() -> psutil.Process:
    raylets = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a worker may have ended
            if process.name() == "raylet":
                raylets.append(process)
    [raylet] = raylets
    return raylet


@pytest.mark.long
def test_every_socket_of_a_local_run_is_on_the_loopback_interface(
    tiny_run: RunConfig, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With engines, ranks that have met, and reward workers."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # without a token of earlier runs
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = {name: os.environ.get(name) for name in ray_cluster.local_environment()}
    with cluster.start(tiny_run, tiny_model):
        offspring = psutil.Process().children(recursive=True)
        sockets = [socket for process in (psutil.Process(), *offspring) for socket in listening(process)]
        assert len(sockets) >= 20
        assert [socket for socket in sockets if socket[1] not in LOOPBACK] == []
        assert ray.util.get_node_ip_address() == "127.0.0.1"
        token = raylet_of_this_process().environ()["RAY_AUTH_TOKEN"]
        logs = Path(ray._private.worker._global_node.get_session_dir_path())
        command_lines = []
        for process in offspring:
            with suppress(psutil.NoSuchProcess):
                command_lines.append(" ".join(process.cmdline()))
    assert len(token) == 64
    assert not [line for line in command_lines if token in line]
    assert not [path for path in logs.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert not (tmp_path / "home" / ".ray" / "auth_token").exists()
    assert {name: os.environ.get(name) for name in ray_cluster.local_environment()} == before


def test_every_local_cluster_has_a_token_of_its_own() -> None:
    tokens = {ray_cluster.local_environment()["RAY_AUTH_TOKEN"] for _ in range(3)}
    assert len(tokens) == 3


ASK = """
import sys
from ray._raylet import GcsClient
print("answer", GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=5))
"""


def test_a_machine_without_a_loopback_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    with pytest.raises(RunFailed, match=r"needs 127\.0\.0\.1, .* Run `ip link set lo up`"):
        ray_cluster.local_environment()


def test_only_processes_with_the_token_get_an_answer_of_a_local_cluster(
    tiny_run: RunConfig, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the user's shell switches Ray's tokens off."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

    def answer(token: str) -> bool:
        environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        command = [sys.executable, "-c", ASK, address]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            try:
                return b"answer" in asking.communicate(timeout=30)[0]
            except subprocess.TimeoutExpired:
                asking.kill()
                return False

    with cluster.start(tiny_run, tiny_model, ["reward"]):
        address = ray.get_runtime_context().gcs_address
        assert answer(raylet_of_this_process().environ()["RAY_AUTH_TOKEN"])
        assert not answer("f" * 64)
