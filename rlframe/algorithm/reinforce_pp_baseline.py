"""REINFORCE++-baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class ReinforcePPBaseline(Algorithm):
    """REINFORCE++ for several completions a prompt (Hu et al., 2025, arXiv:2501.03262, "w/ baseline").

    A = R - mean over the prompt, whitened over all tokens of the step, then GRPO's clipped loss. GRPO would magnify
    small differences within a prompt. The paper adds the KL to the loss: `kl=reference kl.estimator=k2`; a KL in the
    reward is charged to each token from there on, as in REINFORCE++.
    """

    name: Literal["reinforce_pp_baseline"]
    clip: float = Field(gt=0)

    def advantages(self, group: GroupRecord) -> list[Tensor]:  # -> G of [sampled tokens]
        return ops.rewards_to_go(group, ops.center(ops.rewards_before_kl(group)))

    def over_step(self, advantages: Tensor) -> Tensor:  # [tokens] -> [tokens]
        return ops.whiten(advantages)

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
