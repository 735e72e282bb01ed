"""How often a run survives losses of its learner, and what it does in which order to get new ranks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.errors import LearnerLost, RunFailed
from rlframe.train.cadence import Cadence
from rlframe.train.context import Context
from rlframe.train.health import Health
from rlframe.train.recovery import Recovery
from rlframe.train.signals import Stop, StopSignals


class Run:
    """The parts of a run that has taken batches up to `taken`, and what recovery asks of them in order."""

    def __init__(self, *, saved: int, taken: int, max_losses: int = 1) -> None:
        """`saved`: step of the newest checkpoint; 0: there is none."""
        self.saved, self.taken, self.next = saved, taken, taken
        self.events: list[str] = []
        self.at_restart: Callable[[], None] = lambda: None
        self.version = taken  # of the learner
        self.config = SimpleNamespace(every=2)  # of the checkpoints
        self.step = saved
        parts: Any = self
        console: Any = SimpleNamespace(warn=self.events.append, phase=lambda _: nullcontext())
        self.recovery = Recovery(max_losses, parts, parts, parts, parts, parts, parts, console)

    def learner_lost(self) -> None:
        self.events.append("forget weights")

    def settle(self) -> None:
        self.events.append("settle checkpoint")

    def restart_learner(self) -> None:
        self.version = 0
        self.events.append("new ranks")
        self.at_restart()

    def restore_learner(self, parts: list[str]) -> int:
        self.version = self.saved
        self.events.append(f"load {self.saved}")
        return self.saved

    def state(self) -> str:
        return "as at the start"

    def restore(self, state: str) -> None:
        self.events.append(f"gate {state}")

    @property
    def replaying(self) -> bool:
        return self.next < self.taken

    def rewind(self, version: int) -> None:
        self.next = version
        self.events.append(f"rewind {version}")

    def sync(self, version: int) -> None:
        self.events.append(f"sync {version}")

    def begin_epoch(self, step: int) -> None:
        self.events.append(f"cut log at {step}")

    def save(self, step: int) -> None:
        self.events.append(f"save {step}")

    def train(self, step: int) -> None:
        """Goes on to a step."""
        self.version = self.taken = self.next = step

    def context(self, signals: StopSignals, step: int) -> Context:
        parts: Any = self
        unused: Any = None
        console: Any = SimpleNamespace(phase=lambda _: nullcontext())
        named = dict.fromkeys(
            ("run", "files", "generation", "learner", "weights", "turns", "gate", "evaluation"), unused
        )
        return Context(
            **named,
            console=console,
            signals=signals,
            feed=parts,
            checkpoints=parts,
            recovery=self.recovery,
            cadence=Cadence(0),
            checkpoint_due=Event(),
            health=Health(),
            step=step,
        )


def lost(number: int = 0) -> LearnerLost:
    return LearnerLost(f"learner-{number} died")


def test_new_ranks_begin_at_the_newest_checkpoint_and_replay() -> None:
    run = Run(saved=4, taken=6)
    assert run.recovery.recover(lost()) == 4
    assert run.events == [
        "the learner is lost after step 6, and new ranks start: learner-0 died",
        "forget weights",
        "settle checkpoint",
        "new ranks",
        "load 4",
        "rewind 4",
    ]


def test_without_a_step_to_replay_the_weights_are_published_at_once() -> None:
    run = Run(saved=6, taken=6)
    assert run.recovery.recover(lost()) == 6
    assert run.events[-2:] == ["rewind 6", "sync 6"]


def test_without_a_checkpoint_ranks_and_mismatch_gate_begin_anew() -> None:
    run = Run(saved=0, taken=3)
    assert run.recovery.recover(lost()) == 0
    assert run.events[-3:] == ["load 0", "gate as at the start", "rewind 0"]


def test_a_run_without_checkpoints_ends_with_the_loss_itself() -> None:
    run = Run(saved=0, taken=3)
    run.config.every = 0
    with pytest.raises(LearnerLost, match="learner-0 died"):
        run.recovery.recover(lost())
    assert run.events == []


def test_losses_without_a_new_step_between_are_bounded_and_all_named() -> None:
    run = Run(saved=4, taken=6, max_losses=2)
    run.recovery.recover(lost(1))
    run.train(5)  # a step that it had reached before
    run.recovery.recover(lost(2))
    with pytest.raises(RunFailed) as failure:
        run.recovery.recover(lost(3))
    assert str(failure.value) == (
        "losses of the learner after step 6, without a new step between: 3, and the run survives 2 "
        "(learner.max_losses)\nloss 1: learner-1 died\nloss 2: learner-2 died\nloss 3: learner-3 died"
    )


def test_a_run_that_gets_further_survives_any_number_of_losses() -> None:
    run = Run(saved=4, taken=6, max_losses=1)
    for step in range(6, 16):
        run.train(step)
        run.recovery.recover(lost())


def test_a_rank_that_dies_at_its_new_start_counts_as_a_loss() -> None:
    run = Run(saved=4, taken=6, max_losses=2)

    def die_once() -> None:
        run.at_restart = lambda: None
        raise lost(1)

    run.at_restart = die_once
    assert run.recovery.recover(lost()) == 4
    assert run.events.count("new ranks") == 2

    def die() -> None:
        raise lost(2)

    run.train(7)
    run.at_restart = die
    with pytest.raises(RunFailed, match=r"loss 1: learner-0 died\nloss 2: learner-2 died\nloss 3: "):
        run.recovery.recover(lost())


def test_a_signal_in_a_recovery_stops_the_run_and_saves_nothing(signals: StopSignals) -> None:
    run = Run(saved=4, taken=6)
    ctx = run.context(signals, step=6)
    run.at_restart = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stop, match="SIGTERM"):
        ctx.recover(lost())
    ctx.save()  # as the handler of Stop does
    assert run.events[-1] == "new ranks"


def test_a_signal_in_the_lost_step_stops_the_run_before_new_ranks(signals: StopSignals) -> None:
    run = Run(saved=4, taken=6)
    ctx = run.context(signals, step=6)
    with pytest.raises(LearnerLost), signals.held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        raise lost()
    with pytest.raises(Stop, match="SIGTERM"):
        ctx.recover(lost())
    assert "new ranks" not in run.events


def test_a_replayed_step_is_saved_under_its_own_number(signals: StopSignals) -> None:
    run = Run(saved=4, taken=6)
    ctx = run.context(signals, step=6)
    assert ctx.recover(lost()) == ctx.step == 4
    ctx.save()  # which is saved already
    ctx.step = 5
    ctx.save()
    assert run.events[-3:] == ["rewind 4", "cut log at 5", "save 5"]
