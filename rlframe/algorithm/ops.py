"""The formulas that algorithms share. Shapes: G completions of a prompt, N completions of a step, T tokens."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6  # keeps a group of equal rewards at advantage 0 instead of 0 / 0


def standardize(rewards: Tensor) -> Tensor:
    """[G] -> [G]: distance from the group's mean in sample standard deviations."""
    exact = rewards.double()  # in float32 the mean of equal rewards is off by a rounding, which EPSILON makes 0.1
    return ((exact - exact.mean()) / (exact.std() + EPSILON)).to(rewards.dtype)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """[T] -> [T]: PPO's pessimistic objective (Schulman et al., 2017, arXiv:1707.06347, eq. 7)."""
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def sequence_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: the weight of each token where every completion counts the same."""
    return 1 / (len(lengths) * lengths)


def token_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: the weight of each token where every token counts the same."""
    return torch.ones_like(lengths) / lengths.sum()
