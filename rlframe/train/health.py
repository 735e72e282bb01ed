"""`Health`: counts a run's losses and recoveries while it goes on, and the time that they cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from rlframe.record.operator_metrics import VERDICTS
from rlframe.record.outages import ROLES, Outages
from rlframe.reward.pool import BACK, REPLACED
from rlframe.rollout.worker_losses import lost_share

if TYPE_CHECKING:
    from rlframe.cluster.fleet import Fleet
    from rlframe.experience.flow import RolloutFeed
    from rlframe.record.status import Status
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.train.recovery import Recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of an open run that know of losses."""

    fleet: Fleet
    episodes: EpisodePool
    recovery: Recovery
    feed: RolloutFeed


class Health:
    """Looks at the parts every two seconds. For any thread.

    Seconds are lost whole while the learner is replaced or takes steps again, and after the death of a driver until
    the next one takes a new step; else by the share of engines that were lost and are not replaced, or whose episode
    worker is. A step that the learner's death ended is lost from its beginning.
    """

    def __init__(self, before: Status | None = None) -> None:
        """`before`: the last word of the run's previous driver; None: a new run."""
        self._outages = before.outages if before else Outages()
        self._driver_away = before is not None and before.state not in ("finished", "stopped")
        if before and self._driver_away:
            self._outages = self._outages.after_driver(max(0.0, time.time() - before.time))
        self._at_start = self._outages
        self._parts: Parts | None = None
        self._restored = False
        self._learner_losses = 0  # that the last look knew
        self._looked_at = time.monotonic()
        self._lock = Lock()

    def follow(self, parts: Parts) -> None:
        """Counts from now on what these parts tell."""
        self._parts = parts

    def restored(self) -> None:
        """Notes that the run stands where its predecessor did, except for steps that are taken again."""
        self._restored = True

    def look(self) -> Outages:
        """The outages until now."""
        with self._lock:
            now = time.monotonic()
            seconds, self._looked_at = now - self._looked_at, now
            lost_s = seconds * self._lost_share() + self._broken_step_s(seconds)
            counted = self._outages
            counted = replace(counted, seconds=counted.seconds + seconds, lost_s=counted.lost_s + lost_s)
            self._outages = self._count(counted)
            return self._outages

    def engine_states(self) -> dict[str, int]:
        return self._parts.fleet.states() if self._parts else {}

    def prompt_states(self) -> dict[str, int]:
        return self._parts.feed.ledger.states() if self._parts else {}

    def verdicts(self) -> dict[str, int]:
        return {status: self._parts.feed.verdicts[status] for status in VERDICTS} if self._parts else {}

    def metrics(self) -> dict[str, float]:
        """The rows of `metrics.jsonl`: engines by state, losses, recoveries, effective time."""
        engines = {f"engines/{state}": float(count) for state, count in self.engine_states().items()}
        return engines | self.look().metrics()

    def _learner_away(self) -> bool:
        return self._parts is not None and (self._parts.recovery.active or self._parts.feed.replaying)

    def _lost_share(self) -> float:
        if self._driver_away and self._restored and not self._learner_away():
            self._driver_away = False
        if self._driver_away or self._learner_away():
            return 1.0
        if self._parts is None:
            return 0.0
        return max(self._parts.fleet.lost_share, lost_share(list(self._parts.episodes.workers.values())))

    def _broken_step_s(self, looked_s: float) -> float:
        """Seconds between the take of a step and the learner's death in it, beyond those of the last look."""
        if self._parts is None or self._parts.recovery.losses == self._learner_losses:
            return 0.0
        self._learner_losses = self._parts.recovery.losses
        feed = self._parts.feed
        return max(0.0, feed.background.now() - feed.taken_at - looked_s) if feed.taken_at else 0.0

    def _count(self, counted: Outages) -> Outages:
        if (parts := self._parts) is None:
            return counted
        rewards = parts.episodes.metrics()
        losses = {
            "engine": parts.fleet.losses.total,
            "learner": parts.recovery.losses,
            "episodes": parts.episodes.losses.total,
            "reward": int(rewards.get(REPLACED, 0)),
            "driver": 0,
        }
        recoveries = {
            "engine": parts.fleet.losses.recovered,
            "learner": 0 if self._learner_away() else parts.recovery.losses,
            "episodes": parts.episodes.losses.recovered,
            "reward": int(rewards.get(BACK, 0)),
            "driver": 0 if self._driver_away else self._at_start.losses["driver"] - self._at_start.recoveries["driver"],
        }
        late = parts.episodes.losses.late_answers(list(parts.episodes.workers.values()))
        return replace(
            counted,
            losses=_sums(counted.losses, self._at_start.losses, losses),
            recoveries=_sums(counted.recoveries, self._at_start.recoveries, recoveries),
            late_answers=max(counted.late_answers, self._at_start.late_answers + late),
        )


def _sums(known: dict[str, int], earlier: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """Counts of earlier drivers and of this one. A count never falls: a new episode worker begins at 0."""
    return {role: max(known[role], earlier[role] + now[role]) for role in ROLES}
