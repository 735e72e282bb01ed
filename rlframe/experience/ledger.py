"""The ledger of prompts: which are in flight, and which groups a step takes. Pure: events in, decisions out.

A prompt is admitted once and leaves once: taken by a step, or dropped for lack of signal. A position of the stream
whose problem cannot be sampled, or is not drawn by the curriculum, is skipped: counted, never admitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlframe.algorithm.ops import rewards_differ
from rlframe.experience.curriculum import Curriculum
from rlframe.training import GroupRecord
from rlframe.types import Attempt, Prompt, Skipped


@dataclass(slots=True, kw_only=True)
class Entry:
    """A prompt in flight."""

    position: int  # in the prompt stream
    attempt: Attempt
    group: GroupRecord | None = None  # set once every trajectory has its verdicts


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Admission and hand-out of prompts under a bound on staleness.

    At most `(1 + max_staleness) * prompts_per_step` prompts are in flight. `take` waits for prompts that would
    otherwise become too stale and fills up with whatever is scored, so no token that a step trains on is more than
    `max_staleness` versions old. At 0 a step takes every prompt in the order of admission, whatever the timing.

    Always: admitted == len(in_flight) + taken + dropped. Positions of the stream up to the next one are admitted,
    skipped, or interrupted (in flight in a saved run, and not admitted again yet).
    """

    prompts_per_step: int
    max_staleness: int
    dynamic_sampling: bool  # drop groups without signal and admit new prompts instead
    has_signal: Callable[[GroupRecord], bool] = rewards_differ
    curriculum: Curriculum | None = None  # None: every problem is drawn in every epoch
    in_flight: list[Entry] = field(default_factory=list)  # in the order of admission
    admitted: int = 0
    taken: int = 0
    dropped: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # positions by reason
    _next_position: int = 0
    _interrupted: list[tuple[int, int]] = field(default_factory=list)  # (position, last attempt) in a saved run

    def admit(self, prompt_at: Callable[[int], Prompt | Skipped], version: int) -> list[Attempt]:
        """Fills the ledger: first prompts that a saved run had in flight, then new prompts of the stream.

        `prompt_at` gives the prompt at a position of the stream; an exception leaves the ledger unchanged.
        `version`: of the policy that will sample the prompts.
        """
        room = (1 + self.max_staleness) * self.prompts_per_step - len(self.in_flight)
        interrupted, next_position = self._interrupted.copy(), self._next_position
        entries: list[Entry] = []
        skipped: Counter[str] = Counter()
        while len(entries) < room:
            if interrupted:
                position, last_attempt = interrupted.pop(0)
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
            entries.append(Entry(position=position, attempt=attempt))
        self._interrupted, self._next_position = interrupted, next_position
        self.in_flight += entries
        self.admitted += len(entries)
        self.skipped += skipped
        return [entry.attempt for entry in entries]

    def record_score(self, attempt: Attempt, group: GroupRecord) -> bool:
        """Notes the scored group of an attempt. False: ignored, since the prompt has left or has a later attempt."""
        for entry in self.in_flight:
            if entry.attempt.prompt.id == attempt.prompt.id and entry.attempt.number == attempt.number:
                entry.group = group
                return True
        return False

    def drop_without_signal(self) -> list[GroupRecord]:
        """Drops scored groups without signal, under dynamic sampling, and returns them.

        On-policy only once every group is scored, so that the result does not depend on timing.
        """
        unscored = any(entry.group is None for entry in self.in_flight)
        if not self.dynamic_sampling or (self.max_staleness == 0 and unscored):
            return []
        dropped = self._hand_out(lambda group: not self.has_signal(group), len(self.in_flight))
        self.dropped += len(dropped)
        return dropped

    def take(self, count: int, version: int) -> list[GroupRecord] | None:
        """The next `count` scored groups in the order of admission; None: a step of policy `version` must wait."""
        scored = sum(entry.group is not None for entry in self.in_flight)
        if scored < count or not self._meets_deadlines(count, version):
            return None
        self.taken += count
        return self._hand_out(lambda _: True, count)

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint: the next position, [position, attempt] of every prompt in flight, and counts."""
        in_flight = [(entry.position, entry.attempt.number) for entry in self.in_flight] + self._interrupted
        curriculum = {} if self.curriculum is None else {"curriculum": self.curriculum.state()}
        return curriculum | {
            "next_position": self._next_position,
            "in_flight": [list(pair) for pair in in_flight],
            "taken": self.taken,
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

    def _hand_out(self, accepts: Callable[[GroupRecord], bool], count: int) -> list[GroupRecord]:
        """Removes the first `count` scored groups that `accepts` is true of. The curriculum notes their outcomes."""
        groups: list[GroupRecord] = []
        remaining: list[Entry] = []
        for entry in self.in_flight:
            if entry.group is None or len(groups) == count or not accepts(entry.group):
                remaining.append(entry)
                continue
            groups.append(entry.group)
            if self.curriculum is not None:
                self.curriculum.note(entry.position, entry.group)
        self.in_flight = remaining
        return groups

    def _meets_deadlines(self, count: int, version: int) -> bool:
        """Earliest-deadline check: by the take that is `k` steps ahead, at most `k * count` unscored prompts are due.

        A prompt admitted at version v is due at version v + max_staleness. Example with max_staleness 2, count 1 and
        two unscored prompts of version 0: at version 1 both are due one step ahead, but a step takes only one prompt,
        so the take at version 1 must wait for the second.
        """
        for steps_ahead in range(self.max_staleness + 1):
            due_version = version - self.max_staleness + steps_ahead
            unscored = [entry.group is None for entry in self.in_flight if entry.attempt.version <= due_version]
            if sum(unscored) > steps_ahead * count:
                return False
        return True
