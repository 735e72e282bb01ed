"""`RewardWorker`: calls rewards in a process of its own and turns every result or exception into a verdict."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from math import isfinite
from typing import Any

from rlframe.actors.activity import doing
from rlframe.errors import Hung, without_passwords
from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict


class RewardWorker:
    """Runs rewards so that a bug in one of them never stops a run, scores 0 or blocks its worker for ever.

    Rewards that are `async def` share the event loop. All others take turns on one thread, so no reward has to be
    thread-safe. A call that takes longer than `timeout_s` gets a `failed` verdict. If it still holds the thread, every
    later call raises Hung.
    """

    def __init__(self, name: str, rewards: dict[str, Reward], timeout_s: float) -> None:
        self.name = name
        self.rewards = rewards
        self.timeout_s = timeout_s
        self.process = uuid.uuid4().hex  # id of the process; a restarted worker has another
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards")
        self.thread_lock = asyncio.Lock()
        self.hung_reward: str | None = None  # name of the reward that holds the thread
        self.turns = {name: asyncio.Semaphore(each.max_calls) for name, each in rewards.items() if each.max_calls}
        for reward in rewards.values():
            # On the thread that later calls the reward: a resource may be bound to its thread's life.
            self.thread.submit(reward.start).result()

    def __repr__(self) -> str:  # Ray's errors and logs show this name
        return self.name

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        """Reward name -> [1] verdict on a completion, before weighting. Raises Hung."""
        return await self._run_all(names, [f"on prompt {prompt.id!r}"], prompt, completion)

    async def score_group(
        self, names: list[str], group: RolloutGroup, verdicts: dict[str, list[Verdict]]
    ) -> dict[str, list[Verdict]]:
        """Reward name -> [G] verdicts on a whole group, before weighting. Raises Hung."""
        subjects = [f"on completion {index} of prompt {group.prompt.id!r}" for index in range(len(group.completions))]
        return await self._run_all(names, subjects, group, verdicts)

    async def facts(self) -> dict[str, float]:
        """Reward name/fact -> value."""
        return {
            f"{name}/{fact}": value for name, reward in self.rewards.items() for fact, value in reward.facts().items()
        }

    async def ping(self) -> None:
        """Returns at once, unless a reward blocks the event loop."""

    async def end(self, process: str) -> None:
        """Ends the process with this id, so that Ray starts another. A restarted worker, with another id, goes on.

        Several callers may find the same process hung.
        """
        if process == self.process:
            os._exit(1)

    async def close(self) -> None:
        for reward in self.rewards.values():
            reward.close()

    async def _run_all(self, names: list[str], subjects: list[str], *arguments: Any) -> dict[str, list[Verdict]]:
        """Reward name -> verdicts, one for each of `subjects`. Raises Hung where a reward hung in another call.

        The caller repeats a call that raised Hung, as often as it does. So where a reward hangs in this call, a reward
        that waits for its thread fails.
        """
        runs = [self._run(name, subjects, *arguments) for name in names]
        results = dict(zip(names, await asyncio.gather(*runs, return_exceptions=True), strict=True))
        verdicts = {name: result for name, result in results.items() if not isinstance(result, BaseException)}
        hung_verdicts = verdicts.get(self.hung_reward or "", [])
        hung_in_this_call = any(verdict.status == "failed" for verdict in hung_verdicts)
        for name, result in results.items():
            if isinstance(result, BaseException):
                if not (isinstance(result, Hung) and hung_in_this_call):
                    raise result
                details = [f"reward {name!r} {subject} did not run: {result}" for subject in subjects]
                verdicts[name] = [verdict_of(None, 0.0, detail) for detail in details]
        return {name: verdicts[name] for name in names}

    async def _run(self, name: str, subjects: list[str], *arguments: Any) -> list[Verdict]:
        """A reward's verdicts, one for each of `subjects`, which the details of failed verdicts name."""
        reward = self.rewards[name]
        call: Callable[..., Any] = reward.score_group if reward.looks_at_group() else reward
        started = time.perf_counter()
        try:
            returned = await self._bounded(name, call, arguments)
            results = as_results(returned if reward.looks_at_group() else [returned], len(subjects))
            problems = [problem_with(result) for result in results]
        except Hung:
            raise
        except Exception as error:  # a researcher's code may raise anything; the verdict's detail shows it
            results = [None] * len(subjects)
            problems = [f"{type(error).__name__}: {error}\n{traceback.format_exc()}"] * len(subjects)
        seconds = time.perf_counter() - started
        return [
            verdict_of(result, seconds, f"reward {name!r} {subject}: {problem}" if problem else None)
            for result, problem, subject in zip(results, problems, subjects, strict=True)
        ]

    async def _bounded(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """The result of a call. Raises TimeoutError after `timeout_s`, Hung, and the exceptions of the call."""
        subject: Prompt | RolloutGroup = arguments[0]
        work = doing(f"reward {name}", subject.id if isinstance(subject, Prompt) else subject.prompt.id)
        try:
            if inspect.iscoroutinefunction(call if inspect.ismethod(call) else type(call).__call__):
                async with self.turns.get(name) or nullcontext():
                    with work:
                        await self.rewards[name].ready()
                        return await asyncio.wait_for(call(*arguments), self.timeout_s)
            async with self.thread_lock:
                if self.hung_reward:
                    raise Hung(f"{self.name}: reward {self.hung_reward!r} never came back", self.process)
                running = asyncio.get_running_loop().run_in_executor(self.thread, work(call), *arguments)
                try:
                    return await asyncio.wait_for(asyncio.shield(running), self.timeout_s)
                except TimeoutError:
                    if not running.done():  # a finished call raised this error itself
                        self.hung_reward = name
                    raise
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"took more than reward.timeout_s={self.timeout_s:g} s") from error


def as_results(returned: Any, count: int) -> list[Any]:
    """The list that a reward returned. Raises TypeError or ValueError unless it is a list of `count` results."""
    if not isinstance(returned, list | tuple):
        raise TypeError(f"returned {returned!r}, a {type(returned).__name__}, not a list")
    if len(returned) != count:
        raise ValueError(f"returned {len(returned)} scores for {count} completions")
    return list(returned)


def problem_with(result: object) -> str | None:
    """The reason that a reward's result is not a verdict, or None."""
    score = result.score if isinstance(result, Verdict) else result
    if score is None and isinstance(result, Verdict):
        return None
    if not isinstance(score, int | float):
        return f"returned {result!r}, a {type(result).__name__}, not a float or a Verdict"
    return None if isfinite(score) else f"returned {score}, not a finite number"


def verdict_of(result: Any, seconds: float, problem: str | None) -> Verdict:
    if problem is not None:
        return Verdict(score=None, status="failed", seconds=seconds, detail=without_passwords(problem))
    if isinstance(result, Verdict):
        detail = without_passwords(result.detail)
        return result if detail == result.detail else replace(result, detail=detail)
    return Verdict(score=float(result), status="scored", seconds=seconds, detail="")
