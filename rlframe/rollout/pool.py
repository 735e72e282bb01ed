"""`RolloutPool`: prompts spread over engines in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import ray

from rlframe.types import Drawn, Prompt, Sampling

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.weights.broadcast import Broadcast
    from rlframe.weights.publish import Published


class RolloutPool:
    """Typed handle over engine actors, which `cluster.py` makes and ends."""

    def __init__(self, engines: list[ActorHandle], *, update_timeout_s: float) -> None:
        self.engines = engines
        self.update_timeout_s = update_timeout_s
        self.outstanding = [0] * len(engines)  # completions not yet back from each engine
        self.version = 0

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncIterator[Drawn]:
        """Every prompt's completions, each as it ends. A group stays on one engine, which computes its prompt once.

        Raises what an engine raised, or RayActorError when one died.
        """
        shares: list[list[Prompt]] = [[] for _ in self.engines]
        for prompt in prompts:
            least = self.outstanding.index(min(self.outstanding))
            self.outstanding[least] += sampling.completions
            shares[least].append(prompt)
        arrivals: asyncio.Queue[Drawn | BaseException] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._follow(engine, share, sampling, arrivals))
            for engine, share in enumerate(shares)
            if share
        ]
        try:
            for _ in range(len(prompts) * sampling.completions):
                arrival = await arrivals.get()
                if isinstance(arrival, BaseException):
                    raise arrival
                yield arrival
        finally:
            for task in tasks:
                task.cancel()

    def update(self, weights: Published | Broadcast, *, version: int) -> None:
        """Brings `weights` to every engine; requests in flight freeze meanwhile and go on as policy `version`.

        Raises Stalled when an engine has not loaded them within the bound.
        """
        if weights.version != version:
            raise ValueError(f"the learner published version {weights.version}, not {version}")
        weights.deliver(self.engines, self.update_timeout_s)
        self.version = version

    async def _follow(
        self, engine: int, prompts: list[Prompt], sampling: Sampling, arrivals: asyncio.Queue[Drawn | BaseException]
    ) -> None:
        """Moves one engine's completions into the queue, and its error if it has one."""
        left = len(prompts) * sampling.completions
        stream = self.engines[engine].generate.options(num_returns="streaming").remote(prompts, sampling)
        try:
            async for reference in stream:
                arrivals.put_nowait(await reference)
                left -= 1
                self.outstanding[engine] -= 1
        except ray.exceptions.RayError as error:
            arrivals.put_nowait(error)
        finally:
            self.outstanding[engine] -= left
