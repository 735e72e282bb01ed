"""ScaleRL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class ScaleRL(Algorithm):
    """The loss of ScaleRL (Khatri et al., 2025, arXiv:2510.13786).

    A = (R - mean over the prompt) / std over the step. Token loss -sg(min(r, cap)) A log pi with r = pi / pi_old and sg
    = stop gradient, as in CISPO; mean over prompts of the mean over all tokens of a prompt. The paper leaves prompts of
    equal rewards out of that mean; here they count, unless the run's `dynamic_sampling` replaces them.
    """

    name: Literal["scalerl"]
    cap: float = Field(gt=0)

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.center(ops.rewards(group))

    def over_step(self, advantages: Tensor) -> Tensor:  # [N] -> [N]
        return ops.scale_by_deviation(advantages)

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.prompt_mean(lengths, prompts)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -ops.truncated_policy_gradient(logprobs, batch, self.cap)
