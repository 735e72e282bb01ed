"""REINFORCE++-baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import ScoredGroup, TrainBatch


class ReinforcePPBaseline(Algorithm):
    """REINFORCE++ for several completions a prompt (Hu et al., 2025, arXiv:2501.03262).

    A = (R - mean over the prompt) / std over the step, then GRPO's clipped loss. GRPO would
    magnify small differences within a prompt. The paper adds the KL to the loss: `kl=reference kl.estimator=k2`.
    """

    name: Literal["reinforce_pp_baseline"]
    clip: float = Field(gt=0)

    def advantages(self, group: ScoredGroup) -> Tensor:  # -> [G]
        return ops.center(ops.rewards(group))

    def over_step(self, advantages: Tensor) -> Tensor:  # [N] -> [N]
        return advantages / (advantages.std() + ops.EPSILON)  # the mean is 0 already

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
