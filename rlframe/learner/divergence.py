"""Values of each sample's tokens from a pass without gradient: the divergence from the reference policy, and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rlframe.batch.collate import collate, neighbours
from rlframe.objective import kl
from rlframe.training import Likelihood

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
    return by_sample(
        samples, packing, lambda batch: kl.estimate("k1", batch.rollout_logprobs, ref_logprobs(batch).cpu())
    )


def likelihoods(
    samples: list[TrainSample], packing: Packing, greedy: Callable[[TrainBatch], Tensor]
) -> list[Likelihood]:
    """Of each sample's tokens with a loss weight. `greedy`: see `Updater.greedy`."""
    return [
        Likelihood(logprob_sum=float(rows[:, 0].sum()), tokens=len(rows), greedy=bool(rows[:, 1].all()))
        for rows in by_sample(samples, packing, greedy)
    ]


def by_sample(samples: list[TrainSample], packing: Packing, values: Callable[[TrainBatch], Tensor]) -> list[np.ndarray]:
    """[samples][tokens with a loss weight, ...]: the values [T, ...] of a batch of all samples, cut into samples."""
    order = neighbours(samples, packing)
    batch = collate([samples[index] for index in order], packing)
    counted = batch.loss_weights != 0
    counts = torch.bincount(batch.sequence_ids[counted], minlength=len(samples)).tolist()
    by_index = dict(zip(order, values(batch).cpu()[counted].split(counts), strict=True))
    return [by_index[index].numpy() for index in range(len(samples))]
