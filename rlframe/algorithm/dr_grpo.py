"""Dr. GRPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class DrGRPO(Algorithm):
    """GRPO Done Right (Liu et al., 2025, arXiv:2503.20783, fig. 1): GRPO without two divisions that bias the gradient.

    A = R - mean(R), since dividing by the deviation favours questions that are too easy or too hard. A sum over tokens
    is divided by the constant `length`, since dividing by a completion's own length favours long wrong answers.
    """

    name: Literal["dr_grpo"]
    clip: float = Field(gt=0)
    length: int = Field(ge=1)

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.center(ops.rewards(group))

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_sum(lengths) / self.length

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
