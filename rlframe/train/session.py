"""`Session`: the parts that a training run and a tuning run share, from their files to their orderly end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rlframe.config.compose import save
from rlframe.errors import LearnerLost
from rlframe.model import base_model
from rlframe.record.evaluations import read_evaluations
from rlframe.record.generation import Generation
from rlframe.record.metrics import JsonlSink, Sink, last_step
from rlframe.train.joining import join
from rlframe.train.reporter import Reporter
from rlframe.train.signals import Stop, StopSignals
from rlframe.train.watchers import open_watchers

if TYPE_CHECKING:
    from rlframe.cluster.placement import Role
    from rlframe.cluster.start import JoinedCluster
    from rlframe.config.keys import SharedKeys
    from rlframe.learner.group import LearnerGroup
    from rlframe.record.console import Console
    from rlframe.record.directory import RunDir
    from rlframe.train.cadence import Cadence
    from rlframe.train.checkpoint import Checkpoints
    from rlframe.train.health import Health
    from rlframe.train.recovery import Recovery


@dataclass(slots=True, kw_only=True)
class Session(ABC):
    """The open parts of a run, and the step reached."""

    run: SharedKeys
    files: RunDir
    generation: Generation  # of this driver; an older driver writes nothing more
    console: Console
    signals: StopSignals
    learner: LearnerGroup
    checkpoints: Checkpoints
    cadence: Cadence  # of checkpoints
    checkpoint_due: Event  # a node leaves with the driver or a rank
    recovery: Recovery  # from the loss of the learner
    sinks: list[Sink] = field(default_factory=list)  # of a step's metrics
    watchers: list[Sink] = field(default_factory=list)  # sinks that also get evaluations
    step: int = 0
    recorded: int = 0  # the last step with a row of metrics; a step up to it is taken again after a loss
    evaluated: int = -1  # the last step with an evaluation; -1: there is none
    _step_began: float = field(default_factory=time.monotonic)

    def open_sinks(self, logged: int) -> None:
        """Writes the config, and opens the sinks; rows of metrics after step `logged` are dropped."""
        save(self.run, self.files.config)
        self.watchers += open_watchers(self.run, self.files, self.console)
        self.sinks += [*self.watchers, JsonlSink(self.files.metrics, keep_through_step=logged)]
        self.recorded = max(self.step, last_step(self.files.metrics))
        self.evaluated = max((int(row["step"]) for row in read_evaluations(self.files.evaluations)), default=-1)

    def step_seconds(self) -> float:
        """Seconds since the previous step's end, at the end of a step."""
        now = time.monotonic()
        seconds, self._step_began = now - self._step_began, now
        return seconds

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Gives a step's metrics to all sinks."""
        for sink in self.sinks:
            sink.log(step, metrics)
        self.recorded = step

    def retry_after_losses(self, act: Callable[[], None]) -> None:
        """Does `act`, and does it again with new ranks after each loss of ranks."""
        while True:
            try:
                return act()
            except LearnerLost as lost:
                self.recover(lost)

    def recover(self, lost: LearnerLost) -> int:
        """Puts new ranks in the place of lost ones -> the step of the checkpoint with which they begin."""
        self.signals.raise_held_back()
        self.step = self.recovery.recover(lost)
        self.cadence.note_loss(self.recorded + 1)
        return self.step

    def periodic(self, step: int) -> None:
        """Saves a checkpoint and evaluates at the steps that the config names, after a loss, and at the last step."""
        wanted = step == self.run.last_step or self.checkpoint_due.is_set()
        if self.cadence.due(step, busy=self.checkpoints.busy) or (wanted and self.cadence.every):
            self.save()
        self.evaluate_if_due(step)
        self._step_began = time.monotonic()

    def save(self) -> None:
        """Starts a checkpoint of the step reached, unless that step is saved: copied now, written during training.

        While a learner is being replaced no state of the step reached exists.
        """
        self.checkpoint_due.clear()
        if self.checkpoints.step != self.step and not self.recovery.active:
            with self.console.phase("saving a checkpoint"), self.signals.held_back():
                self.before_saving()
                self.checkpoints.save(self.step)
                self.cadence.note_saved(self.step)

    @abstractmethod
    def restore(self) -> int:
        """Continues from the newest whole checkpoint -> its step; 0 in a new run."""

    @abstractmethod
    def evaluate_if_due(self, step: int) -> None:
        """Evaluates at the steps that the config names, once each."""

    @abstractmethod
    def before_saving(self) -> None:
        """Called before the state of a checkpoint is copied."""

    def close_sinks(self) -> None:
        for sink in self.sinks:
            if sink is not self.console:
                sink.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A run before its cluster: its folder is made and held, its model is on this machine."""

    files: RunDir
    console: Console
    signals: StopSignals
    generation: Generation
    reporter: Reporter
    model_path: Path

    def join(self, stack: ExitStack, run: SharedKeys, roles: tuple[Role, ...]) -> JoinedCluster:
        """Joins or makes the cluster of the run's actors, which `stack` ends."""
        return join(stack, run, roles, self.console, self.signals)


def begin(
    stack: ExitStack,
    run: SharedKeys,
    files: RunDir,
    console: Console,
    signals: StopSignals,
    *,
    steps: int,
    health: Health | None = None,
) -> Beginning:
    """Makes a run's folder, and prepares its model. `stack` ends what this begins."""
    files.create()
    generation = Generation.take(files.generations)
    reporter = stack.enter_context(Reporter(files, steps, console.warn, generation, health))
    with console.phase("preparing the model"):
        model_path = base_model.prepare(run.model.path)
    return Beginning(
        files=files,
        console=console,
        signals=signals,
        generation=generation,
        reporter=reporter,
        model_path=model_path,
    )


@contextmanager
def running(ctx: Session, draw: Callable[[], None]) -> Iterator[None]:
    """The steps of an open run. A signal saves a checkpoint and raises Stop; `draw` is called whatever ends the run.

    A second signal in the middle of a step leaves no state that could be saved: the ranks may be a step further.
    """
    try:
        yield
        ctx.checkpoints.wait()
    except Stop as stop:
        try:
            if ctx.signals.cut_short:
                ctx.console.warn(
                    f"step {ctx.step} gets no checkpoint: a second signal cut short a step or a checkpoint"
                )
            else:
                ctx.save()
            ctx.checkpoints.wait()
        except LearnerLost as lost:
            ctx.console.warn(f"step {ctx.step} has no checkpoint: {lost}")
        ctx.console.stopped(str(stop), ctx.step, ctx.checkpoints.newest, ctx.files.path)
        raise
    finally:
        draw()
