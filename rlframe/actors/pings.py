"""`Pings`: finds an actor that stopped answering while calls wait for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from ray.exceptions import RayActorError

PING_S = 1.0  # between two pings
LOOK_S = 1.0  # between two looks whether an actor has answered


class Silent(RuntimeError):
    """An actor does not answer: its process is stopped, or its event loop is blocked. The message names the actor."""


async def any_done(calls: list[asyncio.Future[Any]], seconds: float) -> bool:
    """True once any call is done, False after so many seconds.

    Time in which this process stood still, as in a suspended laptop, counts as a single look: the answer may be there.
    """
    looks = seconds / LOOK_S
    while looks > 0:
        timeout = None if seconds == math.inf else LOOK_S * min(1.0, looks)
        done, _ = await asyncio.wait(calls, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if done:
            return True
        looks -= 1
    return False


class Pings:
    """Calls of one actor, and pings while any of them waits. For use in one event loop.

    A call may take long, since calls wait for their turn; a ping may not. So a ping that is not answered within
    `silence_s` ends all calls that wait, each with Silent, at most `silence_s` + PING_S after the last sign of life.
    """

    def __init__(self, name: str, ping: Callable[[], Awaitable[Any]], silence_s: float) -> None:
        """`ping`: starts a call that the actor answers at once."""
        self.name = name
        self.ping = ping
        self.silence_s = silence_s
        self._waiting = 0  # calls
        self._silence: asyncio.Task[None] | None = None  # ends when the actor is silent

    async def result(self, call: Awaitable[Any]) -> Any:
        """The call's result. Raises the call's error, and Silent."""
        if self._silence is None:
            self._silence = asyncio.create_task(self._await_silence())
        silence, answer = self._silence, asyncio.ensure_future(call)
        self._waiting += 1
        try:
            await asyncio.wait([answer, silence], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise Silent(f"{self.name} has not answered for {self.silence_s:g} s")
        finally:
            answer.cancel()
            self._waiting -= 1
            if not self._waiting or silence.done():
                silence.cancel()
                self._silence = None

    async def _await_silence(self) -> None:
        """Returns once a ping was not answered in time."""
        while True:
            await asyncio.sleep(PING_S)
            ping = asyncio.ensure_future(self.ping())
            try:
                if not await any_done([ping], self.silence_s):
                    return
                with suppress(RayActorError):  # the calls end with the same error
                    ping.result()
            finally:
                ping.cancel()
