"""RLOO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class RLOO(Algorithm):
    """REINFORCE Leave-One-Out (Ahmadian et al., 2024, arXiv:2402.14740, sec. 3.2).

    A completion's baseline is the mean reward of the prompt's others, and its log-probability is that of the whole
    sequence: a sum over tokens, with no ratio and no clip.
    """

    name: Literal["rloo"]

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return ops.leave_one_out(rewards)

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_sum(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -batch.advantages * logprobs
