"""A whole run with vLLM whose episode worker is killed: every step, every prompt once, and all rollouts on disk."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import ray

from rlframe.record import rollouts
from rlframe.train.loop import train
from tests.conftest import compose, tiny_overrides

STEPS, PROMPTS = 6, 4
SIZE = [f"steps={STEPS}", f"prompts_per_step={PROMPTS}", "learner.ranks=1", "rollout.engines=2", "evaluate.every=0"]
LOGGED = ["checkpoint.every=3", "rollout.episode_workers=2"]


def kill_worker_after_first_step(run_dir: Path, killed: list[int]) -> None:
    """Waits for the first row of metrics, then kills an episode worker."""
    metrics = run_dir / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_bytes().count(b"\n"):
        time.sleep(0.02)
    worker: Any = ray.get_actor("episodes-0")
    killed.append(ray.get(worker.__ray_call__.remote(lambda _: os.getpid())))
    os.kill(killed[0], signal.SIGKILL)


def test_a_run_goes_on_after_the_death_of_an_episode_worker(tiny_model: Path, tmp_path: Path) -> None:
    killed: list[int] = []
    killer = threading.Thread(target=kill_worker_after_first_step, args=(tmp_path, killed), daemon=True)
    killer.start()
    train(compose([*tiny_overrides(tiny_model), *SIZE, *LOGGED, f"run_dir={tmp_path}"]))
    killer.join(10)
    assert killed and not Path(f"/proc/{killed[0]}").exists()
    groups = rollouts.read(tmp_path, None)
    prompts = [group.group.prompt.id for group in groups]
    assert len(prompts) == len(set(prompts)) == STEPS * PROMPTS
    assert {len(group.rewards) for group in groups} == {4}
    written = {file.name.split(".")[1] for file in (tmp_path / "rollouts").iterdir()}
    assert "episodes-2" in written  # the third worker, in place of the first
