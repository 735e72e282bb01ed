"""`open`: the parts of a tuning run, from its rows to its ranks and files, and their orderly end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rlframe.algorithm import RowLoss
from rlframe.model.folder_digest import folder_digest
from rlframe.record import curves
from rlframe.record.console import Console
from rlframe.record.directory import RunDir
from rlframe.record.evaluations import MAIN_SET, add_evaluation, figure_key, first_and_last, keep_evaluations
from rlframe.record.metrics import last_step
from rlframe.record.reference_sums import ReferenceSums
from rlframe.record.wandb import check_key
from rlframe.train.cadence import Cadence
from rlframe.train.checkpoint import Checkpoints
from rlframe.train.prompts import open_tokenizer
from rlframe.train.recovery import Recovery
from rlframe.train.row_feed import row_digest
from rlframe.train.session import Session, begin, running
from rlframe.train.signals import StopSignals
from rlframe.train.written import open_rows

if TYPE_CHECKING:
    from rlframe.config.tune import TuneConfig
    from rlframe.train.row_feed import RowFeed
    from rlframe.training import GroupRecord, StepReport

# Metrics of the learner that compare it with an engine, which a tuning run does not have.
ENGINE_METRICS = ("mismatch/", "policy/ratio", "policy/k3", "policy/clip", "correction/")
ROWS = "rows"  # the feed's state in a checkpoint


@dataclass(slots=True, kw_only=True)
class TuneContext(Session):
    """The open parts of a tuning run."""

    run: TuneConfig
    rows: RowFeed
    heldout: list[GroupRecord]
    reference: ReferenceSums | None = None  # of an algorithm that compares with it

    def restore(self) -> int:
        """Continues from the newest whole checkpoint -> its step; 0 in a new run, which evaluates first.

        Raises RunFailed if no checkpoint of a resumed run is whole, or machines do not share the run's folder.
        """
        self.recovery.repeat(self.checkpoints.check_folder)
        self.recovery.repeat(self.complete_reference)  # by ranks that still hold the base model
        logged = last_step(self.files.metrics) if self.run.resume else 0
        if self.run.resume and self.checkpoints.exist():
            with self.console.phase("restoring"):
                self.step = self.recovery.repeat(lambda: self.checkpoints.restore(self.console.warn))
        keep_evaluations(self.files.evaluations, max(self.step, logged))
        self.open_sinks(max(self.step, logged))
        self.retry_after_losses(lambda: self.evaluate_if_due(self.step))
        self.step_seconds()  # the first step begins here
        return self.step

    def complete_reference(self) -> None:
        """Lets the ranks, which still hold the base model, compute what the file of the reference lacks."""
        sums, planned = self.reference, self.rows.planned if self.reference else 0
        if sums is None:
            return
        heldout = [row for row in self.heldout if row_digest(row) not in sums]
        rows = self.rows.every_row() if sums.rows < planned else iter(())
        total = len(heldout) + (min(planned, len(self.rows.stream.rows)) if sums.rows < planned else 0)
        if not total:
            return
        with self.console.phase("computing log-probabilities by the reference", total) as show_done:
            every, done = chain(heldout, rows), 0
            while chunk := list(islice(every, self.rows.per_step)):
                self.generation.check()
                if missing := {digest: row for row in chunk if (digest := row_digest(row)) not in sums}:
                    asked = (row.asked or [] for row in self.learner.ask(list(missing.values())))
                    values = ([float(one.sum(dtype="float64")) for one in answers] for answers in asked)
                    sums.add(dict(zip(missing, values, strict=True)))
                done += len(chunk)
                show_done(done)
        sums.complete(max(planned, sums.rows))

    def ask(self, rows: list[GroupRecord]) -> list[GroupRecord]:
        """The rows with what the algorithm asks of the policy, and their log-probabilities by the reference."""
        if self.run.algorithm.asks is None:
            return rows
        rows = self.learner.ask(rows)
        if (sums := self.reference) is None:
            return rows
        return [replace(row, reference=sums.of(row_digest(row), f"row {row.body.group.prompt.id}")) for row in rows]

    def record(self, step: int, rows: list[GroupRecord], report: StepReport) -> None:
        """Writes a step's metrics, once: of a step that is taken again after a loss nothing."""
        self.generation.check()
        self.step = step
        seconds = self.step_seconds()
        if step <= self.recorded:
            return
        tokens = sum(size.tokens for row in rows for trajectory in row.trajectories for size in trajectory.sequences)
        left_out = (*ENGINE_METRICS, "learner/entropy") if self.run.algorithm.asks == "scores" else ENGINE_METRICS
        metrics = {key: value for key, value in report.metrics.items() if not key.startswith(left_out)}
        metrics |= self.rows.metrics() | self.checkpoints.metrics()
        metrics |= {
            "rows/count": float(len(rows)),
            "rows/tokens": float(tokens),
            "rows/trained_tokens": float(sum(sum(row.lengths) for row in rows)),
            "rows/shared": metrics["learner/shared_tokens"] / tokens,
            "rows/tokens_per_s": tokens / seconds,
            "losses/learner": float(self.recovery.losses),
            "time/step_s": seconds,
        }
        if isinstance(self.run.algorithm, RowLoss):
            means = self.run.algorithm.means(rows)
            metrics["learner/loss"] = means.pop("loss")  # the ranks' own is linear, and has the same gradient
            metrics |= {f"rows/{name}": value for name, value in means.items()}
        self.log(step, metrics)

    def evaluate_if_due(self, step: int) -> None:
        every = self.run.evaluation_every
        if every and step > self.evaluated and (step % every == 0 or step == self.run.last_step):
            self.evaluate(step)

    def evaluate(self, step: int) -> None:
        """The algorithm's loss and figures on held-out rows. Of demonstrations the mean loss of a token, and the share
        of rows whose answer greedy sampling would write.
        """
        self.generation.check()
        with self.console.phase("evaluating on held-out rows"):
            if isinstance(self.run.algorithm, RowLoss):
                values = self.run.algorithm.means(self.ask(self.heldout))
            else:
                found = self.learner.likelihoods(self.heldout)
                tokens = sum(likelihood.tokens for likelihood in found)
                values = {
                    "loss": -sum(likelihood.logprob_sum for likelihood in found) / tokens,
                    "exact": sum(likelihood.greedy for likelihood in found) / len(found),
                }
        figures = {figure_key(MAIN_SET, name): value for name, value in values.items()}
        add_evaluation(self.files.evaluations, step, figures)
        for sink in self.watchers:
            sink.log(step, figures)
        self.evaluated = step

    def before_saving(self) -> None:
        """The state of rows is a position, which needs no preparation."""


@contextmanager
def open(run: TuneConfig) -> Iterator[TuneContext]:
    """Reads the rows, opens the run with its ranks, and ends the ranks at the end.

    Raises ConfigError for rows that cannot be used, before a rank starts, and Stalled or ActorFailed where ranks do not
    start. A signal saves a checkpoint and raises Stop. Curves are drawn whatever ended the run.
    """
    check_key(run.tracking)
    files, signals = RunDir(Path(run.run_dir)), StopSignals()
    signals.listen()
    with ExitStack() as stack:
        algorithm = run.algorithm
        figures = algorithm.figures if isinstance(algorithm, RowLoss) else ()
        console = stack.enter_context(Console(run.steps or 0, tuning=True, figures=figures))
        beginning = begin(stack, run, files, console, signals, steps=run.steps or 0)
        with console.phase("reading the rows"):
            tokenizer = open_tokenizer(beginning.model_path)
            opened = open_rows(run, tokenizer, beginning.model_path, files.row_total, console.warn)
        run = run.with_steps(opened.steps)
        console.steps = beginning.reporter.steps = opened.steps
        reference = None
        if isinstance(algorithm, RowLoss) and algorithm.compares_with_reference:
            reference = ReferenceSums(files.reference, folder_digest(beginning.model_path), run.learner.dtype)
        joined = beginning.join(stack, run, ("learner",))
        with console.phase("starting the learner"):
            actors = joined.start(beginning.model_path, console.warn)
        assert actors.learner is not None
        beginning.reporter.follow(actors.background, actors.starter.handles)
        checkpoints = stack.enter_context(
            Checkpoints(
                run.checkpoint,
                files.checkpoints,
                actors.learner,
                {ROWS: opened.feed},
                beginning.generation,
                timeout_s=run.cluster.stall_timeout_s,
                warn=console.warn,
            )
        )
        recovery = Recovery(
            run.learner.max_losses, actors.starter, actors.learner, checkpoints, None, None, opened.feed, console, ROWS
        )
        ctx = TuneContext(
            run=run,
            files=files,
            generation=beginning.generation,
            console=console,
            signals=signals,
            learner=actors.learner,
            checkpoints=checkpoints,
            cadence=Cadence(run.checkpoint.every),
            checkpoint_due=Event(),
            recovery=recovery,
            rows=opened.feed,
            heldout=opened.heldout,
            reference=reference,
            sinks=[beginning.reporter],
        )
        stack.callback(ctx.close_sinks)
        with running(ctx, lambda: curves.draw_tuning(files, console.warn)):
            yield ctx
        console.summary(*first_and_last(files.evaluations), [], files.path, files.curves)
