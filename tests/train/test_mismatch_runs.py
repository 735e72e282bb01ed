"""The mismatch gate in whole asynchronous runs: a broken engine ends the run, healthy ones of a sweep go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from rlframe.errors import RunFailed
from rlframe.record.metrics import read_metrics
from rlframe.rollout import vllm
from rlframe.train.loop import train
from rlframe.train.mismatch import figures
from rlframe.training import Loaded
from rlframe.weights.snapshot import Snapshot
from tests.conftest import compose, tiny_overrides

STEPS = 6
STALE = [
    "max_staleness=1",
    "mismatch.action=stop",
    f"steps={STEPS}",
    "learner.ranks=1",
    "learner.lr=5e-4",
    "rollout.group_size=16",
    "evaluate.every=0",
    "checkpoint.every=0",
]


class DeafEngine(vllm.VLLMEngine):
    """An engine that says it has the new weights, and goes on sampling with its first ones."""

    async def load(self, snapshot: Snapshot) -> Loaded:
        await self.stamp(snapshot.version)
        return Loaded(stall_s=0.0, mismatched_tensors=[])


@pytest.fixture
def old_handlers() -> Iterator[None]:
    """Puts the handlers of signals back that a run in this process replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("old_handlers")
def test_an_engine_that_keeps_its_old_weights_ends_a_stale_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the engine's process cannot import this module
    monkeypatch.setattr(vllm, "VLLMEngine", DeafEngine)
    with pytest.raises(RunFailed, match=r"^step [2-6]: engine and learner no longer agree: mismatch/(k3|abs_mean)"):
        train(compose([*tiny_overrides(tiny_model), *STALE, f"run_dir={tmp_path / 'run'}"]))


@pytest.fixture(scope="module")
def sweep(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a sweep over two corrections."""
    folder = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, "-m", "rlframe.cli", "train", "-m", *tiny_overrides(tiny_model), *STALE]
    done = subprocess.run(
        [*command, "correction=proximal,tis"], capture_output=True, text=True, timeout=420, cwd=folder
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def runs(sweep: Path) -> list[list[dict[str, float]]]:
    """The rows of each run's metrics."""
    return [read_metrics(run / "metrics.jsonl") for run in sorted((sweep / "runs").glob("20*"))]


@pytest.mark.long
def test_a_sweep_runs_one_job_for_each_combination(sweep: Path) -> None:
    assert [run.name[-2:] for run in sorted((sweep / "runs").glob("20*"))] == ["_0", "_1"]
    assert all("correction/weight_mean" in rows[0] for rows in runs(sweep))
    assert list((sweep / "runs" / "sweeps").glob("*/multirun.yaml"))


@pytest.mark.long
def test_healthy_stale_runs_are_judged_and_go_on(sweep: Path) -> None:
    for rows in runs(sweep):
        assert len(rows) == STEPS
        judged = [figures(row) for row in rows]
        assert max(row.get("mismatch/abs_mean", 0) for row in judged) < 1e-3  # float32 on both sides
        assert max(row.get("mismatch/abs_mean_stale", 0) for row in judged) > 1e-3  # the policy has moved
