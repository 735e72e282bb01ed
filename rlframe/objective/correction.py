"""Corrections for tokens that were sampled by a different policy than the learner's: the engine's, or an older one.

With a correction, ratios are against the learner's own log-probabilities from before the step (the proximal policy
of Hilton et al., 2021, arXiv:2110.00641). The ratio of that policy to the sampling policy gives each token a weight.
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
    """A weight for each token, from the probability ratio of the proximal policy to the sampling policy."""

    name: str

    @abstractmethod
    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        """[T] log(old / rollout), without gradient -> [T] factor of each token's loss."""


class Proximal(Correction):
    """Ratios against the learner's own log-probabilities. Every weight is 1: the distance to the engine is ignored."""

    name: Literal["proximal"]

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        return torch.ones_like(log_ratio)


class TruncatedImportanceSampling(Correction):
    """min(ratio, cap) (Espeholt et al., 2018, arXiv:1802.01561, eq. 1; for engines and learners: Yao et al., 2025)."""

    name: Literal["tis"]
    cap: float = Field(ge=1)

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        return log_ratio.exp().clamp(max=self.cap)


class IcePop(Correction):
    """The ratio for tokens with a ratio within [low, high], 0 for other tokens (Ling Team, 2025, arXiv:2510.18855)."""

    name: Literal["icepop"]
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)

    def weights(self, log_ratio: Tensor, batch: TrainBatch) -> Tensor:
        ratio = log_ratio.exp()
        return ratio * ((ratio >= self.low) & (ratio <= self.high))


class SequenceRejection(Correction):
    """1 for every token of a sequence whose ratios have a geometric mean within [low, high], 0 for other sequences."""

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

# The type of the config key: null, a built-in name, or a user's class by import path.
AnyCorrection = Annotated[
    SerializeAsAny[Correction] | None,
    BeforeValidator(lambda value: None if value is None else one_of(value, Correction, BUILTIN)),
]
