"""The formulas that algorithms share. Shapes: G completions of a prompt, N completions of a step, T tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rlframe.types import TrainBatch

EPSILON = 1e-6  # keeps a group of equal rewards at advantage 0 instead of 0 / 0


def standardize(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the group's mean in sample standard deviations."""
    exact = rewards.double()  # in float32 the mean of equal rewards is off by a rounding, which EPSILON makes 0.1
    return ((exact - exact.mean()) / (exact.std() + EPSILON)).to(rewards.dtype)


def center(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the group's mean."""
    exact = rewards.double()
    return (exact - exact.mean()).to(rewards.dtype)


def leave_one_out(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the mean of the group's others."""
    exact = rewards.double()
    return ((exact - exact.mean()) * (len(rewards) / (len(rewards) - 1))).to(rewards.dtype)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """[T] -> [T]: PPO's pessimistic objective (Schulman et al., 2017, arXiv:1707.06347, eq. 7)."""
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def dual_clip(surrogate: Tensor, advantages: Tensor, bound: float) -> Tensor:
    """[T] -> [T]: a bad token, however likely it has become, pushes no harder than at a ratio of `bound`.

    Ye et al., 2020, arXiv:1912.09729, eq. 5: max(surrogate, bound * A) where A < 0.
    """
    return torch.where(advantages < 0, torch.maximum(surrogate, bound * advantages), surrogate)


def sequence_means(values: Tensor, batch: TrainBatch) -> Tensor:
    """[T] -> [T]: at each token, the mean of `values` over those tokens of its sequence that count in the loss."""
    counted = (batch.loss_weights != 0).to(values.dtype)
    zeros = torch.zeros_like(values)  # one place a sequence, and more than enough
    sums = zeros.index_add(0, batch.sequence_ids, values * counted)
    counts = zeros.index_add(0, batch.sequence_ids, counted)
    return (sums / counts.clamp(min=1))[batch.sequence_ids]


def sequence_sum(lengths: Tensor) -> Tensor:
    """[N] -> [N]: the weight of each token where a completion's is the sum of its tokens' losses."""
    return torch.ones_like(lengths) / len(lengths)


def sequence_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: the weight of each token where every completion counts the same."""
    return 1 / (len(lengths) * lengths)


def token_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: the weight of each token where every token counts the same."""
    return torch.ones_like(lengths) / lengths.sum()
