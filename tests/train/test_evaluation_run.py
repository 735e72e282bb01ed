"""Evaluations as a user runs them: stopped in a run, caught up on resume, and repeated by `rlframe evaluate`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlframe.record import rollouts
from tests.conftest import tiny_overrides

pytestmark = pytest.mark.long  # tests/train/test_loop.py evaluates the checkpoint of a run without a stop

RLFRAME = [sys.executable, "-m", "rlframe.cli"]
TIMEOUT_S = 420
WANDB = ["tracking=wandb", "tracking.mode=offline"] if find_spec("wandb") else []
SETS = [
    "evaluate.reward=brevity",
    "evaluate.k=[1,2]",
    "+evaluate.sets.greedy={temperature: 0.0, samples: 1, max_tokens: 40}",
    "+evaluate.sets.long={source: {size: 3}, samples: 48, max_tokens: 380, top_p: 0.9}",
]


def rlframe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RLFRAME, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)


def evaluations(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def overrides(tiny_model: Path) -> list[str]:
    return [*tiny_overrides(tiny_model), *SETS]


@pytest.fixture(scope="module")
def stopped(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step that a signal ended in the last evaluation."""
    run_dir = tmp_path_factory.mktemp("runs") / "stopped"
    settings = ["learner.ranks=1", "steps=1", "evaluate.every=1", "checkpoint.every=1", *WANDB, f"run_dir={run_dir}"]
    running = subprocess.Popen(
        [*RLFRAME, "train", *overrides, *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + TIMEOUT_S
    while not ((run_dir / "evaluations" / "heldout" / "step_000001.jsonl.gz").exists()):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate(timeout=60)
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 130, output
    return run_dir


def test_a_stop_in_the_last_evaluation_keeps_its_checkpoint(stopped: Path) -> None:
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step_000001"]
    assert [evaluation["step"] for evaluation in evaluations(stopped)] == [0]


@pytest.mark.skipif(not WANDB, reason="an optional extra")
def test_evaluations_reach_weights_and_biases(stopped: Path) -> None:
    [log] = (stopped / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"eval/greedy/pass@1" in log.read_bytes()


def test_a_resumed_run_catches_up_and_evaluate_repeats_its_figures(
    stopped: Path, overrides: list[str], tmp_path: Path
) -> None:
    resumed = rlframe("train", f"resume={stopped}")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    first, last = evaluations(stopped)
    assert (first["step"], last["step"]) == (0, 1)
    assert last["eval/greedy/completion_tokens"] <= 40 < last["eval/long/completion_tokens"] <= 380
    assert {key.rpartition("/")[0] for key in last if key != "step"} == {"eval", "eval/greedy", "eval/long"}
    assert {"eval/pass@2", "eval/long/pass@48", "eval/long/pass@1_se", "eval/greedy/truncated"} <= last.keys()
    assert first != last | {"step": 0}  # a step of training shows

    again = tmp_path / "again"
    checkpoint = stopped / "checkpoints" / "step_000001" / "huggingface"
    arguments = [*overrides, f"model.path={checkpoint}", "learner.micro_batch_tokens=1", f"run_dir={again}"]
    done = rlframe("evaluate", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert evaluations(again) == [last | {"step": 0}]
    assert ["held-out", "set", "heldout", "greedy", "long"] in [line.split() for line in done.stdout.splitlines()]
    groups = rollouts.read(again / "evaluations" / "long", limit=None)
    assert [len(group.verdicts["brevity"]) for group in groups] == [48] * 3
    refused = rlframe("evaluate", *arguments)
    assert refused.returncode == 2
    assert f"run_dir: {again} holds a run already; choose another folder" in refused.stderr
