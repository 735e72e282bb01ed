"""`Supervisor`: looks once a second after the number of engines, requests of other commands, and draining nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import ray

from rlframe.actors.replicas import Handle
from rlframe.cluster import drain
from rlframe.cluster.actor import node_of
from rlframe.cluster.neighbourhood import Neighbourhood
from rlframe.cluster.placement import LEARNER
from rlframe.cluster.scaling import AUTO, Controller, Reading, refusal
from rlframe.record import requests
from rlframe.record.requests import Answer, Request

if TYPE_CHECKING:
    from rlframe.cluster.fleet import Fleet
    from rlframe.config.run import RunConfig

EVERY_S = 1.0
ROLLOUT = "rollout"  # the only key of a request


class Supervisor:
    """A task on the background's event loop, beside training. Its errors end the run.

    A run begins at the least number of engines, and the controller decides, until a request names a number.
    """

    def __init__(self, run: RunConfig, fleet: Fleet, handles: dict[str, Handle]) -> None:
        """`handles`: of all actors of the run, by name."""
        self.run = run
        self.fleet = fleet
        self.neighbourhood = Neighbourhood(fleet)
        self.handles = handles
        self.checkpoint_due = Event()  # a checkpoint cannot wait: the node of the driver or of a rank drains
        self.controller = None if run.rollout.engines.fixed else Controller(run.rollout.engines)
        self._asked = False  # a request has set the number of engines
        self._read: Callable[[], Reading | None] = lambda: None
        self._requests: Path | None = None  # the mark of this process in the folder of requests
        self._moved: set[tuple[str, str]] = set()  # actors that have left draining nodes, and the nodes

    def open(self, folder: Path, read: Callable[[], Reading | None]) -> None:
        """Answers requests in `folder` from now on, and lets the controller decide by readings. For any thread.

        `read`: None in a second that is no training.
        """
        self._requests, self._read = requests.open_folder(folder), read

    def close(self) -> None:
        """Ends answering. For any thread."""
        if self._requests is not None:
            mark, self._requests = self._requests, None
            requests.close_folder(mark)

    async def run_forever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Does everything that a second asks for."""
        if nodes := await asyncio.to_thread(drain.draining_nodes):
            await self._leave(nodes)
        if self._requests is not None:
            for request in await asyncio.to_thread(requests.waiting, self._requests):
                with suppress(OSError):  # a full disk: the next look decides and answers again
                    request.answer(self._decide(request))
        self._control()
        self.fleet.balance()
        self.fleet.check()
        await self.fleet.share()
        await self.neighbourhood.look()

    def _control(self) -> None:
        """Lets the controller read a second of training with engines that are all there."""
        if self.controller is None:
            return
        reading = None if self._asked else self._read()
        if reading is None or self.fleet.coming or len(self.fleet.seated) != self.fleet.target:
            return self.controller.forget()
        self.fleet.scale(self.controller.target(self.fleet.target, reading))

    def _decide(self, request: Request) -> Answer:
        if request.wishes.keys() != {ROLLOUT}:
            return Answer(refused=True, text=f"{', '.join(request.wishes)}: only {ROLLOUT} can be scaled")
        wish = request.wishes[ROLLOUT]
        if (reason := refusal(self.run.rollout.engines, wish)) is not None:
            return Answer(refused=True, text=reason)
        self._asked = wish != AUTO
        if not self._asked:
            return Answer(refused=False, text=f"the run chooses the number of engines, {self.fleet.target} at present")
        before = self.fleet.target
        self.fleet.scale(int(wish))
        return Answer(refused=False, text=f"{wish} engines are wanted, after {before}; rollout=auto undoes this")

    async def _leave(self, nodes: set[str]) -> None:
        """Lets the run's actors leave draining nodes: engines with their tokens, and workers to start elsewhere."""
        if await asyncio.to_thread(drain.driver_is_on, nodes):
            self._once("driver", nodes, self._save)
        for name, homes in (await asyncio.to_thread(self._homes)).items():
            if draining := homes & nodes:
                self._once(name, draining, partial(self._move, name))

    def _homes(self) -> dict[str, set[str]]:
        """Ids of the nodes of every actor, by name."""
        engines = {**self.fleet.seated, **self.fleet.coming}
        others = {name: node_of(handle) for name, handle in dict(self.handles).items() if name not in engines}
        return others | {name: self.fleet.engines.nodes(engine) for name, engine in engines.items()}

    def _once(self, name: str, nodes: set[str], act: Callable[[], None]) -> None:
        """Acts for an actor on draining nodes, unless it was done before."""
        if not {(name, node) for node in nodes} <= self._moved:
            self._moved |= {(name, node) for node in nodes}
            act()

    def _move(self, name: str) -> None:
        """Lets an actor leave its node. Ranks stay until the node leaves, and then start anew from the checkpoint."""
        if name in self.fleet.seated or name in self.fleet.coming:
            self.fleet.background.start(self.fleet.leave(name, "its node leaves the cluster"))
        elif name.startswith(LEARNER):
            self._save()
        elif self.fleet.episodes is not None and name in self.fleet.episodes.workers:
            self.fleet.background.start(self.fleet.episodes.replace_worker(name, "its node leaves the cluster"))
        elif name.startswith(("reward", "teacher")):
            ray.kill(self.handles[name], no_restart=False)  # Ray starts the worker on another node

    def _save(self) -> None:
        """Asks for a checkpoint, and wakes a `take` of the driver's thread."""
        if self.run.checkpoint.every:
            self.checkpoint_due.set()
            self.fleet.background.notify()
