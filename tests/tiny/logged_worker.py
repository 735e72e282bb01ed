"""An episode worker with a log over timed engines, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from benchmarks.async_parts.clock import VirtualLoop
from benchmarks.async_parts.engine import TimedEngine
from benchmarks.async_parts.judge import TimedJudge
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.reward import build
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineSeat, Order
from rlframe.training import GroupRecord
from rlframe.types import Completion, Prompt, Sampling, Verdict
from tests.tiny.episodes import BOUNDS, MATH

TOKEN_S = 0.01


class CountingJudge(TimedJudge):
    """Takes `seconds`, and notes the lengths of the completions that it judges."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        super().__init__(seconds=seconds)
        self.judged: list[int] = []
        self.name = "math"  # of the reward term
        self.fails = False

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        self.judged.append(len(completion.token_ids))
        verdicts = await super().score(names, prompt, completion)
        failed = [Verdict(score=None, status="failed", seconds=0.0, detail="the judge is down")]
        return dict.fromkeys(verdicts, failed) if self.fails else verdicts

    def pool(self) -> RewardPool:
        workers = Replicas("worker", [Replica(name="reward-0", handle=InProcess(self))])
        shares = [RewardWorkers([self.name], workers, max_in_flight=1 << 20, max_deaths=1)]
        return RewardPool({self.name: build(MATH)}, shares, attempts=1, max_failed_share=1.0)


class LoggedWorker:
    """An episode worker that a test lets report, and its records."""

    def __init__(self, name: str, engines: list[TimedEngine], judge: CountingJudge) -> None:
        seats = [EngineSeat(name=engine.name, handle=InProcess(engine), slots=engine.slots) for engine in engines]
        self.worker = EpisodeWorker(name, seats, judge.pool, ahead=0.0, put=lambda scored: scored, bounds=BOUNDS)
        self.records: dict[str, GroupRecord] = {}
        self.warnings: list[str] = []

    async def follow(self, seconds: float) -> None:
        """Takes reports for so long."""
        end = asyncio.get_running_loop().time() + seconds
        while (rest := end - asyncio.get_running_loop().time()) > 1e-9:
            report = await self.worker.report(min(1.0, rest))
            if report.failure:
                raise report.failure
            self.records |= {finished.key: finished.record for finished in report.finished}
            self.warnings += report.warnings

    async def die(self) -> None:
        """Writes nothing more, and ends the calls of its engines."""
        await self.worker._tasks.cancel()

    def stop(self) -> None:
        """Does nothing more; its calls go on at the engines, as those of a process that died on another machine."""
        self.worker._log._segment = None
        self.worker._sampler._ask = lambda *_, **__: None  # type: ignore[method-assign]


def timed_engine(name: str) -> TimedEngine:
    return TimedEngine(name, slots=16, token_s=TOKEN_S, load_s=0.0)


def order(name: str, *lengths: int) -> Order:
    prompt = Prompt(id=name, messages=[], token_ids=[1, 2], reference="5", task="math", extra={"lengths": lengths})
    sampling = Sampling(completions=len(lengths), max_tokens=10_000, temperature=1.0, seed=0)
    return Order(key=f"{name}#1", prompt=prompt, sampling=sampling)


def segment(ledger: Path, epoch: int, worker: str) -> Path:
    return ledger / f"{epoch:06d}" / f"{worker}.log"


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    loop = VirtualLoop()
    loop.clock.runs = 1
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(_cancel_all())
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
