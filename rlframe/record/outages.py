"""`Outages`: what has died in a run since its first start, over all its drivers, and the time that this cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

ROLES = ("engine", "learner", "episodes", "reward", "driver")


def _none() -> dict[str, int]:
    return dict.fromkeys(ROLES, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outages:
    """Counts by role, and seconds.

    A run of 1,000 s that stood still for 100 s without a learner, and lacked 1 of 4 engines for 200 s, has lost 150 s:
    its effective time is 0.85.
    """

    losses: dict[str, int] = field(default_factory=_none)
    recoveries: dict[str, int] = field(default_factory=_none)  # losses after which a successor works
    late_answers: int = 0  # of lost engines, ignored
    seconds: float = 0.0  # in which drivers ran, or were dead
    lost_s: float = 0.0  # of these

    @property
    def effective_time(self) -> float:
        """Share of the seconds that was not lost."""
        return 1 - self.lost_s / self.seconds if self.seconds else 1.0

    def after_driver(self, dead_s: float) -> Outages:
        """The outages after the death of a driver, and `dead_s` without any."""
        losses = self.losses | {"driver": self.losses["driver"] + 1}
        return replace(self, losses=losses, seconds=self.seconds + dead_s, lost_s=self.lost_s + dead_s)

    def metrics(self) -> dict[str, float]:
        """The rows of `metrics.jsonl`."""
        return {
            **{f"losses/{role}": float(count) for role, count in self.losses.items()},
            **{f"recoveries/{role}": float(count) for role, count in self.recoveries.items()},
            "rollout/late_answers": float(self.late_answers),
            "time/effective": self.effective_time,
        }
