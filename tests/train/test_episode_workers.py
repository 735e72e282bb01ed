"""A whole run of two engines and two episode workers, and the same run with one engine in the driver's process."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlframe.train.loop import train
from tests.conftest import compose, tiny_overrides

SIZE = ["steps=2", "prompts_per_step=4", "learner.ranks=1", "evaluate.every=0"]


def trajectories(run_dir: Path) -> list[dict[str, Any]]:
    """All trajectories by step and prompt, without the seconds of verdicts."""
    texts = [gzip.decompress(file.read_bytes()).decode() for file in run_dir.glob("rollouts/*.gz")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    for row in rows:
        row["verdicts"] = {name: verdict["score"] for name, verdict in row["verdicts"].items()}
    return sorted(rows, key=lambda row: (row["step"], row["prompt_id"]))


@pytest.mark.long
def test_two_engines_and_workers_give_the_same_run_as_one_engine(tiny_model: Path, tmp_path: Path) -> None:
    for engines, workers in ((1, 0), (2, 2)):
        pools = [f"rollout.engines={engines}", f"rollout.episode_workers={workers}"]
        train(compose([*tiny_overrides(tiny_model), *SIZE, *pools, f"run_dir={tmp_path / str(workers)}"]))
    alone, shared = trajectories(tmp_path / "0"), trajectories(tmp_path / "2")
    assert len(alone) == 2 * 4 * 4
    assert shared == alone  # tokens, log-probabilities, rewards and advantages
    parts = [f"step_{step:06d}.episodes-{worker}.jsonl.gz" for step in (1, 2) for worker in (0, 1)]
    assert sorted(file.name for file in (tmp_path / "2" / "rollouts").iterdir()) == parts
