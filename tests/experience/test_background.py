"""Tasks on a loop of their own: who waits hears of change, of errors, and that nothing moves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from rlframe.errors import Stalled
from rlframe.experience.background import Background


@pytest.fixture
def background() -> Iterator[Background]:
    opened = Background("under test", stall_timeout_s=1.0)
    yield opened
    opened.close()


def test_work_goes_on_while_the_owner_s_thread_does_something_else(background: Background) -> None:
    done = threading.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    async def begin() -> None:
        background.start(work())

    background.run(begin())
    assert done.wait(timeout=5)


def test_who_waits_wakes_when_something_moves_and_again_only_when_something_else_does(background: Background) -> None:
    async def work() -> None:
        background.moved()
        await asyncio.sleep(60)

    async def wait() -> None:
        background.start(work())
        await background.change(lambda: "the first")
        await background.change(lambda: "the second")

    began = time.monotonic()
    with pytest.raises(Stalled, match="the second"):
        background.run(wait())
    assert time.monotonic() - began >= 1


def test_what_a_task_raises_is_raised_to_whoever_waits_then_and_later(background: Background) -> None:
    async def work() -> None:
        raise ArithmeticError("of the task")

    async def wait() -> None:
        background.start(work())
        await background.change(lambda: "nobody")

    for _ in range(2):
        with pytest.raises(ArithmeticError, match="of the task"):
            background.run(wait())


def test_closing_ends_what_was_started_what_that_has_begun_and_the_thread() -> None:
    background, ended = Background("ended", stall_timeout_s=1.0), []

    async def forever(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def work() -> None:
        inner = asyncio.create_task(forever("inner"))
        await forever("outer")
        await inner

    async def begin() -> None:
        background.start(work())
        await asyncio.sleep(0.01)

    background.run(begin())
    background.close()
    assert sorted(ended) == ["inner", "outer"]
    assert "ended" not in [thread.name for thread in threading.enumerate()]
