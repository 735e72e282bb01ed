"""`open`: the parts of a run, from the model on disk to actors and files, and their orderly end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.cluster.prometheus import Exporter
from rlframe.config.warnings import warnings
from rlframe.experience.errands import Errands
from rlframe.experience.statistics import rollout_metrics
from rlframe.record import curves
from rlframe.record.console import Console
from rlframe.record.directory import RunDir
from rlframe.record.evaluations import keep_evaluations
from rlframe.record.ledger_log import LedgerLog
from rlframe.record.wandb import check_key
from rlframe.train.cadence import Cadence
from rlframe.train.checkpoint import Checkpoints
from rlframe.train.evaluate import Evaluation
from rlframe.train.feed import open_feed
from rlframe.train.health import Health, Parts
from rlframe.train.mismatch import MismatchGate
from rlframe.train.planned import planned
from rlframe.train.prompts import open_prompts, open_tokenizer
from rlframe.train.recovery import Recovery
from rlframe.train.reporter import last_word
from rlframe.train.session import Session, begin, running
from rlframe.train.signals import StopSignals
from rlframe.train.teachers import check_teachers
from rlframe.training import GroupRecord, RatedGroup, StepReport
from rlframe.weights.sync import Synced

if TYPE_CHECKING:
    from rlframe.cluster.placement import Role
    from rlframe.config.run import RunConfig
    from rlframe.experience.flow import RolloutFeed
    from rlframe.weights.sync import WeightSync
    from rlframe.weights.turns import Turns


@dataclass(slots=True, kw_only=True)
class Context(Session):
    """The open parts of a run of reinforcement learning."""

    run: RunConfig
    feed: RolloutFeed
    weights: WeightSync
    turns: Turns  # of learner and engines on the same GPUs
    gate: MismatchGate
    evaluation: Evaluation
    health: Health  # losses, recoveries and effective time
    written: int = 0  # the last step whose rollouts this driver, or one that saved a checkpoint later, has written
    _engines_wait: bool = False  # for the weights after a new driver's replay, with the base model until then

    def restore(self) -> int:
        """Continues from the newest whole checkpoint and the log -> the step of the checkpoint.

        A run without a checkpoint starts with the base model at step 0, and a new run evaluates first. Raises RunFailed
        if no checkpoint of a resumed run is whole, or machines do not share the run's folder.
        """
        self.recovery.repeat(self.checkpoints.check_folder)
        self.feed.check_folder(self.files.path)
        logged = self._resume() if self.run.resume else self.feed.open_log(0, resume=False)
        self.open_sinks(logged)
        self.retry_after_losses(self._begin)
        self._step_began = time.monotonic()
        self.health.restored()
        return self.step

    def _resume(self) -> int:
        """Restores learner and feed -> the last step that the saved run has begun."""
        with self.console.phase("restoring"):
            if self.checkpoints.exist():
                self.turns.begin_learner()
                self.step = self.recovery.repeat(lambda: self.checkpoints.restore(self.console.warn))
            logged = self.feed.open_log(self.step, resume=True)
            keep_evaluations(self.files.evaluations, logged)
            self.written = self.step
            self._engines_wait = self.feed.replaying
        if logged > self.step:
            self.console.warn(
                f"the learner takes steps {self.step + 1} to {logged} again, with the rollouts of the log"
            )
        return logged

    def _begin(self) -> None:
        """Brings restored weights to the engines, unless a replay follows, and makes up a missed evaluation."""
        if self.step and not self.feed.replaying:
            with self.console.phase("bringing the weights to the engines"):
                self.weights.sync(self.step)
                self.weights.settle()
                self.turns.metrics()  # these turns are no step's
        self.evaluate_if_due(self.step)

    def sync(self, step: int) -> Synced:
        """Brings the learner's version to the engines. While steps are replayed engines keep the weights they have."""
        if self.feed.replaying:
            return Synced.nothing(step)
        synced = self.weights.sync(step)
        if self._engines_wait:  # engines of a new driver have sampled nothing yet, and go on with old completions
            self._engines_wait = False
            self.weights.settle()
        return synced

    def record(
        self, step: int, groups: list[GroupRecord], rated: list[RatedGroup], report: StepReport, synced: Synced
    ) -> None:
        """Writes a step's rollouts and metrics, then judges the train/rollout mismatch; of a replayed step only that.

        `groups` have the rewards as scored; `rated` may have a KL penalty subtracted from theirs.
        """
        self.generation.check()
        self.step = step
        if step > self.written:
            self.feed.write(step, self.files.rollouts, groups, rated)
            self.written = step
        if step <= self.recorded:
            self.gate.judge(step, report.metrics, again=True)
            return
        turns = self.turns.metrics()
        learner_s = self.feed.background.now() - self.feed.taken_at - synced.seconds - turns.get("time/turns_s", 0.0)
        oldest_version = self.run.oldest_version(step - 1)
        metrics = rollout_metrics(groups, step - 1, self.run.truncated, oldest_version)
        metrics |= self.feed.metrics() | report.metrics
        metrics |= synced.metrics() | turns | self.checkpoints.metrics() | self.health.metrics()
        step_s = self.step_seconds()
        metrics |= {"time/learner_s": learner_s, "time/step_s": step_s}
        metrics["learner/idle"] = min(1.0, metrics["time/rollout_wait_s"] / step_s)
        self.log(step, metrics)
        self.gate.judge(step, metrics)

    def evaluate_if_due(self, step: int) -> None:
        """Evaluates at the steps that the config names, once each, and never while engines have other weights."""
        if self.evaluation.due(step) and step > self.evaluated and not self.feed.replaying:
            self.evaluate(step)

    def evaluate(self, step: int) -> None:
        """Evaluates with the weights of this very step, and logs the figures to the sinks that watch evaluations."""
        self.generation.check()
        self.weights.settle()
        figures = self.evaluation.run(step, self.console)
        for sink in self.watchers:
            sink.log(step, figures)
        self.evaluated = step

    def before_saving(self) -> None:
        self.feed.begin_epoch(self.step)


@contextmanager
def open(run: RunConfig, roles: tuple[Role, ...]) -> Iterator[Context]:
    """Opens a run with actors of these roles, and ends the actors at the end.

    A signal saves a checkpoint and raises Stop. Curves are drawn whatever ended the run. Raises ConfigError for
    prompts that cannot be used, and Stalled or ActorFailed where actors do not start.
    """
    check_key(run.tracking)
    files, signals = RunDir(Path(run.run_dir)), StopSignals()
    signals.listen()
    with ExitStack() as stack:
        ahead, teachers = run.max_staleness > 0, list(run.teachers)
        console = stack.enter_context(Console(run.steps, run.deciding_reward, ahead=ahead, teachers=teachers))
        for warning in warnings(run):
            console.warn(warning)
        planned(run, console)
        health = Health(last_word(files) if run.resume else None)
        beginning = begin(stack, run, files, console, signals, steps=run.steps, health=health)
        generation, reporter, model_path = beginning.generation, beginning.reporter, beginning.model_path
        joined_cluster = beginning.join(stack, run, roles)
        planned(run, console, joined_cluster)
        with console.phase("reading the prompts"):
            tokenizer = open_tokenizer(model_path)
            stream, heldout = open_prompts(run, tokenizer, console.warn)
        if run.teachers:
            with console.phase("comparing the teachers' tokenizers"):
                check_teachers(run.teachers, tokenizer, stream)
        with console.phase("starting engines, learner and reward workers"):
            actors = joined_cluster.start(model_path, console.warn)
        rollouts, episodes, learner, weights = actors.rollouts, actors.episodes, actors.learner, actors.weights
        supervisor = actors.supervisor
        if rollouts is None or episodes is None or learner is None or weights is None or supervisor is None:
            raise ValueError(f"the loop needs rollouts, rewards and a learner, not only {', '.join(roles)}")
        log = LedgerLog(files.ledger, generation) if run.checkpoint.every else None
        errands = Errands(weights, supervisor.checkpoint_due, lambda: ctx.save())
        feed = open_feed(run, stream, rollouts, episodes, actors.background, console.warn, errands, log)
        stack.enter_context(feed)
        supervisor.open(files.requests, feed.reading)
        stack.callback(supervisor.close)
        reporter.follow(actors.background, actors.starter.handles, feed.progress)
        stack.enter_context(reporter.exporting(Exporter(files.path.name)))
        gate = MismatchGate(run.mismatch, list(run.correction.values()), learner, console)
        checkpoints = stack.enter_context(
            Checkpoints(
                run.checkpoint,
                files.checkpoints,
                learner,
                {"feed": feed, "mismatch": gate},
                generation,
                timeout_s=run.cluster.stall_timeout_s,
                warn=console.warn,
                on_commit=feed.commit,
            )
        )
        recovery = Recovery(run.learner.max_losses, actors.starter, learner, checkpoints, weights, feed, gate, console)
        health.follow(Parts(fleet=supervisor.fleet, episodes=episodes, recovery=recovery, feed=feed))
        ctx = Context(
            run=run,
            files=files,
            generation=generation,
            console=console,
            signals=signals,
            feed=feed,
            learner=learner,
            weights=weights,
            turns=weights.turns,
            gate=gate,
            evaluation=Evaluation(run, heldout, feed, files),
            checkpoints=checkpoints,
            checkpoint_due=supervisor.checkpoint_due,
            cadence=Cadence(run.checkpoint.every),
            recovery=recovery,
            health=health,
            sinks=[reporter],
        )
        stack.callback(ctx.close_sinks)
        with running(ctx, lambda: curves.draw_run(files, run.deciding_reward, console.warn)):
            yield ctx
        for reason, count in feed.skipped().items():
            if reason != "curriculum":  # which is no fault, and in the metrics
                console.warn(f"prompts: {count} were skipped so far ({reason})")
        first, last = ctx.evaluation.first_and_last()
        console.summary(first, last, ctx.evaluation.examples, files.path, files.curves)
