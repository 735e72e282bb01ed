"""`EpisodePool`: spreads orders over episode workers, follows their reports, and replaces a worker that is lost."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from ray.exceptions import ObjectLostError

from rlframe.actors.calls import gather
from rlframe.actors.pings import any_done
from rlframe.actors.replicas import Handle
from rlframe.actors.tasks import Tasks
from rlframe.errors import BodyLost, RunFailed
from rlframe.record.segments import segment_files
from rlframe.reward.pool import merge_metrics
from rlframe.rollout.messages import EngineSeat, EpisodeReport, Order
from rlframe.rollout.rollout_files import RolloutFiles
from rlframe.rollout.seated import Seated, ask
from rlframe.rollout.succession import Knowledge, announce, catch_up, is_behind, leave_engine, open_segment, take_over
from rlframe.rollout.worker_losses import WorkerLosses
from rlframe.types import ScoredGroup

if TYPE_CHECKING:
    from rlframe.record.frames import Location
    from rlframe.training import GroupRecord, RatedGroup

HEARTBEAT_S = 1.0  # longest time between two reports of a worker
CLOSE_S = 60.0  # for workers to write their files
STARTS = 3  # of a worker's successors, each of which died before it took over


class EpisodePool:
    """Typed handle over episode workers, which `cluster/` starts and ends. For one event loop.

    A worker that dies or sends no report is lost, and `follow` starts a successor. It reads the lost worker's segments
    of the log, goes on with the orders from their tokens, and puts finished groups again that no step has taken. Calls
    of a lost worker return without an answer: the successor learns at its start what they would have told.
    """

    def __init__(
        self,
        workers: dict[str, tuple[Handle, list[EngineSeat]]],
        *,
        ahead: float,
        heartbeat_s: float = HEARTBEAT_S,
        silence_s: float = math.inf,
        start_s: float = math.inf,
    ) -> None:
        """`workers`: name -> handle, and the engines that the worker was started with. `ahead`: as of the workers.

        `silence_s`: seconds without a report after which a worker is lost. `start_s`: for a successor to start and to
        take over, after which another one is tried.
        """
        self.workers = {name: Seated(name=name, handle=handle) for name, (handle, _) in workers.items()}
        for name, (_, seats) in workers.items():
            for seat in seats:
                self.workers[name].join(seat)
        self.losses = WorkerLosses()
        self.completions = 0  # of all workers, that are not finished, as far as the driver knows
        self.ahead = ahead
        self.heartbeat_s = heartbeat_s
        self.silence_s = silence_s
        self.start_s = start_s
        # Lets another engine take the place of a broken one, and returns at once: name, reason. Set by the role that
        # starts engines.
        self.replace_engine: Callable[[str, str], None] = lambda name, reason: None
        # Ends a lost worker and makes another without engines: name -> the other's name and handle. Set likewise;
        # None: the workers are objects of this process.
        self.start_worker: Callable[[str], tuple[str, Handle]] | None = None
        # Orders whose groups the worker has finished and nobody has taken. Set by the owner of the groups.
        self.held: Callable[[str], list[Order]] = lambda worker: []
        self.on_lost: Callable[[str], None] = lambda worker: None  # name of a worker that sends no more reports
        self.warn: Callable[[str], None] = lambda line: None
        self._warned: set[str] = set()
        self._known = Knowledge()
        self._adopted: set[str] = set()  # keys of restored orders that are not assigned yet
        self._files = RolloutFiles(lambda: self._known.epoch and self._known.epoch.parent, lambda line: self.warn(line))
        self._error: BaseException | None = None  # of a call that nobody awaits
        self._calls = Tasks(self._fail)

    def has_room(self) -> bool:
        """True while a worker has fewer unfinished completions than slots, and `ahead` of the slots beyond."""
        return any(worker.completions < worker.slots * (1 + self.ahead) for worker in self._takers())

    def assign(self, orders: list[Order]) -> None:
        """Gives each order to the worker with the fewest unfinished completions for each slot; does not wait."""
        shares: defaultdict[str, list[Order]] = defaultdict(list)
        takers = self._takers()
        for order in orders:
            worker = min(takers, key=lambda worker: worker.busy)
            worker.add(order)
            self.completions += order.sampling.completions
            shares[worker.name].append(order)
        for name, share in shares.items():
            self._calls.start(ask(self.workers[name], "sample", share))
        if not self._adopted.isdisjoint(order.key for order in orders):  # restored orders come all at once
            self._adopted.clear()

    async def follow(self, on_report: Callable[[str, EpisodeReport], None]) -> None:
        """Hands on each report with the worker's name, for ever. Raises the failure that a report tells."""
        polls = [asyncio.ensure_future(self._follow(worker, on_report)) for worker in self.workers.values()]
        try:
            await asyncio.gather(*polls)
        except Exception as error:
            self._fail(error)
            raise
        finally:
            for poll in polls:
                poll.cancel()

    async def fetch(self, record: GroupRecord) -> ScoredGroup:
        """The whole group of a record. Raises BodyLost where the worker that put the group has died."""
        try:
            return await record.body if inspect.isawaitable(record.body) else record.body
        except ObjectLostError as error:
            raise BodyLost(f"the tokens of prompt {record.prompt_id} are lost with {record.worker}") from error

    async def write(self, step: int, folder: Path, groups: Sequence[GroupRecord], rated: Sequence[RatedGroup]) -> None:
        """Lets each worker write its groups of a step into `folder`; does not wait for the files.

        A failed write ends the run, by a report or by `close`. `rated`: the same groups in order, with advantages.
        """
        await self._files.write(self.workers, step, folder, groups, rated)

    async def announce(self, version: int) -> None:
        """Tells each worker that the learner has published a version; returns once all of them know."""
        self._known.version = version
        await asyncio.gather(*[announce(worker, version) for worker in self.workers.values()])

    async def join_engine(self, seat: EngineSeat) -> None:
        """Gives an engine that serves to the worker with the fewest slots."""
        worker = min(self.workers.values(), key=lambda worker: worker.slots)
        worker.join(seat)
        await ask(worker, "join_engine", seat)

    async def leave_engine(self, name: str, hand_over: bool = False) -> None:
        """Takes an engine out, if a worker has it: other engines of the worker go on with its completions.

        `hand_over`: the engine lives, and gives its last tokens.
        """
        while worker := next((worker for worker in self.workers.values() if name in worker.engines), None):
            await leave_engine(worker, name, hand_over)

    async def replace_worker(self, name: str, reason: str) -> None:
        """Puts another worker in the place of a living one, and returns once the successor has taken over."""
        worker = self.workers[name]
        await ask(worker, "flush")
        self.losses.move(name)
        worker.lose(reason)
        while name in self.workers:
            await self._wait_for_successor()

    async def open_segments(self, epoch: Path) -> None:
        """Lets each worker write into the folder of an epoch from now on. Raises RunFailed."""
        self._known.epoch = epoch
        await asyncio.gather(*[open_segment(worker, epoch) for worker in self.workers.values()])

    async def adopt(self, ledger: Path, epochs: Iterable[int], keys: Collection[str]) -> list[str]:
        """Reads the log of earlier processes on orders with these keys -> the keys of orders that the log knows.

        An order with such a key goes on from its tokens, once it is assigned.
        """
        self._adopted |= set(keys)
        files = segment_files(ledger, epochs)
        for worker in self.workers.values():
            worker.segments = files + worker.segments
        found = await self._tell_all("adopt", files, list(keys))
        return sorted({key for keys in found for key in keys or []})

    async def recall(self, locations: Sequence[Location]) -> list[GroupRecord]:
        """Records of groups whose bodies are in the log. Raises BrokenFrame and RunFailed."""
        records: dict[Location, GroupRecord] = {}
        while missing := [location for location in locations if location not in records]:
            living = [worker for worker in self.workers.values() if not worker.lost]
            shares = [missing[first :: len(living)] for first in range(len(living))]
            calls = [ask(worker, "recall", share) for worker, share in zip(living, shares, strict=True)]
            for share, answer in zip(shares, await asyncio.gather(*calls), strict=True):
                records |= zip(share, answer or [], strict=answer is not None)
            if not living:
                await self._wait_for_successor()
        return [records[location] for location in locations]

    async def flush(self) -> bool:
        """Returns once the log has all bodies of groups that were reported, and whether references to them live."""
        await self._tell_all("flush")
        return self.is_whole

    @property
    def is_whole(self) -> bool:
        """False: a worker is lost, or a successor has not put all finished groups again, so references are dead."""
        return not any(worker.lost or worker.again for worker in self.workers.values())

    @property
    def keeps_log(self) -> bool:
        """True in a run with checkpoints, where the tokens and groups of a lost worker are not lost."""
        return self._known.epoch is not None

    async def check_folder(self, folder: Path) -> None:
        """Raises RunFailed where a worker's machine does not see a folder of this machine."""
        with NamedTemporaryFile(dir=folder, prefix=".shared-") as marker:
            seen = dict(zip(self.workers, await self._tell_all("sees", Path(marker.name)), strict=True))
        if blind := [name for name, sees in seen.items() if sees is False]:
            raise RunFailed(
                f"run_dir: the machines of {', '.join(blind)} do not see {folder}, which is on the driver's machine, "
                "and episode workers write rollouts into it; use a folder that all machines share, or "
                "rollout.episode_workers=0"
            )

    def metrics(self) -> dict[str, float]:
        """Metrics of the rewards, by the latest reports. For any thread."""
        return merge_metrics(worker.metrics for worker in list(self.workers.values()))

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Waits until the workers have written all files, and ends their work; a second call does nothing.

        Raises RunFailed for a failed write, and Stalled.
        """
        workers, self.workers = self.workers, {}
        await self._calls.cancel()
        calls = {name: self._close(worker) for name, worker in workers.items()}
        await gather(calls, "write its rollouts", timeout_s, "cluster.stall_timeout_s")

    def _takers(self) -> list[Seated]:
        """Workers that get new orders: those that live, or else all, whose successors go on with the orders."""
        return [worker for worker in self.workers.values() if not worker.lost] or list(self.workers.values())

    async def _close(self, worker: Seated) -> None:
        await ask(worker, "close")
        if worker.lost:
            await self._files.write_rest(worker)

    async def _tell_all(self, method: str, *arguments: Any) -> list[Any]:
        """The answer of each worker, None of those that are lost."""
        return await asyncio.gather(*[ask(worker, method, *arguments) for worker in self.workers.values()])

    async def _follow(self, worker: Seated, on_report: Callable[[str, EpisodeReport], None]) -> None:
        while True:
            within_s = self.heartbeat_s + self.silence_s
            report: EpisodeReport | None = await ask(worker, "report", self.heartbeat_s, within_s=within_s)
            if report is None:
                worker = await self._replace_worker(worker)
                continue
            self.completions -= worker.completions
            worker.note(report)
            self.completions += worker.completions
            on_report(worker.name, report)
            self._warn(report.warnings)
            for name, reason in report.broken.items():
                self.replace_engine(name, reason)
            if failure := report.failure or self._error:
                raise failure

    async def _replace_worker(self, lost: Seated) -> Seated:
        """Puts another worker in the place of a lost one -> the other. Raises RunFailed."""
        if self.start_worker is None:
            raise RunFailed(f"{lost.name} works no more: {lost.lost}")
        self.warn(f"{lost.name} is lost, and another episode worker takes its place: {lost.lost}")
        self.on_lost(lost.name)
        self.losses.add(lost.name)
        await self._files.write_rest(lost)
        previous, reasons = lost.name, []
        while len(reasons) < STARTS:
            name, handle = await asyncio.get_running_loop().run_in_executor(None, self.start_worker, previous)
            successor = Seated(name=name, handle=handle, segments=list(lost.segments))
            orders = [*lost.open.values(), *self.held(lost.name)]
            keys = self._adopted.union(order.key for order in orders)
            await self._in_time(successor, take_over(successor, lost, self._known, keys))
            while is_behind(successor, lost, self._known):  # news that came at the very end
                await self._in_time(successor, catch_up(successor, lost, self._known))
            if not successor.lost:
                self._swap(lost, successor)
                self.losses.recover(lost)
                return successor
            previous = name
            reasons.append(f"{name}: {successor.lost}")
        raise RunFailed(f"{lost.name} is lost, and nobody can take its place: {'; '.join(reasons)}")

    async def _in_time(self, successor: Seated, work: Coroutine[Any, Any, None]) -> None:
        """Returns once a new worker has done its part of a takeover, or is lost: it may die or stop meanwhile."""
        taking_over = asyncio.ensure_future(work)
        try:
            if not await any_done([taking_over], self.start_s):
                successor.lose(f"it has not taken over within {self.start_s:g} s (cluster.start_timeout_s)")
            await taking_over  # which ends with the worker's loss
        finally:
            taking_over.cancel()

    async def _wait_for_successor(self) -> None:
        """Waits a moment. Raises the error that has ended `follow`, which starts successors."""
        if self._error is not None:
            raise self._error
        await asyncio.sleep(self.heartbeat_s / 10)

    def _swap(self, lost: Seated, successor: Seated) -> None:
        held = {order.key: order for order in self.held(lost.name)}
        successor.again = lost.again | held.keys()
        del self.workers[lost.name]
        self.workers[successor.name] = successor
        orders = list((lost.open | held).values())
        for order in orders:
            successor.add(order)
        self.completions += successor.completions - lost.completions
        self._calls.start(ask(successor, "sample", orders))

    def _warn(self, lines: list[str]) -> None:
        """Warns once about a problem that several workers report."""
        for line in lines:
            if line not in self._warned:
                self._warned.add(line)
                self.warn(line)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
