"""The controller of the number of engines, alone and in a simulated run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rlframe.cluster.scaling import Controller, Reading, refusal
from rlframe.rollout.engine_range import EngineRange

STARVED, BUSY = (True, 1.0), (False, 1.0)  # the learner waits, share of the slots in use
STEP_S = 30


def steps(seconds: list[tuple[bool, float]], first: int = 0) -> list[Reading]:
    """Readings of steps of 30 seconds."""
    return [
        Reading(step=first + second // STEP_S, learner_waits=waits, slots_used=used)
        for second, (waits, used) in enumerate(seconds)
    ]


def decide(engines: int, seconds: list[tuple[bool, float]], bounds: tuple[int, int] = (1, 16)) -> int:
    """The target after a step that nobody knows the begin of, and two steps of these seconds."""
    controller = Controller(EngineRange(min=bounds[0], max=bounds[1]))
    readings = steps([STARVED] * STEP_S + seconds + [STARVED])
    targets = [controller.target(engines, reading) for reading in readings]
    assert set(targets[:-1]) <= {engines}
    return targets[-1]


def mixed(first: tuple[bool, float], count: int, second: tuple[bool, float]) -> list[tuple[bool, float]]:
    return [first] * count + [second] * (2 * STEP_S - count)


@pytest.mark.parametrize(
    "engines, seconds, bounds, target",
    [
        (4, mixed(STARVED, 30, BUSY), (1, 16), 6),  # 4 x 1.5
        (4, mixed(STARVED, 14, BUSY), (1, 16), 4),  # the learner waits in 23 % of the seconds, fewer than 25 %
        (4, mixed(STARVED, 60, BUSY), (1, 6), 6),  # 8 would be more than the most
        (4, [(False, 0.5)] * 60, (1, 16), 3),  # ceil(2 / 0.85)
        (4, [(False, 0.84)] * 60, (1, 16), 4),  # ceil(3.36 / 0.85)
        (4, [(False, 0.0)] * 60, (2, 16), 2),
        (4, [(True, 0.5)] * 60, (1, 16), 4),  # more engines would be idle as well
        (4, [(False, 0.0)] * 30 + [STARVED] * 30, (1, 16), 6),  # engines and learner work by turns
    ],
)
def test_two_whole_steps_decide(
    engines: int, seconds: list[tuple[bool, float]], bounds: tuple[int, int], target: int
) -> None:
    assert decide(engines, seconds, bounds) == target


def test_nothing_changes_before_two_whole_steps_of_the_same_engines() -> None:
    controller = Controller(EngineRange(min=1, max=9))
    assert {controller.target(2, reading) for reading in steps([STARVED] * 3 * STEP_S)} == {2}
    controller.forget()
    again = steps([STARVED] * 3 * STEP_S + [STARVED], first=3)
    assert [controller.target(2, reading) for reading in again][-2:] == [2, 4]


def test_steps_of_a_second_decide_once_a_minute() -> None:
    controller = Controller(EngineRange(min=1, max=99))
    readings = [Reading(step=second, learner_waits=True, slots_used=1.0) for second in range(62)]
    assert [controller.target(2, reading) for reading in readings] == [2] * 61 + [4]


@dataclass
class Simulation:
    """A run second by second: engines make groups, the learner takes `size` of them, then computes for `step_s`.

    An engine makes `rate` groups a second, starts in `start_s`, and pauses while `ready` groups wait.
    """

    controller: Controller
    rate: float
    step_s: Callable[[int], float]  # second -> seconds of a step that begins then
    size: int = 32
    start_s: int = 90
    engines: int = 1  # that serve
    target: int = 1
    ready: float = 0.0
    steps: int = 0
    computes_until: float = 0.0
    ready_at: list[int] = field(default_factory=list)  # seconds at which engines have started
    history: list[int] = field(default_factory=list)  # target in each second

    def run(self, seconds: int) -> None:
        for second in range(len(self.history), len(self.history) + seconds):
            self._second(second)
            self.history.append(self.target)

    def _second(self, second: int) -> None:
        self.engines += sum(at == second for at in self.ready_at)
        made = min(self.engines * self.rate, max(0.0, self.size - self.ready))
        self.ready += made
        waits = second >= self.computes_until
        if waits and self.ready >= self.size:
            self.ready -= self.size
            self.computes_until = second + self.step_s(second)
            waits = False
            self.steps += 1
        if self.engines != self.target:
            self.controller.forget()
            return
        before = self.target
        self.target = self.controller.target(
            self.engines, Reading(step=self.steps, learner_waits=waits, slots_used=made / (self.engines * self.rate))
        )
        self.ready_at += [second + self.start_s] * max(0, self.target - before)
        self.engines = min(self.engines, self.target)


@pytest.mark.parametrize("needed", [1.0, 2.5, 4.0, 7.3, 12.0])
def test_a_run_finds_the_engines_that_feed_its_learner_and_stays(needed: float) -> None:
    """One engine makes 0.2 groups a second, and a step of 32 groups takes 160 s / `needed`."""
    for start in (1, 16):
        controller = Controller(EngineRange(min=1, max=16))
        simulation = Simulation(controller, rate=0.2, step_s=lambda _: 160 / needed, engines=start, target=start)
        simulation.run(3600)
        settled = simulation.history[1800:]
        assert len(set(settled)) == 1, "the number of engines goes up and down"
        assert math.floor(0.7 * needed) <= settled[0] <= math.ceil(needed / 0.8)


def test_a_run_follows_a_learner_that_becomes_slower_and_faster() -> None:
    simulation = Simulation(
        Controller(EngineRange(min=2, max=12)),
        rate=0.2,
        step_s=lambda second: 160 / 8 if second < 3600 or second >= 7200 else 160 / 2,
        engines=2,
        target=2,
    )
    simulation.run(3 * 3600)
    counts = [simulation.history[hour * 3600 - 1] for hour in (1, 2, 3)]
    assert counts[0] in range(6, 11) and counts[1] in (2, 3) and counts[2] in range(6, 11)
    changes = sum(before != after for before, after in zip(simulation.history, simulation.history[1:], strict=False))
    assert changes <= 14


@pytest.mark.parametrize("wish, reason", [("0", "1 to 4"), ("5", "1 to 4"), ("many", "a number"), ("-1", "or auto")])
def test_a_wish_beyond_the_range_is_refused(wish: str, reason: str) -> None:
    assert reason in (refusal(EngineRange(min=1, max=4), wish) or "")


def test_wishes_in_the_range_are_fulfilled() -> None:
    assert [refusal(EngineRange(min=1, max=4), wish) for wish in ("1", "4", "auto")] == [None] * 3
    assert "fixed number of engines (rollout.engines=4)" in (refusal(EngineRange(min=4, max=4), "4") or "")
