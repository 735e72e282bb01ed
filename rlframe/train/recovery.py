"""`Recovery`: new ranks in the place of lost ones, which take the steps since the newest checkpoint again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rlframe.errors import LearnerLost, RunFailed

if TYPE_CHECKING:
    from rlframe.learner.group import LearnerGroup
    from rlframe.record.console import Console
    from rlframe.train.checkpoint import Checkpoints
    from rlframe.weights.sync import WeightSync

T = TypeVar("T")


class Starter(Protocol):
    """The side of the actors: `cluster/starter.py`."""

    def restart_learner(self) -> None: ...


class Follower(Protocol):
    """A part of the driver whose state goes back with the learner's."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class Feed(Protocol):
    """The side of the log: `experience/flow.py`."""

    @property
    def replaying(self) -> bool: ...

    def rewind(self, version: int) -> None: ...


class Recovery:
    """Replaces lost ranks, as long as the run gets further between two losses.

    A learner is lost in step 7, and the newest checkpoint is of step 5. The new ranks load it, the feed hands out the
    groups of steps 6 and 7 again, and the loop trains on them as before: nothing is sampled and nothing is scored.
    """

    def __init__(
        self,
        max_losses: int,
        starter: Starter,
        learner: LearnerGroup,
        checkpoints: Checkpoints,
        weights: WeightSync | None,
        feed: Feed | None,
        follower: Follower,
        console: Console,
        follower_name: str = "mismatch",
    ) -> None:
        """`max_losses`: without a new step between, that the run survives.

        `weights`, `feed`: None in a run without engines. `follower`: a part of the checkpoint under this name.
        """
        self.max_losses = max_losses
        self.starter = starter
        self.learner = learner
        self.checkpoints = checkpoints
        self.weights = weights
        self.feed = feed
        self.follower = follower
        self.follower_name = follower_name
        self.console = console
        self.active = False  # ranks are missing, or stand at another step than the rest of the run
        self.losses = 0  # since the start
        self._follower_at_start = follower.state()
        self._furthest = 0  # the newest step at the latest loss
        self._reasons: list[str] = []  # of losses without a new step between

    def recover(self, lost: LearnerLost) -> int:
        """Puts new ranks in the place of lost ones -> the step of the checkpoint with which they begin.

        Raises RunFailed with all reasons after too many losses without a new step between, Stalled where the cluster
        has no room for new ranks, and `lost` itself in a run without checkpoints, which has no log to replay.
        """
        if not self.checkpoints.config.every:
            raise lost
        self.active = True
        while True:
            self._count(lost)
            try:
                step = self._replace()
            except LearnerLost as again:
                lost = again
            else:
                self.active = False
                return step

    def repeat(self, act: Callable[[], T]) -> T:
        """The result of `act`, which a run without steps so far does again with new ranks after each loss of ranks."""
        while True:
            try:
                return act()
            except LearnerLost as lost:
                self._start_anew(lost)

    def _start_anew(self, lost: LearnerLost) -> None:
        """Starts ranks with the base model. Raises as `recover` does."""
        if not self.checkpoints.config.every:
            raise lost
        self._count(lost)
        try:
            self.starter.restart_learner()
        except LearnerLost as again:
            self._start_anew(again)

    def _count(self, lost: LearnerLost) -> None:
        if self.learner.version > self._furthest:
            self._furthest, self._reasons = self.learner.version, []
        self._reasons.append(str(lost))
        self.losses += 1
        count = len(self._reasons)
        if count > self.max_losses:
            reasons = "\n".join(f"loss {number}: {reason}" for number, reason in enumerate(self._reasons, start=1))
            raise RunFailed(
                f"losses of the learner after step {self._furthest}, without a new step between: {count}, and the run "
                f"survives {self.max_losses} (learner.max_losses)\n{reasons}"
            ) from lost
        self.console.warn(f"the learner is lost after step {self._furthest}, and new ranks start: {lost}")

    def _replace(self) -> int:
        if self.weights:
            self.weights.learner_lost()
        self.checkpoints.settle()  # before new ranks are asked whether they have written the old ranks' checkpoint
        with self.console.phase("starting new ranks"):
            self.starter.restart_learner()
            step = self.checkpoints.restore_learner(parts=[self.follower_name])
        if step == 0:
            self.follower.restore(self._follower_at_start)
        if self.feed:
            self.feed.rewind(step)
        replaying = self.feed is not None and self.feed.replaying
        if self.weights and not replaying:  # no step follows that would bring the weights to engines that wait for them
            self.weights.sync(step)
        return step
