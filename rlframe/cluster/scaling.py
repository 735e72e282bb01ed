"""`Controller`: the number of engines that a run wants, from what engines and learner do each second. Pure.

A run of 4 engines whose learner waited in half of the seconds, while all slots were in use, wants 6: ceil(4 x 1.5). If
the learner never waits, and the engines use half of their slots, 3 are enough: ceil(4 x 0.5 / 0.85).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from rlframe.rollout.engine_range import EngineRange

AUTO = "auto"  # in place of a number of engines: the controller decides
LEAST_READINGS = 60  # that a decision takes into account, all of the same engines
LEAST_STEPS = 2  # whole steps likewise, because engines and learner may work by turns
FULL = 0.9  # slots in use from which on engines are the bottleneck of a waiting learner
GROW_FROM = 0.25  # share of the seconds in which the learner waits for full engines
SHRINK_TO = 0.05  # the same, at most, for fewer engines
LOAD = 0.85  # of the slots, after a shrinking: below FULL, so that the next decision is not to grow


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A second of a run."""

    step: int  # steps taken since the start
    learner_waits: bool  # for groups
    slots_used: float  # unfinished completions for each slot of the engines, at most 1


class Controller:
    """Grows when the learner waits for groups, and shrinks when groups wait for the learner.

    Both need a window of readings of whole steps with the same engines. Between the two is a band in which nothing
    changes: a run that shrinks leaves the engines at 0.85 of their slots, and a run that grows uses 0.9 at least.
    """

    def __init__(self, engines: EngineRange) -> None:
        self.engines = engines
        self._readings: list[Reading] = []  # since a step began, with the engines that serve now
        self._last_step: int | None = None

    def forget(self) -> None:
        """Begins a window anew with the next step, because the engines are others, or seconds were no training."""
        self._readings.clear()
        self._last_step = None

    def target(self, engines: int, reading: Reading) -> int:
        """The number of engines to want, where `engines` serve and none is on its way."""
        target, begins = engines, self._last_step not in (None, reading.step)
        self._last_step = reading.step
        if begins and self._is_window(reading.step):
            target = self._decide(engines)
            self._readings.clear()
        if begins or self._readings:
            self._readings.append(reading)
        return target

    def _is_window(self, step: int) -> bool:
        whole_steps = step - self._readings[0].step if self._readings else 0
        return whole_steps >= LEAST_STEPS and len(self._readings) >= LEAST_READINGS

    def _decide(self, engines: int) -> int:
        starved = fmean(each.learner_waits and each.slots_used >= FULL for each in self._readings)
        waits = fmean(each.learner_waits for each in self._readings)
        used = fmean(each.slots_used for each in self._readings)
        target = engines
        if starved >= GROW_FROM:
            target = math.ceil(engines * (1 + starved))
        elif waits <= SHRINK_TO:
            target = min(engines, math.ceil(engines * used / LOAD))
        return min(self.engines.max, max(self.engines.min, target))


def refusal(engines: EngineRange, wish: str) -> str | None:
    """The reason why a run cannot have the engines that `rlframe scale RUN rollout=WISH` asks for; None: it can."""
    if engines.fixed:
        return (
            f"rollout={wish}: the run has a fixed number of engines (rollout.engines={engines}); go on with it by "
            "rlframe train resume=RUN 'rollout.engines={min: 1, max: 8}'"
        )
    if wish != AUTO and not (wish.isdecimal() and engines.min <= int(wish) <= engines.max):
        return (
            f"rollout={wish}: the run may have {engines.min} to {engines.max} engines (rollout.engines={engines}); "
            "give a number in this range, or auto"
        )
    return None
