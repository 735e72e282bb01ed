"""`Errands`: work of the driver's thread that cannot wait until a step has its groups."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlframe.weights.sync import WeightSync


class Errands:
    """Repairs of engines with wrong weights, and a checkpoint before a node leaves with the driver or a rank."""

    def __init__(self, weights: WeightSync, checkpoint_due: Event, save: Callable[[], None]) -> None:
        """`save`: starts a checkpoint of the step reached, and clears `checkpoint_due`."""
        self.weights = weights
        self.checkpoint_due = checkpoint_due
        self.save = save

    @property
    def waiting(self) -> bool:
        return self.weights.needs_repair or self.checkpoint_due.is_set()

    def run(self) -> None:
        """Does what waits; while no step is running."""
        if self.checkpoint_due.is_set():
            self.save()
        self.weights.repair()
