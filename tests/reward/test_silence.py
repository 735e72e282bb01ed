"""Reward workers that stop or block are found, replaced and asked again; nobody gets a 0 for it."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rlframe.cluster.placement import reward_slots
from rlframe.cluster.reward_actors import reward_pool, start_reward_actors
from rlframe.reward import Reward
from rlframe.reward.config import RewardConfig
from rlframe.reward.pool import RewardPool
from rlframe.types import Completion, Prompt, Verdict
from tests.tiny.ended import ended

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference="", task="math")
FOUND_S = 5.0  # after reward.timeout_s, at most
RESTART_S = 60.0  # for a new process on a busy machine


class Blocks(Reward):
    """Blocks its worker's event loop at "always", and at "once" in the first process that gets it."""

    folder: str

    async def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        Path(self.folder, f"{completion.text}.{os.getpid()}").touch()
        processes = len(list(Path(self.folder).glob(f"{completion.text}.*")))
        if completion.text == "always" or (completion.text == "once" and processes == 1):
            time.sleep(3600)
        await asyncio.sleep(0.5 if completion.text == "slow" else 0)
        return Verdict(score=1.0, status="scored", seconds=0.0, detail=str(os.getpid()))


@pytest.fixture
def pool(local_ray: None, tmp_path: Path) -> Iterator[Any]:
    started: dict[str, Any] = {}

    def make(workers: int, attempts: int = 3) -> RewardPool:
        terms = {"blocks": Blocks(name="blocks", weight=1.0, folder=str(tmp_path))}
        limits = {"timeout_s": 1.0, "attempts": attempts, "max_failed_share": 1.0}
        config = RewardConfig(workers=workers, cpus=0, labels={}, resources={}, terms=terms, **limits)
        actors = start_reward_actors(config, reward_slots(config), started)
        ray.get([handle.__ray_ready__.remote() for handle in started.values()])
        return reward_pool(config, actors)

    yield make
    for handle in started.values():
        ray.kill(handle)


async def score(pool: RewardPool, *texts: str) -> list[Verdict]:
    completions = [
        Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")  # type: ignore[arg-type]
        for text in texts
    ]
    rows = await asyncio.gather(*[pool.score(PROMPT, completion) for completion in completions])
    return [row["blocks"] for row in rows]


def test_an_async_reward_that_blocks_its_loop_is_asked_again(pool: Any, tmp_path: Path):
    rewards = pool(workers=1)

    async def verdicts() -> tuple[list[Verdict], float]:
        await score(rewards, "warm")
        started_at = time.monotonic()
        return await score(rewards, "once", "a", "b"), time.monotonic() - started_at

    found, seconds = asyncio.run(verdicts())
    assert [verdict.score for verdict in found] == [1.0] * 3
    assert len(list(tmp_path.glob("once.*"))) == 2
    assert rewards.metrics()["reward/workers_replaced"] == 1
    assert seconds < 1 + FOUND_S + RESTART_S


def test_a_stopped_worker_is_killed_and_its_calls_run_elsewhere(pool: Any):
    rewards = pool(workers=2)

    async def stop() -> tuple[int, list[Verdict], float]:
        pid = int((await score(rewards, "warm"))[0].detail)
        batch = asyncio.ensure_future(score(rewards, *["slow"] * 6))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        verdicts = await batch
        return pid, verdicts, time.monotonic() - stopped_at

    pid, verdicts, seconds = asyncio.run(stop())
    assert [verdict.score for verdict in verdicts] == [1.0] * 6
    assert str(pid) not in {verdict.detail for verdict in verdicts}
    assert seconds < 1 + FOUND_S + RESTART_S
    assert rewards.metrics()["reward/workers_replaced"] == 1
    asyncio.run(ended(pid))


def test_a_completion_that_blocks_every_worker_has_no_score(pool: Any, tmp_path: Path):
    (verdict,) = asyncio.run(score(pool(workers=2, attempts=2), "always"))
    assert (verdict.score, verdict.status) == (None, "failed")
    assert "its workers died or stopped: reward-" in verdict.detail
    assert len(list(tmp_path.glob("always.*"))) == 2
