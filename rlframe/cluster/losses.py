"""`Losses`: engines that were lost since the last step, and the bound on their number. Pure."""

from __future__ import annotations

import math

from rlframe.errors import RunFailed


class Losses:
    """Counts losses. A step of the learner is progress, after which the count starts anew.

    With max_losses=3.0 a run of 2 engines survives 6 losses between two steps; the seventh ends it.
    """

    def __init__(self, max_losses: float) -> None:
        """`max_losses`: losses between two steps, as a multiple of the number of engines."""
        self.max_losses = max_losses
        self.total = 0  # since the start
        self.recovered = 0  # of these, likewise
        self._lines: list[str] = []  # a line for each loss since the last step

    def recover(self, missing: int) -> None:
        """Notes that an engine begins to serve in the place of a lost one, if any; `missing`: engines to come."""
        self.recovered = max(min(self.recovered + 1, self.total), self.total - missing)

    def step(self) -> None:
        """Notes a step of the learner."""
        self._lines.clear()

    def add(self, name: str, reason: str, words: str, engines: int) -> None:
        """Counts a loss in a run of `engines`. `words`: the last output of a dead engine, if any.

        Raises RunFailed with the reason of every loss, and with these last words, beyond the bound.
        """
        self.total += 1
        self._lines.append(f"{name}: {reason}")
        bound = math.floor(self.max_losses * engines)
        if len(self._lines) > bound:
            raise RunFailed(
                f"{len(self._lines)} engines were lost and no step was taken between, more than {bound} "
                f"(rollout.max_losses={self.max_losses:g} x {engines} engines):\n"
                + "\n".join(f"  {line}" for line in self._lines)
                + (f"\nthe last output of {name}:\n{words}" if words else "")
            )
