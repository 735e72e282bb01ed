"""Supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm, Lesson

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class SFT(Algorithm):
    """Supervised fine-tuning on demonstrations: -log pi(y|x), a mean over all tokens of the update's answers."""

    name: Literal["sft"]
    learns_from: ClassVar[Lesson] = "demonstrations"
    has_ratio: ClassVar[bool] = False
    compares_completions: ClassVar[bool] = False
    skips_zero_advantage: ClassVar[bool] = False

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.rewards(group)

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.token_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -logprobs
