"""`EpisodePool`: spreads orders over episode workers, and follows their reports."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from rlframe.actors.calls import gather
from rlframe.actors.replicas import Handle
from rlframe.actors.tasks import Tasks
from rlframe.errors import RunFailed
from rlframe.record import rollouts
from rlframe.reward.pool import merge_metrics
from rlframe.rollout.messages import EngineSeat, EpisodeReport, Order
from rlframe.types import ScoredGroup

if TYPE_CHECKING:
    from rlframe.training import GroupRecord, RatedGroup

HEARTBEAT_S = 1.0  # longest time between two reports of a worker
CLOSE_S = 60.0  # for workers to write their files


@dataclass(slots=True, kw_only=True, eq=False)
class Seated:
    """An episode worker, its engines, and the completions that it has not finished."""

    name: str
    handle: Handle
    engines: dict[str, int] = field(default_factory=dict)  # name -> slots
    slots: int = 0  # of all engines
    unreported: deque[int] = field(default_factory=deque)  # completions of each order that the report does not know
    completions: int = 0  # that are not finished, as far as the driver knows
    orders: int = 0  # sent since the start
    metrics: dict[str, float] = field(default_factory=dict)  # of the rewards

    def join(self, engine: str, slots: int) -> None:
        self.engines[engine] = slots
        self.slots += slots

    def leave(self, engine: str) -> None:
        self.slots -= self.engines.pop(engine)

    def add(self, order: Order) -> None:
        self.orders += 1
        self.unreported.append(order.sampling.completions)
        self.completions += order.sampling.completions

    def note(self, report: EpisodeReport) -> None:
        while len(self.unreported) > self.orders - report.orders:
            self.unreported.popleft()
        self.completions = report.completions + sum(self.unreported)
        self.metrics = report.metrics


class EpisodePool:
    """Typed handle over episode workers, which `cluster/` starts and ends. For one event loop."""

    def __init__(
        self, workers: dict[str, tuple[Handle, list[EngineSeat]]], *, ahead: float, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        """`workers`: name -> handle, and the engines that the worker was started with. `ahead`: as of the workers."""
        self.workers = {name: Seated(name=name, handle=handle) for name, (handle, _) in workers.items()}
        for name, (_, seats) in workers.items():
            for seat in seats:
                self.workers[name].join(seat.name, seat.slots)
        self.completions = 0  # of all workers, that are not finished, as far as the driver knows
        self.ahead = ahead
        self.heartbeat_s = heartbeat_s
        # Ends a broken engine and starts another: name, reason. Set by the role that starts engines.
        self.replace_engine: Callable[[str, str], None] | None = None
        self._error: BaseException | None = None  # of a call that nobody awaits
        self._calls = Tasks(self._fail)

    def has_room(self) -> bool:
        """True while a worker has fewer unfinished completions than slots, and `ahead` of the slots beyond."""
        return any(worker.completions < worker.slots * (1 + self.ahead) for worker in self.workers.values())

    def assign(self, orders: list[Order]) -> None:
        """Gives each order to the worker with the fewest unfinished completions for each slot; does not wait."""
        shares: defaultdict[str, list[Order]] = defaultdict(list)
        for order in orders:
            worker = min(self.workers.values(), key=_busy)
            worker.add(order)
            self.completions += order.sampling.completions
            shares[worker.name].append(order)
        for name, share in shares.items():
            self._calls.start(self.workers[name].handle.sample.remote(share))

    async def follow(self, on_report: Callable[[str, EpisodeReport], None]) -> None:
        """Hands on each report with the worker's name, for ever. Raises the failure that a report tells."""
        polls = [asyncio.ensure_future(self._follow(worker, on_report)) for worker in self.workers.values()]
        try:
            await asyncio.gather(*polls)
        finally:
            for poll in polls:
                poll.cancel()

    async def fetch(self, record: GroupRecord) -> ScoredGroup:
        """The whole group of a record."""
        return await record.body if inspect.isawaitable(record.body) else record.body

    async def write(self, step: int, folder: Path, groups: Sequence[GroupRecord], rated: Sequence[RatedGroup]) -> None:
        """Lets each worker write its groups of a step into `folder`; does not wait for the files.

        A failed write ends the run, by a report or by `close`. `rated`: the same groups in order, with advantages.
        """
        shares: defaultdict[str, list[tuple[Any, Any]]] = defaultdict(list)
        for record, rated_group in zip(groups, rated, strict=True):
            shares[record.worker].append((record.body, rated_group.advantages))
        alone = len(self.workers) == 1
        files = {name: rollouts.part(folder, step, None if alone else name) for name in shares}
        await asyncio.get_running_loop().run_in_executor(None, rollouts.prepare, folder, step, files.values())
        await asyncio.gather(
            *[self.workers[name].handle.write.remote(step, files[name], share) for name, share in shares.items()]
        )

    async def announce(self, version: int) -> None:
        """Tells each worker that the learner has published a version; returns once all of them know."""
        await asyncio.gather(*[worker.handle.announce.remote(version) for worker in self.workers.values()])

    async def join_engine(self, seat: EngineSeat) -> None:
        """Gives an engine that serves to the worker with the fewest slots."""
        worker = min(self.workers.values(), key=lambda worker: worker.slots)
        worker.join(seat.name, seat.slots)
        await worker.handle.join_engine.remote(seat)

    async def leave_engine(self, name: str) -> None:
        """Takes an engine out, if a worker has it: other engines of the worker sample its unfinished completions."""
        for worker in self.workers.values():
            if name in worker.engines:
                worker.leave(name)
                await worker.handle.leave_engine.remote(name)

    async def check_folder(self, folder: Path) -> None:
        """Raises RunFailed where a worker's machine does not see a folder of this machine."""
        with NamedTemporaryFile(dir=folder, prefix=".shared-") as marker:
            calls = [worker.handle.sees.remote(Path(marker.name)) for worker in self.workers.values()]
            seen = dict(zip(self.workers, await asyncio.gather(*calls), strict=True))
        if blind := [name for name, sees in seen.items() if not sees]:
            raise RunFailed(
                f"run_dir: the machines of {', '.join(blind)} do not see {folder}, which is on the driver's machine, "
                "and episode workers write rollouts into it; use a folder that all machines share, or "
                "rollout.episode_workers=0"
            )

    def metrics(self) -> dict[str, float]:
        """Metrics of the rewards, by the latest reports."""
        return merge_metrics(worker.metrics for worker in self.workers.values())

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Waits until the workers have written all files, and ends their work; a second call does nothing.

        Raises RunFailed for a failed write, and Stalled.
        """
        workers, self.workers = self.workers, {}
        await self._calls.cancel()
        calls = {name: worker.handle.close.remote() for name, worker in workers.items()}
        await gather(calls, "write its rollouts", timeout_s, "cluster.stall_timeout_s")

    async def _follow(self, worker: Seated, on_report: Callable[[str, EpisodeReport], None]) -> None:
        while True:
            report: EpisodeReport = await worker.handle.report.remote(self.heartbeat_s)
            self.completions -= worker.completions
            worker.note(report)
            self.completions += worker.completions
            on_report(worker.name, report)
            for name, reason in report.broken.items():
                self._replace(name, reason)
            if failure := report.failure or self._error:
                raise failure

    def _replace(self, name: str, reason: str) -> None:
        """Replaces an engine from a thread, since an engine may take minutes to start."""
        if self.replace_engine is not None:
            running = asyncio.get_running_loop().run_in_executor(None, self.replace_engine, name, reason)
            self._calls.start(running)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error


def _busy(worker: Seated) -> float:
    """Unfinished completions for each slot."""
    return worker.completions / worker.slots if worker.slots else float("inf")
