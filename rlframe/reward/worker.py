"""`RewardWorker`: rewards on completions, in a process of its own; whatever one returns or raises is a verdict."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Any

from rlframe.errors import Hung
from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict


class RewardWorker:
    """A bug in a reward never stops a run, scores 0 or holds its worker for ever.

    Rewards that are `async def` share the event loop; all others take turns on one thread, so that none of them
    needs to be safe for threads. One that does not end within `timeout_s` keeps that thread: its verdict is
    `failed`, and every later call raises Hung.
    """

    def __init__(self, name: str, rewards: dict[str, Reward], timeout_s: float) -> None:
        self.name = name
        self.rewards = rewards
        self.timeout_s = timeout_s
        self.turn = asyncio.Lock()
        self.hung: str | None = None
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards")
        for reward in rewards.values():
            # On the thread that later calls it: what a reward starts may be bound to the thread's life.
            self.thread.submit(reward.start).result()

    def __repr__(self) -> str:  # Ray's errors and logs name the actor by this
        return self.name

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        """Reward name -> [1] verdict on a completion, before weighting. Raises Hung."""
        where = [f"on prompt {prompt.id!r}"]
        rows = await asyncio.gather(*[self._run(name, where, prompt, completion) for name in names])
        return dict(zip(names, rows, strict=True))

    async def score_group(
        self, names: list[str], group: RolloutGroup, verdicts: dict[str, list[Verdict]]
    ) -> dict[str, list[Verdict]]:
        """Reward name -> [G] verdicts on a whole group, before weighting. Raises Hung."""
        where = [f"on completion {index} of prompt {group.prompt.id!r}" for index in range(len(group.completions))]
        return {name: await self._run(name, where, group, verdicts) for name in names}

    async def facts(self) -> dict[str, float]:
        """Reward name/fact -> its value."""
        return {
            f"{name}/{key}": value for name, reward in self.rewards.items() for key, value in reward.facts().items()
        }

    async def close(self) -> None:
        for reward in self.rewards.values():
            reward.close()

    async def _run(self, name: str, where: list[str], *arguments: Any) -> list[Verdict]:
        """A reward's verdicts on the completions that `where` describes."""
        reward = self.rewards[name]
        call: Callable[..., Any] = reward.score_group if reward.looks_at_group() else reward
        started = time.perf_counter()
        try:
            result = await self._bounded(name, call, arguments)
            results = as_row(result if reward.looks_at_group() else [result], len(where))
            problems = [problem_with(one) for one in results]
        except Hung:
            raise
        except Exception as error:  # researchers' code: whatever it raises is that verdict's detail
            results = [None] * len(where)
            problems = [f"{type(error).__name__}: {error}\n{traceback.format_exc()}"] * len(where)
        seconds = time.perf_counter() - started
        return [
            verdict_of(result, seconds, f"reward {name!r} {place}: {problem}" if problem else None)
            for result, problem, place in zip(results, problems, where, strict=True)
        ]

    async def _bounded(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            if inspect.iscoroutinefunction(call if inspect.ismethod(call) else type(call).__call__):
                return await asyncio.wait_for(call(*arguments), self.timeout_s)
            async with self.turn:
                if self.hung:
                    raise Hung(f"{self.name}: reward {self.hung!r} never came back")
                running = asyncio.get_running_loop().run_in_executor(self.thread, call, *arguments)
                try:
                    return await asyncio.wait_for(asyncio.shield(running), self.timeout_s)
                except TimeoutError:
                    if not running.done():  # else it is the reward's own
                        self.hung = name
                    raise
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"took more than reward.timeout_s={self.timeout_s:g} s") from error


def as_row(results: Any, count: int) -> list[Any]:
    """A result for each of `count` completions. Raises TypeError or ValueError where there is no list of as many."""
    if not isinstance(results, list | tuple):
        raise TypeError(f"returned {results!r}, a {type(results).__name__}, not a list")
    if len(results) != count:
        raise ValueError(f"returned {len(results)} scores for {count} completions")
    return list(results)


def problem_with(result: object) -> str | None:
    """Why a reward's result is no verdict, or None."""
    score = result.score if isinstance(result, Verdict) else result
    if score is None and isinstance(result, Verdict):
        return None
    if not isinstance(score, int | float):
        return f"returned {result!r}, a {type(result).__name__}, not a float or a Verdict"
    return None if isfinite(score) else f"returned {score}, not a finite number"


def verdict_of(result: Any, seconds: float, problem: str | None) -> Verdict:
    if problem is not None:
        return Verdict(score=None, status="failed", seconds=seconds, detail=problem)
    if isinstance(result, Verdict):
        return result
    return Verdict(score=float(result), status="scored", seconds=seconds, detail="")
