"""`RolloutPool`: prompts spread over engines in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

import ray

from rlframe.errors import RunFailed
from rlframe.types import Loaded, Prompt, SampledCompletion, Sampling

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
        self.quarantined: set[int] = set()  # engines that hold other weights than the learner's; they get no work
        self.version = 0
        self.current: Published | Broadcast | None = None  # of `version`; None: what every engine started with
        self.stall_s = 0.0

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncIterator[SampledCompletion]:
        """Every prompt's completions, each as it ends. A group stays on one engine, which computes its prompt once.

        Raises what an engine raised, or RayActorError when one died.
        """
        shares: list[list[Prompt]] = [[] for _ in self.engines]
        for prompt in prompts:
            least = min(self._working(), key=self.outstanding.__getitem__)
            self.outstanding[least] += sampling.completions
            shares[least].append(prompt)
        arrivals: asyncio.Queue[SampledCompletion | BaseException] = asyncio.Queue()
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

        An engine that then holds other weights than the learner, by their checksums, gets no work until it has
        loaded every value anew. Raises Stalled when an engine has not loaded them within the bound, RunFailed when
        the checksums do not hold even then.
        """
        if weights.version != version:
            raise ValueError(f"the learner published version {weights.version}, not {version}")
        loaded = self._deliver(weights, range(len(self.engines)))
        if differing := sorted(self.quarantined):
            weights = weights.anew(self.update_timeout_s)
            loaded |= self._deliver(weights, differing)
        if self.quarantined:
            broken = ", ".join(f"{name} ({', '.join(one.differing)})" for name, one in loaded.items() if one.differing)
            raise RunFailed(f"weights of version {version} arrived broken, twice: {broken}")
        self.stall_s = max(one.stall_s for one in loaded.values())
        self.current, self.version = weights, version

    def join(self, engine: ActorHandle, place: int | None = None) -> None:
        """Brings a late or restarted engine to the current version, then gives it work.

        `place`: of the engine that it takes the place of; None: it is one more. Raises Stalled when it has not
        loaded the weights within the bound. If the checksums do not hold it gets no work before the next update.
        """
        if place is None:
            place = len(self.engines)
            self.outstanding.append(0)
        self.quarantined.add(place)
        self.engines[place:] = [engine, *self.engines[place + 1 :]]
        if self.current is None:
            self.quarantined.discard(place)
        else:
            self._deliver(self.current, [place])

    def metrics(self) -> dict[str, float]:
        """Of the last update: how long generation stood still on the engine that waited longest."""
        return {"rollout/stall_s": self.stall_s}

    def _deliver(self, weights: Published | Broadcast, places: Iterable[int]) -> dict[str, Loaded]:
        """Quarantines those engines whose checksums do not hold, and lets go of those whose do."""
        names = {f"rollout-{place}": place for place in places}
        loaded = weights.deliver({name: self.engines[place] for name, place in names.items()}, self.update_timeout_s)
        for name, one in loaded.items():
            (self.quarantined.add if one.differing else self.quarantined.discard)(names[name])
        return loaded

    def _working(self) -> list[int]:
        """Engines that may draw; when none may, all: what they are given waits there until they are healed."""
        every = range(len(self.engines))
        return [place for place in every if place not in self.quarantined] or list(every)

    async def _follow(
        self,
        engine: int,
        prompts: list[Prompt],
        sampling: Sampling,
        arrivals: asyncio.Queue[SampledCompletion | BaseException],
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
