"""GSPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class GSPO(Algorithm):
    """Group Sequence Policy Optimization (Zheng et al., 2025, arXiv:2507.18071, eq. 5 to 7).

    Sequence loss -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A) with s = (pi(y|x) / pi_old(y|x))^(1/|y|). Bounds are
    of the order of 1e-4, far below the difference between engine and learner, so the run must have a correction:
    `correction=proximal` or another, which makes ratios against the learner's own log-probabilities.
    """

    name: Literal["gspo"]
    clip_low: float = Field(gt=0)
    clip_high: float = Field(gt=0)
    needs_correction: ClassVar[bool] = True
    judges_tokens: ClassVar[bool] = False

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.standardize(ops.rewards(group))

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        # Every token holds its sequence's loss; the token weights 1 / (N |y|) make the sum a mean over sequences.
        s = ops.sequence_means(ops.log_ratio(logprobs, batch.old_logprobs), batch).exp()
        return -ops.clipped_surrogate(s, batch.advantages, self.clip_low, self.clip_high)
