"""`Cadence`: the steps after which a run saves a checkpoint. Pure."""

from __future__ import annotations


class Cadence:
    """Every `every` steps, and after a loss of the learner more often at first: the next loss then costs few steps.

    With every=10 and a loss in step 14, new ranks take steps 11 to 14 again. Checkpoints follow, with distances that
    double up to `every`:

        14  16  20  28  30  40  50
    """

    def __init__(self, every: int) -> None:
        """`every`: steps; 0: never."""
        self.every = every
        self._distance = every  # steps from the newest checkpoint to the next one, after a loss
        self._saved = 0  # step of the newest checkpoint

    def due(self, step: int, *, busy: bool) -> bool:
        """True if a checkpoint belongs after `step`.

        `busy`: another is still being written, and a further one would wait for it; only a multiple of `every` is due.
        """
        if not self.every:
            return False
        return step % self.every == 0 or (not busy and self._distance < self.every and self._next <= step)

    def note_saved(self, step: int) -> None:
        self._distance *= 2
        self._saved = step

    def note_loss(self, step: int) -> None:
        """Notes a loss of the learner in `step`, which the next ranks take again."""
        self._distance, self._saved = 1, step - 1

    @property
    def _next(self) -> int:
        return self._saved + self._distance
