"""The reward pool over real actors: spread, back-pressure, and failures that travel."""

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from rlframe.reward import build
from rlframe.reward.pool import RewardPool
from rlframe.reward.worker import RewardWorker
from rlframe.types import Completion, Prompt, Verdict

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference=r"2\sqrt{2}", task="math")


def completion(text: str) -> Completion:
    return Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


class SlowWorker:
    """A worker's surface with a countable delay: its verdicts' detail says who scored and how many at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.here, self.most = seconds, 0, 0

    async def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        self.here += 1
        self.most = max(self.most, self.here)
        await asyncio.sleep(self.seconds)
        self.here -= 1
        detail = f"{os.getpid()} {self.most}"
        return {"slow": Verdict(score=1.0, status="scored", seconds=self.seconds, detail=detail)}

    def close(self) -> None:
        pass


def slow_workers(count: int, seconds: float) -> list[Any]:
    return [ray.remote(SlowWorker).options(num_cpus=0).remote(seconds) for _ in range(count)]


def test_math_is_scored_in_another_process_and_a_hostile_answer_costs_its_timeout_there(cluster: None):
    math = {"name": "math", "weight": 1.0, "extract": ["answer", "boxed"], "timeout_s": 1.0, "max_answer_chars": 200}
    shape = {"name": "format", "weight": 0.1, "think": "think", "answer": "answer", "opened": False, "partial": False}
    rewards = {"math": build(math), "format": build(shape)}
    pool = RewardPool([ray.remote(RewardWorker).options(num_cpus=1).remote(rewards)], max_in_flight=4)
    texts = [r"<think>.</think><answer>\sqrt{8}</answer>", r"\boxed{3}", r"\boxed{9!!!!}"]

    async def score_all() -> list[dict[str, Verdict]]:
        return await asyncio.gather(*[pool.score(PROMPT, completion(text)) for text in texts])

    verdicts = asyncio.run(score_all())
    assert [(v["math"].score, v["math"].status) for v in verdicts] == [
        (1.0, "scored"),
        (0.0, "scored"),
        (0.0, "timeout"),
    ]
    assert [v["format"].score for v in verdicts] == [1.0, 0.0, 0.0]
    pool.close()


def test_two_workers_share_completions_and_none_has_more_than_two_at_once(cluster: None):
    pool = RewardPool(slow_workers(2, seconds=0.1), max_in_flight=2)

    async def score_all() -> tuple[list[dict[str, Verdict]], list[dict[str, Verdict]]]:
        first = await asyncio.gather(*[pool.score(PROMPT, completion("")) for _ in range(4)])
        return first, await asyncio.gather(*[pool.score(PROMPT, completion("")) for _ in range(8)])

    first, then = asyncio.run(score_all())
    pids = [v["slow"].detail.split()[0] for v in first]
    assert [pids.count(pid) for pid in set(pids)] == [2, 2]
    assert max(int(v["slow"].detail.split()[1]) for v in first + then) == 2
    assert pool.in_flight == [0, 0]
    pool.close()


def test_a_dead_worker_is_an_error_and_its_slot_is_free_again(cluster: None):
    workers = slow_workers(1, seconds=0.0)
    pool = RewardPool(workers, max_in_flight=1)
    ray.kill(workers[0])
    for _ in range(2):
        with pytest.raises(RayActorError):
            asyncio.run(asyncio.wait_for(pool.score(PROMPT, completion("")), timeout=20))
    assert pool.in_flight == [0]
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 5


def test_a_pool_without_workers_is_an_error():
    with pytest.raises(ValueError, match="needs workers"):
        RewardPool([], max_in_flight=1)
