"""A virtual clock: an event loop whose time jumps to the next timer, and a `Background` that runs on it."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from benchmarks.async_parts.stopwatch import Stopwatch
from rlframe.actors.background import Background

T = TypeVar("T")


class VirtualSelector(selectors.DefaultSelector):
    """Jumps to the loop's next timer instead of waiting for it, while the clock runs.

    The clock runs only while the owner's thread waits in `VirtualBackground.run`. Otherwise the loop is parked: the
    time stands still, however long the owner's thread computes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0  # virtual seconds
        self.runs = 0  # coroutines that the owner's thread waits for
        self.parked = threading.Event()  # the loop has nothing to do at this time, and the clock stands still

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Calls of other threads are in the loop's queue by now; the events of files only wake a loop that is parked.
        if timeout is not None and (self.runs or timeout <= 0):
            self.now += max(timeout, 0)
            return []
        if not self.runs:
            self.parked.set()
        events = super().select(None)
        self.parked.clear()
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock.

    >>> loop = VirtualLoop()
    >>> loop.clock.runs = 1
    >>> loop.run_until_complete(asyncio.sleep(3600))  # returns at once
    >>> loop.time()
    3600.0
    """

    def __init__(self) -> None:
        self.clock = VirtualSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Runs `func` at once: a second thread's work would take no virtual time, and end at no certain time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class VirtualBackground(Background):
    """A `Background` on a virtual clock. Owner's thread and event loop never compute at the same time.

    So a simulation is exactly reproducible, and the seconds of either side are its own.
    """

    def __init__(self, name: str, stall_timeout_s: float) -> None:
        self._virtual_loop = VirtualLoop()
        super().__init__(name, stall_timeout_s, loop=lambda: self._virtual_loop)

    def measure(self, classes: set[str]) -> Stopwatch:
        """Measures the CPU seconds of all tasks of these classes that start from now on."""
        stopwatch = Stopwatch(classes)
        self._virtual_loop.set_task_factory(stopwatch)
        return stopwatch

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        clock = self._virtual_loop.clock

        async def on_running_clock() -> T:
            clock.runs += 1
            try:
                # A task of its own, so that a stopwatch sees whose it is.
                return await self._virtual_loop.create_task(coroutine)
            finally:
                clock.runs -= 1

        clock.parked.wait()
        clock.parked.clear()
        try:
            return super().run(on_running_clock())
        finally:
            clock.parked.wait()
