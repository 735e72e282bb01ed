"""`Objective`: the loss of a step. Pure: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlframe.algorithm import ops
from rlframe.objective import correction, kl

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.algorithm import Algorithm
    from rlframe.objective.correction import Correction
    from rlframe.training import TrainBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The sum over tokens of w_t c_t L_t + m_t (kl.weight KL_t - entropy_bonus H_t).

    The algorithm gives the loss L and the weight w, the corrections give the factor c. The weights m are w scaled to
    the sum 1, so KL and entropy are means over tokens in every algorithm, whether its loss is a mean or a sum.
    """

    algorithm: Algorithm
    kl: kl.KL | None = None
    corrections: Sequence[Correction] = ()
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
        factors = correction.combined(self.corrections, logprobs.detach(), batch)
        losses = self.algorithm.token_loss(logprobs, _without_dropped(batch, factors)) * batch.loss_weights
        losses = torch.where(factors.kept, losses * factors.weights, 0.0)
        if self.kl is not None and batch.ref_logprobs is not None:
            divergences = kl.token_loss(self.kl.estimator, logprobs, batch.ref_logprobs, batch)
            losses = losses + self.kl.weight * divergences * batch.mean_weights
        if self.entropy_bonus:
            losses = losses - self.entropy_bonus * entropies * batch.mean_weights
        return losses

    def measure(self, logprobs: Tensor, entropies: Tensor, batch: TrainBatch) -> dict[str, float]:
        """Sums over the counted tokens that measure the distance of this policy from the sampling policy.

        A name that ends in `_max` is a maximum. k3 (Schulman, 2020) estimates KL(rollout || learner): r - 1 - log r.
        `stopped` counts tokens with an advantage but without a gradient, because of a clip.
        """
        counted = batch.loss_weights != 0
        difference = (logprobs - batch.rollout_logprobs)[counted]
        log_ratio = ops.log_ratio(logprobs, batch.rollout_logprobs)[counted]
        ratio = log_ratio.exp()
        factors = correction.combined(self.corrections, logprobs, batch)
        slopes = self._slopes(logprobs, _without_dropped(batch, factors))
        sums = {
            "tokens": counted.sum(),
            "k3": (ratio - 1 - log_ratio).sum(),
            "abs": difference.abs().sum(),
            "ratio": ratio.sum(),
            "ratio_max": ratio.max() if len(ratio) else ratio.sum(),
            "entropy": entropies[counted].sum(),
            "stopped": (counted & factors.kept & (batch.advantages != 0) & (slopes == 0)).sum(),
        }
        if batch.ref_logprobs is not None:
            sums["kl"] = kl.estimate("k3", logprobs, batch.ref_logprobs)[counted].sum()
        if self.corrections:
            sums |= {"weight": factors.weights[counted].sum(), "dropped": (counted & ~factors.kept).sum()}
        values = torch.stack([value.float() for value in sums.values()]).tolist()  # a single wait for the device
        return dict(zip(sums, values, strict=True)) | {"packed_tokens": float(len(logprobs))}

    def _slopes(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:
        """[T]: the gradient of the algorithm's summed token losses in each log-probability."""
        with torch.enable_grad():
            leaf = logprobs.detach().requires_grad_()
            return torch.autograd.grad(self.algorithm.token_loss(leaf, batch).sum(), leaf)[0]


def _without_dropped(batch: TrainBatch, factors: correction.TokenFactors) -> TrainBatch:
    """The batch with loss weight 0 at dropped tokens, which then count in no mean over a sequence."""
    return replace(batch, loss_weights=torch.where(factors.kept, batch.loss_weights, 0.0))


def combine(sums: list[dict[str, float]]) -> dict[str, float]:
    """The measurements of several batches as those of a single batch: sums add up, of maxima the largest counts.

    A NaN among maxima is the maximum: a batch with spoiled values must not hide behind another batch.
    """
    combined: dict[str, float] = {}
    for measured in sums:
        for name, value in measured.items():
            largest = name.endswith("_max") and name in combined
            combined[name] = float(np.maximum(combined[name], value)) if largest else combined.get(name, 0.0) + value
    return combined
