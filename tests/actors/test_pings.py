"""Pings tell a slow call from an actor that no longer answers, on a virtual clock."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from ray.exceptions import RayActorError

from benchmarks.async_parts.clock import VirtualLoop
from rlframe.actors.pings import Pings, Silent


def run(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """The result or Silent, and the virtual seconds that passed."""
    loop = VirtualLoop()
    loop.clock.runs = 1
    try:
        result = loop.run_until_complete(coroutine)
    except Silent as error:
        result = error
    tasks = asyncio.all_tasks(loop)
    assert not tasks or loop.run_until_complete(asyncio.wait(tasks, timeout=1))[1] == set()
    seconds = loop.time()
    loop.close()
    return result, seconds


async def answer_after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "answer"


def test_a_call_may_take_an_hour_while_pings_are_answered():
    pings_of_worker = Pings("reward-0", lambda: answer_after(3.0), silence_s=4.0)
    assert run(pings_of_worker.result(answer_after(3600.0)))[0] == "answer"


def test_a_ping_that_is_late_ends_all_calls_with_the_name():
    pings: list[float] = []

    async def ping() -> None:
        pings.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0 if len(pings) < 3 else 3600)

    async def two() -> list[Any]:
        pings_of_worker = Pings("reward-0", ping, silence_s=4.0)
        calls = [pings_of_worker.result(answer_after(3600.0)) for _ in range(2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results, seconds = run(two())
    assert [str(result) for result in results] == ["reward-0 has not answered for 4 s"] * 2
    assert pings == [1.0, 2.0, 3.0]
    assert seconds == 3.0 + 4.0


def test_after_a_silence_the_next_call_is_watched_anew():
    async def calls() -> list[Any]:
        ping_s = 3600.0
        pings_of_worker = Pings("reward-0", lambda: answer_after(ping_s), silence_s=4.0)
        first = await asyncio.gather(pings_of_worker.result(answer_after(10.0)), return_exceptions=True)
        ping_s = 0.0
        return [*first, await pings_of_worker.result(answer_after(10.0))]

    (silent, answer), seconds = run(calls())
    assert isinstance(silent, Silent)
    assert (answer, seconds) == ("answer", 5.0 + 10.0)


def test_an_answer_of_a_dead_actor_is_the_error_of_the_call():
    async def ping() -> None:
        raise RayActorError

    async def fail() -> None:
        await asyncio.sleep(5)
        raise ConnectionResetError("the actor died")

    with pytest.raises(ConnectionResetError, match="the actor died"):
        run(Pings("reward-0", ping, silence_s=1.0).result(fail()))


def test_a_call_that_is_cancelled_is_cancelled_at_the_actor():
    async def cancel() -> bool:
        call = asyncio.ensure_future(answer_after(3600.0))
        waiting = asyncio.ensure_future(Pings("reward-0", lambda: answer_after(0), silence_s=1.0).result(call))
        await asyncio.sleep(2)
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(0)
        return call.cancelled()

    assert run(cancel()) == (True, 2.0)
