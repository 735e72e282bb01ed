"""`Seated`: an episode worker as the driver sees it, with all that a successor needs; and `ask`, which calls it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.actors.pings import any_done
from rlframe.rollout.death import cause_of_death
from rlframe.rollout.messages import EngineSeat, EpisodeReport, Order

if TYPE_CHECKING:
    from rlframe.actors.replicas import Handle
    from rlframe.record.frames import Location
    from rlframe.record.rollouts import Advantage


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFile:
    """A file of rollouts that a worker was asked to write."""

    step: int
    file: Path
    groups: list[tuple[Location, Sequence[Advantage]]]  # empty in a run without a log


@dataclass(slots=True, kw_only=True, eq=False)
class Seated:
    """An episode worker, its engines, and its work as far as the driver knows."""

    name: str
    handle: Handle
    engines: dict[str, EngineSeat] = field(default_factory=dict)  # by name
    slots: int = 0  # of all engines
    open: dict[str, Order] = field(default_factory=dict)  # by key: orders without a finished group
    again: set[str] = field(default_factory=set)  # keys of groups that a predecessor had finished, and that are not yet
    segments: list[Path] = field(default_factory=list)  # of the log: its own and its predecessors', in order of time
    completions: int = 0  # that are not finished
    orders: int = 0  # sent since the start
    unreported: deque[int] = field(default_factory=deque)  # completions of each order that the report does not know
    files: int = 0  # of rollouts, sent since the start
    unwritten: deque[RolloutFile] = field(default_factory=deque)
    metrics: dict[str, float] = field(default_factory=dict)  # of the rewards
    late: int = 0  # ignored answers of engines
    epoch: Path | None = None  # folder of the segment that it writes
    version: int = 0  # newest one that it was told of
    lost: str = ""  # reason, once the worker is dead or silent
    _loss: asyncio.Future[None] | None = None  # ends with `lose`; belongs to the event loop that asked first

    @property
    def loss(self) -> asyncio.Future[None]:
        if self._loss is None:
            self._loss = asyncio.get_running_loop().create_future()
        return self._loss

    def lose(self, reason: str) -> None:
        """Notes that the worker is dead or silent; only the first reason counts."""
        if not self.lost:
            self.lost = reason
            self.loss.set_result(None)

    def join(self, seat: EngineSeat) -> None:
        self.engines[seat.name] = seat
        self.slots += seat.slots

    def leave(self, engine: str) -> None:
        self.slots -= self.engines.pop(engine).slots

    def add(self, order: Order) -> None:
        self.open[order.key] = order
        self.orders += 1
        self.unreported.append(order.sampling.completions)
        self.completions += order.sampling.completions

    def add_file(self, rollouts: RolloutFile) -> None:
        self.files += 1
        self.unwritten.append(rollouts)

    def note(self, report: EpisodeReport) -> None:
        while len(self.unreported) > self.orders - report.orders:
            self.unreported.popleft()
        while len(self.unwritten) > self.files - report.written:
            self.unwritten.popleft()
        for key in [finished.key for finished in report.finished] + list(report.given_up):
            self.open.pop(key, None)
            self.again.discard(key)
        self.completions = report.completions + sum(self.unreported)
        self.metrics = report.metrics
        self.late = report.late

    @property
    def busy(self) -> float:
        """Unfinished completions for each slot."""
        return self.completions / self.slots if self.slots else float("inf")


def ask(worker: Seated, method: str, *arguments: Any, within_s: float = math.inf) -> Coroutine[Any, Any, Any]:
    """Starts a call of a worker's method now -> its result, or None: the worker is lost, or found dead or silent.

    A lost worker needs no call: its successor learns at its start what the call would have told.
    """
    return _answer(worker, None if worker.lost else getattr(worker.handle, method).remote(*arguments), within_s)


async def _answer(worker: Seated, started: Awaitable[Any] | None, within_s: float) -> Any:
    if started is None:
        return None
    call = asyncio.ensure_future(started)
    try:
        if not await any_done([call, worker.loss], within_s):
            worker.lose(f"it has not answered for {within_s:g} s")
        return call.result() if call.done() else None
    except Exception as error:
        if (cause := cause_of_death(error)) is None:
            raise
        worker.lose(cause)
        return None
    finally:
        call.cancel()
