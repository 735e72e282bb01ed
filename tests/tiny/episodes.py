"""Engines and a judge behind in-process handles, which finish what a test lets them, and episode workers over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import numpy as np

from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.reward import build
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineBounds, EngineProgress, EngineReport, EngineSeat, EpisodeReport, Order
from rlframe.training import GroupRecord
from rlframe.types import (
    Completion,
    Prompt,
    SampledCompletion,
    SampledTokens,
    Sampling,
    ScoredGroup,
    Verdict,
    VersionSpan,
)

Place = tuple[Prompt, int]
TOKENS = 3  # of each completion
NEWS_S = 240.0  # longest time between two reports, while actors start on a busy machine
PAIR = Sampling(completions=2, max_tokens=8, temperature=1.0, seed=0)
BOUNDS = EngineBounds(silence_s=60.0, first_token_s=60.0, attempts=3)
MATH = {"name": "math", "weight": 1.0, "extract": ["answer"], "timeout_s": 1.0, "max_answer_chars": 200}


class TinyEngine:
    """Samples `o3/1` as completion 1 of prompt o3, one after the other in the order of `order`, but none in `held`.

    `change` may replace what the engine sends by any values.
    """

    def __init__(
        self, name: str = "rollout-0", *, order: Callable[[list[Place]], list[Place]] = list, seconds: float = 0.0
    ) -> None:
        self.name, self.order, self.seconds = name, order, seconds
        self.version = 0
        self.loading = False
        self.tokens = 0
        self.held: set[str] = set()
        self.calls: list[list[str]] = []  # names of the completions of each call
        self.error: Exception | None = None
        self.change: Callable[[SampledCompletion], list[Any]] = lambda sampled: [sampled]

    @property
    def asked(self) -> list[str]:
        """Names of the prompts of all calls, in order."""
        return [prompt for call in self.calls for prompt in dict.fromkeys(name.split("@")[0] for name in call)]

    async def generate(
        self,
        prompts: list[Prompt],
        sampling: Sampling,
        indices: dict[str, list[int]] | None = None,
        prefixes: dict[str, dict[int, SampledTokens]] | None = None,
        call: str = "",
    ) -> AsyncIterator[SampledCompletion]:
        places = [
            (prompt, index)
            for prompt in prompts
            for index in (range(sampling.completions) if indices is None else indices[prompt.id])
        ]
        self.calls.append([f"{prompt.id}/{index}" for prompt, index in places])
        waiting = self.order(places)
        while waiting:
            await asyncio.sleep(self.seconds or 0.001)
            if self.error:
                raise self.error
            for prompt, index in waiting:
                if f"{prompt.id}/{index}" not in self.held:
                    waiting.remove((prompt, index))
                    self.tokens += TOKENS
                    given = (prefixes or {}).get(prompt.id, {}).get(index)
                    for sampled in self.change(self.sampled(prompt, index, given)):
                        yield sampled
                    break

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        """Tells no tokens of unfinished completions, as those begin and end at once."""
        return EngineProgress(
            tokens=self.tokens, version=self.version, loading=self.loading, busy_slot_s=0.0, recomputed_tokens=0
        )

    def sampled(self, prompt: Prompt, index: int, given: SampledTokens | None = None) -> SampledCompletion:
        first = given.end if given else 0
        sampled = SampledTokens(
            start=first,
            token_ids=np.array([1, 2, 3], np.int32),
            logprobs=np.full(TOKENS, -1.0, np.float32),
            versions=[VersionSpan(version=self.version, start=first, end=first + TOKENS)],
        )
        whole = SampledTokens.joined([given, sampled] if given else [sampled])
        completion = Completion(
            token_ids=whole.token_ids,
            logprobs=whole.logprobs,
            versions=whole.versions,
            text=f"{prompt.id}/{index}",
            finish_reason="stop",
        )
        return SampledCompletion(prompt_id=prompt.id, index=index, completion=completion)


class TinyJudge:
    """A reward worker: 1 for completion 1 and 0 for completion 0, or 0 for both of a prompt in `equal`."""

    def __init__(self, equal: tuple[str, ...] = (), seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.equal, self.seconds = equal, seconds
        self.stuck: set[str] = set()
        self.error: Exception | None = None

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        await asyncio.sleep(3600 if completion.text in self.stuck else self.seconds())
        if self.error:
            raise self.error
        score = 0.0 if prompt.id in self.equal else float(completion.text[-1])
        return {name: [Verdict(score=score, status="scored", seconds=0.0, detail="")] for name in names}

    async def facts(self) -> dict[str, float]:
        return {"math/isolation": 2.0}

    def pool(self) -> RewardPool:
        workers = Replicas("worker", [Replica(name="reward-0", handle=InProcess(self))])
        terms = {"math": build(MATH)}
        limits = {"max_in_flight": 64, "max_deaths": 1}
        return RewardPool(terms, [RewardWorkers(["math"], workers, **limits)], attempts=1, max_failed_share=1.0)


def make_pool(
    engines: Sequence[TinyEngine],
    judge: TinyJudge | None = None,
    *,
    workers: int = 1,
    slots: int = 8,
    ahead: float = 0.0,
    heartbeat_s: float = 1.0,
    rest_s: float = 0.0,
) -> EpisodePool:
    """Episode workers in this process over engines with `slots`, dealt out in turn; a group's body is the group."""
    judge = judge or TinyJudge()
    seated = {}
    for number in range(workers):
        seats = [
            EngineSeat(name=engine.name, handle=InProcess(engine), slots=slots) for engine in engines[number::workers]
        ]
        name = f"episodes-{number}"
        worker = EpisodeWorker(
            name, seats, judge.pool, ahead=ahead, put=lambda scored: scored, bounds=BOUNDS, rest_s=rest_s
        )
        seated[name] = InProcess(worker), seats
    return EpisodePool(seated, ahead=ahead, heartbeat_s=heartbeat_s)


def make_order(name: str, sampling: Sampling = PAIR) -> Order:
    prompt = Prompt(id=f"{name}@0", messages=[], token_ids=[7, 7], reference="5", task="math")
    return Order(key=f"{name}@0#1", prompt=prompt, sampling=sampling)


class Followed:
    """The reports of a pool, and waits for them.

    >>> async with Followed(pool) as followed:
    ...     pool.assign([make_order("o3")])
    ...     await followed.until(lambda: "o3@0#1" in followed.records)
    """

    def __init__(self, pool: EpisodePool, new_engine: Callable[[str], TinyEngine] | None = None) -> None:
        """`new_engine` takes the place of a broken one, and gets its name."""
        self.pool = pool
        self.new_engine = new_engine
        self.reports: list[EpisodeReport] = []
        self.records: dict[str, GroupRecord] = {}  # by the order's key
        self.engines: dict[str, EngineReport] = {}  # by name, the latest
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self.pool.follow(self._note))
        self._following.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self.pool.close()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Raises a failure that a report tells."""
        while not happened():
            await asyncio.wait_for(self._news.wait(), NEWS_S)
            self._news.clear()
            if self._following.done():
                self._following.result()

    async def groups(self, *names: str) -> list[ScoredGroup]:
        """The groups of prompts, once all are finished."""
        keys = [f"{name}@0#1" for name in names]
        await self.until(lambda: all(key in self.records for key in keys))
        return [await self.pool.fetch(self.records[key]) for key in keys]

    def _note(self, _: str, report: EpisodeReport) -> None:
        self.reports.append(report)
        self.records |= {finished.key: finished.record for finished in report.finished}
        self.engines |= {engine.name: engine for engine in report.engines or ()}
        if self.new_engine:
            for name in report.broken:
                seat = EngineSeat(name=f"{name}-again", handle=InProcess(self.new_engine(name)), slots=8)
                self._joining = asyncio.create_task(self.pool.join_engine(seat))
        self._news.set()
