"""DAPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class DAPO(Algorithm):
    """Decoupled clip and dynamic sampling (Yu et al., 2025, arXiv:2503.14476, eq. 8).

    Token loss -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = pi / pi_old; mean over all tokens. The paper's
    dynamic sampling (a new prompt replaces a group without signal) is the run's setting `dynamic_sampling`.
    """

    name: Literal["dapo"]
    clip_low: float = Field(gt=0)
    clip_high: float = Field(gt=0)
    dual_clip: float | None = Field(default=None, gt=1)  # None: off

    def advantages(self, group: GroupRecord) -> Tensor:  # -> [G]
        return ops.standardize(ops.rewards(group))

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.token_mean(lengths)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        ratio = ops.ratio(logprobs, batch)
        surrogate = ops.clipped_surrogate(ratio, batch.advantages, self.clip_low, self.clip_high)
        return -(ops.dual_clip(surrogate, batch.advantages, self.dual_clip) if self.dual_clip else surrogate)
