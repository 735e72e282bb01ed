"""`WorkerLosses`: episode workers that were lost, and what this means for the run's slots. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlframe.rollout.seated import Seated


@dataclass(slots=True, kw_only=True)
class WorkerLosses:
    """Counts since the start. A worker that is replaced on purpose is not lost."""

    total: int = 0
    recovered: int = 0  # of these: a successor has taken over
    _moving: set[str] = field(default_factory=set)  # names of workers that are replaced on purpose
    _late: int = 0  # ignored answers of engines, as counted by workers that are gone

    def move(self, name: str) -> None:
        """Notes that a worker will be replaced on purpose."""
        self._moving.add(name)

    def add(self, name: str) -> None:
        self.total += name not in self._moving

    def recover(self, lost: Seated) -> None:
        """Notes that a successor works in the place of `lost`."""
        self.recovered += lost.name not in self._moving
        self._late += lost.late

    def late_answers(self, workers: Iterable[Seated]) -> int:
        """Answers of engines that had left or were lost, which the present and all earlier workers ignored."""
        return self._late + sum(worker.late for worker in workers)


def lost_share(workers: Sequence[Seated]) -> float:
    """Share of the slots whose worker is lost and has no successor yet."""
    slots = sum(worker.slots for worker in workers)
    return sum(worker.slots for worker in workers if worker.lost) / slots if slots else 0.0
