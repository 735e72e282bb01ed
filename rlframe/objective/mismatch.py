"""The train/rollout mismatch: how far the learner's log-probabilities are from the engine's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import TrainBatch


def measure(logprobs: Tensor, batch: TrainBatch) -> dict[str, float]:
    """[T] by the published policy -> sums over tokens of that version (`current_*`) and of older versions (`stale_*`).

    k3 (Schulman, 2020) estimates KL(rollout || learner): r - 1 - log r, with r = learner / rollout. Stale tokens differ
    from the learner also because the policy has moved since, so their sums are apart. A token without two finite
    log-probabilities is left out: the update is skipped because of it, and the learner names its sample.
    """
    difference = logprobs - batch.rollout_logprobs
    counted = (batch.loss_weights != 0) & difference.isfinite()
    stale = torch.zeros_like(counted) if batch.stale is None else batch.stale
    sums = {}
    for age, tokens in (("current", counted & ~stale), ("stale", counted & stale)):
        of_age = difference[tokens]
        sums |= {
            f"{age}_tokens": tokens.sum(),
            f"{age}_k3": (of_age.exp() - 1 - of_age).sum(),
            f"{age}_abs": of_age.abs().sum(),
        }
    values = torch.stack([value.float() for value in sums.values()]).tolist()  # a single wait for the device
    return dict(zip(sums, values, strict=True))
