"""CISPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class CISPO(Algorithm):
    """Clipped importance-sampling weights (MiniMax-M1, 2025, arXiv:2506.13585, eq. 4 and 5).

    Token loss -sg(min(r, 1 + clip_high)) A log pi with r = pi / pi_old and sg = stop gradient; mean over all tokens.
    The paper sets no lower bound.
    """

    name: Literal["cispo"]
    clip_high: float = Field(gt=0)

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.standardize(ops.rewards(group))

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.token_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -ops.truncated_policy_gradient(logprobs, batch, cap=1 + self.clip_high)
