"""`evaluate`: a run that evaluates a model on every held-out set, with engines and reward workers and no learner."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.config.compose import save
from rlframe.experience.scoring import Scorer
from rlframe.model import base_model
from rlframe.record.console import Console
from rlframe.record.directory import RunDir
from rlframe.record.wandb import check_key
from rlframe.train.evaluate import Evaluation
from rlframe.train.held_out import open_held_out
from rlframe.train.joining import join
from rlframe.train.prompts import open_tokenizer
from rlframe.train.reporter import Reporter
from rlframe.train.signals import StopSignals
from rlframe.train.watchers import open_watchers

if TYPE_CHECKING:
    from rlframe.cluster.placement import Role
    from rlframe.config.run import EvaluationRun

EVALUATION: tuple[Role, ...] = ("rollout", "reward")


def evaluate(run: EvaluationRun) -> dict[str, float]:
    """Evaluates the model at `model.path` once -> the figures, which are also printed and written as those of step 0.

    Raises Stop after a signal, ConfigError for prompts that cannot be used, and Stalled or ActorFailed where actors do
    not start. An actor's exception ends the run.
    """
    check_key(run.tracking)
    files, signals = RunDir(Path(run.run_dir)), StopSignals()
    signals.listen()
    with ExitStack() as stack:
        console = stack.enter_context(Console(0, run.deciding_reward))
        files.path.mkdir(parents=True, exist_ok=True)
        reporter = stack.enter_context(Reporter(files, 0, console.warn))
        with console.phase("preparing the model"):
            model_path = base_model.prepare(run.model.path)
        joined_cluster = join(stack, run, EVALUATION, console, signals)
        with console.phase("reading the prompts"):
            heldout = open_held_out(run, open_tokenizer(model_path), console.warn)
        with console.phase("starting engines and reward workers"):
            actors = joined_cluster.start(model_path, console.warn)
        if actors.episodes is None:
            raise ValueError("an evaluation needs engines and reward workers")
        scorer = Scorer(actors.episodes, actors.background, slots=run.rollout.slots, warn=console.warn)
        evaluation = Evaluation(run, heldout, stack.enter_context(scorer), files)
        reporter.follow(actors.background, actors.starter.handles, scorer.progress)
        save(run, files.config)
        watchers = open_watchers(run, files, console)
        stack.callback(lambda: [watcher.close() for watcher in watchers])
        figures = evaluation.run(0, console)
        for watcher in watchers:
            if watcher is not console:  # which shows the table instead
                watcher.log(0, figures)
        console.evaluated(figures, files.path)
        return figures
