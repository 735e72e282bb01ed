"""Formulas that algorithms share. Shapes: G trajectories of a prompt, N trajectories of an update, T tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rlframe.types import ScoredGroup, TrainBatch

EPSILON = 1e-6  # a group of equal rewards gets advantage 0 instead of 0 / 0
MAX_LOG_RATIO = 20.0  # in nats; e^20 is 5e8, and float32 overflows beyond e^88


def rewards(group: ScoredGroup) -> Tensor:
    """[G] float32 rewards of a group without missing rewards."""
    return torch.tensor(group.rewards, dtype=torch.float32)


def standardize(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the group's mean in sample standard deviations."""
    # The mean of equal float32 rewards is off by a rounding error, which division by EPSILON would magnify to 0.1.
    exact = rewards.double()
    return ((exact - exact.mean()) / (exact.std() + EPSILON)).to(rewards.dtype)


def center(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the group's mean."""
    exact = rewards.double()
    return (exact - exact.mean()).to(rewards.dtype)


def leave_one_out(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the mean of the other rewards of the group."""
    exact = rewards.double()
    return ((exact - exact.mean()) * (len(rewards) / (len(rewards) - 1))).to(rewards.dtype)


def log_ratio(logprobs: Tensor, other: Tensor) -> Tensor:
    """[T], [T] -> [T]: log(p / other) in [-MAX_LOG_RATIO, MAX_LOG_RATIO]; beyond the bounds the gradient is 0.

    A token that one side all but rules out would otherwise make the ratio infinite, and spoil a whole update.
    """
    return (logprobs - other).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def ratio(logprobs: Tensor, batch: TrainBatch) -> Tensor:
    """[T] -> [T]: the current policy's probability of each token over the old policy's."""
    return log_ratio(logprobs, batch.old_logprobs).exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """[T] -> [T]: PPO's pessimistic objective (Schulman et al., 2017, arXiv:1707.06347, eq. 7)."""
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def dual_clip(surrogate: Tensor, advantages: Tensor, bound: float) -> Tensor:
    """[T] -> [T]: a bad token pushes no harder than at a ratio of `bound`, however likely the token has become.

    Ye et al., 2020, arXiv:1912.09729, eq. 5: max(surrogate, bound * A) where A < 0.
    """
    return torch.where(advantages < 0, torch.maximum(surrogate, bound * advantages), surrogate)


def truncated_policy_gradient(logprobs: Tensor, batch: TrainBatch, cap: float) -> Tensor:
    """[T] -> [T]: sg(min(r, cap)) A log pi, with r = pi / pi_old and sg = stop gradient.

    MiniMax-M1, 2025, arXiv:2506.13585, eq. 4. A token beyond the cap keeps a gradient, no larger than at the cap.
    """
    return ratio(logprobs, batch).clamp(max=cap).detach() * batch.advantages * logprobs


def sequence_means(values: Tensor, batch: TrainBatch) -> Tensor:
    """[T] -> [T]: at each token, the mean of `values` over the counted tokens (loss weight not 0) of the sequence."""
    counted = (batch.loss_weights != 0).to(values.dtype)
    zeros = torch.zeros_like(values)  # [T], of which as many entries are used as there are sequences
    sums = zeros.index_add(0, batch.sequence_ids, values * counted)
    counts = zeros.index_add(0, batch.sequence_ids, counted)
    return (sums / counts.clamp(min=1))[batch.sequence_ids]


def sequence_sum(lengths: Tensor) -> Tensor:
    """[N] -> [N]: token weights for a mean over trajectories of the sum over tokens."""
    return torch.ones_like(lengths) / len(lengths)


def sequence_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: token weights for a mean over trajectories of the mean over tokens."""
    return 1 / (len(lengths) * lengths)


def token_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: token weights for a mean over all tokens."""
    return torch.ones_like(lengths) / lengths.sum()
