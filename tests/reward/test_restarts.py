"""Reward workers that start again, or do not, while calls wait."""

import asyncio
import os
import time

import pytest
import ray

from rlframe.actors.replicas import Replica, Replicas, ReplicasDown
from rlframe.actors.table import is_alive
from rlframe.errors import Hung
from rlframe.reward import Reward
from rlframe.reward.pool import RewardWorkers
from rlframe.reward.worker import RewardWorker
from rlframe.types import Completion, Prompt

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference="", task="math")


def test_a_worker_that_never_starts_again_does_not_end_the_others(local_ray: None):
    @ray.remote(num_cpus=0)
    class Late:
        """Answers after `seconds`; in less than half a second with an error."""

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def facts(self) -> dict[str, float]:
            await asyncio.sleep(self.seconds)
            if self.seconds < 0.5:
                raise ValueError("no licence")
            return {}

        async def score(self) -> dict[str, float]:
            return {"score": 1.0}

    replicas = Replicas("worker", [Replica(name=f"w{s}", handle=Late.remote(s)) for s in (0.1, 1.0)])
    workers = RewardWorkers(["x"], replicas, max_in_flight=1, max_deaths=1)

    async def call() -> dict[str, float]:
        for replica in replicas:
            workers._restart(replica, ConnectionError())
        answer = await workers.call("score")
        workers._restart(replicas["w1.0"], ConnectionError())
        ray.kill(replicas["w1.0"].handle)
        async with asyncio.timeout(60):
            while is_alive(replicas["w1.0"].handle):
                await asyncio.sleep(0.02)
        with pytest.raises(ReplicasDown, match=r"no worker is left of w0\.1, w1\.0; the last one did not start again"):
            await workers.call("score")
        return answer

    assert asyncio.run(call()) == {"score": 1.0}


class Hangs(Reward):
    """Never comes back from the first completion of a process."""

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        if completion.text == "hang":
            time.sleep(3600)
        return float(os.getpid())


def test_two_pools_that_see_a_hung_worker_restart_it_once(local_ray: None):
    reward = Hangs(name="hangs", weight=1.0)
    options = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": 8, "num_cpus": 0}
    handle = ray.remote(RewardWorker).options(**options).remote("reward-0", {"hangs": reward}, 2.0)
    replicas = [Replicas("worker", [Replica(name="reward-0", handle=handle)]) for _ in range(2)]
    first, second = (RewardWorkers(["hangs"], each, max_in_flight=4, max_deaths=1) for each in replicas)

    async def pid(workers: RewardWorkers, text: str = "4") -> float | None:
        completion = Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")
        return (await workers.call("score", ["hangs"], PROMPT, completion))["hangs"][0].score

    async def pids() -> list[float | None]:
        before = await pid(first)
        assert await pid(first, "hang") is None
        with pytest.raises(Hung) as hung:
            await handle.score.remote(
                ["hangs"], PROMPT, Completion(token_ids=[], logprobs=[], versions=[], text="4", finish_reason="stop")
            )
        again = await pid(first)  # the first pool ends the process, and waits for the next
        second._restart(replicas[1]["reward-0"], hung.value)  # the second pool has seen the same error
        return [before, again, await pid(second), await pid(first)]

    before, again, *later = asyncio.run(pids())
    assert before != again
    assert later == [again, again]
    ray.kill(handle)
