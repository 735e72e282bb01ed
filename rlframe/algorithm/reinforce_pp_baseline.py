"""REINFORCE++-baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class ReinforcePPBaseline(Algorithm):
    """REINFORCE++ for several completions a prompt (Hu et al., 2025, arXiv:2501.03262): the prompt's mean reward is
    the baseline, and the deviation that divides is the whole step's, so no single prompt's own is magnified.

    Its penalty on the KL to a reference is a part of the loss: `kl=reference kl.estimator=k2`.
    """

    name: Literal["reinforce_pp_baseline"]
    clip: float = Field(gt=0)

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return ops.center(rewards)

    def over_step(self, advantages: Tensor) -> Tensor:  # [N] -> [N]
        return advantages / (advantages.std() + ops.EPSILON)  # their mean is 0 already

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = (logprobs - batch.old_logprobs).exp()
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
