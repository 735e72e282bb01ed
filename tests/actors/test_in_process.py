"""Handles of objects in this process answer like handles of Ray actors."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from rlframe.actors.in_process import InProcess


class Counter:
    async def double(self, number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def below(self, number: int) -> AsyncIterator[int]:
        for value in range(number):
            yield value

    def fail(self) -> None:
        raise KeyError("no such prompt")


def test_calls_run_at_once_and_give_awaitable_results() -> None:
    async def both() -> list[int]:
        handle = InProcess(Counter())
        return list(await asyncio.gather(handle.double.remote(3), handle.double.remote(number=5)))

    assert asyncio.run(both()) == [6, 10]


def test_a_generator_gives_awaitable_results_one_after_the_other() -> None:
    async def collect() -> list[int]:
        stream = InProcess(Counter()).below.options(num_returns="streaming").remote(3)
        return [await reference async for reference in stream]

    assert asyncio.run(collect()) == [0, 1, 2]


def test_an_error_is_raised_where_the_result_is_awaited() -> None:
    async def call() -> None:
        result = InProcess(Counter()).fail.remote()
        await result

    with pytest.raises(KeyError, match="no such prompt"):
        asyncio.run(call())
