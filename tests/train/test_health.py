"""Losses, recoveries and lost seconds of a run, by looks at parts that lose something."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.cluster.losses import Losses
from rlframe.record.outages import Outages
from rlframe.rollout.worker_losses import WorkerLosses
from rlframe.train.health import Health
from tests.tiny.status import make_status


class Clock:
    """A clock in place of time.monotonic and time.time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: self.now)


class Run:
    """What Health reads of a run's parts."""

    def __init__(self, clock: Clock, health: Health) -> None:
        self.losses = Losses(max_losses=10.0)
        self.fleet = SimpleNamespace(losses=self.losses, lost_share=0.0, states=dict)
        self.rewards: dict[str, float] = {}
        self.episodes = SimpleNamespace(losses=WorkerLosses(), workers={}, metrics=lambda: self.rewards)
        self.recovery = SimpleNamespace(active=False, losses=0)
        background = SimpleNamespace(now=lambda: clock.now)
        self.feed = SimpleNamespace(replaying=False, taken_at=0.0, background=background)
        parts: Any = SimpleNamespace(fleet=self.fleet, episodes=self.episodes, recovery=self.recovery, feed=self.feed)
        health.follow(parts)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_quarter_of_the_engines_costs_a_quarter_of_the_time(clock: Clock):
    health = Health()
    run = Run(clock, health)
    clock.now += 60
    health.look()
    run.losses.add("rollout-0", "killed", "", 4)
    run.fleet.lost_share = 0.25
    clock.now += 40
    outages = health.look()
    assert (outages.seconds, outages.lost_s, outages.effective_time) == (100.0, 10.0, 0.9)
    assert (outages.losses["engine"], outages.recoveries["engine"]) == (1, 0)
    run.losses.recover(missing=0)
    run.fleet.lost_share = 0.0
    clock.now += 2
    assert health.look().recoveries["engine"] == 1


def test_a_lost_learner_costs_the_broken_step_and_the_replay(clock: Clock):
    health = Health()
    run = Run(clock, health)
    run.feed.taken_at = clock.now
    clock.now += 30  # of the step
    health.look()
    run.recovery.active, run.recovery.losses = True, 1
    clock.now += 2
    assert health.look().lost_s == 32
    run.recovery.active, run.feed.replaying = False, True
    clock.now += 50
    assert (health.look().lost_s, health.look().recoveries["learner"]) == (82, 0)
    run.feed.replaying = False
    clock.now += 10
    assert (health.look().lost_s, health.look().recoveries["learner"]) == (82, 1)


def test_a_dead_driver_costs_the_time_until_the_next_one_is_as_far(clock: Clock):
    before = make_status(time=900.0, outages=Outages(seconds=300.0, lost_s=20.0, late_answers=2))
    health = Health(before)
    clock.now += 40  # of the start
    assert (health.look().lost_s, health.look().seconds) == (20 + 100 + 40, 300 + 100 + 40)
    run = Run(clock, health)
    run.feed.replaying = True
    health.restored()
    clock.now += 10
    assert health.look().recoveries["driver"] == 0
    run.feed.replaying = False
    clock.now += 5
    outages = health.look()
    assert (outages.losses["driver"], outages.recoveries["driver"], outages.lost_s) == (1, 1, 170)
    assert outages.late_answers == 2


def test_a_run_that_was_stopped_lost_nothing_meanwhile(clock: Clock):
    health = Health(make_status(state="stopped", time=100.0, outages=Outages(seconds=300.0)))
    Run(clock, health)
    health.restored()
    clock.now += 10
    outages = health.look()
    assert (outages.losses["driver"], outages.seconds, outages.lost_s) == (0, 310, 0)


def test_counts_never_fall_when_an_episode_worker_begins_anew(clock: Clock):
    health = Health()
    run = Run(clock, health)
    run.rewards = {"reward/workers_replaced": 2.0, "reward/workers_back": 2.0}
    assert health.look().losses["reward"] == 2
    run.rewards = {"reward/workers_replaced": 0.0}
    assert (health.look().losses["reward"], health.look().recoveries["reward"]) == (2, 2)


def test_engines_that_join_recover_losses_one_by_one():
    losses = Losses(max_losses=10.0)
    for number in range(3):
        losses.add(f"rollout-{number}", "killed", "", 4)
    losses.recover(missing=2)
    assert losses.recovered == 1
    losses.recover(missing=0)  # one of the three was a successor that failed to start
    assert losses.recovered == 3
