"""A real run on one machine, whose rank stops and whose driver is killed: its status, its files and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rlframe.record.status import Status, read_status
from tests.conftest import tiny_overrides

TIMEOUT_S = 420.0
RLFRAME = [sys.executable, "-m", "rlframe.cli"]


@pytest.fixture
def driver(tiny_model: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The driver of a run of many steps in the folder `run`, which has taken a step."""
    settings = [*tiny_overrides(tiny_model), f"run_dir={tmp_path / 'run'}", "steps=1000", "evaluate.every=0"]
    with (tmp_path / "console").open("wb") as console:
        process = subprocess.Popen([*RLFRAME, "train", *settings], stdout=console, stderr=console)
    offspring: list[psutil.Process] = []
    try:
        reached(process, tmp_path, lambda status: status.step >= 1)
        offspring = psutil.Process(process.pid).children(recursive=True)
        yield process
    finally:
        process.kill()
        process.wait()
        for child in offspring:
            if child.is_running():
                child.kill()


def reached(process: subprocess.Popen[bytes], folder: Path, condition: Callable[[Status], bool]) -> Status:
    """The first status of a living driver that meets the condition."""
    file, deadline = folder / "run" / "status.json", time.monotonic() + TIMEOUT_S
    while not (file.exists() and condition(read_status(file))):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "console").read_text()
        time.sleep(0.2)
    return read_status(file)


def shown(folder: Path) -> str:
    """What `rlframe status` prints."""
    command = [*RLFRAME, "status", str(folder / "run")]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def alive(processes: list[psutil.Process]) -> list[str]:
    _, left = psutil.wait_procs(processes, timeout=30)
    return [process.name() for process in left if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.long
def test_a_stopped_rank_is_named_and_a_killed_driver_leaves_nothing(driver: subprocess.Popen[bytes], tmp_path: Path):
    logs = tmp_path / "run" / "logs"
    assert {"learner-0.log", "learner-1.log", "rollout-0.log", "reward-0.log"} == {log.name for log in logs.iterdir()}
    pid = int((logs / "learner-1.log").read_text().split()[2])  # of the header
    psutil.Process(pid).suspend()
    status = reached(driver, tmp_path, lambda status: "learner-1 has not answered" in " ".join(status.lines()))
    assert status.state == "running" and status.generation == 1
    assert any(wait.text.startswith("learner-") for wait in status.waits)
    assert "learner-1 has not answered for " in shown(tmp_path)

    offspring = psutil.Process(driver.pid).children(recursive=True)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(offspring) >= 8 and alive(offspring) == []
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    text = shown(tmp_path)
    assert "the process is gone" in text and "learner-1 has not answered for " in text
