"""Timed engines that die, stand still and come back, under a sampler on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from benchmarks.async_parts import mortal
from benchmarks.async_parts.clock import VirtualLoop
from benchmarks.async_parts.engine import TimedEngine
from rlframe.actors.in_process import InProcess
from rlframe.actors.tasks import Tasks
from rlframe.rollout.listener import Listener
from rlframe.rollout.messages import EngineBounds, EngineProgress, EngineSeat, Order
from rlframe.rollout.sampler import Sampler
from rlframe.rollout.unfinished import Share
from rlframe.types import Completion, Prompt, SampledCompletion, SampledTokens, Sampling, VersionSpan

T = TypeVar("T")

ASK_S = 1.0  # between two looks at the engines
BOUNDS = EngineBounds(silence_s=5.0, first_token_s=60.0, attempts=3)


class MortalEngine(mortal.MortalEngine):
    """A timed engine of 10 tokens a second by default, whose process may end or stand still."""

    def __init__(self, name: str, *, slots: int = 8, token_s: float = 0.1, load_s: float = 0.0) -> None:
        super().__init__(name, slots=slots, token_s=token_s, load_s=load_s)
        self.prefixes: list[dict[str, dict[int, SampledTokens]]] = []  # of each call
        self.goes = asyncio.Event()  # unset: the process is stopped
        self.goes.set()

    async def generate(self, *arguments: Any, **named: Any) -> AsyncIterator[SampledCompletion]:
        self.prefixes.append(named.get("prefixes", {}))
        async for sampled in super().generate(*arguments, **named):
            await self.goes.wait()
            yield sampled

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        await self.goes.wait()
        return await super().progress(with_partials)


@dataclass(kw_only=True)
class Watch:
    """A sampler over engines, and all that it tells."""

    engines: dict[str, MortalEngine]
    bounds: EngineBounds = BOUNDS
    completions: dict[tuple[str, int], Completion] = field(default_factory=dict)  # by order and index
    ended_at: dict[tuple[str, int], float] = field(default_factory=dict)
    told: dict[tuple[str, int], list[tuple[int, SampledTokens]]] = field(default_factory=dict)  # attempt, tokens
    given_up: dict[str, str] = field(default_factory=dict)
    broken: dict[str, tuple[float, str]] = field(default_factory=dict)  # engine -> time, reason
    error: BaseException | None = None

    def __post_init__(self) -> None:
        listener = Listener(
            on_completion=self._end, on_tokens=self._tell, on_given_up=self._give_up, on_news=self._note_broken
        )
        self.news = asyncio.Event()
        seats = [seat(engine) for engine in self.engines.values()]
        self.tasks = Tasks(self._fail)
        self.sampler = Sampler(seats, self.tasks, self.bounds, listener)
        self.sampler.newest_version = 1 << 30
        self.tasks.start(self._look())

    def sample(self, **lengths: list[int]) -> None:
        """Prompt -> tokens of its completions."""
        self.sampler.sample([share(order(name, each)) for name, each in lengths.items()])

    async def join(self, engine: MortalEngine) -> None:
        self.engines[engine.name] = engine
        self.sampler.join(seat(engine))

    async def until_all_ended(self) -> None:
        while self.sampler.unfinished:
            self.news.clear()
            await self.news.wait()
            if self.error:
                raise self.error

    def lengths(self) -> dict[tuple[str, int], int]:
        """Tokens of each completion, once it is sure that each token is there once and in its place."""
        for completion in self.completions.values():
            length = len(completion.token_ids)
            assert completion.token_ids.tolist() == list(range(length))
            assert [span.start for span in completion.versions[1:]] == [span.end for span in completion.versions[:-1]]
            assert (completion.versions[0].start, completion.versions[-1].end) == (0, length)
        return {key: len(completion.token_ids) for key, completion in self.completions.items()}

    def folded(self, name: str, index: int = 0) -> list[int]:
        """The tokens of a completion by what was told of it while it was unfinished."""
        tokens: list[int] = []
        for _, chunk in self.told.get((name, index), []):
            assert chunk.start <= len(tokens)
            tokens = tokens[: chunk.start] + chunk.token_ids.tolist()
        return tokens

    async def _look(self) -> None:
        while True:
            self.sampler.ask_progress(ASK_S)
            await asyncio.sleep(ASK_S)

    def _end(self, order: Order, index: int, completion: Completion) -> None:
        assert (order.prompt.id, index) not in self.completions
        self.completions[order.prompt.id, index] = completion
        self.ended_at[order.prompt.id, index] = round(now(), 3)
        self.news.set()

    def _tell(self, order: Order, index: int, attempt: int, tokens: SampledTokens) -> None:
        assert order.key not in self.given_up
        self.told.setdefault((order.prompt.id, index), []).append((attempt, tokens))

    def _give_up(self, order: Order, index: int, reason: str) -> None:
        assert order.key not in self.given_up
        self.given_up[order.key] = reason
        self.news.set()

    def _note_broken(self) -> None:
        _, broken = self.sampler.take_refused()
        self.broken |= {name: (round(now(), 3), reason) for name, reason in broken.items()}
        self.news.set()

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.news.set()


def watch(count: int, **changes: Any) -> Watch:
    """A sampler over engines rollout-0, rollout-1, ...; `changes` are of the engines."""
    names = [f"rollout-{number}" for number in range(count)]
    return Watch(engines={name: MortalEngine(name, **changes) for name in names})


def seat(engine: TimedEngine) -> EngineSeat:
    return EngineSeat(name=engine.name, handle=InProcess(engine), slots=engine.slots)


def order(name: str, lengths: list[int]) -> Order:
    prompt = Prompt(id=name, messages=[], token_ids=[7], reference="", task="math", extra={"lengths": lengths})
    sampling = Sampling(completions=len(lengths), max_tokens=100_000, temperature=1.0, seed=0)
    return Order(key=f"{name}#1", prompt=prompt, sampling=sampling)


def share(order: Order, prefixes: dict[int, SampledTokens] | None = None) -> Share:
    return Share(order=order, indices=list(range(order.sampling.completions)), prefixes=prefixes or {})


def tokens(start: int, end: int) -> SampledTokens:
    """Tokens of a timed engine with version 0."""
    return SampledTokens(
        start=start,
        token_ids=np.arange(start, end, dtype=np.int32),
        logprobs=np.full(end - start, -1.0, np.float32),
        versions=[VersionSpan(version=0, start=start, end=end)],
    )


def now() -> float:
    return asyncio.get_running_loop().time()


def on_virtual_clock(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of a coroutine function, whose hours pass at once."""
    loop = VirtualLoop()
    loop.clock.runs = 1
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(asyncio.wait_for(test(), 1e6))
