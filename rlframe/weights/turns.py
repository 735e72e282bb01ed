"""Turns of learner and engines on the same GPUs: either the learner computes or the engines sample.

learner's turn     the learner's whole state is on the GPUs; engines hold no GPU memory
handover           both sides hold weights; the learner's optimizer and the engines' key/value cache are away
engines' turn      weights and key/value cache are on the GPUs; the learner's state is in the host's memory
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

GIB = 1 << 30


class SleepingLearner(Protocol):
    """The learner's side: `learner/group.py`. Sleeping twice does no harm."""

    def sleep(self, *, keep_parameters: bool) -> int: ...

    def wake(self) -> None: ...

    def free_bytes(self) -> int: ...


class SleepingEngines(Protocol):
    """The engines' side: `rollout/pool.py`."""

    def sleep(self) -> None: ...

    def wake(self, part: Literal["weights", "kv_cache"]) -> None: ...


class Turns(Protocol):
    """Hands the GPUs from side to side. Raises Stalled where an actor does not answer within the bound."""

    def begin_learner(self) -> None:
        """Gives the GPUs to the learner; does nothing in the learner's turn."""
        ...

    @contextmanager
    def handover(self) -> Iterator[None]:
        """Ends the learner's turn. Inside, weights travel; afterwards the engines have the GPUs."""
        ...

    def learner_lost(self) -> None:
        """Gives the GPUs to new ranks."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures since the last call."""
        ...


class SeparateDevices:
    """Turns of `placement=separate`: each side has its own GPUs, and nothing is handed over."""

    def begin_learner(self) -> None: ...

    @contextmanager
    def handover(self) -> Iterator[None]:
        yield

    def learner_lost(self) -> None: ...

    def metrics(self) -> dict[str, float]:
        return {}


class SharedDevices:
    """Turns of `placement=colocated`. A run begins with the engines' turn.

    A sleeping engine discards its weights, because a handover brings new weights before the engine samples again.
    """

    def __init__(self, learner: SleepingLearner, engines: SleepingEngines) -> None:
        self.learner = learner
        self.engines = engines
        self.turn: Literal["learner", "handover", "engines"] = "engines"
        self._seconds = 0.0
        self._freed = {"learner": 0, "engines": 0}  # bytes of the last turn that each side gave back

    def begin_learner(self) -> None:
        if self.turn == "learner":
            return
        started = time.monotonic()
        free_bytes = self.learner.free_bytes()
        self.engines.sleep()
        self._freed["engines"] = self.learner.free_bytes() - free_bytes
        self.learner.wake()
        self.turn = "learner"
        self._seconds += time.monotonic() - started

    @contextmanager
    def handover(self) -> Iterator[None]:
        self.begin_learner()
        started = time.monotonic()
        freed_bytes = self.learner.sleep(keep_parameters=True)
        self.turn = "handover"
        self.engines.wake("weights")
        self._seconds += time.monotonic() - started
        yield
        started = time.monotonic()
        self._freed["learner"] = freed_bytes + self.learner.sleep(keep_parameters=False)
        self.engines.wake("kv_cache")
        self.turn = "engines"
        self._seconds += time.monotonic() - started

    def learner_lost(self) -> None:
        """Gives the GPUs to new ranks, which begin in the learner's turn."""
        if self.turn == "handover":
            self.engines.wake("kv_cache")  # vLLM discards nothing of a half-awake engine
        if self.turn != "learner":
            self.engines.sleep()
        self.turn = "learner"

    def metrics(self) -> dict[str, float]:
        """`memory/*_freed_gib`: GPU memory that a side gave back for the other's turn, over all GPUs; 0 on CPUs.

        `time/turns_s`: seconds of changing turns, without the transfer of weights.
        """
        seconds, self._seconds = self._seconds, 0.0
        freed = {f"memory/{side}_freed_gib": freed_bytes / GIB for side, freed_bytes in self._freed.items()}
        return freed | {"time/turns_s": seconds}
