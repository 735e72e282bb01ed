"""The penalty on KL(policy || reference), estimated from sampled tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from rlframe.algorithm import ops
from rlframe.schema import Config

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from rlframe.training import TrainBatch

Estimator = Literal["k1", "k2", "k3"]


class KL(Config):
    """A penalty on the KL to a reference policy: the policy of the start, or of some steps ago."""

    estimator: Estimator
    weight: float = Field(gt=0)
    place: Literal["loss", "reward"]
    refresh_every: int = Field(ge=0)
    offload: bool

    @model_validator(mode="after")
    def _pulls_towards_the_reference(self) -> Self:
        if self.place == "loss" and self.estimator == "k1":
            raise ValueError(
                "estimator: k1 in the loss pushes nowhere, for its gradient has mean 0; take k2 or k3, or place=reward"
            )
        if self.place == "reward" and self.estimator != "k1":
            raise ValueError(
                f"estimator: {self.estimator} in the reward does not pull towards the reference, because a reward "
                "multiplies the gradient of the log-probability, and only for k1 that product is on average the "
                "gradient of the KL; take k1, or place=loss"
            )
        return self


def is_due(penalty: KL, version: int) -> bool:
    """True for versions at which the policy becomes the reference."""
    return penalty.refresh_every > 0 and version % penalty.refresh_every == 0


def estimate(estimator: Estimator, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """[T] -> [T]: each token's estimate of KL(policy || reference) in nats.

    With r = reference / policy of a token that the policy sampled: k1 = -log r, k2 = (log r)^2 / 2, k3 = r - 1 - log r
    (Schulman, 2020, "Approximating KL divergence").
    """
    log_r = ops.log_ratio(ref_logprobs, logprobs)
    match estimator:
        case "k1":
            return -log_r
        case "k2":
            return log_r**2 / 2
        case "k3":
            return log_r.exp() - 1 - log_r


def token_loss(estimator: Estimator, logprobs: Tensor, ref_logprobs: Tensor, batch: TrainBatch) -> Tensor:
    """[T] -> [T]: each token's term of a KL in the loss.

    k3 times the ratio pi / pi_old, through which the gradient flows too, has the gradient of the KL on average, also
    for tokens of an older policy pi_old (DeepSeek-V3.2, 2025, arXiv:2512.02556, eq. 7). With a correction, pi_old is
    the learner before the step, and the distance from there to the sampling policy is neglected. k2 has the gradient of
    the KL only for tokens of the current policy, and no ratio.
    """
    divergence = estimate(estimator, logprobs, ref_logprobs)
    return ops.ratio(logprobs, batch) * divergence if estimator == "k3" else divergence
