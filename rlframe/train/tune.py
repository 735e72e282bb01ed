"""`tune`: rows -> samples -> learner. The loop is that of a run of reinforcement learning, without engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.algorithm import rate
from rlframe.batch.samples import to_minibatches
from rlframe.train import tune_context
from rlframe.train.loop import run_steps

if TYPE_CHECKING:
    from rlframe.config.tune import TuneConfig
    from rlframe.train.tune_context import TuneContext


def tune(run: TuneConfig) -> None:
    """Runs to the last step, from the first step or from a checkpoint of `run.resume`.

    Raises Stop after a signal, once a checkpoint is saved. A rank's exception ends the run.
    """
    with tune_context.open(run) as ctx:
        run_steps(ctx.run, ctx, take_step)


def take_step(run: TuneConfig, ctx: TuneContext, step: int) -> int:
    """The step after `step`, an update on the next rows -> its number."""
    with ctx.signals.held_back():  # a checkpoint between two steps must not skip rows that were taken
        rows = ctx.ask(ctx.rows.take())  # list[GroupRecord]: a group for each row, with what the algorithm asks
        minibatches = to_minibatches(rate(rows, run.algorithm), ctx.learner.objective, count=1)
        report = ctx.learner.step(*minibatches)  # StepReport
        ctx.record(report.policy_version, rows, report)  # files, console
    return report.policy_version
