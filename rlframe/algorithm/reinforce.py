"""REINFORCE."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class Reinforce(Algorithm):
    """The plain policy gradient (Williams, 1992, doi:10.1007/BF00992696): -R log pi(y|x), no baseline."""

    name: Literal["reinforce"]
    has_ratio: ClassVar[bool] = False
    compares_completions: ClassVar[bool] = False

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.rewards(group)

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.sequence_sum(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -batch.advantages * logprobs
