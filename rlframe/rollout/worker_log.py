"""`WorkerLog`: what an episode worker writes into the run's log, so that another one can go on with its orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rlframe.actors.tasks import Tasks
from rlframe.record.frames import Location
from rlframe.record.segments import LoggedOrder, Segment, read_body, read_segments
from rlframe.rollout.disk import DiskThread
from rlframe.types import Completion, SampledTokens, ScoredGroup, Verdict

FLUSH_S = 1.0  # between two flushes: at most the tokens of this time are lost

T = TypeVar("T")


class WorkerLog:
    """The current segment of an episode worker. A run without a log opens none, and then nothing is written.

    A thread writes and waits for the disk, the event loop does neither. For one event loop.
    """

    def __init__(self, worker: str, tasks: Tasks) -> None:
        """`tasks`: of the worker, whose owner learns of a disk that fails."""
        self.tasks = tasks
        self._ledger = Path()  # the folder of all epochs
        self._segment: Segment | None = None
        self._disk = DiskThread(worker, "log")

    async def open(self, file: Path) -> None:
        """Begins a new segment, `ledger/000007/episodes-0.log`, in place of the present one. Raises RunFailed."""
        segment, previous = await self._on_disk(file, lambda: _new_segment(file)), self._segment
        self._ledger, self._segment = file.parent.parent, segment
        if previous is None:
            self.tasks.start(self._flush_every_second())
        else:
            await self._on_disk(previous.file, previous.close)

    def add_tokens(self, key: str, index: int, attempt: int, tokens: SampledTokens) -> None:
        if self._segment is not None:
            self._segment.add_tokens(key, index, attempt, tokens)

    def add_completion(self, key: str, index: int, completion: Completion) -> None:
        if self._segment is not None:
            self._segment.add_completion(key, index, completion)

    def add_verdicts(self, key: str, index: int, verdicts: dict[str, Verdict]) -> None:
        if self._segment is not None:
            self._segment.add_verdicts(key, index, verdicts)

    def add_group(self, key: str, scored: ScoredGroup) -> Location | None:
        """-> the place of the group's body. None: the run keeps no log."""
        if self._segment is None:
            return None
        byte = self._segment.add_group(key, scored)
        return Location(file=self._segment.file.relative_to(self._ledger).as_posix(), byte=byte)

    def forget(self, completions: Iterable[Completion]) -> None:
        """Frees the completions of a group that is given up."""
        if self._segment is not None:
            self._segment.forget(completions)

    async def flush(self) -> None:
        """Returns once the disk has everything so far. Raises RunFailed."""
        if self._segment is not None:
            await self._on_disk(self._segment.file, self._segment.flush)

    async def read_orders(
        self, files: list[Path], keys: set[str], warn: Callable[[str], None]
    ) -> dict[str, LoggedOrder]:
        """The last state of orders in segments of earlier processes. Raises RunFailed."""
        return await self._on_disk(self._ledger, lambda: read_segments(self._ledger, files, keys, warn))

    async def read_body(self, location: Location) -> ScoredGroup:
        """The scored group at a location. Raises BrokenFrame, and RunFailed."""
        return await self._on_disk(self._ledger / location.file, lambda: read_body(self._ledger, location))

    async def close(self) -> None:
        """Flushes and closes the segment. Raises RunFailed."""
        segment, self._segment = self._segment, None
        if segment is not None:
            await self._on_disk(segment.file, segment.close)
        self._disk.close()

    async def _flush_every_second(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def _on_disk(self, file: Path, action: Callable[[], T]) -> T:
        """The result of the action on the thread. Raises RunFailed."""
        return await self._disk.run(f"use {file} of the run's log", action)


def _new_segment(file: Path) -> Segment:
    file.parent.mkdir(parents=True, exist_ok=True)  # this machine may see the driver's folder late
    return Segment(file)
