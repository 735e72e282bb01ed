"""Packed batches small enough to work by hand."""

from __future__ import annotations

import numpy as np
import torch

from rlframe.training import TrainBatch, TrainSample


def make_batch(
    old_logprobs: list[float],
    advantages: list[float],
    lengths: list[int] | None = None,
    loss_weights: list[float] | None = None,
) -> TrainBatch:
    """Sequences of `lengths` tokens (None: one sequence), sampled with `old_logprobs`."""
    tokens = len(advantages)
    weights = torch.tensor(loss_weights) if loss_weights else torch.ones(tokens)
    counts = torch.tensor(lengths or [tokens])
    return TrainBatch(
        token_ids=torch.zeros(tokens, dtype=torch.int64),
        rollout_logprobs=torch.tensor(old_logprobs),
        old_logprobs=torch.tensor(old_logprobs),
        ref_logprobs=None,
        advantages=torch.tensor(advantages),
        loss_weights=weights,
        mean_weights=weights / weights.sum().clamp(min=1e-9),
        sequence_ids=torch.repeat_interleave(torch.arange(len(counts)), counts),
        position_ids=torch.cat([torch.arange(int(count)) for count in counts]),
    )


def make_sample(tokens: int, name: str = "p", first: int = 0, prompt_tokens: int = 0) -> TrainSample:
    """A sequence of token ids first, first + 1, ...; every token has weight 1/4, those of the prompt too."""
    return TrainSample(
        prompt_id=name,
        prefix_tokens=prompt_tokens,
        token_ids=np.arange(first, first + tokens, dtype=np.int32),
        sampled=np.arange(tokens) >= prompt_tokens,
        rollout_logprobs=np.full(tokens, -0.5, np.float32),
        advantages=np.ones(tokens, np.float32),
        loss_weights=np.full(tokens, 0.25, np.float32),
        mean_weights=np.full(tokens, 0.25, np.float32),
    )
