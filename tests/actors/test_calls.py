"""Waiting for calls of several actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import ray

from rlframe.actors.calls import gather, numbered, wait
from rlframe.actors.in_process import InProcess
from rlframe.errors import Stalled
from tests.tiny.ray_local import start_ray


@pytest.fixture(scope="module")
def ranks() -> Iterator[list]:
    """Two actors that sleep and then answer or raise."""
    start_ray(2)

    @ray.remote(num_cpus=0)
    class Rank:
        def answer(self, value: str, seconds: float) -> str:
            time.sleep(seconds)
            if value.startswith("no"):
                raise ArithmeticError(value)
            return value

    handles = [Rank.remote() for _ in range(2)]
    ray.get([handle.answer.remote("ready", 0.0) for handle in handles])
    yield handles
    ray.shutdown()


def test_results_come_in_the_order_of_the_calls(ranks: list):
    calls = numbered("learner", [ranks[0].answer.remote("slow", 0.3), ranks[1].answer.remote("quick", 0.0)])
    assert list(calls) == ["learner-0", "learner-1"]
    assert wait(calls, "answer", 10.0, "a.bound") == ["slow", "quick"]


def test_the_first_error_ends_the_wait_for_all(ranks: list):
    calls = numbered("learner", [ranks[0].answer.remote("waits", 6.0), ranks[1].answer.remote("no memory", 0.0)])
    started = time.monotonic()
    with pytest.raises(ArithmeticError, match="no memory"):
        wait(calls, "answer", 60.0, "a.bound")
    assert time.monotonic() - started < 5


def test_a_late_actor_is_named_with_its_task_and_the_bound(ranks: list):
    ray.get([rank.answer.remote("done", 0.0) for rank in ranks])  # with the calls of the test before
    calls = numbered("learner", [ranks[0].answer.remote("quick", 0.0), ranks[1].answer.remote("slow", 60.0)])
    message = r"^learner-1 did not take step 7 within 5 s \(cluster\.stall_timeout_s\)$"
    with pytest.raises(Stalled, match=message):
        wait(calls, "take step 7", 5.0, "cluster.stall_timeout_s")


class Engine:
    """Answers at once, raises at once, or answers never."""

    async def answer(self, value: str) -> str:
        if value == "never":
            await asyncio.Event().wait()
        if value.startswith("no"):
            raise ArithmeticError(value)
        return value


def gathered(*values: str) -> list[str]:
    async def call() -> list[str]:
        engine = InProcess(Engine())
        calls = {f"rollout-{index}": engine.answer.remote(value) for index, value in enumerate(values)}
        return await gather(calls, "load version 7", 0.01, "cluster.stall_timeout_s")

    return asyncio.run(call())


def test_an_event_loop_gathers_results_in_the_order_of_the_calls():
    assert gathered("a", "b") == ["a", "b"]
    assert gathered() == []


def test_an_event_loop_raises_the_first_error_without_waiting_for_all():
    with pytest.raises(ArithmeticError, match="no memory"):
        gathered("never", "no memory")


def test_an_event_loop_names_a_late_actor_as_other_waits_do():
    message = r"^rollout-1, rollout-2 did not load version 7 within 0\.01 s \(cluster\.stall_timeout_s\)$"
    with pytest.raises(Stalled, match=message):
        gathered("quick", "never", "never")
