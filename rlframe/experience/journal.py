"""`Journal`: the log of a run's ledger. Writes heads and events, restores the ledger, and hands out batches again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rlframe.errors import RunFailed
from rlframe.experience.events import Event, RefusedEvent, from_values, to_values
from rlframe.record.ledger_log import Epoch, LedgerLog, epochs, read_epochs
from rlframe.record.segments import read_body
from rlframe.types import Prompt

if TYPE_CHECKING:
    from pathlib import Path

    from rlframe.experience.fold import Entry
    from rlframe.experience.ledger import Ledger
    from rlframe.record.frames import Location
    from rlframe.training import GroupRecord
    from rlframe.types import Skipped

FORMAT = 1


class LoggingWorkers(Protocol):
    """Episode workers that keep segments of the log: `rollout/episode_pool.py`."""

    async def open_segments(self, epoch: Path, /) -> None:
        """Lets each worker write into an epoch's folder from now on."""
        ...

    async def flush(self) -> bool:
        """Returns once the disk has all finished groups; False while the groups of a lost worker are read again."""
        ...

    async def adopt(self, ledger: Path, epochs: list[int], keys: list[str], /) -> object:
        """Lets later orders of these keys go on from what the epochs of a log hold of them."""
        ...

    async def recall(self, locations: list[Location], /) -> list[GroupRecord]:
        """Reads whole groups from the log."""
        ...


class NoLog(ValueError):
    """A log from which the ledger cannot be restored. The message says where, and why."""


class Journal:
    """Keeps a ledger's log, and knows which of its batches the learner has to train on again. For the event loop.

    The learner may stand at an older version than the last batch that was taken: after its own death, or after the
    driver's. `next_batch` hands out the batches since that version again, from the bodies in the log.
    """

    def __init__(self, ledger: Ledger, log: LedgerLog, workers: LoggingWorkers) -> None:
        self.ledger = ledger
        self.log = log
        self.workers = workers
        self.step = 0  # of the checkpoint at which the epoch begins
        self.committed = 0  # step of the newest checkpoint that is whole on disk
        self._needed: dict[int, int] = {}  # step of a checkpoint -> the oldest epoch that a run from there needs
        self._replay: deque[list[Entry]] = deque()  # batches to hand out again
        self._unreadable: list[str] = []  # keys of scored groups that a restored log does not hold
        ledger.emit = self._note

    @property
    def batches_left(self) -> int:
        """Batches that remain to be handed out again."""
        return len(self._replay)

    def restore(self, step: int, prompt_at: Callable[[int], Prompt | Skipped]) -> bool:
        """Restores the ledger as the log has it, for a learner that stands at `step`; False where there is no log.

        Raises NoLog, and leaves the ledger as it was, if the log is broken, does not know this step, or is of other
        prompts.
        """
        before = self.ledger.snapshot(0)
        try:
            found = read_epochs(self.log.folder)
            if not found:
                return False
            self._fold(_since(found, step))
            self._check_prompts(prompt_at)
            self._check_batches(step)
            self._unreadable = [entry.key for entry in self.ledger.in_flight if self._fault(entry)]
        except (ValueError, KeyError, TypeError, OSError) as error:
            self.ledger.load(before)
            raise NoLog(str(error)) from error
        self.committed = step
        return True

    async def begin_epoch(self, step: int) -> None:
        """Opens the next epoch, at a driver's start or at the checkpoint of a step."""
        folder = self.log.make_epoch()
        await self.workers.open_segments(folder)
        self.ledger.epoch = self.log.epoch + 1
        head = {"format": FORMAT, "generation": self.log.generation.number, "checkpoint": step}
        self.log.open(head | {"ledger": self.ledger.snapshot(step)})
        admitted = [entry.admitted.epoch for entry in self.ledger.untrained(step) + self.ledger.in_flight]
        self.step = step
        self._needed[step] = min([self.log.epoch, *admitted])
        await self.flush()

    async def resume(self, step: int) -> None:
        """Lets episode workers go on with a restored ledger: its groups come back, and its batches will.

        A group whose body the log does not hold is sampled again from its tokens.
        """
        for key in self._unreadable:
            self.ledger.reopen(key)
        if in_flight := self.ledger.in_flight:
            first = min(entry.admitted.epoch for entry in in_flight)
            earlier = [number for number in epochs(self.log.folder) if first <= number < self.log.epoch]
            await self.workers.adopt(self.log.folder, earlier, [entry.key for entry in in_flight])
        scored = [entry for entry in in_flight if entry.scored is not None]
        for entry, group in zip(scored, await self._recall(scored), strict=True):
            self.ledger.put_back(entry.key, group)
        self.rewind(step)

    def rewind(self, version: int) -> None:
        """Hands out all batches again that were taken to train `version` and later versions.

        Raises RunFailed where the log lacks one of them.
        """
        known = sorted(batch for batch in self.ledger.batches if batch >= version)
        expected = list(range(version, self.ledger.next_version or version))
        if known != expected:
            raise RunFailed(
                f"the learner stands at version {version}, and the log {self.log.folder} holds the batches of versions "
                f"{known}, not {expected}; go on from the newest checkpoint with resume="
            )
        self._replay = deque(self.ledger.batches[batch] for batch in known)

    async def next_batch(self) -> list[GroupRecord]:
        """The next batch to train on again. Raises RunFailed and BrokenFrame."""
        return await self._recall(self._replay.popleft())

    async def secure(self, count: int, version: int) -> bool:
        """True once the bodies of the groups that a take would hand out are on disk; False: the take must wait."""
        while (batch := self.ledger.next_batch(count, version)) is not None:
            if not await self.workers.flush():
                return False
            if self.ledger.next_batch(count, version) == batch:
                return True
        return False

    async def flush(self) -> None:
        """Returns once the disk has all events. Raises RunFailed and Fenced."""
        await asyncio.get_running_loop().run_in_executor(None, self.log.flush)

    def commit(self, step: int) -> None:
        """Deletes epochs that no run needs any more, now that the checkpoint of a step is whole. For any thread."""
        self.committed = step
        if (needed := self._needed.get(step)) is not None:
            self.log.delete_before(needed)
        for earlier in [known for known in list(self._needed) if known <= step]:
            del self._needed[earlier]

    def close(self) -> None:
        self.log.close()

    def _note(self, event: Event) -> None:
        self.log.append(to_values(event))

    def _fold(self, found: list[Epoch]) -> None:
        """Applies the events of epochs to the state of the first one's head. Each later head must agree."""
        for epoch in found:
            if epoch is found[0]:
                self.ledger.load(epoch.head["ledger"])
            elif _compared(epoch.head["ledger"]) != _compared(self.ledger.snapshot(0)):
                raise RefusedEvent(f"{epoch.file}: its head does not agree with the events before it")
            for number, values in enumerate(epoch.events, start=1):
                try:
                    self.ledger.apply(from_values(values))
                except RefusedEvent as error:
                    raise RefusedEvent(f"{epoch.file}, event {number}: {error}") from error

    def _check_prompts(self, prompt_at: Callable[[int], Prompt | Skipped]) -> None:
        for entry in self.ledger.in_flight:
            prompt = prompt_at(entry.admitted.position)
            if not isinstance(prompt, Prompt) or prompt.id != entry.admitted.prompt_id:
                raise NoLog(
                    f"prompt {entry.admitted.prompt_id} is in flight, and the stream has {prompt.id} in its place: "
                    "prompts.train has changed"
                )

    def _check_batches(self, step: int) -> None:
        if fault := next(filter(None, map(self._fault, self.ledger.untrained(step))), None):
            raise NoLog(fault)

    def _fault(self, entry: Entry) -> str | None:
        """The reason why the body of a scored group cannot be read; None where it can, and of an open group."""
        if entry.scored is None:
            return None
        if entry.scored.location is None:
            return f"the log does not hold the group of {entry.key}"
        try:
            read_body(self.log.folder, entry.scored.location)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    async def _recall(self, entries: list[Entry]) -> list[GroupRecord]:
        """Scored groups, read from the log by episode workers."""
        locations = [entry.scored.location for entry in entries if entry.scored is not None]
        return await self.workers.recall([location for location in locations if location is not None])


def _since(found: list[Epoch], step: int) -> list[Epoch]:
    """The epochs from the newest one whose head is of the checkpoint of `step`."""
    if (problem := next((epoch for epoch in found if epoch.head.get("format") != FORMAT), None)) is not None:
        raise NoLog(
            f"{problem.file} has format {problem.head.get('format')}, and this version of rlframe reads {FORMAT}"
        )
    starts = [index for index, epoch in enumerate(found) if epoch.head["checkpoint"] == step]
    if not starts:
        raise NoLog(f"the log {found[0].file.parent.parent} does not know the checkpoint of step {step}")
    return found[starts[-1] :]


def _compared(snapshot: dict[str, Any]) -> dict[str, Any]:
    """The part of a snapshot that depends on events alone; the curriculum depends on settings too."""
    return {key: value for key, value in snapshot.items() if key not in ("batches", "curriculum")}
