"""REINFORCE++."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import ScoredGroup, TrainBatch


class ReinforcePP(Algorithm):
    """REINFORCE++ (Hu et al., 2025, arXiv:2501.03262).

    A = (R - mean) / std over all trajectories of the step, then GRPO's clipped loss. The paper subtracts the KL penalty
    from the reward: `kl=reference kl.estimator=k1 kl.place=reward`.
    """

    name: Literal["reinforce_pp"]
    clip: float = Field(gt=0)

    def advantages(self, group: ScoredGroup) -> Tensor:  # -> [G]
        return ops.rewards(group)

    def over_step(self, advantages: Tensor) -> Tensor:  # [N] -> [N]
        return ops.standardize(advantages)

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
