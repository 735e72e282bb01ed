"""`Stopwatch`: the CPU seconds of some tasks among all tasks of an event loop."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Coroutine, Generator
from typing import Any


class Stopwatch:
    """A task factory that measures tasks of the named classes, with all that they call.

    >>> loop.set_task_factory(Stopwatch({"RolloutFeed"}))
    """

    def __init__(self, classes: set[str]) -> None:
        self.classes = classes
        self.seconds = 0.0  # of CPU, since the start
        self._named: dict[str, bool] = {}  # qualified name of a coroutine -> measured

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:
        name = coroutine.__qualname__
        if (measured := self._named.get(name)) is None:
            measured = self._named[name] = name.partition(".")[0] in self.classes
        if measured:
            coroutine = self.measure(coroutine)
        return asyncio.Task(coroutine, loop=loop, **named)

    async def measure(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The coroutine's result."""
        return await self._steps(coroutine)

    @types.coroutine
    def _steps(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Runs the coroutine from one wait to the next, and measures in between."""
        resume, value = coroutine.send, None
        while True:
            started = time.thread_time()
            try:
                waits_for = resume(value)
            except StopIteration as stop:
                return stop.value
            finally:
                self.seconds += time.thread_time() - started
            try:
                resume, value = coroutine.send, (yield waits_for)
            except BaseException as error:
                resume, value = coroutine.throw, error
