"""The loop: prompts -> rollouts -> rewards -> advantages -> learner -> weights -> rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rlframe.algorithm import rate
from rlframe.batch.samples import to_minibatches
from rlframe.cluster.placement import RL
from rlframe.errors import LearnerLost
from rlframe.train import context

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys
    from rlframe.config.run import RunConfig
    from rlframe.train.context import Context
    from rlframe.train.session import Session

Run = TypeVar("Run", bound="SharedKeys")
Open = TypeVar("Open", bound="Session")


def train(run: RunConfig) -> None:
    """Runs to the last step, from the first step or from a checkpoint of `run.resume`.

    Raises Stop after a signal, once a checkpoint is saved. An actor's exception ends the run.
    """
    with context.open(run, roles=RL) as ctx:
        run_steps(run, ctx, take_step)


def run_steps(run: Run, ctx: Open, take_step: Callable[[Run, Open, int], int]) -> None:
    """The loop over an open context, to the last step; `take_step` makes the step after a step."""
    step = ctx.restore()
    while step < run.last_step:
        try:
            step = take_step(run, ctx, step)
            ctx.periodic(step)  # checkpoint, evaluation
            if step == run.last_step:
                ctx.checkpoints.wait()
        except LearnerLost as lost:
            step = ctx.recover(lost)  # back to the newest checkpoint; the feed hands out the steps since then again


def take_step(run: RunConfig, ctx: Context, step: int) -> int:
    """The step after `step` -> its number. A function of its own, so that its rollouts leave memory at its end."""
    groups = ctx.feed.take(run.prompts_per_step)  # list[GroupRecord]; run.late decides on old tokens
    with ctx.signals.held_back():
        ctx.turns.begin_learner()  # placement=colocated: the engines leave the GPUs, until the sync below
        rated = rate(ctx.learner.apply_kl_penalty(groups), run.algorithm, run.truncated)  # list[RatedGroup]
        oldest_version = run.oldest_version(step)  # tokens of older versions have weight 0
        minibatches = to_minibatches(rated, ctx.learner.objective, run.learner.minibatches, oldest_version)
        report = ctx.learner.step(*minibatches)  # StepReport
        step = report.policy_version
        synced = ctx.sync(step)  # publish, deliver, verify, repair; running completions pause and go on
        ctx.record(step, groups, rated, report, synced)  # files, console, mismatch gate
    return step
