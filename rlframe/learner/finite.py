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
    lines: dict[int, str] = {}
    for name, value in values.items():
        for place in (~torch.isfinite(value)).nonzero()[:, 0].tolist():
            index = int(batch.sequence_ids[place])
            if index not in lines:
                at = f"token {int(batch.position_ids[place])} of {len(samples[index].token_ids)}"
                lines[index] = f"prompt {samples[index].prompt_id}: its {name} is {float(value[place])} at {at}"
    return [lines[index] for index in sorted(lines)]
