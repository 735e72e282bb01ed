"""`RolloutWriter`: an episode worker's thread that writes its groups of a step into a file."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.actors.tasks import Tasks
from rlframe.record import rollouts
from rlframe.rollout.disk import DiskThread

if TYPE_CHECKING:
    from rlframe.record.rollouts import Advantage

UNWRITTEN_FILES = 2  # at most: their groups stay in memory until the disk has them


class RolloutWriter:
    """Writes files one after the other. For one event loop."""

    def __init__(self, worker: str, tasks: Tasks) -> None:
        """`tasks`: of the worker, whose owner learns of a failed write."""
        self.tasks = tasks
        self.written = 0  # files, since the start
        self.writes: set[asyncio.Future[Any]] = set()
        self._error: BaseException | None = None
        self._disk = DiskThread(worker, "rollouts")

    async def start(self, step: int, file: Path, groups: list[tuple[Any, Sequence[Advantage]]]) -> None:
        """Starts to write groups (body, advantages); waits only where the disk falls behind."""
        while len(self.writes) >= UNWRITTEN_FILES:
            await asyncio.wait(self.writes, return_when=asyncio.FIRST_COMPLETED)
        writing = self.tasks.start(self._write(step, file, groups))
        self.writes.add(writing)
        writing.add_done_callback(self._end)

    async def finish(self) -> None:
        """Waits until all files are written."""
        while self.writes:
            await asyncio.wait(self.writes)

    def close(self) -> None:
        """Ends the thread. Raises the error of the first failed write."""
        self._disk.close()
        if self._error is not None:
            raise self._error

    async def _write(self, step: int, file: Path, groups: list[tuple[Any, Sequence[Advantage]]]) -> None:
        scored = [(await body if inspect.isawaitable(body) else body, advantages) for body, advantages in groups]
        await self._disk.run(f"write {file}", lambda: rollouts.write(file, step, scored))
        self.written += 1

    def _end(self, writing: asyncio.Future[Any]) -> None:
        self.writes.discard(writing)
        if not writing.cancelled():
            self._error = self._error or writing.exception()
