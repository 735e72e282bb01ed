"""`Losses`: how often parts of a simulated run die, and how long their successors take. `Faults`: when and which."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal

Part = Literal["engine", "learner"]


def _setting(default: float, text: str) -> float:
    return field(default=default, metadata={"help": f"{text} (default: {default:g})"})


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Deaths and the seconds of a recovery. The defaults are those of the published table."""

    share: float  # of the learner's steps in which a part dies, by turns an engine and the learner
    engine_start_s: float = _setting(
        120.0, "seconds from an engine's death to the load of the current weights by another"
    )
    learner_restart_s: float = _setting(90.0, "seconds from a rank's death to ranks that have loaded the checkpoint")
    checkpoint_every: int = field(default=10, metadata={"help": "steps between two checkpoints (default: 10)"})
    checkpoint_copy_s: float = _setting(2.0, "seconds for which training stands still for a checkpoint")
    checkpoint_write_s: float = _setting(30.0, "seconds until a checkpoint is whole on disk, while training goes on")


class Faults:
    """Decides at each step of the learner, also at one that is taken again, who dies in it; the same for equal seeds.

    With a share of 0.1, one step of each ten has a fault, at random: in the first ten an engine dies, in the next ten
    the learner. The moment is anywhere in the learner's work.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.every = round(1 / share) if share else 0  # steps for each fault
        self.rng = random.Random(f"faults {seed}")
        self.parts: Iterator[Part] = cycle(("engine", "learner"))
        self.counts: dict[Part, int] = {"engine": 0, "learner": 0}
        # Lets an engine die when this share of the learner's step has passed. Set by the owner of the engines.
        self.kill_engine: Callable[[float], None] = lambda share: None
        self._steps = 0  # that have begun
        self._fault_at = 0  # step of the present `every` steps

    def begin_step(self) -> float | None:
        """Kills an engine in this step, or returns the share of the step after which the learner dies."""
        if not self.every:
            return None
        place = self._steps % self.every
        self._steps += 1
        if place == 0:
            self._fault_at = self.rng.randrange(self.every)
        if place != self._fault_at:
            return None
        part, moment = next(self.parts), self.rng.random()
        self.counts[part] += 1
        if part == "learner":
            return moment
        self.kill_engine(moment)
        return None
