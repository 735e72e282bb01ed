"""`simulate_losses`: a simulated run whose engines and learner die, over the real paths of recovery.

Real are the sampler that goes on with a dead engine's completions, the fleet that replaces it, the log of the prompts,
`train/recovery.py` and the replay of the log's batches. Checkpoints, new ranks and new engines take seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.async_parts.figures import Figures
from benchmarks.async_parts.losses import Faults, Losses
from benchmarks.async_parts.mortal import MortalEngine, MortalLearner, TimedEngineActors
from benchmarks.async_parts.settings import Policy, Scale
from benchmarks.async_parts.simulation import OpenParts, TimedContext, open_parts
from benchmarks.async_parts.workers import Parts
from rlframe.cluster.fleet import Fleet
from rlframe.errors import LearnerLost
from rlframe.record.generation import Generation
from rlframe.record.ledger_log import LedgerLog
from rlframe.train.cadence import Cadence
from rlframe.train.loop import run_steps, take_step
from rlframe.train.mismatch import MismatchGate
from rlframe.train.recovery import Recovery
from rlframe.training import GroupRecord, RatedGroup, StepReport
from rlframe.weights.sync import Synced

MANY = 1000  # losses without a step between, which end no simulation


@dataclass(kw_only=True)
class LossFigures(Figures):
    """Figures of a run with losses. Seconds are those in which the learner did nothing new."""

    engine_losses: int = 0
    learner_losses: int = 0
    tokens_again: int = 0  # sampled twice: an engine had not told them when it died
    steps_again: int = 0  # updates done twice
    again_s: float = 0.0  # steps taken again
    cut_s: float = 0.0  # steps that a death ended
    restart_s: float = 0.0  # no learner
    checkpoint_s: float = 0.0  # training stood still for copies

    @property
    def learner_lost_s(self) -> float:
        return self.again_s + self.cut_s + self.restart_s


class Silent:
    """A console that says nothing."""

    def warn(self, text: str) -> None: ...

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        yield


class TimedCheckpoints:
    """Checkpoints that take time: the side of `train/checkpoint.py`. A learner's death ends the one that is written."""

    def __init__(self, losses: Losses, opened: OpenParts, figures: LossFigures) -> None:
        self.losses = losses
        self.opened = opened
        self.figures = figures
        self.config = opened.run.checkpoint
        self._committed = 0  # step of the newest checkpoint that is whole
        self._writing: asyncio.Future[None] | None = None

    def save(self, step: int) -> None:
        began = self.opened.background.now()
        self.opened.feed.begin_epoch(step)
        self.wait()
        self.opened.background.run(self._save(step))
        self.figures.checkpoint_s += self.opened.background.now() - began

    @property
    def busy(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        self.opened.background.run(self._wait())

    def settle(self) -> None:
        """Ends the writing of a checkpoint whose ranks are lost."""

        async def cancel() -> None:
            if self._writing is not None:
                self._writing.cancel()

        self.opened.background.run(cancel())
        self._writing = None

    def restore_learner(self, parts: list[str]) -> int:
        self.opened.learner.version = self._committed
        return self._committed

    async def _save(self, step: int) -> None:
        await asyncio.sleep(self.losses.checkpoint_copy_s)
        self._writing = asyncio.ensure_future(self._write(step))

    async def _write(self, step: int) -> None:
        await asyncio.sleep(self.losses.checkpoint_write_s)
        self._committed = step
        self.opened.feed.commit(step)

    async def _wait(self) -> None:
        if self._writing is not None:
            await self._writing
        self._writing = None


@dataclass(kw_only=True)
class LossyContext(TimedContext):
    """A context that recovers, as `train/context.py` does."""

    figures: LossFigures
    saved: TimedCheckpoints
    recovery: Recovery
    cadence: Cadence
    recorded: int = 0  # the last step with figures
    trained: set[str] = field(default_factory=set)  # prompts

    @property
    def checkpoints(self) -> Any:
        return self.saved

    def restore(self) -> int:
        return self.feed.open_log(0, resume=False)

    def sync(self, step: int) -> Synced:
        return Synced.nothing(step) if self.feed.replaying else self.weights.sync(step)

    def record(
        self, step: int, groups: list[GroupRecord], rated: list[RatedGroup], report: StepReport, synced: object
    ) -> None:
        names = {group.prompt_id for group in groups}
        if step > self.recorded:
            assert len(names) == len(groups) and not names & self.trained, "a prompt is trained on twice"
            self.trained |= names
            self.recorded = step
            super().record(step, groups, rated, report, synced)
        assert names <= self.trained, "a step that is taken again has other prompts"

    def recover(self, lost: LearnerLost) -> int:
        began = self.feed.background.now()
        step = self.recovery.recover(lost)
        self.cadence.note_loss(self.recorded + 1)
        self.figures.restart_s += self.feed.background.now() - began
        return step

    def periodic(self, step: int) -> None:
        if self.cadence.due(step, busy=self.saved.busy):
            self.saved.save(step)
            self.cadence.note_saved(step)


def simulate_losses(scale: Scale, policy: Policy, losses: Losses, faults: Faults | None = None) -> LossFigures:
    """Runs all steps on a virtual clock. `faults`: None for those of `losses` and of the scale's seed."""
    every = losses.checkpoint_every
    run = scale.run_config(
        policy, f"checkpoint.every={every}", f"learner.max_losses={MANY}", f"rollout.max_losses={MANY}"
    )
    figures, faults = LossFigures(scale=scale), faults or Faults(losses.share, scale.seed)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        log = LedgerLog(Path(folder) / "ledger", Generation.take(Path(folder) / "generations"))
        opened = open_parts(stack, scale, run, Parts(engine=MortalEngine, learner=MortalLearner), log)
        stack.callback(lambda: opened.background.run(opened.episodes.close()))
        ends = Ends(scale, losses, opened, faults)
        learner, console = ends.learner, Silent()
        checkpoints: Any = TimedCheckpoints(losses, opened, figures)
        gate = MismatchGate(run.mismatch, [], learner, console)  # pyright: ignore
        recovery = Recovery(
            MANY,
            ends,
            learner,
            checkpoints,
            opened.weights,
            opened.feed,
            gate,
            console,  # pyright: ignore
        )
        context: Any = LossyContext(
            feed=opened.feed,
            learner=learner,
            weights=opened.weights,
            figures=figures,
            saved=checkpoints,
            recovery=recovery,
            cadence=Cadence(every),
        )
        run_steps(run, context, take_step)
        ledger = opened.feed.ledger
        assert ledger.admitted == len(context.trained) + len(list(ledger.in_flight)), "a prompt is lost"
        figures.end(
            opened.background.now(),
            busy_slot_s=sum(engine.busy_slot_s for engine in ends.engines),
            driver_s=opened.stopwatch.seconds,
        )
        figures.engine_losses, figures.learner_losses = faults.counts["engine"], faults.counts["learner"]
        figures.tokens_again = sum(engine.lost_tokens for engine in ends.engines)
        figures.steps_again, figures.again_s, figures.cut_s = learner.steps_again, learner.again_s, learner.cut_s
    return figures


class Ends:
    """Lets the parts of an open run die, and starts their successors: the side of `cluster/starter.py`."""

    def __init__(self, scale: Scale, losses: Losses, opened: OpenParts, faults: Faults) -> None:
        assert isinstance(opened.learner, MortalLearner)
        self.scale = scale
        self.losses = losses
        self.opened = opened
        self.faults = faults
        self.learner = opened.learner
        self.learner.death = faults.begin_step
        self.engines: list[MortalEngine] = [engine for engine in opened.engines if isinstance(engine, MortalEngine)]
        actors: Any = TimedEngineActors(self._make, len(self.engines), losses.engine_start_s)
        self.fleet = Fleet(
            opened.run,
            actors,
            opened.rollouts,
            opened.episodes,
            opened.weights,
            opened.background,
            warn=lambda line: None,
        )
        opened.episodes.replace_engine = self.fleet.lose
        faults.kill_engine = self._kill_later

    def restart_learner(self) -> None:
        self.opened.background.run(asyncio.sleep(self.losses.learner_restart_s))
        self.learner.begin_anew()

    def _make(self, name: str) -> MortalEngine:
        scale = self.scale
        self.engines.append(MortalEngine(name, slots=scale.slots, token_s=scale.token_s, load_s=scale.load_s))
        return self.engines[-1]

    def _kill_later(self, share: float) -> None:
        async def kill() -> None:
            await asyncio.sleep(share * self.scale.step_s)
            if seated := [engine for engine in self.engines if engine.name in self.fleet.seated and not engine.dead]:
                self.faults.rng.choice(seated).die()

        self.opened.background.spawn(kill())
