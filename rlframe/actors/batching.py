"""`Batcher`: gathers concurrent calls of an actor into forward passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

GATHER_S = 0.005  # time for concurrent calls to join the first call's forward pass

Forward: TypeAlias = Callable[[list[list[int]]], list[float]]  # token ids, [B] sequences -> [B] scores
Call: TypeAlias = tuple[list[int], asyncio.Future[float]]  # token ids, and the score


class Batcher:
    """Gathers concurrent calls into forward passes over sequences of similar lengths. For one event loop."""

    def __init__(
        self, forward: Forward, thread: ThreadPoolExecutor, *, max_batch: int, max_batch_tokens: int, timeout_s: float
    ) -> None:
        """`forward` runs on `thread`. `max_batch`: sequences of a pass; `max_batch_tokens`: with padding."""
        self.forward, self.thread = forward, thread
        self.max_batch, self.max_batch_tokens, self.timeout_s = max_batch, max_batch_tokens, timeout_s
        self._waiting: list[Call] = []
        self._drain: asyncio.Task[None] | None = None

    async def score(self, token_ids: list[int]) -> float:
        """Raises RuntimeError with the error of the forward pass, or if the pass takes longer than `timeout_s`."""
        score = asyncio.get_running_loop().create_future()
        self._waiting.append((token_ids, score))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._drain_waiting())
        return await score

    async def _drain_waiting(self) -> None:
        await asyncio.sleep(GATHER_S)
        while self._waiting:  # calls that arrive during a pass join the next round without a further wait
            waiting, self._waiting = [call for call in self._waiting if _wanted(call)], []
            for indices in passes([len(ids) for ids, _ in waiting], self.max_batch, self.max_batch_tokens):
                if batch := [waiting[index] for index in indices if _wanted(waiting[index])]:
                    await self._pass(batch)

    async def _pass(self, batch: list[Call]) -> None:
        try:
            running = asyncio.get_running_loop().run_in_executor(self.thread, self.forward, [ids for ids, _ in batch])
        except RuntimeError as closed:
            results: list[Any] = [error_copy(closed) for _ in batch]
        else:
            error = await error_of(running, self.timeout_s, f"a forward pass of {len(batch)} sequences")
            results = [error_copy(error) for _ in batch] if error else running.result()
        for (_, score), result in zip(batch, results, strict=True):
            if score.done():  # the caller gave up
                continue
            if isinstance(result, Exception):
                score.set_exception(result)
            else:
                score.set_result(result)


def passes(lengths: list[int], max_batch: int, max_batch_tokens: int) -> list[list[int]]:
    """Indices of each forward pass, by ascending length. A pass costs its longest sequence times their number.

    >>> passes([5, 2, 3, 9], max_batch=3, max_batch_tokens=10)
    [[1, 2], [0], [3]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        size = len(batches[-1]) + 1 if batches else 0
        if batches and size <= max_batch and size * lengths[index] <= max_batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _wanted(call: Call) -> bool:
    """False once the caller has given up, as one whose time is over."""
    return not call[1].done()


async def error_of(future: asyncio.Future[Any], timeout_s: float, action: str) -> BaseException | None:
    """The exception of a future, or a TimeoutError that names the action. None: the future has a result."""
    done, _ = await asyncio.wait([future], timeout=timeout_s)
    if not done:
        future.cancel()
        return TimeoutError(f"{action} took more than {timeout_s:g} s")
    return future.exception()


def error_copy(error: BaseException) -> RuntimeError:
    """A copy for one caller. The traceback of a shared exception grows each time that a caller raises it."""
    return RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
