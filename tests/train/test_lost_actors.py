"""A whole run with vLLM whose episode worker and then engine are killed: every step, and every prompt once."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from rlframe.record import rollouts
from rlframe.record.metrics import read_metrics
from rlframe.record.operator_metrics import METRICS
from rlframe.record.status import read_status
from rlframe.train.loop import train
from tests.conftest import compose, tiny_overrides
from tests.tiny.scraper import Scraper

STEPS, PROMPTS = 6, 4
SIZE = [f"steps={STEPS}", f"prompts_per_step={PROMPTS}", "learner.ranks=1", "evaluate.every=0", "checkpoint.every=3"]


def kill_worker_then_engine(run_dir: Path, killed: list[int]) -> None:
    """Kills the only episode worker after the first row of metrics, and the only engine after the third.

    `killed` gets the processes, the engine's children included.
    """
    for rows, name in ((1, "episodes-0"), (3, "rollout-0")):
        while not (metrics := run_dir / "metrics.jsonl").exists() or metrics.read_bytes().count(b"\n") < rows:
            time.sleep(0.02)
        actor: Any = ray.get_actor(name)
        pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
        killed += [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        os.kill(pid, signal.SIGKILL)


def check_metrics_for_operators(scraper: Scraper, run_dir: Path) -> None:
    """Prometheus has found every name; the losses are counted there, in the file and in the status."""
    run = run_dir.name
    assert scraper.names == {metric.scraped for metric in METRICS}
    assert all(("run", run) in labels for _, labels in scraper.series)
    assert scraper.value("ray_rlframe_losses_total", run=run, role="engine") == 1
    assert scraper.value("ray_rlframe_losses_total", run=run, role="learner") == 0
    assert scraper.value("ray_rlframe_engines", run=run, state="wanted") == 1
    assert (scraper.value("ray_rlframe_verdicts_total", run=run, status="scored") or 0) > 0
    status = read_status(run_dir / "status.json")
    for role in ("engine", "episodes"):
        assert (status.outages.losses[role], status.outages.recoveries[role]) == (1, 1)
    assert status.metrics_url.startswith("http://127.0.0.1:")
    assert 0 < status.outages.lost_s < status.outages.seconds  # no engine served for a while
    assert status.prompt_states["taken"] == STEPS * PROMPTS
    last = read_metrics(run_dir / "metrics.jsonl")[-1]
    assert (last["losses/engine"], last["engines/serving"], last["rollout/late_answers"]) == (1, 1, 0)
    assert 0 < last["time/effective"] < 1


def test_a_run_goes_on_after_the_deaths_of_its_only_worker_and_engine(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    killed: list[int] = []
    killer = threading.Thread(target=kill_worker_then_engine, args=(tmp_path, killed), daemon=True)
    killer.start()
    settings = [
        *tiny_overrides(tiny_model),
        *SIZE,
        "rollout.engines=1",
        "rollout.episode_workers=1",
        "max_staleness=1",
        "late=wait",
        f"run_dir={tmp_path}",
    ]
    with Scraper() as scraper:
        train(compose(settings))
    killer.join(10)
    check_metrics_for_operators(scraper, tmp_path)
    assert len(killed) >= 3 and not any(Path(f"/proc/{pid}").exists() for pid in killed)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert max(row["rollout/staleness_max"] for row in rows) <= 1
    assert max(row["mismatch/abs_mean"] for row in rows if "mismatch/abs_mean" in row) < 1e-3  # float32 on both sides
    groups = rollouts.read(tmp_path, None)
    prompts = [group.group.prompt.id for group in groups]
    assert len(prompts) == len(set(prompts)) == STEPS * PROMPTS
    assert {len(group.rewards) for group in groups} == {4}
    successors = {"episodes-1.log", "rollout-1.log"}
    assert successors <= {log.name for log in (tmp_path / "logs").iterdir()}
    assert not (tmp_path / "requests").exists()
