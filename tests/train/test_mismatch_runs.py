"""The mismatch gate in whole asynchronous runs: a broken engine ends the run, a healthy one does not."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
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


class DeafEngine(vllm.VLLMEngine):
    """An engine that says it has the new weights, and goes on sampling with its first ones."""

    async def load(self, snapshot: Snapshot) -> Loaded:
        await self.stamp(snapshot.version)
        return Loaded(stall_s=0.0, mismatched_tensors=[])


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Iterator[Callable[[], list[dict[str, float]]]]:
    """Runs one step ahead with `mismatch.action=stop` -> the metrics of every step."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the engine's process cannot import this module
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asynchronous = ["max_staleness=1", "mismatch.action=stop", f"steps={STEPS}", f"run_dir={tmp_path / 'run'}"]
    sizes = ["learner.ranks=1", "learner.lr=5e-4", "rollout.group_size=16", "evaluate.every=0", "checkpoint.every=0"]
    config = compose([*tiny_overrides(tiny_model), *asynchronous, *sizes])

    def start() -> list[dict[str, float]]:
        train(config)
        return read_metrics(tmp_path / "run" / "metrics.jsonl")

    yield start
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_an_engine_that_keeps_its_old_weights_ends_a_stale_run(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "VLLMEngine", DeafEngine)
    with pytest.raises(RunFailed, match=r"^step [2-6]: engine and learner no longer agree: mismatch/(k3|abs_mean)"):
        run()


def test_a_healthy_stale_run_is_judged_and_goes_on(run) -> None:
    rows = run()
    assert len(rows) == STEPS
    judged = [figures(row) for row in rows]
    assert max(row.get("mismatch/abs_mean", 0) for row in judged) < 1e-3  # float32 on both sides
    assert max(row.get("mismatch/abs_mean_stale", 0) for row in judged) > 1e-3  # the policy has moved
