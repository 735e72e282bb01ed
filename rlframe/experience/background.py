"""Coroutines on an event loop in a thread of its own: they go on while the owner's thread does something else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from rlframe.errors import Stalled

T = TypeVar("T")


class Background:
    """Runs tasks, and wakes those that wait for something to move in them.

    What a task raises, the next one that waits raises; so a failure is heard of though nobody awaits the task.
    """

    def __init__(self, name: str, stall_timeout_s: float) -> None:
        """`stall_timeout_s`: nothing moved for so long is an error."""
        self.stall_timeout_s = stall_timeout_s
        self._loop = asyncio.new_event_loop()
        self._change = asyncio.Event()
        self._moved_at = time.monotonic()
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps none alive
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Called from the owner's thread: waits for `work`, and ends it where the wait is interrupted."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Called on the loop, as all below but `close`: begins `work` and does not wait for it."""
        self._moved_at = time.monotonic()
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def moved(self) -> None:
        """Says that there is something to look at."""
        self._moved_at = time.monotonic()
        self._change.set()

    async def change(self, who_waits: Callable[[], str]) -> None:
        """Returns when something has moved. Raises what a task raised, and Stalled with `who_waits` past the bound."""
        if self._error is not None:
            raise self._error
        self._change.clear()
        left = self._moved_at + self.stall_timeout_s - time.monotonic()
        try:
            await asyncio.wait_for(self._change.wait(), max(left, 0.001))
        except TimeoutError:
            raise Stalled(who_waits()) from None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Drops whatever is under way and ends the thread."""

        async def cancel() -> None:
            everything = asyncio.all_tasks() - {asyncio.current_task()}  # what was started, and what each has begun
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
        self.moved()
