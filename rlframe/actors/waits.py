"""The waits of this process: each has a name, a bound and a beginning, for people who ask what a run waits for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True, eq=False)
class Wait:
    """A wait for actors, or for all actors of a kind.

    >>> str(Wait(actors=["learner-0", "learner-1"], doing="take step 7", bound_s=1800, bound="cluster.stall_timeout_s"))
    'learner-0, learner-1 to take step 7 (cluster.stall_timeout_s=1800)'
    """

    actors: list[str]  # that have not answered; a kind, such as "rollout", names all of its actors
    doing: str  # infinitive, as in "did not take step 7"
    bound_s: float
    bound: str  # config key of bound_s
    since: float = field(default_factory=time.monotonic)
    moved_at: float = field(default_factory=time.monotonic)  # the beginning, or the last answer of an actor

    def __str__(self) -> str:
        return f"{', '.join(self.actors)} to {self.doing} ({self.bound}={self.bound_s:g})"

    def concerns(self, actor: str) -> bool:
        """True if the wait is for the actor, or for its kind: "reward" concerns "reward-judge-0"."""
        return any(actor == name or actor.startswith(f"{name}-") for name in list(self.actors))

    def answered(self, actor: str) -> None:
        """Notes the answer of an actor."""
        self.actors.remove(actor)
        self.moved_at = time.monotonic()


_open: dict[Wait, None] = {}  # a set in the order of beginnings


@contextmanager
def waiting(actors: Iterable[str], doing: str, bound_s: float, bound: str) -> Iterator[Wait]:
    """Names a wait while the `with` block runs. For any thread; the block itself keeps to the bound."""
    wait = Wait(actors=list(actors), doing=doing, bound_s=bound_s, bound=bound)
    _open[wait] = None
    try:
        yield wait
    finally:
        del _open[wait]


def open_waits() -> list[Wait]:
    """All waits of this process at the moment, the oldest first."""
    return list(_open)
