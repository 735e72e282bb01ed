"""`Scorer`: sends orders to episode workers, follows their reports, and scores any prompts for an evaluation."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rlframe.actors.waits import Wait, waiting
from rlframe.errors import BodyLost, Stalled
from rlframe.experience.progress import BOUND, Progress
from rlframe.experience.usage import Usage
from rlframe.rollout.messages import EpisodeReport, Finished, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from pathlib import Path

    from rlframe.actors.background import Background
    from rlframe.experience.errands import Errands
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.training import GroupRecord, RatedGroup
    from rlframe.types import Prompt, Sampling, ScoredGroup

CHECK_EVERY_S = 1.0

T = TypeVar("T")


@dataclass(slots=True, kw_only=True, eq=False)
class Score:
    """An order of a call of `score`, until the call returns."""

    order: Order
    record: GroupRecord | None = None  # once the group is scored
    given_up: bool = False

    @property
    def open(self) -> bool:
        return self.record is None and not self.given_up


class Scorer:
    """Scored groups of any prompts, as an evaluation needs them. A `with` block follows the reports of the workers.

    Methods that begin with an underscore run on the background's event loop, all others on the driver's thread.
    """

    def __init__(
        self,
        episodes: EpisodePool,
        background: Background,
        *,
        slots: int,
        warn: Callable[[str], None],
        errands: Errands | None = None,
    ) -> None:
        """`slots`: completions that an engine samples at the same time. `warn` gets lines for the console.

        `errands`: repairs of engines that received wrong weights while the learner was training, for example.
        """
        self.episodes = episodes
        self.background = background
        self.warn = warn
        self.errands = errands
        self.progress = Progress(background.stall_timeout_s)
        self.usage = Usage(slots)
        self.verdicts: Counter[str] = Counter()  # by status, on finished groups, since the start
        self._calls = 0  # of `score`, for unique keys
        self._scores: dict[str, Score] = {}  # by the order's key
        self._checked_at = 0.0  # time of the last look for a stall
        self._following: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        async def follow() -> None:
            self.episodes.held, self.episodes.on_lost = self._held, self.progress.forget
            self._following = self.background.start(self.episodes.follow(self._on_report))

        self.background.run(follow())
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the following of reports. Orders in flight end with their workers."""

        async def end() -> None:
            if self._following is not None:
                self._following.cancel()
                await asyncio.wait([self._following])

        self.background.run(end())

    def score(self, prompts: list[Prompt], sampling: Sampling) -> list[ScoredGroup]:
        """Samples and scores prompts, held-out ones of a run beside its training prompts.

        The groups come in the order of `prompts`, without prompts that were given up, which are warned about. Raises an
        engine's or a reward worker's error, and Stalled.
        """
        with self._waiting(f"sample and score {len(prompts)} prompts"):
            scores = self._on_loop(lambda: self._open(prompts, sampling))
            try:
                return self._between_errands(lambda: self._collect(scores))
            finally:
                self._on_loop(lambda: self._close(scores))

    def begin(self, prompts: list[Prompt], sampling: Sampling) -> Future[list[ScoredGroup]]:
        """Starts what `score` does, and does not wait, so that further prompts follow without a gap."""
        return self.background.begin(self._score(prompts, sampling))

    def finish(self, future: Future[list[ScoredGroup]]) -> list[ScoredGroup]:
        """The groups of prompts that were begun, as of `score`."""
        with self._waiting("sample and score prompts"):
            return self.background.result(future)

    def tokens(self, group: ScoredGroup) -> int:
        """Sampled tokens of a group, without the prefix of its prompt."""
        return sum(group.lengths) - len(group.rewards) * len(group.group.prompt.prefix)

    def check_folder(self, folder: Path) -> None:
        """Raises RunFailed where an episode worker's machine does not see a folder of this machine."""
        self.background.run(self.episodes.check_folder(folder))

    def write(self, step: int, folder: Path, groups: list[GroupRecord], rated: list[RatedGroup]) -> None:
        """Lets the episode workers write groups of a step into `folder`; does not wait for the files."""
        self.background.run(self._in_time(self.episodes.write(step, folder, groups, rated), "write a step's rollouts"))

    def _waiting(self, doing: str) -> AbstractContextManager[Wait]:
        return waiting(["rollout", "reward"], doing, self.background.stall_timeout_s, BOUND)

    def _between_errands(self, wait: Callable[[], Coroutine[Any, Any, T | None]]) -> T:
        """The result of a wait, which is None where an errand comes first, and is then begun again."""
        while (result := self.background.run(wait())) is None:
            assert self.errands is not None
            self.errands.run()  # on this thread, because ranks publish and save between two steps
        return result

    @property
    def _has_errand(self) -> bool:
        return self.errands is not None and self.errands.waiting

    def _on_loop(self, call: Callable[[], T]) -> T:
        """The result of a call on the event loop, where reports change everything at any time."""

        async def called() -> T:
            return call()

        return self.background.run(called())

    async def _in_time(self, work: Coroutine[Any, Any, T], doing: str) -> T:
        """The result of work on disks. Raises Stalled where a disk or a file server does not answer."""
        bound_s = self.background.stall_timeout_s
        with waiting(["episodes"], doing, bound_s, BOUND):
            try:
                return await asyncio.wait_for(work, bound_s)
            except TimeoutError:
                raise Stalled(
                    f"episode workers and the driver did not {doing} in run_dir within {bound_s:g} s ({BOUND}): does "
                    "the disk or the file server answer?"
                ) from None

    async def _score(self, prompts: list[Prompt], sampling: Sampling) -> list[ScoredGroup]:
        scores = self._open(prompts, sampling)
        try:
            while (groups := await self._collect(scores)) is None:
                await self._wait()
            return groups
        finally:
            self._close(scores)

    def _open(self, prompts: list[Prompt], sampling: Sampling) -> dict[str, Score]:
        """Orders prompts -> what comes of each, by its key."""
        self._calls += 1
        orders = [Order(key=f"{prompt.id}#score{self._calls}", prompt=prompt, sampling=sampling) for prompt in prompts]
        scores = {order.key: Score(order=order) for order in orders}
        self._scores |= scores
        self.progress.begin_wait(self.background.now())
        self._assign(orders)
        return scores

    async def _collect(self, scores: dict[str, Score]) -> list[ScoredGroup] | None:
        """The groups, once all are scored. None: the driver's thread has an errand meanwhile."""
        while (groups := await self._groups(list(scores.values()))) is None:
            if self._has_errand:
                return None
            await self._wait()
        return groups

    def _close(self, scores: dict[str, Score]) -> None:
        for key in scores:
            del self._scores[key]

    async def _groups(self, scores: list[Score]) -> list[ScoredGroup] | None:
        """The groups of all scores; None where one is open, or its tokens are lost and will come again."""
        if any(score.open for score in scores) or not await self.episodes.flush():
            return None
        with suppress(BodyLost):
            return await asyncio.gather(*[self.episodes.fetch(score.record) for score in scores if score.record])

    def _held(self, worker: str) -> list[Order]:
        """Orders whose groups an episode worker has finished, and that are still needed."""
        return [score.order for score in self._scores.values() if score.record and score.record.worker == worker]

    def _assign(self, orders: list[Order]) -> None:
        self.episodes.assign(orders)
        self.usage.advance(self.background.now(), self.episodes.completions > 0)

    def _on_report(self, worker: str, report: EpisodeReport) -> None:
        now = self.background.now()
        self.usage.advance(now, self.episodes.completions > 0)
        self.usage.note(worker, report, now)
        self.progress.note(worker, report, now)
        for finished in report.finished:
            self._finish(finished)
        for key, reason in report.given_up.items():
            self._give_up(key, reason)
        self.background.notify()

    def _finish(self, finished: Finished) -> None:
        self.usage.finish(sum(finished.record.lengths))
        self.verdicts.update(verdict.status for row in finished.record.verdicts.values() for verdict in row)
        if (score := self._scores.get(finished.key)) is not None:
            score.record = finished.record

    def _give_up(self, key: str, reason: str) -> None:
        if (score := self._scores.get(key)) is not None:
            score.given_up = True
        self.warn(f"{key.rpartition('#')[0]} is given up, and nothing trains on it: {reason}")

    async def _wait(self) -> None:
        """Returns at the next report. Raises a task's error, and Stalled with the actor that everything waits for."""
        await self.background.wait(lambda: self._stall("no episode worker has sent a report"))
        self._check()

    def _check(self) -> None:
        """Raises Stalled where an actor makes no progress, also when all others do. Looks once a second."""
        now = self.background.now()
        if now - self._checked_at < CHECK_EVERY_S:
            return
        self._checked_at = now
        if (problem := self.progress.problem(now)) is not None:
            raise Stalled(self._stall(problem))

    def _stall(self, problem: str) -> str:
        """The message of a stall: the problem, then who waits for whom."""
        return f"{problem}:\n{self.progress.describe()}\n  {self._open_groups()}"

    def _open_groups(self) -> str:
        return f"{sum(score.open for score in self._scores.values())} groups of evaluations are open"
