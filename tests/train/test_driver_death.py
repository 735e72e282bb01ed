"""A run whose driver is killed and started again by the same command: Ray, vLLM, a rank and rewards."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import tiny_overrides

TIMEOUT_S = 420


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "rlframe.cli", "train", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def kill_once(running: subprocess.Popen[bytes], log: Path, reached: Callable[[], bool]) -> None:
    """Kills the driver alone, as a machine's lack of memory does."""
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert running.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait(60)


def rows(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def prompt_ids(run_dir: Path, step: int) -> list[str]:
    """One of each completion of a step."""
    with gzip.open(run_dir / "rollouts" / f"step_{step:06d}.jsonl.gz", "rt") as stream:
        return [json.loads(line)["prompt_id"] for line in stream]


# After two steps, before the first checkpoint, the learner begins with the base model.
@pytest.mark.parametrize("kills", [[6], pytest.param([2, 6], marks=pytest.mark.long)], ids=str)
def test_a_killed_run_goes_on_by_the_same_command(tiny_model: Path, tmp_path: Path, kills: list[int]) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    metrics = run_dir / "metrics.jsonl"
    settings = [
        "learner.ranks=1",
        "steps=8",
        "checkpoint.every=4",
        "checkpoint.export=false",
        "evaluate.every=4",
        "learner.lr=0.01",
    ]
    same = [*tiny_overrides(tiny_model), *settings, f"run_dir={run_dir}", "resume=auto"]

    recorded_before: list[list[str]] = [[]]
    for steps_taken in kills:
        kill_once(start(same, log), log, lambda least=steps_taken: len(rows(metrics)) >= least)
        recorded_before.append(rows(metrics))
    again = start(same, log)
    assert again.wait(TIMEOUT_S) == 0, log.read_text()[-3000:]

    after = rows(metrics)
    for earlier, later in pairwise([*recorded_before, after]):
        assert later[: len(earlier)] == earlier  # nothing is recorded twice
    recorded = [json.loads(row) for row in after]
    assert [row["step"] for row in recorded] == list(range(1, 9))
    # Tokens from before a death are those that the replayed policy gives: float32 on both sides.
    assert max(row["mismatch/abs_mean"] for row in recorded) < 1e-3
    steps = [prompt_ids(run_dir, step) for step in range(1, 9)]
    assert [len(step) for step in steps] == [2 * 4] * 8
    assert len({prompt for step in steps for prompt in step}) == 2 * 8  # none twice
    assert [json.loads(row)["step"] for row in rows(run_dir / "evaluations.jsonl")] == [0, 4, 8]

    complete = start(same, log)
    assert complete.wait(240) == 0
    assert f"The run in {run_dir} is complete: all 8 steps are taken." in log.read_text()
