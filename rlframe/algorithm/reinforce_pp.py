"""REINFORCE++."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class ReinforcePP(Algorithm):
    """REINFORCE++ (Hu et al., 2025, arXiv:2501.03262, eq. 8 to 10).

    A token's return is R minus the KL penalties from the token to the end; A is the return, whitened over all tokens of
    the step. The token loss is GRPO's clipped one. One completion of each prompt is enough. The KL is in the reward:
    `kl=reference kl.estimator=k1 kl.place=reward`.
    """

    name: Literal["reinforce_pp"]
    clip: float = Field(gt=0)
    compares_completions: ClassVar[bool] = False

    def advantages(self, group: GroupRecord) -> list[Tensor]:  # -> G of [sampled tokens]
        return ops.rewards_to_go(group, ops.rewards_before_kl(group))

    def over_step(self, advantages: Tensor) -> Tensor:  # [tokens] -> [tokens]
        return ops.whiten(advantages)

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
