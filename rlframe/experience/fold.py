"""`Fold`: the state of a run's prompts as the fold of events. Pure: the same code for live events and for a log's."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlframe.experience.deadlines import Deadlines
from rlframe.experience.events import (
    Admitted,
    Dropped,
    Event,
    RefusedEvent,
    Reopened,
    Scored,
    Skipped,
    Taken,
    from_values,
    to_values,
)

if TYPE_CHECKING:
    from rlframe.experience.curriculum import Curriculum
    from rlframe.training import GroupRecord


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """A prompt that was admitted, in flight or in a batch."""

    admitted: Admitted
    scored: Scored | None = None  # set once every trajectory has its verdicts
    group: GroupRecord | None = None  # likewise; None in an entry that a log restores, until its body is read again

    @property
    def key(self) -> str:
        return self.admitted.key

    def __lt__(self, other: Entry) -> bool:
        """Entries of older versions are taken first, and entries of the same version in the order of admission."""
        mine, others = self.admitted, other.admitted
        return (mine.version, mine.order) < (others.version, others.order)


@dataclass(slots=True, kw_only=True)
class Fold:
    """Prompts in flight, batches that steps took, and counts. `apply` alone changes them.

    Always: admitted == len(in_flight) + taken + dropped. Positions of the stream up to the next one are admitted,
    skipped, or interrupted (in flight in a saved run, and not admitted again yet).
    """

    prompts_per_step: int
    max_staleness: int
    curriculum: Curriculum | None = None  # None: every problem is drawn in every epoch
    taken: int = 0
    dropped: int = 0  # for any reason
    given_up: int = 0  # of the dropped
    skipped: Counter[str] = field(default_factory=Counter)  # positions by reason
    batches: dict[int, list[Entry]] = field(default_factory=dict)  # policy version -> prompts taken to train it
    next_version: int | None = None  # of the policy that the next batch trains; None: of any
    _entries: dict[str, Entry] = field(default_factory=dict)  # by the attempt's key, in the order of admission
    _ready: list[Entry] = field(default_factory=list)  # heap of scored entries that a step may take
    _without_signal: list[Entry] = field(default_factory=list)  # scored entries that dynamic sampling will drop
    _deadlines: Deadlines = field(init=False)
    _next_position: int = 0
    _interrupted: dict[int, int] = field(default_factory=dict)  # position -> last attempt in a saved run

    def __post_init__(self) -> None:
        self._deadlines = Deadlines(self.prompts_per_step)

    @property
    def admitted(self) -> int:
        return len(self._entries) + self.taken + self.dropped

    @property
    def replaced(self) -> int:
        """Groups without signal, which dynamic sampling has dropped."""
        return self.dropped - self.given_up

    @property
    def in_flight(self) -> list[Entry]:
        """Prompts that were admitted and have not left, in the order of admission."""
        return list(self._entries.values())

    @property
    def ready(self) -> int:
        """Scored groups that a step may take."""
        return len(self._ready)

    @property
    def open(self) -> int:
        """Prompts in flight whose group is not scored yet."""
        return len(self._entries) - len(self._ready) - len(self._without_signal)

    def states(self) -> dict[str, int]:
        """`PROMPT_STATES` -> prompts. For any thread."""
        return {
            "open": self.open,
            "ready": self.ready,
            "no_signal": len(self._without_signal),
            "taken": self.taken,
            "dropped": self.replaced,
            "given_up": self.given_up,
        }

    def apply(self, event: Event) -> None:
        """Changes the state. Raises RefusedEvent, with the state as before, where the event cannot follow."""
        match event:
            case Admitted():
                self._admit(event)
            case Skipped():
                self._skip(event)
            case Scored():
                self._score(event)
            case Reopened():
                self._reopen(event)
            case Dropped():
                self._drop(event)
            case Taken():
                self._take(event)

    def untrained(self, version: int) -> list[Entry]:
        """Prompts that steps have taken to train policy `version` and later ones, in the order of the batches."""
        return [entry for batch, entries in self.batches.items() if batch >= version for entry in entries]

    def forget(self, version: int) -> None:
        """Forgets batches that a checkpoint of `version` has trained on."""
        for older in [batch for batch in self.batches if batch < version]:
            del self.batches[older]

    def snapshot(self, version: int) -> dict[str, Any]:
        """The state as JSON values; of the batches those that policy `version` and later ones have to train on."""
        return {
            "next_position": self._next_position,
            "next_version": self.next_version,
            "taken": self.taken,
            "dropped": self.dropped,
            "given_up": self.given_up,
            "skipped": dict(self.skipped),
            "curriculum": None if self.curriculum is None else self.curriculum.state(),
            "interrupted": [list(pair) for pair in self._interrupted.items()],
            "in_flight": [_values(entry) for entry in self._entries.values()],
            "batches": [
                [batch, [_values(entry) for entry in entries]]
                for batch, entries in self.batches.items()
                if batch >= version
            ],
        }

    def load(self, snapshot: dict[str, Any]) -> None:
        """Replaces the state by that of a snapshot. Scored entries have no group yet."""
        self._next_position, self.next_version = snapshot["next_position"], snapshot["next_version"]
        self.taken, self.dropped, self.given_up = snapshot["taken"], snapshot["dropped"], snapshot["given_up"]
        self.skipped = Counter(snapshot["skipped"])
        self._interrupted = dict(snapshot["interrupted"])
        self.batches = {batch: [_entry(values) for values in entries] for batch, entries in snapshot["batches"]}
        self._entries, self._ready, self._without_signal = {}, [], []
        self._deadlines = Deadlines(self.prompts_per_step)
        for entry in map(_entry, snapshot["in_flight"]):
            self._entries[entry.key] = entry
            self._deadlines.admit(self._due(entry))
            if entry.scored is not None:
                self._enqueue(entry)
        if self.curriculum is not None and snapshot["curriculum"] is not None:
            self.curriculum.restore(snapshot["curriculum"])

    def _admit(self, event: Admitted) -> None:
        self._check_position(event)
        attempt = self._interrupted.get(event.position, 0) + 1
        if (event.order, event.number) != (self.admitted, attempt) or event.key in self._entries:
            raise RefusedEvent(
                f"{event} cannot follow: the next admission is number {self.admitted}, attempt {attempt}"
            )
        self._leave_position(event.position)
        entry = Entry(admitted=event)
        self._entries[event.key] = entry
        self._deadlines.admit(self._due(entry))

    def _skip(self, event: Skipped) -> None:
        self._check_position(event)
        self._leave_position(event.position)
        self.skipped[event.reason] += 1
        if self.curriculum is not None and event.reason != "curriculum":
            self.curriculum.leave_out(event.position)

    def _check_position(self, event: Admitted | Skipped) -> None:
        if event.position not in self._interrupted and event.position != self._next_position:
            raise RefusedEvent(f"{event} cannot follow: the next position is {self._next_position}")

    def _leave_position(self, position: int) -> None:
        """Leaves a position of the stream, or of the interrupted ones, behind."""
        if self._interrupted.pop(position, None) is None:
            self._next_position += 1
            if self.curriculum is not None:
                self.curriculum.reach(position)

    def _score(self, event: Scored) -> None:
        entry = self._in_flight(event)
        if entry.scored is not None:
            self._dequeue(entry)
            self._deadlines.reopen(self._due(entry))
        entry.scored, entry.group = event, None
        self._enqueue(entry)

    def _reopen(self, event: Reopened) -> None:
        entry = self._in_flight(event)
        if entry.scored is None:
            raise RefusedEvent(f"{event} cannot follow: the group is not scored")
        self._dequeue(entry)
        self._deadlines.reopen(self._due(entry))
        entry.scored = entry.group = None

    def _drop(self, event: Dropped) -> None:
        entry = self._in_flight(event)
        expected = "given up" if entry.scored is None else "taken" if entry.scored.signal else "no signal"
        if event.reason != expected:
            raise RefusedEvent(f"{event} cannot follow: the prompt can only be {expected}")
        if entry.scored is None:
            self._deadlines.score(self._due(entry))
            self.given_up += 1
        else:
            self._without_signal.remove(entry)
        self.dropped += 1
        self._leave(entry)

    def _take(self, event: Taken) -> None:
        entries = heapq.nsmallest(len(event.keys), self._ready)
        if event.version != (event.version if self.next_version is None else self.next_version):
            raise RefusedEvent(f"{event} cannot follow: the next step trains version {self.next_version}")
        if not entries or tuple(entry.key for entry in entries) != event.keys:
            raise RefusedEvent(f"{event} cannot follow: ready are {[entry.key for entry in entries]}")
        for entry in entries:
            heapq.heappop(self._ready)
            self._leave(entry)
        self.taken += len(entries)
        self.batches[event.version] = entries
        self.next_version = event.version + 1

    def _in_flight(self, event: Scored | Reopened | Dropped) -> Entry:
        if (entry := self._entries.get(event.key)) is None:
            raise RefusedEvent(f"{event} cannot follow: the prompt is not in flight under this attempt")
        return entry

    def _enqueue(self, entry: Entry) -> None:
        assert entry.scored is not None
        self._deadlines.score(self._due(entry))
        if entry.scored.signal:
            heapq.heappush(self._ready, entry)
        else:
            self._without_signal.append(entry)

    def _dequeue(self, entry: Entry) -> None:
        if entry in self._without_signal:
            self._without_signal.remove(entry)
        else:
            self._ready.remove(entry)
            heapq.heapify(self._ready)

    def _leave(self, entry: Entry) -> None:
        """Removes a prompt. The curriculum notes the outcome; the group stays with the caller alone."""
        del self._entries[entry.key]
        self._deadlines.leave(self._due(entry))
        if self.curriculum is not None:
            self.curriculum.note(entry.admitted.position, entry.scored and entry.scored.outcome)
        entry.group = None

    def _due(self, entry: Entry) -> int:
        """The last policy version that may train on a prompt's tokens."""
        return entry.admitted.version + self.max_staleness


def _values(entry: Entry) -> list[Any]:
    return [to_values(entry.admitted), entry.scored and to_values(entry.scored)]


def _entry(values: list[Any]) -> Entry:
    admitted, scored = (value and from_values(value) for value in values)
    assert isinstance(admitted, Admitted) and (scored is None or isinstance(scored, Scored))
    return Entry(admitted=admitted, scored=scored)
