"""`RewardPool`: completions spread over reward workers in other processes."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from rlframe.types import Completion, Prompt, Verdict

CLOSE_S = 10.0  # for workers to give back what they hold; then cluster.py ends them anyway


class RewardPool:
    """Typed handle over actors of `RewardWorker`, which `cluster.py` makes and ends.

    At most `max_in_flight` calls wait or run at each worker; further ones wait here, so that a slow reward holds
    back its callers and not the memory of the workers. For use in one event loop.
    """

    def __init__(self, workers: list[Any], *, max_in_flight: int) -> None:
        # workers: ray.actor.ActorHandle, whose methods Ray makes up at run time; no type of Ray's covers awaiting one
        if not workers or max_in_flight < 1:
            raise ValueError(f"a reward pool needs workers and calls in flight, not {len(workers)} and {max_in_flight}")
        self.workers = workers
        self.in_flight = [0] * len(workers)
        self._slots = asyncio.Semaphore(len(workers) * max_in_flight)

    async def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        """Reward name -> its verdict, from the worker with the fewest calls in flight.

        Raises ray.exceptions.RayActorError where that worker is dead.
        """
        async with self._slots:
            # A free slot means that the least busy worker is below max_in_flight.
            index = min(range(len(self.workers)), key=self.in_flight.__getitem__)
            self.in_flight[index] += 1
            try:
                return await self.workers[index].score.remote(prompt, completion)
            finally:
                self.in_flight[index] -= 1

    def close(self) -> None:
        """Closes every worker's rewards; a dead or stuck worker is not waited for beyond CLOSE_S."""
        closed = [worker.close.remote() for worker in self.workers]
        ray.wait(closed, num_returns=len(closed), timeout=CLOSE_S)
