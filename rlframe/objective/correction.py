"""What is done about tokens that another policy drew than the one that learns: the engine's, or an older one.

With a correction, ratios are against the learner's own log-probabilities from before the step (the proximal policy
of Hilton et al., 2021, arXiv:2110.00641), and its distance from the engine's becomes a weight of the token's loss.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny

from rlframe.algorithm import ops
from rlframe.schema import Config, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class Correction(Config):
    """A weight for each token from the ratio of the proximal policy to the one that sampled."""

    name: str

    @abstractmethod
    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        """[T] log(old / rollout), without gradient -> [T] what a token's loss is multiplied by."""


class Proximal(Correction):
    """Ratios against the learner's own log-probabilities, and no weight: the distance to the engine is ignored."""

    name: Literal["proximal"]

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        return torch.ones_like(log_ratio)


class TruncatedImportanceSampling(Correction):
    """min(ratio, cap) (Espeholt et al., 2018, arXiv:1802.01561, eq. 1; Yao et al., 2025, for engines and learners)."""

    name: Literal["tis"]
    cap: float = Field(ge=1)

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        return log_ratio.exp().clamp(max=self.cap)


class IcePop(Correction):
    """The ratio where it lies within [low, high], and 0 for tokens beyond (Ling Team, 2025, arXiv:2510.18855)."""

    name: Literal["icepop"]
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        ratio = log_ratio.exp()
        return ratio * ((ratio >= self.low) & (ratio <= self.high))


class SequenceRejection(Correction):
    """1, or 0 for every token of a sequence the geometric mean of whose ratios lies beyond [low, high]."""

    name: Literal["sequence"]
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        ratio = ops.sequence_means(log_ratio, batch).exp()
        return ((ratio >= self.low) & (ratio <= self.high)).to(log_ratio.dtype)


BUILTIN: dict[str, type[Correction]] = {
    "proximal": Proximal,
    "tis": TruncatedImportanceSampling,
    "icepop": IcePop,
    "sequence": SequenceRejection,
}

# What the config key accepts: nothing, a built-in name, or a user's class by import path.
AnyCorrection = Annotated[
    SerializeAsAny[Correction] | None,
    BeforeValidator(lambda value: None if value is None else one_of(value, Correction, BUILTIN)),
]
