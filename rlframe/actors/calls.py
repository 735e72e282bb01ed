"""Waits for calls of named actors: the first error ends the wait, and a late actor is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import ray

from rlframe.actors.waits import waiting
from rlframe.errors import Stalled

if TYPE_CHECKING:
    from ray import ObjectRef


def numbered(kind: str, calls: list[ObjectRef]) -> dict[str, ObjectRef]:
    """`learner-0`, `learner-1`, ... -> their calls: the names that `cluster/placement.py` gives to actors of a kind."""
    return {f"{kind}-{index}": call for index, call in enumerate(calls)}


def wait(calls: dict[str, ObjectRef], doing: str, timeout_s: float, bound: str) -> list[Any]:
    """The results of `calls` (actor name -> call), in their order.

    Raises the first error while other calls still run: ranks in lockstep would wait for the failed rank for ever.
    Raises Stalled after `timeout_s` with the names of the late actors; `bound` is the config key of `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    names = {call: name for name, call in calls.items()}
    with waiting(calls, doing, timeout_s, bound) as open_wait:
        while names:
            done, _ = ray.wait(list(names), timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                raise late(names.values(), doing, timeout_s, bound)
            for call in done:
                open_wait.answered(names.pop(call))
                ray.get(call)
    return ray.get(list(calls.values()))


async def gather(calls: Mapping[str, Awaitable[Any]], doing: str, timeout_s: float, bound: str) -> list[Any]:
    """`wait` for an event loop: the loop's clock bounds the wait, and calls may be of `InProcess` handles."""
    tasks = {name: asyncio.ensure_future(call) for name, call in calls.items()}
    if not tasks:
        return []
    try:
        with waiting(calls, doing, timeout_s, bound) as open_wait:
            for name, task in tasks.items():
                task.add_done_callback(lambda _, name=name: open_wait.answered(name))
            _, unfinished = await asyncio.wait(tasks.values(), timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION)
        results = [task.result() for task in tasks.values() if task not in unfinished]
        if unfinished:
            raise late([name for name, task in tasks.items() if task in unfinished], doing, timeout_s, bound)
        return results
    finally:
        for task in tasks.values():
            task.cancel()


def late(names: Iterable[str], doing: str, timeout_s: float, bound: str) -> Stalled:
    """The error for actors whose answers are late."""
    return Stalled(f"{', '.join(names)} did not {doing} within {timeout_s:g} s ({bound})")
