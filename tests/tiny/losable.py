"""A pool of episode workers in this process, which a test may kill, and whose successors start at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlframe.actors.in_process import InProcess
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.messages import EngineSeat, EpisodeReport
from rlframe.training import GroupRecord
from tests.tiny.logged_worker import CountingJudge, LoggedWorker, timed_engine


def seat(number: int) -> EngineSeat:
    engine = timed_engine(f"rollout-{number}")
    return EngineSeat(name=engine.name, handle=InProcess(engine), slots=engine.slots)


class LosablePool(EpisodePool):
    """Workers of this process, each with an engine, and successors that start with `on_start`."""

    def __init__(self, ledger: Path, workers: int = 1, epoch: int = 1) -> None:
        self.ledger = ledger
        self.first_epoch = ledger / f"{epoch:06d}"
        self.judge = CountingJudge()
        self.made: dict[str, LoggedWorker] = {}
        seats = {f"episodes-{n}": [seat(n)] for n in range(workers)}
        super().__init__({name: (self.make(name, each), each) for name, each in seats.items()}, ahead=0.0)
        self.start_worker = self._start
        self.on_start: Callable[[str], None] = lambda name: None
        self.records: dict[str, GroupRecord] = {}
        self.lines: list[str] = []
        self.warn = self.lines.append
        self.forgotten: list[str] = []
        self.on_lost = self.forgotten.append

    def make(self, name: str, seats: list[EngineSeat]) -> InProcess:
        self.made[name] = LoggedWorker(name, [each.handle.target for each in seats], self.judge)
        return InProcess(self.made[name].worker)

    def _start(self, lost: str) -> tuple[str, Any]:
        name = f"episodes-{len(self.made)}"
        handle = self.make(name, [])
        self.on_start(name)
        return name, handle

    async def kill(self, name: str) -> None:
        await self.made[name].die()
        self.workers[name].lose("it was killed")

    def note(self, worker: str, report: EpisodeReport) -> None:
        self.records |= {finished.key: finished.record for finished in report.finished}

    async def until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            await asyncio.sleep(0.1)
            if self.following.done():
                self.following.result()

    async def __aenter__(self) -> LosablePool:
        await self.open_segments(self.first_epoch)
        self.following = asyncio.ensure_future(self.follow(self.note))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.following.cancel()
        await asyncio.gather(self.following, return_exceptions=True)
        await self.close()
