"""GDPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class GDPO(Algorithm):
    """Group reward-Decoupled Normalization Policy Optimization (Liu et al., 2026, arXiv:2601.05242).

    A = the weighted sum of the rewards' scores, each standardised within the prompt, over its std in the step; then
    GRPO's clipped loss. GRPO standardises the sum, where a reward of a small spread drowns and combinations of scores
    with the same sum are the same. Scores count as in the sum: clipped, and 0 where a required reward is below 1.
    """

    name: Literal["gdpo"]
    clip: float = Field(gt=0)
    reads_terms: ClassVar[bool] = True

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        import torch

        terms = [(term.weight, torch.tensor(term.scores, dtype=torch.float32)) for term in group.terms.values()]
        return torch.stack([weight * ops.standardize(scores) for weight, scores in terms]).sum(0)

    def over_step(self, advantages: Tensor) -> Tensor:  # [N] -> [N]
        return ops.scale_by_deviation(advantages)  # the mean is 0 already

    def has_signal(self, group: GroupRecord) -> bool:
        return bool(self.advantages(group).any())  # equal sums of different scores may teach too

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        return -ops.clipped_surrogate(ratio, batch.advantages, self.clip, self.clip)
