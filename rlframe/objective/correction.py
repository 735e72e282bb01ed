"""Corrections for tokens that were sampled by a different policy than the learner's: the engine's, or an older one.

With a correction, ratios are against the learner's own log-probabilities from before the step (the proximal policy
of Hilton et al., 2021, arXiv:2110.00641). The ratio of that policy to the sampling policy gives each token a weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SerializeAsAny

from rlframe.algorithm import ops
from rlframe.schema import Config, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import TrainBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFactors:
    """Weight and mask of each token's loss. A dropped token counts in no mean over its sequence either.

    weights  2.0  1.0   1.0      a token whose loss counts twice, a token as it is,
    kept     yes  yes   no       and a token that has no loss
    """

    weights: Tensor  # [T] float32, without gradient
    kept: Tensor  # [T] bool


class Correction(Config):
    """Weights and a mask for the tokens of a batch."""

    name: str

    # True: the weights are the ratio of the learner's policy to the sampling policy, up to a bound.
    weighs_by_ratio: ClassVar[bool] = False

    @abstractmethod
    def factors(self, logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
        """[T] log-probabilities by the current policy, without gradient -> the factors of the tokens' losses.

        `batch.old_logprobs` are the learner's from before the step, `batch.rollout_logprobs` are the sampling policy's.
        """


class Proximal(Correction):
    """Ratios against the learner's own log-probabilities. Every weight is 1: the distance to the engine is ignored."""

    name: Literal["proximal"]

    def factors(self, logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
        return _all_alike(logprobs)


class TruncatedImportanceSampling(Correction):
    """min(ratio, cap) (Espeholt et al., 2018, arXiv:1802.01561, eq. 1; for engines and learners: Yao et al., 2025)."""

    name: Literal["tis"]
    cap: float = Field(ge=1)
    weighs_by_ratio: ClassVar[bool] = True

    def factors(self, logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
        ratio = _log_ratio(batch).exp()
        return replace(_all_alike(ratio), weights=ratio.clamp(max=self.cap))


class IcePop(Correction):
    """The ratio for tokens with a ratio within [low, high]; drops others (Ling Team, 2025, arXiv:2510.18855)."""

    name: Literal["icepop"]
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)
    weighs_by_ratio: ClassVar[bool] = True

    def factors(self, logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
        ratio = _log_ratio(batch).exp()
        return TokenFactors(weights=ratio, kept=(ratio >= self.low) & (ratio <= self.high))


class SequenceRejection(Correction):
    """Drops every token of a sequence whose ratios have a geometric mean out of [low, high]."""

    name: Literal["sequence"]
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)

    def factors(self, logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
        ratio = ops.sequence_means(_log_ratio(batch), batch).exp()
        return replace(_all_alike(ratio), kept=(ratio >= self.low) & (ratio <= self.high))


class OffPolicyMask(Correction):
    """Drops a bad sequence that the current policy would hardly sample any more.

    DeepSeek-V3.2, 2025, arXiv:2512.02556, eq. 9. Bad: a negative advantage. The mean over tokens of log(sampling policy
    / current policy) is beyond `max_log_ratio`. A policy learns from its own mistakes; a mistake that it would not make
    any more only disturbs it.
    """

    name: Literal["off_policy_mask"]
    max_log_ratio: float = Field(gt=0)

    def factors(self, logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
        distance = ops.sequence_means(ops.log_ratio(batch.rollout_logprobs, logprobs), batch)
        bad = ops.sequence_means(batch.advantages, batch) < 0
        return replace(_all_alike(distance), kept=~(bad & (distance > self.max_log_ratio)))


def combined(corrections: Sequence[Correction], logprobs: Tensor, batch: TrainBatch) -> TokenFactors:
    """The factors of several corrections together: weights multiply, and a token is kept if every correction keeps it.

    A dropped token has weight 0.
    """
    factors = [correction.factors(logprobs, batch) for correction in corrections]
    total = _all_alike(logprobs)
    for further in factors:
        total = TokenFactors(weights=total.weights * further.weights, kept=total.kept & further.kept)
    return TokenFactors(weights=total.weights.where(total.kept, 0.0), kept=total.kept)


def _all_alike(logprobs: Tensor) -> TokenFactors:
    """Weight 1 for every token."""
    import torch  # not above: a config is checked without it

    return TokenFactors(weights=torch.ones_like(logprobs), kept=torch.ones_like(logprobs, dtype=torch.bool))


def _log_ratio(batch: TrainBatch) -> Tensor:
    """[T] log(learner before the step / sampling policy)."""
    return ops.log_ratio(batch.old_logprobs, batch.rollout_logprobs)


BUILTIN: dict[str, type[Correction]] = {
    "proximal": Proximal,
    "tis": TruncatedImportanceSampling,
    "icepop": IcePop,
    "sequence": SequenceRejection,
    "off_policy_mask": OffPolicyMask,
}


AnyCorrection = Annotated[SerializeAsAny[Correction], BeforeValidator(lambda value: one_of(value, Correction, BUILTIN))]

# The type of the config key: by a label, corrections with a built-in name or a user's import path; empty: none.
Corrections: TypeAlias = dict[str, AnyCorrection]
