"""A run on one machine: all of its sockets are on the loopback interface, and its token is its own."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import ray

from rlframe.cluster import ray_cluster
from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(process: psutil.Process) -> list[tuple[str, str]]:
    """Name and address of every TCP socket that listens and every UDP socket of a process."""
    sockets = process.net_connections(kind="inet")
    return [
        (process.name(), socket.laddr.ip)
        for socket in sockets
        if socket.laddr and (socket.status == psutil.CONN_LISTEN or socket.type.name == "SOCK_DGRAM")
    ]


def test_every_socket_of_a_local_run_is_on_the_loopback_interface(
    tiny_run: RunConfig, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With engines, ranks that have met, and reward workers."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # without a token of earlier runs
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    before = dict(os.environ)
    with cluster.start(tiny_run, tiny_model):
        offspring = psutil.Process().children(recursive=True)
        sockets = [socket for process in (psutil.Process(), *offspring) for socket in listening(process)]
        assert len(sockets) >= 20
        assert [socket for socket in sockets if socket[1] not in LOOPBACK] == []
        assert ray.util.get_node_ip_address() == "127.0.0.1"
        [raylet] = [process for process in offspring if process.name() == "raylet"]
        token = raylet.environ()["RAY_AUTH_TOKEN"]
        logs = Path(ray._private.worker._global_node.get_session_dir_path())
        command_lines = [" ".join(process.cmdline()) for process in offspring if process.is_running()]
    assert len(token) == 64 and raylet.environ is not None
    assert not [line for line in command_lines if token in line]
    assert not [path for path in logs.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert not (tmp_path / "home" / ".ray" / "auth_token").exists()
    assert {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}.items() <= before.items() | {
        (name, os.environ[name]) for name in os.environ.keys() - before.keys()
    }
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_every_local_cluster_has_a_token_of_its_own() -> None:
    tokens = {ray_cluster.local_environment()["RAY_AUTH_TOKEN"] for _ in range(3)}
    assert len(tokens) == 3


def test_a_process_without_the_token_cannot_join_a_local_cluster(tiny_run: RunConfig, tiny_model: Path) -> None:
    import subprocess
    import sys

    with cluster.start(tiny_run, tiny_model, ["reward"]):
        address = ray.get_runtime_context().gcs_address
        program = f"import ray; ray.init({address!r}, log_to_driver=False); print('joined')"
        environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
        joined = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert "joined" not in joined.stdout and joined.returncode != 0
        assert ray.get(ray.remote(lambda: 5).options(num_cpus=0).remote()) == 5
