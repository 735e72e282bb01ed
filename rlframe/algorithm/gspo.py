"""GSPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class GSPO(Algorithm):
    """Group Sequence Policy Optimization (Zheng et al., 2025, arXiv:2507.18071, eq. 5 to 7).

    The importance ratio is the sequence's, normalised by its length, s = (pi(y|x) / pi_old(y|x))^(1/|y|), and a
    sequence is clipped as a whole. Bounds are of the order of 1e-4, far below the difference between engine and
    learner: take `correction=proximal` or another, so that ratios are against the learner's own log-probabilities.
    """

    name: Literal["gspo"]
    clip_low: float = Field(gt=0)
    clip_high: float = Field(gt=0)

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return ops.standardize(rewards)

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        # The same number at every token of a sequence, so that the weighted sum over them is the sequence's mean.
        s = ops.sequence_means(logprobs - batch.old_logprobs, batch).exp()
        return -ops.clipped_surrogate(s, batch.advantages, self.clip_low, self.clip_high)
