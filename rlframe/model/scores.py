"""`ScoreHead`: the head of a reward model, which answers a score for a hidden state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ScoreHead(nn.Module):
    """Takes over the weight [1, H] of a sequence classifier's `nn.Linear`, and is called as a `LogprobHead` is."""

    def __init__(self, linear: nn.Linear, compute_dtype: torch.dtype) -> None:
        """Raises ValueError for a classifier of several labels."""
        super().__init__()
        if linear.out_features != 1:
            raise ValueError(f"the model has {linear.out_features} labels, and a reward model has one score")
        self.weight = linear.weight
        self.bias = linear.bias
        self.compute_dtype = compute_dtype

    def forward(self, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] -> scores [N] float32, and zeros in the place of entropies. Reads nothing else."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        scores = functional.linear(hidden.to(self.compute_dtype), self.weight.to(self.compute_dtype), bias)[:, 0]
        return scores.float(), torch.zeros_like(scores, dtype=torch.float32)
