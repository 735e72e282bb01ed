"""The ledger of prompts: which are in flight, and which groups a step takes. Pure: calls in, decisions and events out.

A prompt is admitted once and leaves once: taken by a step, or dropped for lack of signal, or because it was given up.
A position of the stream whose problem cannot be sampled, or is not drawn by the curriculum, is skipped: counted, never
admitted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlframe.algorithm.ops import rewards_differ
from rlframe.experience import events
from rlframe.experience.fold import Entry, Fold
from rlframe.types import Attempt, Late, Prompt, Skipped

if TYPE_CHECKING:
    from rlframe.training import GroupRecord


@dataclass(slots=True, kw_only=True)
class Ledger(Fold):
    """Admission and hand-out of prompts. Every event costs the same, however many prompts are in flight.

    Under `late` "wait", no token that a step trains on is more than `max_staleness` versions old: admission is bounded
    by the takes that are left, and `take` waits for prompts that would otherwise become too old. Under "mask" and
    "keep", `take` waits for nothing but enough scored groups, and the caller bounds admission. At `max_staleness` 0 a
    step takes every prompt in the order of admission, whatever the timing.
    """

    dynamic_sampling: bool  # drop groups without signal and admit new prompts instead
    late: Late = "wait"
    has_signal: Callable[[GroupRecord], bool] = rewards_differ
    emit: Callable[[events.Event], None] = lambda event: None  # gets each event once it is applied
    epoch: int = 0  # of the log that the events go to
    _next_take: int = 0  # policy version of the next take, also while that take waits

    def admit(self, prompt_at: Callable[[int], Prompt | Skipped], version: int, limit: int) -> list[Attempt]:
        """Admits at most `limit` prompts: first those that a saved run had in flight, then new ones of the stream.

        Admits none while a whole step's groups are ready, or two steps' groups under "wait". `prompt_at` gives the
        prompt at a position of the stream; an exception leaves that position to the next call. `version`: the oldest
        policy that may sample the prompts.
        """
        room = self._room(version, limit)
        attempts: list[Attempt] = []
        while len(attempts) < room:
            if (attempt := self._admit_next(prompt_at, version)) is not None:
                attempts.append(attempt)
        return attempts

    def record_score(self, key: str, group: GroupRecord) -> bool:
        """Notes the scored group of an attempt. A later group of the attempt replaces the first.

        False: ignored, since the prompt has left or has a later attempt.
        """
        if (entry := self._entries.get(key)) is None:
            return False
        outcome = None if self.curriculum is None else self.curriculum.outcome(group)
        signal = not self.dynamic_sampling or self.has_signal(group)
        event = events.Scored(key=key, location=group.location, signal=signal, outcome=outcome)
        self.apply(event)
        entry.group = group  # before the log, which may refuse the event of a driver that is no longer the run's
        self.emit(event)
        return True

    def drop_without_signal(self) -> list[GroupRecord]:
        """Drops scored groups without signal, under dynamic sampling, and returns them.

        On-policy only once every group is scored, so that the result does not depend on timing.
        """
        if self.max_staleness == 0 and self.open:
            return []
        dropped = sorted(self._without_signal)
        groups = [_group(entry) for entry in dropped]
        for entry in dropped:
            self._note(events.Dropped(key=entry.key, reason="no signal"))
        return groups

    def give_up(self, key: str) -> bool:
        """Drops a prompt that cannot be sampled. False: ignored, since the prompt is scored or has left."""
        if (entry := self._entries.get(key)) is None or entry.scored is not None:
            return False
        self._note(events.Dropped(key=key, reason="given up"))
        return True

    def put_back(self, key: str, group: GroupRecord) -> None:
        """Gives a scored entry that a log restored its group."""
        self._entries[key].group = group

    def reopen(self, key: str) -> None:
        """Forgets a scored group whose body is lost."""
        self._note(events.Reopened(key=key))

    def next_batch(self, count: int, version: int) -> list[events.Scored] | None:
        """The groups that `take` would hand out; None: a step of policy `version` must wait."""
        self._next_take = version
        if self.ready < count or (self.late == "wait" and not self._deadlines.allow_take(version)):
            return None
        return [entry.scored for entry in heapq.nsmallest(count, self._ready) if entry.scored is not None]

    def take(self, count: int, version: int) -> list[GroupRecord] | None:
        """The next `count` scored groups in the order of admission; None: a step of policy `version` must wait."""
        if (batch := self.next_batch(count, version)) is None:
            return None
        keys = [scored.key for scored in batch]
        groups = [_group(self._entries[key]) for key in keys]
        self._note(events.Taken(version=version, keys=tuple(keys)))
        self._next_take = version + 1
        return groups

    def state(self, version: int) -> dict[str, Any]:
        """The part of a checkpoint: the next position, [position, attempt] of every prompt in flight, and counts.

        `version`: of the policy that the checkpoint holds. Prompts that were taken to train later versions are in
        flight still, because a signal came before the step, or a log hands them out again.
        """
        untrained = self.untrained(version)
        in_flight = [[entry.admitted.position, entry.admitted.number] for entry in untrained + self.in_flight]
        curriculum = {} if self.curriculum is None else {"curriculum": self.curriculum.state()}
        return curriculum | {
            "next_position": self._next_position,
            "in_flight": in_flight + [list(pair) for pair in self._interrupted.items()],
            "taken": self.taken - len(untrained),
            "dropped": self.dropped,
            "given_up": self.given_up,
            "skipped": dict(self.skipped),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`: prompts that were in flight are admitted again, as another attempt."""
        nothing = {"next_version": None, "given_up": 0, "in_flight": [], "batches": [], "curriculum": None}
        self.load(nothing | state | {"interrupted": state["in_flight"], "in_flight": []})

    def _admit_next(self, prompt_at: Callable[[int], Prompt | Skipped], version: int) -> Attempt | None:
        """Admits or skips the next position."""
        position, last_attempt = next(iter(self._interrupted.items()), (self._next_position, 0))
        new = position not in self._interrupted
        if new and self.curriculum is not None and not self.curriculum.draws(position):
            self._note(events.Skipped(position=position, reason="curriculum"))
            return None
        prompt = prompt_at(position)
        if isinstance(prompt, Skipped):
            self._note(events.Skipped(position=position, reason=prompt.reason))
            return None
        attempt = Attempt(prompt=prompt, number=last_attempt + 1, version=version)
        self._note(
            events.Admitted(
                position=position,
                prompt_id=prompt.id,
                number=attempt.number,
                version=version,
                order=self.admitted,
                epoch=self.epoch,
            )
        )
        return attempt

    def _note(self, event: events.Event) -> None:
        self.apply(event)
        self.emit(event)

    def _room(self, version: int, limit: int) -> int:
        """Number of prompts that may be admitted now, at most `limit`."""
        # A step that waits for a due prompt leaves groups ready, and meanwhile the engines shall not run empty.
        ready_steps = 2 if self.late == "wait" else 1
        if self.ready >= ready_steps * self.prompts_per_step:
            return 0
        if self.late != "wait":
            return limit
        return min(limit, self._deadlines.room(version + self.max_staleness, max(self._next_take, version)))


def _group(entry: Entry) -> GroupRecord:
    assert entry.group is not None, f"the group of {entry.key} is not read from the log yet"
    return entry.group
