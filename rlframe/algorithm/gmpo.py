"""GMPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class GMPO(Algorithm):
    """Geometric-Mean Policy Optimization (Zhao et al., 2025, arXiv:2507.20673, eq. 4): the geometric mean of a
    completion's token ratios where GRPO has their arithmetic mean, so that outliers count less.

    (prod_t |min(rho_t A, clip(rho_t, e^-clip, e^clip) A)|)^(1/|o|) sgn(A), which is A times the mean's exponential.
    """

    name: Literal["gmpo"]
    clip: float = Field(gt=0)

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return ops.standardize(rewards)

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        sign = batch.advantages.sign()
        log_ratio = logprobs - batch.old_logprobs
        clipped = sign * (sign * log_ratio).clamp(max=self.clip)  # the smaller if A > 0, the larger if A < 0
        return -batch.advantages * ops.sequence_means(clipped, batch).exp()
