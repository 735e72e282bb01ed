"""`Deadlines`: counts of prompts in flight by the last policy version that may train on them. Pure."""

from __future__ import annotations

from collections import Counter


class Deadlines:
    """Bounds admission and hand-out, so that every prompt is trained on by the version at which it is due.

    Takes happen at versions n, n + 1, ..., and each takes `prompts_per_step` prompts. A prompt due at version d can
    leave with the takes n, ..., d, which are `d - n + 1`. Example with 2 prompts a step and next take 5:

        prompts due at 5, 6, 7:    2, 1, 0
        room for prompts due at 6:    1    the takes 5 and 6 have room for 4 prompts, of which 3 are promised
        room for prompts due at 7:    3

    Costs grow with the number of different versions, not with the number of prompts.
    """

    def __init__(self, prompts_per_step: int) -> None:
        self._prompts_per_step = prompts_per_step
        self._in_flight: Counter[int] = Counter()  # version -> prompts due at that version
        self._unscored: Counter[int] = Counter()  # those of them without a scored group

    def admit(self, due: int) -> None:
        """Notes a prompt that must leave by the take at version `due`."""
        self._in_flight[due] += 1
        self._unscored[due] += 1

    def score(self, due: int) -> None:
        """Notes that a prompt's group is scored."""
        _subtract(self._unscored, due)

    def reopen(self, due: int) -> None:
        """Notes that a prompt's group is lost, and is sampled and scored again."""
        self._unscored[due] += 1

    def leave(self, due: int) -> None:
        """Notes that a scored prompt was taken or dropped."""
        _subtract(self._in_flight, due)

    def room(self, due: int, next_take: int) -> int:
        """Number of further prompts due at version `due` for which takes are left."""
        promised = sum(count for version, count in self._in_flight.items() if version < due)
        rooms = []
        for version in sorted({due, *(later for later in self._in_flight if later > due)}):
            promised += self._in_flight[version]
            rooms.append((version - next_take + 1) * self._prompts_per_step - promised)
        return max(0, min(rooms))

    def allow_take(self, version: int) -> bool:
        """False while a take at `version` must wait for unscored prompts, because later takes cannot carry them all.

        Of the unscored prompts, at most `k * prompts_per_step` may be due by version `version + k`. Example with 1
        prompt a step: two unscored prompts are due at version 6, so the take at 5 waits for one of them.
        """
        unscored = 0
        for due in sorted(self._unscored):
            unscored += self._unscored[due]
            if unscored > max(0, due - version) * self._prompts_per_step:
                return False
        return True


def _subtract(counter: Counter[int], key: int) -> None:
    """Takes 1 off a count. A count of 0 is deleted, so that old versions do not pile up."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
