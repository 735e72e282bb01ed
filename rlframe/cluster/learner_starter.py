"""`LearnerStarter`: starts the ranks of a run, at its beginning and after the loss of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.actors.background import Background
from rlframe.actors.replicas import Handle
from rlframe.cluster.actor import wait_for
from rlframe.cluster.actors import Actors
from rlframe.cluster.gang import Gang
from rlframe.cluster.learner_group import learner_group
from rlframe.cluster.placement import Role, Slot
from rlframe.cluster.ranks import Ranks
from rlframe.learner.group import LearnerGroup

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys
    from rlframe.training import Packing


class LearnerStarter:
    """Starts a run that is a learner alone, and keeps all handles until the end of the run."""

    def __init__(self, run: SharedKeys, model_path: Path, packing: Packing, warn: Callable[[str], None]) -> None:
        """`packing`: of the learner's micro-batches. `warn` gets lines for the console, from any thread."""
        self.run = run
        self.model_path = model_path
        self.packing: Packing = packing
        self.warn = warn
        self.handles: dict[str, Handle] = {}  # name -> actor
        self.background = Background("calls", run.cluster.stall_timeout_s)
        self.ranks: Ranks | None = None
        self.learner: LearnerGroup | None = None

    def start(self, slots: dict[Role, list[Slot]]) -> Actors:
        """Starts every actor of `slots`."""
        deadline = self._deadline()
        rank_slots = slots["learner"]
        gang = Gang(rank_slots, self.run.learner.strategy, self.run.learner.topology)
        self.ranks = self._start_ranks(rank_slots, gang)
        started = {name: handle.__ray_ready__.remote() for name, handle in self.handles.items()}
        wait_for(started | self.ranks.connect(), "start", deadline)
        self.ranks.keep_reference(deadline)
        self.learner = learner_group(self.run, self.ranks.actors, self.packing)
        return Actors(starter=self, background=self.background, learner=self.learner)

    def restart_learner(self) -> None:
        """Puts new ranks with the base model behind the run's LearnerGroup.

        Raises Stalled where ranks do not start within `cluster.start_timeout_s`, and LearnerLost where one dies again.
        """
        assert self.ranks is not None and self.learner is not None
        self.learner.begin_anew(self.ranks.restart(self._deadline()))

    def finish(self, timeout_s: float) -> None:
        """Waits until the actors have written all files: none of these actors writes any."""

    def _start_ranks(self, slots: list[Slot], gang: Gang) -> Ranks:
        ranks = Ranks(self.run, self.model_path, self.packing, slots, gang, self.handles)
        ranks.start()
        return ranks

    def _deadline(self) -> float:
        return time.monotonic() + self.run.cluster.start_timeout_s
