"""`Ranks`: starts the learner's ranks at the beginning of a run, and again after the loss of one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError

from rlframe.actors.calls import numbered
from rlframe.actors.failure import describe
from rlframe.actors.replicas import Handle
from rlframe.actors.table import entry_of
from rlframe.cluster.actor import meeting_point, start_actor, wait_for
from rlframe.cluster.gang import Gang
from rlframe.cluster.placement import Slot
from rlframe.errors import LearnerLost, Stalled
from rlframe.learner.loss import loss_of_ranks
from rlframe.learner.rank import LearnerRank

if TYPE_CHECKING:
    from ray import ObjectRef

    from rlframe.config.keys import SharedKeys
    from rlframe.training import Packing
    from rlframe.weights.config import WeightsConfig

MIB = 1 << 20


class Ranks:
    """The actors of a learner's ranks, whose machines stay reserved between an end and the next start.

    Methods raise Stalled where the cluster has no room for ranks until `deadline`, and LearnerLost where ranks have
    processes, and one dies, raises or is late.
    """

    kind: type[LearnerRank] = LearnerRank

    def __init__(
        self,
        run: SharedKeys,
        model_path: Path,
        packing: Packing,
        slots: list[Slot],
        gang: Gang,
        handles: dict[str, Handle],
    ) -> None:
        """`handles`: of all actors of the run, by name; the ranks' are kept up to date."""
        self.run = run
        scores = run.algorithm.asks == "scores"
        self.arguments = (run.learner, model_path, run.temperature, run.last_step, packing, scores)
        self.slots = slots
        self.gang = gang
        self.handles = handles
        self.actors: list[Handle] = []
        # Settings of publishing, and whether adapters alone are published; None: nothing goes through the object store.
        self._publishing: tuple[WeightsConfig, bool] | None = None

    def start(self) -> None:
        """Makes the actors, whose processes start from now on."""
        self.actors = [
            start_actor(slot, self.kind, self.arguments, self.handles, **self.gang.options(slot)) for slot in self.slots
        ]

    def connect(self) -> dict[str, ObjectRef]:
        """The calls in which the ranks meet and load the model, by name."""
        if not self.actors:
            return {}
        # The driver finds a stopped rank within stall_timeout_s. Its peers must still wait for it then, since an error
        # of theirs would look like a bug, which ends the run.
        address, timeout_s = meeting_point(self.actors), 2 * self.run.cluster.stall_timeout_s
        calls = [rank.connect.remote(address, index, timeout_s) for index, rank in enumerate(self.actors)]
        return numbered("learner", calls)

    def keep_reference(self, deadline: float) -> None:
        """Lets the ranks copy the model as the reference, if the objective has one."""
        if self.run.kl is not None:
            calls = [rank.keep_reference.remote(self.run.kl.offload) for rank in self.actors]
            self._wait(calls, "copy the reference", deadline)

    def prepare_publishing(self, settings: WeightsConfig, adapters_alone: bool, deadline: float) -> None:
        """Lets the ranks prepare to publish weights, or adapters only, through the object store."""
        self._publishing = settings, adapters_alone
        arguments = (settings.chunk_mib * MIB, settings.full_every, adapters_alone)
        calls = [rank.prepare_publishing.remote(*arguments) for rank in self.actors]
        self._wait(calls, "prepare to publish weights", deadline)

    def restart(self, deadline: float) -> list[Handle]:
        """Ends what is left of the ranks, and starts others with the base model in their place -> the actors."""
        self._end(deadline)
        self.start()
        self._wait(list(self.connect().values()), "start anew", deadline)
        self.keep_reference(deadline)
        if self._publishing is not None:
            self.prepare_publishing(*self._publishing, deadline)
        return self.actors

    def _end(self, deadline: float) -> None:
        """Returns once Ray has noticed the end of every rank, whose name and machine are free then."""
        for rank in self.actors:
            ray.kill(rank)
        calls = [rank.__ray_ready__.remote() for rank in self.actors]
        ray.wait(calls, num_returns=len(calls), timeout=max(0.0, deadline - time.monotonic()))

    def _wait(self, calls: list[ObjectRef], doing: str, deadline: float) -> None:
        """Waits for new ranks. A rank that stands still lets the others raise, so any exception is a loss."""
        try:
            wait_for(numbered("learner", calls), doing, deadline)
        except RayError as error:
            raise LearnerLost(loss_of_ranks(error, calls) or describe(error)) from error
        except Stalled as error:
            if not all(entry_of(rank).get("Pid") for rank in self.actors):  # the cluster has no room
                raise
            raise LearnerLost(str(error)) from error
