"""RLOO."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class RLOO(Algorithm):
    """REINFORCE Leave-One-Out (Ahmadian et al., 2024, arXiv:2402.14740, sec. 3.2).

    Sequence loss -A log pi(y|x), a sum over tokens without ratio or clip. A is the reward minus the mean reward of the
    prompt's other completions.
    """

    name: Literal["rloo"]
    has_ratio: ClassVar[bool] = False

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.leave_one_out(ops.rewards(group))

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_sum(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -batch.advantages * logprobs
