"""`rlframe status`: what a run waits for, whether its driver lives, and folders that hold no run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlframe.cli import status
from rlframe.record.status import WaitStatus, write_status
from tests.tiny.status import make_actor, make_status

WAIT = WaitStatus(text="learner-0 to take step 7 (a.bound=1800)", seconds=41.0, unmoved_s=41.0, bound_s=1800.0)


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no age depends on how long a test takes."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


def shown(folder: Path, capsys: pytest.CaptureFixture[str], **fields: Any) -> list[str]:
    """The lines that the verb prints for a status of these fields, of this machine and process by default."""
    here = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time(), "time": time.time()}
    write_status(folder / "status.json", make_status(**here | fields))
    assert status.main([str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_run_tells_its_step_its_waits_and_its_actors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    actors = [make_actor("learner-0", "backward of micro-batch 3 of 8", 41.0)]
    metrics = {"loss": 0.25, "reward/mean": 0.5, "other": 1.0}
    lines = shown(tmp_path, capsys, waits=[WAIT], actors=actors, metrics=metrics)
    assert lines == [
        f"{tmp_path}: running, step 6 of 100",
        f"driver: process {os.getpid()} on {socket.gethostname()}, generation 2; it wrote 0 s ago",
        "waits for learner-0 to take step 7 (a.bound=1800), for 41 s",
        "learner-0: backward of micro-batch 3 of 8 for 41 s",
        "last step: reward/mean 0.5, loss 0.25",
    ]


def test_a_start_tells_its_phase(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = shown(tmp_path, capsys, state="starting", generation=None, doing="preparing the model for 3 s")
    assert lines[1].endswith(f"on {socket.gethostname()}; it wrote 0 s ago")
    assert lines[2] == "driver: preparing the model for 3 s"


def test_the_driver_of_a_dead_run_is_said_to_be_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    line = shown(tmp_path, capsys, pid=dead.pid, time=time.time() - 38, waits=[WAIT])[1]
    assert "it has not written for 38 s, and the process is gone" in line
    assert f"rlframe train resume={tmp_path}" in line


def test_a_later_process_of_the_same_number_is_not_the_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = shown(tmp_path, capsys, started=1000.0, time=1038.0)[1]  # this process is younger than 1970
    assert "the process is gone" in line


def test_a_silent_driver_may_live_here_or_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "but the process lives: it is stopped" in shown(tmp_path, capsys, time=time.time() - 38)[1]
    assert "look on node-7" in shown(tmp_path, capsys, time=time.time() - 38, host="node-7")[1]


def test_a_run_that_ended_tells_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = shown(tmp_path, capsys, state="failed", reason="the disk is full", time=time.time() - 100, waits=[WAIT])
    assert lines[0].endswith(": failed, step 6 of 100") and lines[1].endswith("it ended 100 s ago")
    assert lines[2:] == ["reason: the disk is full"]


def test_folders_without_a_status_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.jsonl").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "status.json").write_text("{}")
    for folder, words in {
        tmp_path / "none": "there is no such folder; give the run_dir of a run",
        tmp_path: "the folder holds no run: there is no status.json; give the run_dir of a run",
        tmp_path / "old": "an older version of rlframe wrote no status.json; see metrics.jsonl",
        tmp_path / "other": "the file is no status of this version of rlframe",
    }.items():
        assert status.main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert str(folder) in error and words in error


def test_without_a_folder_the_usage_is_told(capsys: pytest.CaptureFixture[str]):
    assert status.main([]) == 2
    assert "usage: rlframe status RUN_DIR" in capsys.readouterr().err


def test_a_status_is_shown_without_ray_and_torch(tmp_path: Path):
    write_status(tmp_path / "status.json", make_status())
    program = (
        f"import sys; from rlframe.cli import status; status.main([{str(tmp_path)!r}]); "
        "sys.exit(1 if {'ray', 'torch', 'vllm', 'hydra'} & {*sys.modules} else 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
