"""Packed batches small enough to work by hand."""

from __future__ import annotations

import torch

from rlframe.types import TrainBatch


def make_batch(
    old_logprobs: list[float],
    advantages: list[float],
    lengths: list[int] | None = None,
    loss_weights: list[float] | None = None,
) -> TrainBatch:
    """Sequences of `lengths` tokens (None: one sequence), sampled with `old_logprobs`."""
    tokens = len(advantages)
    counts = torch.tensor(lengths or [tokens])
    return TrainBatch(
        token_ids=torch.zeros(tokens, dtype=torch.int64),
        rollout_logprobs=torch.tensor(old_logprobs),
        old_logprobs=torch.tensor(old_logprobs),
        ref_logprobs=None,
        advantages=torch.tensor(advantages),
        loss_weights=torch.tensor(loss_weights) if loss_weights else torch.ones(tokens),
        sequence_ids=torch.repeat_interleave(torch.arange(len(counts)), counts),
        position_ids=torch.cat([torch.arange(int(count)) for count in counts]),
    )
