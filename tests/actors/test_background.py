"""An event loop in its own thread: waiters hear of progress, errors and stalls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from rlframe.actors.background import Background
from rlframe.errors import Stalled


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("under test", stall_timeout_s=1.0)
    yield background
    background.close()


def test_a_task_runs_while_the_owner_s_thread_does_other_work(background: Background) -> None:
    done = threading.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    async def begin() -> None:
        background.start(work())

    background.run(begin())
    assert done.wait(timeout=5)


def test_a_waiter_wakes_once_per_notification(background: Background) -> None:
    async def work() -> None:
        background.notify()
        await asyncio.sleep(60)

    async def wait() -> None:
        background.start(work())
        await background.wait(lambda: "the first")
        await background.wait(lambda: "the second")

    start = time.monotonic()
    with pytest.raises(Stalled, match="the second"):
        background.run(wait())
    assert time.monotonic() - start >= 1


def test_every_later_wait_raises_a_task_s_exception(background: Background) -> None:
    async def work() -> None:
        raise ArithmeticError("of the task")

    async def wait() -> None:
        background.start(work())
        await background.wait(lambda: "nobody")

    for _ in range(2):
        with pytest.raises(ArithmeticError, match="of the task"):
            background.run(wait())


def test_closing_cancels_tasks_and_their_tasks_and_ends_the_thread() -> None:
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


def test_a_closed_loop_refuses_a_call_instead_of_never_answering() -> None:
    background = Background("ended", stall_timeout_s=1.0)
    background.close()
    with pytest.raises(RuntimeError, match="ended: the run has ended its calls to actors"):
        background.run(asyncio.sleep(0))


def test_an_event_loop_that_runs_nothing_ends_all_calls() -> None:
    background = Background("under test", stall_timeout_s=1.0)
    released = threading.Event()

    async def block() -> None:
        released.wait(30)  # as a call of a library that does not return

    async def later() -> None: ...

    start = time.monotonic()
    try:
        with pytest.raises(Stalled, match=r"under test: the event loop of the driver has run nothing for \d+ s"):
            background.run(block())
        assert 1 <= time.monotonic() - start < 10
        with pytest.raises(Stalled, match="has run nothing"):
            background.run(later())
        background.close()
    finally:
        released.set()
    assert time.monotonic() - start < 20
