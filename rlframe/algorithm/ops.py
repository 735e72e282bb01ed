"""Formulas that algorithms share. Shapes: G trajectories of a prompt, N trajectories of an update, T tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch

EPSILON = 1e-6  # a group of equal rewards gets advantage 0 instead of 0 / 0
MAX_LOG_RATIO = 20.0  # in nats; e^20 is 5e8, and float32 overflows beyond e^88


def rewards(group: GroupRecord) -> Tensor:
    """[G] float32 rewards of a group without missing rewards."""
    import torch  # not above: a config is checked without it

    return torch.tensor(group.rewards, dtype=torch.float32)


def rewards_differ(group: GroupRecord) -> bool:
    """True if a group has two different rewards. Equal rewards have advantage 0, and in most algorithms no gradient."""
    return len({reward for reward in group.rewards if reward is not None}) > 1


def rewards_to_go(group: GroupRecord, scores: Tensor) -> list[Tensor]:
    """[G] -> G tensors [sampled tokens]: a trajectory's score minus the KL penalties from each token to the end.

    A score of 1 and KL penalties of 0.1, 0.2 and 0.3 give 0.4, 0.5 and 0.7. Without penalties every token gets 1.
    """
    import torch

    penalties = group.token_penalties or [np.zeros(length) for length in group.lengths]
    to_go = [torch.as_tensor(values, dtype=torch.float64).flip(0).cumsum(0).flip(0) for values in penalties]
    return [(score - charges).float() for score, charges in zip(scores.double(), to_go, strict=True)]


def rewards_before_kl(group: GroupRecord) -> Tensor:
    """[G] float32 rewards as if no KL penalty had been subtracted."""
    with_kl = rewards(group)
    penalties = group.token_penalties or [np.zeros(1) for _ in group.rewards]
    return with_kl + with_kl.new_tensor([float(values.sum(dtype=np.float64)) for values in penalties])


def whiten(advantages: Tensor) -> Tensor:
    """[N] -> [N]: distance from the mean in standard deviations of the N values themselves (not of a population)."""
    exact = advantages.double()
    return ((exact - exact.mean()) / (exact.std(correction=0) + EPSILON)).to(advantages.dtype)


def scale_by_deviation(advantages: Tensor) -> Tensor:
    """[N] -> [N]: divided by the sample standard deviation. An advantage of 0 stays 0 to the last bit."""
    exact = advantages.double()
    return (exact / (exact.std() + EPSILON)).to(advantages.dtype)


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
    return (ratio * advantages).minimum(clipped * advantages)


def dual_clip(surrogate: Tensor, advantages: Tensor, bound: float) -> Tensor:
    """[T] -> [T]: a bad token pushes no harder than at a ratio of `bound`, however likely the token has become.

    Ye et al., 2020, arXiv:1912.09729, eq. 5: max(surrogate, bound * A) where A < 0.
    """
    return surrogate.maximum(bound * advantages).where(advantages < 0, surrogate)


def truncated_policy_gradient(logprobs: Tensor, batch: TrainBatch, cap: float) -> Tensor:
    """[T] -> [T]: sg(min(r, cap)) A log pi, with r = pi / pi_old and sg = stop gradient.

    MiniMax-M1, 2025, arXiv:2506.13585, eq. 4. A token beyond the cap keeps a gradient, no larger than at the cap.
    """
    return ratio(logprobs, batch).clamp(max=cap).detach() * batch.advantages * logprobs


def sequence_means(values: Tensor, batch: TrainBatch) -> Tensor:
    """[T] -> [T]: at each token, the mean of `values` over the counted tokens (loss weight not 0) of the sequence."""
    counted = (batch.loss_weights != 0).to(values.dtype)
    zeros = values.new_zeros(values.shape)  # [T], of which as many entries are used as there are sequences
    sums = zeros.index_add(0, batch.sequence_ids, values * counted)
    counts = zeros.index_add(0, batch.sequence_ids, counted)
    return (sums / counts.clamp(min=1))[batch.sequence_ids]


def sequence_sum(lengths: Tensor) -> Tensor:
    """[N] -> [N]: token weights for a mean over trajectories of the sum over tokens."""
    return lengths.new_ones(lengths.shape) / len(lengths)


def sequence_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: token weights for a mean over trajectories of the mean over tokens."""
    return 1 / (len(lengths) * lengths)


def token_mean(lengths: Tensor) -> Tensor:
    """[N] -> [N]: token weights for a mean over all tokens."""
    return lengths.new_ones(lengths.shape) / lengths.sum()


def prompt_sum(lengths: Tensor, prompts: Tensor) -> Tensor:
    """[N], [N] -> [N]: token weights for a mean over prompts of the sum over all tokens of a prompt's trajectories."""
    return lengths.new_ones(lengths.shape) / len(prompts.unique())


def prompt_mean(lengths: Tensor, prompts: Tensor) -> Tensor:
    """[N], [N] -> [N]: token weights for a mean over prompts of the mean over all tokens of a prompt's trajectories."""
    distinct, index = prompts.unique(return_inverse=True)
    tokens = lengths.new_zeros(len(distinct)).index_add(0, index, lengths)
    return 1 / (len(distinct) * tokens[index])
