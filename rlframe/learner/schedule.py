"""Learning rate by step: a pure function, so a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int,
    *,
    peak: float,
    floor: float,
    schedule: Literal["constant", "linear", "cosine"],
    warmup_steps: float,
    steps: int,
) -> float:
    """The rate of the update that makes policy version `step + 1`; `steps`: updates of the whole run.

    The rate rises linearly over `warmup_steps`, or over this share of all steps where it is below 1, then stays
    constant or falls to `floor` at the run's end.

    >>> learning_rate(0, peak=1.0, floor=0.0, schedule="constant", warmup_steps=4, steps=10)
    0.25
    """
    if 0 < warmup_steps < 1:
        warmup_steps = round(warmup_steps * steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    match schedule:
        case "constant":
            return peak
        case "linear":
            return floor + (peak - floor) * (1 - progress)
        case "cosine":
            return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2
