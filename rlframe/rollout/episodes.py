"""`EpisodeWorker`: samples and scores whole groups near the engines, and reports small records of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.actors.tasks import Tasks
from rlframe.batch.records import to_record
from rlframe.record.directory import appears
from rlframe.record.frames import Location
from rlframe.record.segments import LoggedOrder
from rlframe.rollout.messages import EngineBounds, EngineSeat, EpisodeReport, Finished, Order
from rlframe.rollout.rollout_writer import RolloutWriter
from rlframe.rollout.sampler import Listener, Sampler
from rlframe.rollout.teachers import asked_today, taught
from rlframe.rollout.unfinished import Share
from rlframe.rollout.worker_log import WorkerLog
from rlframe.types import Completion, RolloutGroup, SampledTokens, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rlframe.record.rollouts import Advantage
    from rlframe.reward.pool import RewardPool
    from rlframe.rollout.teachers import TeacherPool
    from rlframe.training import GroupRecord


@dataclass(slots=True, kw_only=True)
class OpenGroup:
    """An order's completions and verdicts, which come in any order."""

    order: Order
    completions: dict[int, Completion] = field(default_factory=dict)  # by index in the group
    verdicts: dict[int, dict[str, Verdict]] = field(default_factory=dict)  # likewise, then by reward name

    @property
    def missing(self) -> list[int]:
        """Indices of the completions to come."""
        return [index for index in range(self.order.sampling.completions) if index not in self.completions]


class EpisodeWorker:
    """Takes orders, and reports each group once it is sampled and scored. For one event loop.

    A plain class: an actor near its engines, or an object in the driver's process. Completions are scored while the
    rest of the group is still sampled. An error of a reward is reported, and ends the run. In a run with a log the
    worker's segment holds all that another worker needs to go on with its orders.
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
        make_teachers: Callable[[], TeacherPool] | None = None,
    ) -> None:
        """`ahead`: completions beyond the engines' slots that the worker has room for, as a share of the slots.

        `put` makes the reference by which ranks fetch a group. `rest_s`: seconds between the first news and the report,
        so that a report to another process tells several groups. `make_teachers` None: the run has no teacher.
        """
        self.name = name
        self.ahead = ahead
        self.put = put
        self.rest_s = rest_s
        self.rewards = make_rewards()
        self.teachers = make_teachers() if make_teachers else None
        self._tasks = Tasks(self._fail)
        self._news = asyncio.Event()
        listener = Listener(
            on_completion=self._score_completion,
            on_tokens=self._log_tokens,
            on_given_up=self._give_up,
            on_news=self._news.set,
        )
        self._sampler = Sampler(seats, self._tasks, bounds, listener)
        self._log = WorkerLog(name, self._tasks)
        self._writer = RolloutWriter(name, self._tasks)
        self._adopted: dict[str, LoggedOrder] = {}  # by key: what earlier processes have logged of orders to come
        self._groups: dict[str, OpenGroup] = {}  # by the order's key
        self._orders = 0  # since the start
        self._finished: list[Finished] = []
        self._given_up: dict[str, str] = {}  # key of an order -> reason, since the last report
        self._scoring = 0  # completions
        self._verdict_at = 0.0  # time of the last verdict, while completions are scored
        self._engines_told_at = float("-inf")
        self._told_room = False
        self._failure: BaseException | None = None
        self._warnings: list[str] = []  # since the last report

    def __repr__(self) -> str:  # Ray's errors and logs show this name
        return self.name

    async def sample(self, orders: list[Order]) -> None:
        """Starts orders. All orders of a call that go to the same engine are one call of the engine."""
        if not self._orders:
            self._tasks.start(self.rewards.ask_facts())
        self._orders += len(orders)
        self._told_room = False
        shares = [self._begin(order, self._adopted.pop(order.key, LoggedOrder())) for order in orders]
        if any(order.taught for order in orders):  # a resumed run's training orders come at once; the rest is of others
            self._adopted.clear()
        self._sampler.sample([share for share in shares if share.indices])
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
        warnings, self._warnings = self._warnings, []
        refused, broken = self._sampler.take_refused()
        now = asyncio.get_running_loop().time()
        tells_engines = now - self._engines_told_at >= heartbeat_s
        if tells_engines:
            self._engines_told_at = now
        return EpisodeReport(
            orders=self._orders,
            completions=self._sampler.unfinished,
            scoring={name: calls for name, calls in self._calls().items() if calls},
            scoring_silent_s=now - self._verdict_at if self._scoring else 0.0,
            finished=finished,
            engines=self._sampler.reports() if tells_engines else None,
            refused=refused,
            refusals=self._sampler.refusals,
            broken=broken,
            given_up=given_up,
            late=self._sampler.late,
            written=self._writer.written,
            warnings=warnings,
            metrics=self.rewards.metrics() | (self.teachers.metrics() if self.teachers else {}),
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
        await self._writer.start(step, file, groups)

    async def open_segment(self, file: Path) -> None:
        """Writes the log into a new segment from now on, `ledger/000007/episodes-0.log`. Raises RunFailed."""
        await self._log.open(file)

    async def flush(self) -> None:
        """Returns once the disk has the bodies of all finished groups. Raises RunFailed."""
        await self._log.flush()

    async def adopt(self, files: list[Path], keys: list[str]) -> list[str]:
        """Reads what earlier processes have logged of orders with these keys -> the keys of which anything is known.

        `files`: their segments, in the order of time. `sample` of such an order goes on from there. Engines end what an
        earlier process asked for, and give its last tokens. Raises RunFailed.
        """
        adopted = await self._log.read_orders(files, set(keys), self._warn)
        keys_of_prompts = {key.rpartition("#")[0]: key for key in keys}
        for (prompt_id, index), tokens in (await self._sampler.release()).items():
            if (key := keys_of_prompts.get(prompt_id)) is not None:
                adopted.setdefault(key, LoggedOrder()).extend(index, tokens)
        self._adopted |= adopted
        return list(adopted)

    async def recall(self, bodies: list[Location]) -> list[GroupRecord]:
        """Records of groups whose bodies are in the log. Raises BrokenFrame and RunFailed."""
        return [await self._recall(location) for location in bodies]

    async def sees(self, file: Path) -> bool:
        """True if this worker's machine sees a file that the driver has just made."""
        return await appears(file)

    async def close(self) -> None:
        """Waits until all files are written, and ends all other work. Raises the error of the first failed write."""
        await self._writer.finish()
        await self._tasks.cancel()
        await self._log.close()
        self._writer.close()

    def _begin(self, order: Order, logged: LoggedOrder) -> Share:
        """Goes on with an order from what is logged -> the completions to sample."""
        if logged.body is not None:
            self._tasks.start(self._put_again(order.key, logged.body))
            return Share(order=order, indices=[])
        logged = logged.under(order.sampling)
        teacher = self.teachers.teacher_of(order.prompt.task) if self.teachers and order.taught else None
        judges = set(self.rewards.judges(order.prompt.task))
        group = OpenGroup(order=order, completions=logged.completions)
        for index, judged in logged.verdicts.items():  # a resumed run may have other teachers and rewards
            failed = any(verdict.status == "failed" for verdict in judged.values())  # what failed may work again now
            if not failed and asked_today(judged, teacher) and judges <= judged.keys():
                group.verdicts[index] = judged
        self._groups[order.key] = group
        for index in group.completions.keys() - group.verdicts.keys():
            self._tasks.start(self._score(group, index))
        if len(group.verdicts) == order.sampling.completions:
            self._tasks.start(self._score_group(group))
        prefixes = {index: tokens for index, tokens in logged.tokens.items() if index in group.missing}
        return Share(order=order, indices=group.missing, prefixes=prefixes)

    async def _put_again(self, key: str, location: Location) -> None:
        self._report_group(key, await self._recall(location))

    async def _recall(self, location: Location) -> GroupRecord:
        scored = await self._log.read_body(location)
        return to_record(scored, self.put(scored), self.name, location)

    def _log_tokens(self, order: Order, index: int, attempt: int, tokens: SampledTokens) -> None:
        self._log.add_tokens(order.key, index, attempt, tokens)

    def _give_up(self, order: Order, index: int, reason: str) -> None:
        """Drops an order that no engine survives."""
        if (group := self._groups.pop(order.key, None)) is not None:
            self._log.forget(group.completions.values())
        self._given_up[order.key] = f"completion {index} of prompt {order.prompt.id}: {reason}"
        self._news.set()

    def _score_completion(self, order: Order, index: int, completion: Completion) -> None:
        self._log.add_completion(order.key, index, completion)
        group = self._groups[order.key]
        group.completions[index] = completion
        self._tasks.start(self._score(group, index))
        self._tell_room()

    async def _score(self, group: OpenGroup, index: int) -> None:
        """Scores a completion, by rewards and by the task's teacher, and after the last completion the whole group."""
        order, completion = group.order, group.completions[index]
        with self._counted_scoring():
            if self.teachers and order.taught:
                parts = [self.rewards.score(order.prompt, completion), self.teachers.score(order.prompt, completion)]
                by_rewards, by_teacher = await asyncio.gather(*parts)
                group.verdicts[index] = by_rewards | by_teacher
            else:
                group.verdicts[index] = await self.rewards.score(order.prompt, completion)
        self._log.add_verdicts(order.key, index, group.verdicts[index])
        if len(group.verdicts) == order.sampling.completions:
            await self._score_group(group)

    async def _score_group(self, group: OpenGroup) -> None:
        """Rewards a group whose completions have verdicts. A group that is given up meanwhile is dropped."""
        order, indices = group.order, range(group.order.sampling.completions)
        rollout_group = RolloutGroup.single_turn(order.prompt, [group.completions[index] for index in indices])
        verdicts = [group.verdicts[index] for index in indices]
        with self._counted_scoring():
            scored = taught(await self.rewards.score_group(rollout_group, verdicts), verdicts)
        if self._groups.pop(order.key, None) is group:
            location = self._log.add_group(order.key, scored)
            self._report_group(order.key, to_record(scored, self.put(scored), self.name, location))

    def _calls(self) -> dict[str, int]:
        """Calls at each reward worker and teacher, by name."""
        return self.rewards.in_flight | (self.teachers.in_flight if self.teachers else {})

    @contextmanager
    def _counted_scoring(self) -> Iterator[None]:
        """Counts a call of the rewards, and notes the time of its end."""
        now = asyncio.get_running_loop().time
        if not self._scoring:
            self._verdict_at = now()
        self._scoring += 1
        yield
        self._verdict_at = now()
        self._scoring -= 1

    def _report_group(self, key: str, record: GroupRecord) -> None:
        self._finished.append(Finished(key=key, record=record))
        self._news.set()

    def _tell_room(self) -> None:
        if not self._told_room and self._sampler.unfinished < self._sampler.slots * (1 + self.ahead):
            self._told_room = True
            self._news.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    def _warn(self, line: str) -> None:
        self._warnings.append(line)
        self._news.set()
