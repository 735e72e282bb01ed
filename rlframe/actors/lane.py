"""`Lane`: worker actors that hold the same rewards; calls go to the least busy one that lives."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from rlframe.errors import Hung, RunFailed

RETURN_S = 300.0  # for a worker that died to start again, packages and models included


class Worker:
    """An actor, and what the lane knows of it."""

    def __init__(self, name: str, actor: Any) -> None:
        # actor: ray.actor.ActorHandle, whose methods Ray makes up at run time
        self.name = name
        self.actor = actor
        self.calls = 0  # in flight
        self.up = asyncio.Event()
        self.up.set()


class LaneDown(RunFailed):
    """No worker of a lane is alive, nor did one come back."""


class Lane:
    """Spreads calls over workers, and outlives them: one that died or hangs is replaced while the others go on.

    At most `max_in_flight` calls wait or run at each worker; further ones wait here, so that a slow reward holds
    back its callers and not the memory of the workers. For use in one event loop.
    """

    def __init__(self, names: list[str], workers: dict[str, Any], *, max_in_flight: int, max_deaths: int) -> None:
        """`names`: of the rewards that every worker holds; `workers`: actor name -> its handle, an actor that Ray
        restarts; `max_deaths`: of workers in one call, after which it is given up."""
        if not workers or max_in_flight < 1:
            raise ValueError(f"a lane needs workers and calls in flight, not {len(workers)} and {max_in_flight}")
        self.names = names
        self.workers = [Worker(name, actor) for name, actor in workers.items()]
        self.max_deaths = max_deaths
        self.replaced = 0  # workers, since the start
        self._slots = asyncio.Semaphore(len(workers) * max_in_flight)
        self._returning: set[asyncio.Task[None]] = set()

    async def call(self, method: str, *arguments: Any) -> dict[str, Any]:
        """What the worker's `method` answers, from another one where the first died. Raises LaneDown, and
        ray.exceptions.RayActorError once `max_deaths` workers have died of the call or beside it."""
        deaths = 0
        async with self._slots:
            while True:
                worker = await self._least_busy()
                worker.calls += 1
                try:
                    return await getattr(worker.actor, method).remote(*arguments)
                except Hung:  # of an earlier call: this one has not begun
                    self._replace(worker, kill=True)
                except RayActorError:
                    self._replace(worker, kill=False)
                    deaths += 1
                    if deaths == self.max_deaths:
                        raise
                finally:
                    worker.calls -= 1

    async def _least_busy(self) -> Worker:
        while not (living := [worker for worker in self.workers if worker.up.is_set()]):
            returning = list(self._returning)
            if not returning:
                raise LaneDown(f"no worker is left of {', '.join(worker.name for worker in self.workers)}")
            done, _ = await asyncio.wait(returning, return_when=asyncio.FIRST_COMPLETED)
            if errors := [error for task in done if (error := task.exception()) is not None]:
                raise LaneDown(f"{self.workers[0].name} did not start again: {errors[0]}") from errors[0]
        return min(living, key=lambda worker: worker.calls)

    def _replace(self, worker: Worker, *, kill: bool) -> None:
        """Takes a worker out until Ray has started it anew; every call that it fails asks for this, once is enough."""
        if not worker.up.is_set():
            return
        worker.up.clear()
        self.replaced += 1
        if kill:
            ray.kill(worker.actor, no_restart=False)
        task = asyncio.get_running_loop().create_task(_return(worker))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)


async def _return(worker: Worker) -> None:
    """Waits until the worker answers again."""
    deadline = time.monotonic() + RETURN_S
    while True:
        try:
            await asyncio.wait_for(
                asyncio.wrap_future(worker.actor.facts.remote().future()), deadline - time.monotonic()
            )
        except ActorUnavailableError:  # Ray is still at it
            await asyncio.sleep(0.2)
        else:
            worker.up.set()
            return
