"""Processes for learner ranks that outlive a test's learner: each imports torch and DeepSpeed once, for many ranks.

A new process keeps two cores busy for seconds before a rank answers its first call.
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

from rlframe.cluster.actor import meeting_point
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from rlframe.training import Packing
from tests.tiny.learner import InspectedRank

STEPS = 10  # of the run, for the learning rate's schedule


class RankProcess:
    """An actor that holds rank `name` of any number of learners with equally many ranks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ranks: dict[int, LearnerRank] = {}  # by learner

    def __repr__(self) -> str:
        return self.name

    def create(self, learner: int, kind: type[LearnerRank], *arguments: Any) -> None:
        self.ranks[learner] = kind(self.name, *arguments)

    def call(self, learner: int, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self.ranks[learner], method)(*arguments, **named)

    def apply(self, learner: int, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.ranks[learner], *arguments)

    def end(self, learner: int) -> None:
        self.ranks.pop(learner).writer.shutdown()
        gc.collect()


class RankHandle:
    """Has the interface of a Ray handle to an actor of the rank alone."""

    def __init__(self, process: Any, learner: int) -> None:
        self.process = process
        self.learner = learner

    def __getattr__(self, name: str) -> Any:
        if name == "__ray_call__":
            return SimpleNamespace(remote=partial(self.process.apply.remote, self.learner))
        if name.startswith("__"):
            raise AttributeError(name)
        return SimpleNamespace(remote=partial(self.process.call.remote, self.learner, name))


class RankProcesses:
    """Starts learners in shared processes: one set of n processes serves all learners of n ranks."""

    def __init__(self) -> None:
        self._sets: dict[int, list[Any]] = {}  # by number of ranks
        self._learners = count()

    def launch(
        self,
        config: LearnerConfig,
        model: Path,
        ranks: int,
        *,
        kind: type[LearnerRank] = InspectedRank,
        packing: Packing = "shared",
        scores: bool = False,
    ) -> list[Any]:
        """Handles of connected ranks with the model loaded; `scores`: with a score head."""
        settings = config.model_copy(update={"ranks": ranks})
        # DeepSpeed makes groups for these two once in a process, so their ranks get processes for themselves.
        private = settings.sequence_parallel > 1 or settings.expert_parallel
        processes = _start(ranks) if private else self._sets.get(ranks) or self._sets.setdefault(ranks, _start(ranks))
        learner = next(self._learners)
        arguments = (settings, model, 1.0, STEPS, packing, scores)
        ray.get([process.create.remote(learner, kind, *arguments) for process in processes])
        handles = [RankHandle(process, learner) for process in processes]
        address = meeting_point(processes)
        ray.get([handle.connect.remote(address, rank, 60.0) for rank, handle in enumerate(handles)])
        return handles

    def end(self, handles: list[Any]) -> None:
        """Drops a learner's ranks. Shared processes stay for the next learner, unless one does not answer."""
        if handles[0].process in self._sets.get(len(handles), []):
            ending = [handle.process.end.remote(handle.learner) for handle in handles]
            if len(ray.wait(ending, num_returns=len(ending), timeout=10)[0]) == len(ending):
                return
            del self._sets[len(handles)]  # a rank waits in a collective that the test has abandoned
        for handle in handles:
            ray.kill(handle.process)


def _start(ranks: int) -> list[Any]:
    environment = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    process = ray.remote(RankProcess).options(num_cpus=0, runtime_env={"env_vars": environment})
    return [process.remote(f"learner-{rank}") for rank in range(ranks)]
