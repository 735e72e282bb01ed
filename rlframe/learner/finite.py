"""Which samples of a packed batch have a number that is not finite, and what it is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rlframe.types import TrainBatch, TrainSample


def not_finite(samples: list[TrainSample], batch: TrainBatch, values: dict[str, Tensor]) -> list[str]:
    """One line a sample of `batch` with a NaN or an infinity in `values` (name -> [T], in the order of computing).

    Only the first value is told, for what is computed from it is not finite either.

    >>> not_finite(samples, batch, {"advantage": batch.advantages, "loss": losses})
    ["prompt p3: its loss is nan at token 17 of 40"]
    """
    lines = []
    flawed = {name: ~torch.isfinite(value) for name, value in values.items()}
    for place, sample in enumerate(samples):
        own = batch.sequence_ids == place
        for name, where in flawed.items():
            here = (where & own).nonzero()[:, 0]
            if len(here):
                token, value = int(batch.position_ids[here[0]]), float(values[name][here[0]])
                what = f"its {name} is {value} at token {token} of {len(sample.token_ids)}"
                lines.append(f"prompt {sample.prompt_id}: {what}")
                break
    return lines
