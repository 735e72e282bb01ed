"""`ChatClient`: requests to an OpenAI-compatible endpoint, with bounds on concurrency, rate and time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

MAX_RETRY_AFTER_S = 120.0  # longest wait of openai's client between attempts


class ChatClient:
    """Sends chat requests to one endpoint. For one event loop.

    openai's client retries after connection errors, time-outs, 408, 409, 429 and 5xx. It waits as long as Retry-After
    says, else 0.5 s, doubled each time up to 8 s, less a random quarter. Retries do not count in
    `requests_per_minute`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float,
        attempts: int,
        max_concurrent: int,
        requests_per_minute: float | None,
    ) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=attempts - 1)
        # The client's own time-out restarts with every byte; this one bounds all attempts together.
        self._total_s = attempts * timeout_s + (attempts - 1) * MAX_RETRY_AFTER_S
        self._slots = asyncio.Semaphore(max_concurrent)
        self._interval_s = 60 / requests_per_minute if requests_per_minute is not None else 0.0
        self._next_start = 0.0  # time.monotonic() of the next request
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, **request: Any) -> str:
        """The body of the endpoint's reply. Raises OpenAIError, or TimeoutError for a reply that never ends."""
        self._loop = asyncio.get_running_loop()
        async with self._slots:
            await self._wait_for_rate()
            async with asyncio.timeout(self._total_s):
                reply = await self._client.chat.completions.with_raw_response.create(**request)
            return reply.text

    async def _wait_for_rate(self) -> None:
        """Spaces the starts of requests evenly."""
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self._interval_s
        if start > now:
            await asyncio.sleep(start - now)

    def close(self) -> None:
        # Connections belong to the loop. Waiting for them would block a loop that runs on this very thread.
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop)
