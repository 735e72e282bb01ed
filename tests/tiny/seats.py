"""Processes that outlive a test's learner: they import torch and DeepSpeed and meet once, for rank after rank.

A process of its own takes a rank seconds of both cores before it is asked for anything.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray

from rlframe.cluster import start as cluster
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from tests.tiny.learner import TellingRank

STEPS = 10  # of the run that a learner takes itself to be in


class Seat:
    """One process: this rank of any number of learners, each of as many ranks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ranks: dict[int, LearnerRank] = {}

    def __repr__(self) -> str:
        return self.name

    def begin(self, learner: int, kind: type[LearnerRank], *arguments: Any) -> None:
        self.ranks[learner] = kind(self.name, *arguments)

    def call(self, learner: int, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self.ranks[learner], method)(*arguments, **named)

    def apply(self, learner: int, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.ranks[learner], *arguments)

    def end(self, learner: int) -> None:
        self.ranks.pop(learner).writer.shutdown()
        gc.collect()


class SeatedRank:
    """Is called as the handle of a rank's own actor would be."""

    def __init__(self, seat: Any, learner: int) -> None:
        self.seat = seat
        self.learner = learner

    def __getattr__(self, name: str) -> Any:
        if name == "__ray_call__":
            return SimpleNamespace(remote=partial(self.seat.apply.remote, self.learner))
        if name.startswith("__"):
            raise AttributeError(name)
        return SimpleNamespace(remote=partial(self.seat.call.remote, self.learner, name))


class Seats:
    """As many processes for each number of ranks as that number."""

    def __init__(self) -> None:
        self._of: dict[int, list[Any]] = {}
        self._learners = count()

    def launch(
        self, config: LearnerConfig, model: Path, ranks: int, *, kind: type[LearnerRank] = TellingRank
    ) -> list[Any]:
        """Handles of ranks that have met and loaded the model."""
        settings = config.model_copy(update={"ranks": ranks})
        own = settings.sequence_parallel > 1 or settings.expert_parallel  # DeepSpeed has such groups once a process
        seats = _start(ranks) if own else self._of.get(ranks) or self._of.setdefault(ranks, _start(ranks))
        learner = next(self._learners)
        ray.get([seat.begin.remote(learner, kind, settings, model, 1.0, STEPS) for seat in seats])
        handles = [SeatedRank(seat, learner) for seat in seats]
        address = cluster.meeting_point(seats[0])
        ray.get([handle.connect.remote(address, rank, 60.0) for rank, handle in enumerate(handles)])
        return handles

    def end(self, handles: list[Any]) -> None:
        """These ranks are no more; processes stay for the next, unless theirs alone or without an answer."""
        shared = self._of.get(len(handles), [])
        if handles[0].seat in shared:
            ending = [handle.seat.end.remote(handle.learner) for handle in handles]
            if len(ray.wait(ending, num_returns=len(ending), timeout=10)[0]) == len(ending):
                return
            del self._of[len(handles)]  # one waits for another, in a collective that a test left
        for handle in handles:
            ray.kill(handle.seat)


def _start(ranks: int) -> list[Any]:
    environment = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    seat = ray.remote(Seat).options(num_cpus=0, runtime_env={"env_vars": environment})
    return [seat.remote(f"learner-{rank}") for rank in range(ranks)]
