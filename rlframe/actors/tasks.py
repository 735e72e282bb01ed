"""`Tasks`: work on an event loop that nobody awaits, whose errors reach its owner all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Tasks:
    """Holds running work, since an event loop holds tasks weakly. For one event loop."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self.on_error = on_error
        self._running: set[asyncio.Future[Any]] = set()

    def start(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        """Starts a coroutine as a task, or holds a call that runs already."""
        running = asyncio.ensure_future(work)
        self._running.add(running)
        running.add_done_callback(self._on_done)
        return running

    async def cancel(self) -> None:
        """Ends all work, and returns once all has ended."""
        running = list(self._running)
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _on_done(self, work: asyncio.Future[Any]) -> None:
        self._running.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self.on_error(error)
