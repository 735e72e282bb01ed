"""A causal language model as the learner needs it: packed tokens in, log-probabilities out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from rlframe.model import attention
from rlframe.model.layout import Layout
from rlframe.model.logprobs import LogprobHead
from rlframe.types import TrainBatch

PREFIX = "model."  # what `Policy` puts before the checkpoint names of its model's parameters


class SharedSequences(Protocol):
    """Several ranks that hold one micro-batch together (`learner/ulysses.py`)."""

    def cut(self, batch: TrainBatch) -> tuple[Layout, slice, Tensor, Tensor]: ...

    def join(self, values: Tensor) -> Tensor: ...


class Policy(nn.Module):
    """Wraps a transformers model; computes logits only where a token counts, and never all at once."""

    def __init__(self, model: nn.Module, head_dtype: torch.dtype, ulysses: SharedSequences | None = None) -> None:
        """`ulysses`: of a rank that shares its batches with others; None: it has them whole."""
        super().__init__()
        self.ulysses = ulysses
        self.model = model
        self.config = model.config  # where DeepSpeed's AutoEP looks for the kind of model
        self.model.lm_head = LogprobHead(model.lm_head, head_dtype)

    def forward(self, batch: TrainBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """-> logprobs [T], entropies [T] in float32: of token t given the tokens before it in its sequence.

        Both are 0 where the loss weight is 0 (prompts, padding of a share): nothing is computed for those. A prompt's
        last hidden state predicts the first token of each completion that shares it.
        """
        if self.ulysses:
            layout, own, token_ids, position_ids = self.ulysses.cut(batch)
        else:
            layout, own = Layout.of(batch.sequence_ids, batch.position_ids), slice(0, len(batch.token_ids))
            token_ids, position_ids = batch.token_ids, batch.position_ids
        hidden = self.model.model(
            input_ids=token_ids[None],
            position_ids=position_ids[None],
            use_cache=False,
            **attention.arguments(layout, self.model.config._attn_implementation),
        ).last_hidden_state[0]  # [own tokens, H]
        counted = (batch.loss_weights != 0).nonzero()[:, 0]
        before = layout.predecessors()[counted]
        here = (before >= own.start) & (before < own.stop)
        counted, before = counted[here], before[here] - own.start
        drawn, entropies = self.model.lm_head(hidden[before], batch.token_ids[counted], temperature)
        zeros = torch.zeros(len(batch.token_ids), dtype=torch.float32, device=drawn.device)
        logprobs, entropies = zeros.index_put((counted,), drawn), zeros.index_put((counted,), entropies)
        return (self.ulysses.join(logprobs), self.ulysses.join(entropies)) if self.ulysses else (logprobs, entropies)


def load_model(path: Path, dtype: torch.dtype, attention_name: str) -> nn.Module:
    """The model at a Hugging Face folder, in `dtype`, ready for packed batches."""
    from transformers import AutoModelForCausalLM

    attention.register()
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=attention_name)
