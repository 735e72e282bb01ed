"""`InProcess`: a plain object of this process behind the interface of a Ray actor's handle."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any


class InProcess:
    """A handle whose `remote` calls run on the caller's event loop. For use in one event loop.

    >>> handle = InProcess(worker)
    >>> await handle.score.remote(prompt)  # as with a Ray actor; runs `worker.score(prompt)`
    """

    def __init__(self, target: object) -> None:
        self.target = target

    def __getattr__(self, name: str) -> InProcessMethod:
        return InProcessMethod(getattr(self.target, name))


class InProcessMethod:
    """A method of the object: a coroutine, an asynchronous generator, or a plain function."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def options(self, **_: object) -> InProcessMethod:
        """Accepts Ray's options, which concern other processes only."""
        return self

    def remote(self, *arguments: Any, **named: Any) -> Any:
        """Starts the call -> an awaitable result, or an asynchronous iterator of awaitable results."""
        if inspect.isasyncgenfunction(self.method):
            return _stream(self.method(*arguments, **named))
        if inspect.iscoroutinefunction(self.method):
            return asyncio.get_running_loop().create_task(self.method(*arguments, **named))
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self.method(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


async def _stream(values: AsyncIterator[Any]) -> AsyncIterator[Awaitable[Any]]:
    loop = asyncio.get_running_loop()
    async for value in values:
        future = loop.create_future()
        future.set_result(value)
        yield future
