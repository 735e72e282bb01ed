"""`Objective`: the loss of a step. Pure: tensors in, tensors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlframe.objective import kl

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.algorithm import Algorithm
    from rlframe.objective.correction import Correction
    from rlframe.types import TrainBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The sum over tokens of w_t (c_t L_t + kl.weight KL_t - entropy_bonus H_t).

    The algorithm gives the loss L and the weight w, the correction gives the factor c.
    """

    algorithm: Algorithm
    kl: kl.KL | None = None
    correction: Correction | None = None
    entropy_bonus: float = 0.0

    @property
    def needs_reference(self) -> bool:
        """True if batches must carry `ref_logprobs`. A penalty in the reward was subtracted before."""
        return self.kl is not None and self.kl.place == "loss"

    @property
    def skips_zero_advantage(self) -> bool:
        """True if a completion of advantage 0 has no gradient."""
        return self.algorithm.skips_zero_advantage and not self.needs_reference and not self.entropy_bonus

    def loss(self, logprobs: Tensor, entropies: Tensor, batch: TrainBatch) -> Tensor:
        """[T], [T] by the current policy -> the batch's share of the update's loss."""
        return self.token_losses(logprobs, entropies, batch).sum()

    def token_losses(self, logprobs: Tensor, entropies: Tensor, batch: TrainBatch) -> Tensor:
        """[T], [T] -> [T]: each token's weighted loss."""
        losses = self.algorithm.token_loss(logprobs, batch)
        if self.correction is not None:
            losses = losses * self.correction.weights(batch.old_logprobs - batch.rollout_logprobs, batch)
        if self.kl is not None and batch.ref_logprobs is not None:
            losses = losses + self.kl.weight * kl.estimate(self.kl.estimator, logprobs, batch.ref_logprobs)
        if self.entropy_bonus:
            losses = losses - self.entropy_bonus * entropies
        return losses * batch.loss_weights

    def measure(self, logprobs: Tensor, entropies: Tensor, batch: TrainBatch) -> dict[str, float]:
        """Sums over the counted tokens that measure the distance of this policy from the sampling policy.

        A name that ends in `_max` is a maximum. k3 (Schulman, 2020) estimates KL(rollout || learner): r - 1 - log r.
        `stopped` counts tokens with an advantage but without a gradient, because of a clip.
        """
        counted = batch.loss_weights != 0
        difference = (logprobs - batch.rollout_logprobs)[counted]
        ratio = difference.exp()
        sums = {
            "tokens": counted.sum(),
            "k3": (ratio - 1 - difference).sum(),
            "abs": difference.abs().sum(),
            "ratio": ratio.sum(),
            "ratio_max": ratio.max() if len(ratio) else ratio.sum(),
            "entropy": entropies[counted].sum(),
            "stopped": (counted & (batch.advantages != 0) & (self._slopes(logprobs, batch) == 0)).sum(),
        }
        if batch.ref_logprobs is not None:
            sums["kl"] = kl.estimate("k3", logprobs, batch.ref_logprobs)[counted].sum()
        if self.correction is not None:
            weights = self.correction.weights(batch.old_logprobs - batch.rollout_logprobs, batch)[counted]
            sums |= {"weight": weights.sum(), "dropped": (weights == 0).sum()}
        values = torch.stack([value.float() for value in sums.values()]).tolist()  # a single wait for the device
        return dict(zip(sums, values, strict=True)) | {"packed_tokens": float(len(logprobs))}

    def _slopes(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:
        """[T]: the gradient of the algorithm's summed token losses in each log-probability."""
        with torch.enable_grad():
            leaf = logprobs.detach().requires_grad_()
            return torch.autograd.grad(self.algorithm.token_loss(leaf, batch).sum(), leaf)[0]


def combine(sums: list[dict[str, float]]) -> dict[str, float]:
    """The measurements of several batches as those of a single batch: sums add up, of maxima the largest counts."""
    combined: dict[str, float] = {}
    for measured in sums:
        for name, value in measured.items():
            largest = name.endswith("_max") and name in combined
            combined[name] = max(combined[name], value) if largest else combined.get(name, 0.0) + value
    return combined
