"""Dr. GRPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class DrGRPO(Algorithm):
    """GRPO done right (Liu et al., 2025, arXiv:2503.20783, fig. 1): neither of GRPO's two divisions.

    Rewards are centred but not divided by their deviation, which favours questions that are too easy or too hard;
    a completion's token losses are divided by a constant instead of its own length, which favours long wrong answers.
    """

    name: Literal["dr_grpo"]
    clip: float = Field(gt=0)
    length: int = Field(ge=1)

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return ops.center(rewards)

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_sum(lengths) / self.length

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = (logprobs - batch.old_logprobs).exp()
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
