"""`EpisodeWorker`: samples and scores whole groups near the engines, and reports small records of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.actors.tasks import Tasks
from rlframe.batch.records import to_record
from rlframe.errors import RunFailed
from rlframe.record import rollouts
from rlframe.record.directory import appears
from rlframe.rollout.messages import EngineBounds, EngineSeat, EpisodeReport, Finished, Order
from rlframe.rollout.sampler import Listener, Sampler
from rlframe.rollout.unfinished import Share
from rlframe.types import Completion, RolloutGroup, SampledTokens, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rlframe.record.rollouts import Advantage
    from rlframe.reward.pool import RewardPool

UNWRITTEN_FILES = 2  # at most: their groups stay in memory until the disk has them


@dataclass(slots=True, kw_only=True)
class OpenGroup:
    """An order's completions and verdicts, which come in any order."""

    order: Order
    completions: dict[int, Completion] = field(default_factory=dict)  # by index in the group
    verdicts: dict[int, dict[str, Verdict]] = field(default_factory=dict)  # likewise, then by reward name


class EpisodeWorker:
    """Takes orders, and reports each group once it is sampled and scored. For one event loop.

    A plain class: an actor near its engines, or an object in the driver's process. Completions are scored while the
    rest of the group is still sampled. An error of an engine or of a reward is reported, and ends the run.
    """

    def __init__(
        self,
        name: str,
        seats: list[EngineSeat],
        make_rewards: Callable[[], RewardPool],
        *,
        ahead: float,
        put: Callable[[ScoredGroup], Any],
        bounds: EngineBounds,
        rest_s: float = 0.0,
    ) -> None:
        """`ahead`: completions beyond the engines' slots that the worker has room for, as a share of the slots.

        `put` makes the reference by which ranks fetch a group. `rest_s`: seconds between the first news and the report,
        so that a report to another process tells several groups.
        """
        self.name = name
        self.ahead = ahead
        self.put = put
        self.rest_s = rest_s
        self.rewards = make_rewards()
        self._tasks = Tasks(self._fail)
        self._news = asyncio.Event()
        listener = Listener(
            on_completion=self._score_completion,
            on_tokens=self._note_tokens,
            on_given_up=self._give_up,
            on_news=self._news.set,
        )
        self._sampler = Sampler(seats, self._tasks, bounds, listener)
        self._groups: dict[str, OpenGroup] = {}  # by the order's key
        self._orders = 0  # since the start
        self._finished: list[Finished] = []
        self._given_up: dict[str, str] = {}  # key of an order -> reason, since the last report
        self._scoring = 0  # completions
        self._verdict_at = 0.0  # time of the last verdict, while completions are scored
        self._engines_told_at = float("-inf")
        self._told_room = False
        self._failure: BaseException | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollouts")  # writes
        self._writes: set[asyncio.Future[Any]] = set()
        self._write_error: BaseException | None = None

    def __repr__(self) -> str:  # Ray's errors and logs show this name
        return self.name

    async def sample(self, orders: list[Order]) -> None:
        """Starts orders. All orders of a call that go to the same engine are one call of the engine."""
        if not self._orders:
            self._tasks.start(self.rewards.ask_facts())
        self._orders += len(orders)
        self._groups |= {order.key: OpenGroup(order=order) for order in orders}
        self._told_room = False
        self._sampler.sample([Share(order=order, indices=list(range(order.sampling.completions))) for order in orders])
        self._tell_room()

    async def report(self, heartbeat_s: float) -> EpisodeReport:
        """Returns `rest_s` after the first news, or after `heartbeat_s` without news.

        News: a finished group, a refused completion, a broken engine, a failure, or room for another group. Room is
        told once until the next `sample`.
        """
        self._sampler.ask_progress(heartbeat_s)
        if self._failure is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), heartbeat_s)
                await asyncio.sleep(self.rest_s)
        self._news.clear()
        finished, self._finished = self._finished, []
        given_up, self._given_up = self._given_up, {}
        refused, broken = self._sampler.take_refused()
        now = asyncio.get_running_loop().time()
        tells_engines = now - self._engines_told_at >= heartbeat_s
        if tells_engines:
            self._engines_told_at = now
        return EpisodeReport(
            orders=self._orders,
            completions=self._sampler.unfinished,
            scoring={name: calls for name, calls in self.rewards.in_flight.items() if calls},
            scoring_silent_s=now - self._verdict_at if self._scoring else 0.0,
            finished=finished,
            engines=self._sampler.reports() if tells_engines else [],
            refused=refused,
            refusals=self._sampler.refusals,
            broken=broken,
            given_up=given_up,
            late=self._sampler.late,
            metrics=self.rewards.metrics(),
            failure=self._failure,
        )

    async def announce(self, version: int) -> None:
        """Notes that the learner has published a version: engines may send tokens of it from now on."""
        self._sampler.newest_version = version

    async def join_engine(self, seat: EngineSeat) -> None:
        self._sampler.join(seat)
        self._tell_room()

    async def leave_engine(self, name: str, hand_over: bool = False) -> None:
        """Takes an engine out: others go on with its completions. `hand_over`: it lives, and gives its last tokens."""
        await self._sampler.leave(name, hand_over)

    async def write(self, step: int, file: Path, groups: list[tuple[Any, Sequence[Advantage]]]) -> None:
        """Starts to write groups of a step (body, advantages) into a file; waits only where the disk falls behind.

        A failed write ends the run, by a report or by `close`.
        """
        while len(self._writes) >= UNWRITTEN_FILES:
            await asyncio.wait(self._writes, return_when=asyncio.FIRST_COMPLETED)
        writing = self._tasks.start(self._write(step, file, groups))
        self._writes.add(writing)
        writing.add_done_callback(self._end_write)

    async def sees(self, file: Path) -> bool:
        """True if this worker's machine sees a file that the driver has just made."""
        return await appears(file)

    async def close(self) -> None:
        """Waits until all files are written, and ends all other work. Raises the error of the first failed write."""
        while self._writes:
            await asyncio.wait(self._writes)
        await self._tasks.cancel()
        self._thread.shutdown()
        if self._write_error is not None:
            raise self._write_error

    def _note_tokens(self, order: Order, index: int, attempt: int, tokens: SampledTokens) -> None:
        """Nobody needs the tokens of an unfinished completion yet."""

    def _give_up(self, order: Order, index: int, reason: str) -> None:
        """Drops an order that no engine survives."""
        self._groups.pop(order.key, None)
        self._given_up[order.key] = f"completion {index} of prompt {order.prompt.id}: {reason}"
        self._news.set()

    def _score_completion(self, order: Order, index: int, completion: Completion) -> None:
        self._groups[order.key].completions[index] = completion
        self._tasks.start(self._score(self._groups[order.key], index))
        self._tell_room()

    async def _score(self, group: OpenGroup, index: int) -> None:
        """Scores a completion, and after the last completion the whole group."""
        now, order = asyncio.get_running_loop().time, group.order
        if not self._scoring:
            self._verdict_at = now()
        self._scoring += 1
        group.verdicts[index] = await self.rewards.score(order.prompt, group.completions[index])
        self._verdict_at = now()
        if len(group.verdicts) == order.sampling.completions and order.key in self._groups:
            indices = range(order.sampling.completions)
            rollout_group = RolloutGroup.single_turn(order.prompt, [group.completions[index] for index in indices])
            scored = await self.rewards.score_group(rollout_group, [group.verdicts[index] for index in indices])
            self._verdict_at = now()
            self._finish(order.key, scored)
        self._scoring -= 1

    def _finish(self, key: str, scored: ScoredGroup) -> None:
        del self._groups[key]
        self._finished.append(Finished(key=key, record=to_record(scored, self.put(scored), self.name)))
        self._news.set()

    def _tell_room(self) -> None:
        if not self._told_room and self._sampler.unfinished < self._sampler.slots * (1 + self.ahead):
            self._told_room = True
            self._news.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    async def _write(self, step: int, file: Path, groups: list[tuple[Any, Sequence[Advantage]]]) -> None:
        scored = [(await body if inspect.isawaitable(body) else body, advantages) for body, advantages in groups]
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, rollouts.write, file, step, scored)
        except OSError as error:
            raise RunFailed(
                f"{self.name} cannot write {file}: {error}; run_dir must have free space, and be a folder that all "
                "machines share"
            ) from error

    def _end_write(self, writing: asyncio.Future[Any]) -> None:
        self._writes.discard(writing)
        if not writing.cancelled():
            self._write_error = self._write_error or writing.exception()
