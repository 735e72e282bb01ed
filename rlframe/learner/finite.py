"""Names the samples of a packed batch that have a NaN or an infinity. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rlframe.training import TrainBatch, TrainSample


def not_finite(samples: list[TrainSample], batch: TrainBatch, values: dict[str, Tensor]) -> list[str]:
    """A line for each sample of `batch` with a number that is not finite in `values` (name -> [T]).

    `values` are in the order of their computation. A line names the first bad value only, because later values are
    computed from it.

    >>> not_finite(samples, batch, {"advantage": batch.advantages, "loss": losses})
    ["prompt p3: its loss is nan at token 17 of 40"]
    """
    lines: dict[int, str] = {}  # by sample
    for name, value in values.items():
        for token in (~torch.isfinite(value)).nonzero()[:, 0].tolist():
            index = int(batch.sequence_ids[token])
            if index not in lines:
                position = f"token {int(batch.position_ids[token])} of {len(samples[index].token_ids)}"
                lines[index] = f"prompt {samples[index].prompt_id}: its {name} is {float(value[token])} at {position}"
    return [lines[index] for index in sorted(lines)]
