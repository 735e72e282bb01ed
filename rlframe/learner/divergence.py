"""The divergence of sampled tokens from the reference policy, as a penalty in the reward needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rlframe.batch.collate import collate, neighbours
from rlframe.objective import kl

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from rlframe.training import Packing, TrainBatch, TrainSample


def divergences(
    samples: list[TrainSample], packing: Packing, ref_logprobs: Callable[[TrainBatch], Tensor]
) -> list[np.ndarray]:
    """[samples][tokens with a loss weight]: k1, log(policy that sampled / reference) in nats.

    `ref_logprobs`: [T] of the batch under the reference.
    """
    order = neighbours(samples, packing)
    batch = collate([samples[index] for index in order], packing)
    token_kl = kl.estimate("k1", batch.rollout_logprobs, ref_logprobs(batch).cpu())
    counted = batch.loss_weights != 0
    counts = torch.bincount(batch.sequence_ids[counted], minlength=len(samples)).tolist()
    by_index = dict(zip(order, token_kl[counted].split(counts), strict=True))
    return [by_index[index].numpy() for index in range(len(samples))]
