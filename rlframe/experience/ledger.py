"""The ledger of prompts: which are in flight, and which groups a step takes. Pure: events in, decisions out.

A prompt is admitted once and leaves once: taken by a step, or dropped for lack of signal. A position of the stream
whose problem cannot be sampled, or is not drawn by the curriculum, is skipped: counted, never admitted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlframe.algorithm.ops import rewards_differ
from rlframe.experience.deadlines import Deadlines
from rlframe.types import Attempt, Late, Prompt, Skipped

if TYPE_CHECKING:
    from rlframe.experience.curriculum import Curriculum
    from rlframe.training import GroupRecord


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """A prompt in flight."""

    position: int  # in the prompt stream
    order: int  # of admission: 0, 1, ...
    attempt: Attempt
    group: GroupRecord | None = None  # set once every trajectory has its verdicts

    def __lt__(self, other: Entry) -> bool:
        """Entries of older versions are taken first, and entries of the same version in the order of admission."""
        return (self.attempt.version, self.order) < (other.attempt.version, other.order)


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Admission and hand-out of prompts. Every event costs the same, however many prompts are in flight.

    Under `late` "wait", no token that a step trains on is more than `max_staleness` versions old: admission is bounded
    by the takes that are left, and `take` waits for prompts that would otherwise become too old. Under "mask" and
    "keep", `take` waits for nothing but enough scored groups, and the caller bounds admission. At `max_staleness` 0 a
    step takes every prompt in the order of admission, whatever the timing.

    Always: admitted == len(in_flight) + taken + dropped. Positions of the stream up to the next one are admitted,
    skipped, or interrupted (in flight in a saved run, and not admitted again yet).
    """

    prompts_per_step: int
    max_staleness: int
    dynamic_sampling: bool  # drop groups without signal and admit new prompts instead
    late: Late = "wait"
    has_signal: Callable[[GroupRecord], bool] = rewards_differ
    curriculum: Curriculum | None = None  # None: every problem is drawn in every epoch
    admitted: int = 0
    taken: int = 0
    dropped: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # positions by reason
    _entries: dict[str, Entry] = field(default_factory=dict)  # by the attempt's key, in the order of admission
    _ready: list[Entry] = field(default_factory=list)  # heap of scored entries that a step may take
    _without_signal: list[Entry] = field(default_factory=list)  # scored entries that dynamic sampling will drop
    _deadlines: Deadlines = field(init=False)
    _next_take: int = 0  # policy version of the next take
    _last_taken: list[tuple[int, int]] = field(default_factory=list)  # (position, attempt) of the last take
    _next_position: int = 0
    _interrupted: list[tuple[int, int]] = field(default_factory=list)  # (position, last attempt) in a saved run

    def __post_init__(self) -> None:
        self._deadlines = Deadlines(self.prompts_per_step)

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

    def admit(self, prompt_at: Callable[[int], Prompt | Skipped], version: int, limit: int) -> list[Attempt]:
        """Admits at most `limit` prompts: first those that a saved run had in flight, then new ones of the stream.

        Admits none while a whole step's groups are ready, or two steps' groups under "wait". `prompt_at` gives the
        prompt at a position of the stream; an exception leaves the ledger unchanged. `version`: the oldest policy that
        may sample the prompts.
        """
        room = self._room(version, limit)
        resumed, next_position = 0, self._next_position
        entries: list[Entry] = []
        skipped: Counter[str] = Counter()
        while len(entries) < room:
            if resumed < len(self._interrupted):
                position, last_attempt = self._interrupted[resumed]
                resumed += 1
            else:
                position, last_attempt = next_position, 0
                next_position += 1
                if self.curriculum is not None and not self.curriculum.draws(position):
                    skipped["curriculum"] += 1
                    continue
            prompt = prompt_at(position)
            if isinstance(prompt, Skipped):
                skipped[prompt.reason] += 1
                if self.curriculum is not None:
                    self.curriculum.leave_out(position)
                continue
            attempt = Attempt(prompt=prompt, number=last_attempt + 1, version=version)
            entries.append(Entry(position=position, order=self.admitted + len(entries), attempt=attempt))
        del self._interrupted[:resumed]
        self._next_position = next_position
        for entry in entries:
            self._entries[entry.attempt.key] = entry
            self._deadlines.admit(self._due(entry))
        self.admitted += len(entries)
        self.skipped += skipped
        return [entry.attempt for entry in entries]

    def record_score(self, key: str, group: GroupRecord) -> bool:
        """Notes the scored group of an attempt. False: ignored, since the prompt has left or has a later attempt."""
        entry = self._entries.get(key)
        if entry is None or entry.group is not None:
            return False
        entry.group = group
        self._deadlines.score(self._due(entry))
        if self.dynamic_sampling and not self.has_signal(group):
            self._without_signal.append(entry)
        else:
            heapq.heappush(self._ready, entry)
        return True

    def drop_without_signal(self) -> list[GroupRecord]:
        """Drops scored groups without signal, under dynamic sampling, and returns them.

        On-policy only once every group is scored, so that the result does not depend on timing.
        """
        if self.max_staleness == 0 and self.open:
            return []
        dropped = [self._leave(entry) for entry in sorted(self._without_signal)]
        self._without_signal = []
        self.dropped += len(dropped)
        return dropped

    def take(self, count: int, version: int) -> list[GroupRecord] | None:
        """The next `count` scored groups in the order of admission; None: a step of policy `version` must wait."""
        self._next_take = version
        if self.ready < count or (self.late == "wait" and not self._deadlines.allow_take(version)):
            return None
        self._next_take = version + 1
        self.taken += count
        entries = [heapq.heappop(self._ready) for _ in range(count)]
        self._last_taken = [(entry.position, entry.attempt.number) for entry in entries]
        return [self._leave(entry) for entry in entries]

    def state(self, version: int) -> dict[str, Any]:
        """The part of a checkpoint: the next position, [position, attempt] of every prompt in flight, and counts.

        `version`: of the policy that the checkpoint holds. Prompts that were taken to train its next version are in
        flight still, because a signal came before the step.
        """
        untrained = self._last_taken if version < self._next_take else []
        in_flight = [(entry.position, entry.attempt.number) for entry in self.in_flight] + self._interrupted
        curriculum = {} if self.curriculum is None else {"curriculum": self.curriculum.state()}
        return curriculum | {
            "next_position": self._next_position,
            "in_flight": [list(pair) for pair in untrained + in_flight],
            "taken": self.taken - len(untrained),
            "dropped": self.dropped,
            "skipped": dict(self.skipped),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`: prompts that were in flight are admitted again, as another attempt."""
        self._next_position = state["next_position"]
        self._interrupted = [(position, number) for position, number in state["in_flight"]]
        self.taken, self.dropped = state["taken"], state["dropped"]
        self.admitted = self.taken + self.dropped
        self.skipped = Counter(state["skipped"])
        if self.curriculum is not None and "curriculum" in state:
            self.curriculum.restore(state["curriculum"])

    def _room(self, version: int, limit: int) -> int:
        """Number of prompts that may be admitted now, at most `limit`."""
        # A step that waits for a due prompt leaves groups ready, and meanwhile the engines shall not run empty.
        ready_steps = 2 if self.late == "wait" else 1
        if self.ready >= ready_steps * self.prompts_per_step:
            return 0
        if self.late != "wait":
            return limit
        return min(limit, self._deadlines.room(version + self.max_staleness, max(self._next_take, version)))

    def _due(self, entry: Entry) -> int:
        """The last policy version that may train on a prompt's tokens."""
        return entry.attempt.version + self.max_staleness

    def _leave(self, entry: Entry) -> GroupRecord:
        """Removes a scored entry -> its group. The curriculum notes the outcome."""
        assert entry.group is not None
        del self._entries[entry.attempt.key]
        self._deadlines.leave(self._due(entry))
        if self.curriculum is not None:
            self.curriculum.note(entry.position, entry.group)
        return entry.group
