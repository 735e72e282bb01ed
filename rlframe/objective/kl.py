"""The penalty on KL(policy || reference), estimated from sampled tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from rlframe.schema import Config

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


class KL(Config):
    """A penalty on the KL to a reference policy: the policy of the start, or of some steps ago."""

    estimator: Estimator
    weight: float = Field(gt=0)
    place: Literal["loss", "reward"]
    refresh_every: int = Field(ge=0)
    offload: bool

    @model_validator(mode="after")
    def _has_a_gradient(self) -> Self:
        if self.estimator == "k1" and self.place == "loss":
            raise ValueError(
                "estimator: k1 in the loss pushes nowhere, for its gradient has mean 0; take k2 or k3, or place=reward"
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
    log_r = ref_logprobs - logprobs
    match estimator:
        case "k1":
            return -log_r
        case "k2":
            return log_r**2 / 2
        case "k3":
            return log_r.exp() - 1 - log_r
