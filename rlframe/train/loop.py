"""The loop, one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rlframe.batch.samples import step_advantages, to_minibatches
from rlframe.cluster import start as cluster
from rlframe.config.compose import save
from rlframe.config.run import RunConfig
from rlframe.errors import ConfigError
from rlframe.experience.flow import Experience
from rlframe.experience.statistics import rollout_metrics
from rlframe.model import base_model as model
from rlframe.prompts.stream import PromptStream
from rlframe.record import curves
from rlframe.record.console import Console
from rlframe.record.directory import RunDir
from rlframe.record.metrics import JsonlSink, Sink
from rlframe.record.rollouts import RolloutWriter
from rlframe.record.wandb import WandbSink
from rlframe.reward import composition
from rlframe.train import checkpoint
from rlframe.train.checkpoint import Checkpoints
from rlframe.train.evaluate import HeldOut
from rlframe.train.mismatch import MismatchGate
from rlframe.train.signals import Stop, StopSignals
from rlframe.types import Prompt, Sampling


def train(run: RunConfig) -> None:
    """Runs to the last step, from the first or from the checkpoints of `run.resume`.

    A signal ends it after a checkpoint with Stop; whatever an actor raises, ends it and is raised here.
    """
    files, signals = RunDir(Path(run.run_dir)), StopSignals()
    signals.listen()
    with ExitStack() as stack:
        console = stack.enter_context(_console(run.steps))
        with console.phase("preparing the model"):
            path = model.prepare(run.model.path)
            stream, heldout = _prompts(run, path)
        with console.phase("starting engines, learner and reward workers"):
            rollouts, rewards, learner = stack.enter_context(cluster.start(run, path))
            signals.listen()  # Ray has put its own handlers in place of ours
        experience = stack.enter_context(_experience(run, stream, rollouts, rewards))
        step = 0
        if run.resume:
            with console.phase("restoring"):
                step = checkpoint.restore(files.checkpoints, learner, experience, rollouts, console.warn)
        files.create()
        save(run, files.config)
        sinks = stack.enter_context(_sinks(run, files, console, step))
        gate = MismatchGate(run.mismatch, run.correction, learner, console)
        gate.resume(files.metrics)
        decides = run.deciding_reward
        evaluation = HeldOut(run.evaluate, decides, run.rollout, run.seed, heldout, experience, files)
        timeout_s = run.cluster.stall_timeout_s
        checkpoints = Checkpoints(run.checkpoint, files.checkpoints, learner, experience, step, timeout_s)
        stack.enter_context(checkpoints)

        def save_checkpoint() -> None:
            with console.phase("saving a checkpoint"), signals.held_back():
                checkpoints.save(step)  # copied now, written while training goes on

        try:
            if step == 0:
                evaluation.run(step, console)
            writer = RolloutWriter(files.rollouts)
            while step < run.steps:
                watch = Stopwatch()
                groups = experience.take(run.prompts_per_step)  # list[ScoredGroup], none staler than run.max_staleness
                watch.lap("time/rollout_wait_s")
                with signals.held_back():
                    penalized = learner.penalized(groups)  # list[ScoredGroup], less the KL where it is in the reward
                    minibatches = to_minibatches(penalized, learner.objective, run.learner.minibatches)
                    report = learner.step(*minibatches)  # StepReport
                    watch.lap("time/learner_s")
                    version, step = step, report.policy_version
                    weights = learner.weights()  # what is in flight is still drawn meanwhile
                    watch.lap("time/weight_publish_s", of="time/weight_sync_s")
                    rollouts.update(weights, version=step)  # in flight: vLLM pauses, loads, goes on
                    watch.lap("time/weight_load_s", of="time/weight_sync_s")
                    writer.write(step, groups, step_advantages(penalized, run.algorithm))
                    metrics = rollout_metrics(groups, version) | experience.metrics() | rollouts.metrics()
                    metrics |= report.metrics | watch.laps() | checkpoints.metrics()
                    for sink in sinks:
                        sink.log(step, metrics)
                    gate.judge(step, metrics)
                if run.checkpoint.every and step % run.checkpoint.every == 0:
                    save_checkpoint()
                if run.evaluate.every and (step % run.evaluate.every == 0 or step == run.steps):
                    evaluation.run(step, console)
            if run.checkpoint.every and checkpoints.step != step:
                save_checkpoint()
            checkpoints.wait()
        except Stop as stop:
            if checkpoints.step != step:
                save_checkpoint()
            checkpoints.wait()
            console.warn(f"{stop}: stopped after step {step}; go on with: rlframe train resume={files.path}")
            raise
        finally:
            if files.metrics.exists():
                curves.draw(files.metrics, files.curves, files.read_evaluations())
        console.summary(*evaluation.before_and_after(), evaluation.examples, files.path, files.curves)


class Stopwatch:
    """Seconds of a step, lap by lap."""

    def __init__(self) -> None:
        self._began = self._lapped = time.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, name: str, *, of: str | None = None) -> None:
        """The time since the last lap is `name`'s, and a part of what `of` sums up."""
        now = time.monotonic()
        seconds, self._lapped = now - self._lapped, now
        self._laps[name] = seconds
        if of is not None:
            self._laps[of] = self._laps.get(of, 0.0) + seconds

    def laps(self) -> dict[str, float]:
        return {"time/step_s": time.monotonic() - self._began, **self._laps}


def _prompts(run: RunConfig, model_path: Path) -> tuple[PromptStream, list[Prompt]]:
    """The endless stream to train on, and every held-out prompt.

    Raises ConfigError: a row that is no problem, a reference that no reward can use, a prompt that is too long.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    try:
        problems, heldout = run.prompts.train.load(), run.prompts.heldout.load()
        every = (source[index] for source in (problems, heldout) for index in range(len(source)))
        composition.check(every, run.reward.terms)
        stream, others = (
            PromptStream(source, tokenizer, run.prompts.template, run.seed, run.prompts.max_tokens)
            for source in (problems, heldout)
        )
        stream.check_lengths()
        return stream, [others.at(position) for position in range(len(heldout))]
    except ValueError as error:
        raise ConfigError(f"prompts: {error}") from error


@contextmanager
def _experience(
    run: RunConfig, stream: PromptStream, rollouts: cluster.RolloutPool, rewards: cluster.RewardPool
) -> Iterator[Experience]:
    sampling = Sampling(
        completions=run.rollout.group_size,
        max_tokens=run.rollout.max_tokens,
        temperature=run.rollout.temperature,
        seed=run.seed,
    )
    experience = Experience(
        stream,
        rollouts,
        rewards,
        sampling,
        prompts_per_step=run.prompts_per_step,
        max_staleness=run.max_staleness,
        dynamic_sampling=run.dynamic_sampling,
        stall_timeout_s=run.cluster.stall_timeout_s,
    )
    try:
        yield experience
    finally:
        experience.close()


@contextmanager
def _console(steps: int) -> Iterator[Console]:
    console = Console(steps)
    try:
        yield console
    finally:
        console.close()


@contextmanager
def _sinks(run: RunConfig, files: RunDir, console: Console, step: int) -> Iterator[list[Sink]]:
    sinks: list[Sink] = [console, JsonlSink(files.metrics, keep_through_step=step)]
    if run.tracking.wandb:
        sinks.append(WandbSink(files.path, run.model_dump(), run.tracking.project, run.tracking.mode))
    try:
        yield sinks
    finally:
        for sink in sinks[1:]:
            sink.close()
