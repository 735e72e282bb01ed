"""GMPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class GMPO(Algorithm):
    """Geometric-Mean Policy Optimization (Zhao et al., 2025, arXiv:2507.20673, eq. 4).

    (prod_t |min(r_t A, clip(r_t, e^-clip, e^clip) A)|)^(1/|y|) sgn(A) with r = pi / pi_old equals A exp(mean_t l_t),
    where l is log r clipped. Outliers weigh less in this geometric mean than in GRPO's arithmetic mean.
    """

    name: Literal["gmpo"]
    clip: float = Field(gt=0)
    judges_tokens: ClassVar[bool] = False

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.standardize(ops.rewards(group))

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        sign = batch.advantages.sign()
        log_ratio = ops.log_ratio(logprobs, batch.old_logprobs)
        clipped = sign * (sign * log_ratio).clamp(max=self.clip)  # the smaller if A > 0, the larger if A < 0
        return -batch.advantages * ops.sequence_means(clipped, batch).exp()
