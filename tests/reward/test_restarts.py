"""Reward workers that start again, or do not, while calls wait."""

import asyncio

import pytest
import ray

from rlframe.actors.replicas import Replica, Replicas, ReplicasDown
from rlframe.reward.pool import RewardWorkers


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
            workers._restart(replica, kill=False)
        answer = await workers.call("score")
        workers._restart(replicas["w1.0"], kill=False)
        ray.kill(replicas["w1.0"].handle)
        with pytest.raises(ReplicasDown, match=r"no worker is left of w0\.1, w1\.0; the last one did not start again"):
            await workers.call("score")
        return answer

    assert asyncio.run(call()) == {"score": 1.0}
