"""GRPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class GRPO(Algorithm):
    """Group Relative Policy Optimization (Shao et al., 2024, arXiv:2402.03300, eq. 3 without its KL term).

    The mean over completions of the mean over each completion's tokens.
    """

    name: Literal["grpo"]
    clip: float = Field(gt=0)
    dual_clip: float | None = Field(default=None, gt=1)  # None: off

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return ops.standardize(rewards)

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = (logprobs - batch.old_logprobs).exp()
        surrogate = ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
        return -(ops.dual_clip(surrogate, batch.advantages, self.dual_clip) if self.dual_clip else surrogate)
