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
    ends = torch.tensor([len(sample.token_ids) for sample in samples]).cumsum(0).tolist()
    flawed = {name: (~torch.isfinite(value)).nonzero()[:, 0].tolist() for name, value in values.items()}
    for sample, end in zip(samples, ends, strict=True):
        start = end - len(sample.token_ids)
        for name, places in flawed.items():
            here = [place for place in places if start <= place < end]
            if here:
                what = f"its {name} is {float(values[name][here[0]])} at token {here[0] - start} of {end - start}"
                lines.append(f"prompt {sample.prompt_id}: {what}")
                break
    return lines
