"""REINFORCE++."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class ReinforcePP(Algorithm):
    """REINFORCE++ (Hu et al., 2025, arXiv:2501.03262): no baseline of a prompt's own, and the whole step's mean and
    deviation instead; PPO's clipped objective with the mean over each completion's tokens.

    Its penalty on the KL to a reference is a part of the reward: `kl=reference kl.estimator=k1 kl.place=reward`.
    """

    name: Literal["reinforce_pp"]
    clip: float = Field(gt=0)

    def advantages(self, rewards: Tensor) -> Tensor:  # [G] -> [G]
        return rewards

    def over_step(self, advantages: Tensor) -> Tensor:  # [N] -> [N]
        return ops.standardize(advantages)

    def token_weights(self, lengths: Tensor) -> Tensor:  # [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = (logprobs - batch.old_logprobs).exp()
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
