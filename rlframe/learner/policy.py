"""A causal language model as the learner needs it: packed tokens in, log-probabilities out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rlframe.learner import attention
from rlframe.learner.layout import Layout
from rlframe.learner.logprobs import LogprobHead
from rlframe.types import TrainBatch

PREFIX = "model."  # what `Policy` puts before the checkpoint names of its model's parameters


class Policy(nn.Module):
    """Wraps a transformers model; computes logits only where a token counts, and never all at once."""

    def __init__(self, model: nn.Module, head_dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.model.lm_head = LogprobHead(model.lm_head, head_dtype)

    def forward(self, batch: TrainBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """-> logprobs [T], entropies [T] in float32: of token t given the tokens before it in its sequence.

        Both are 0 where the loss weight is 0 (prompts, padding of a share): nothing is computed for those. A prompt's
        last hidden state predicts the first token of each completion that shares it.
        """
        layout = Layout.of(batch.sequence_ids, batch.position_ids)
        hidden = self.model.model(
            input_ids=batch.token_ids[None],
            position_ids=batch.position_ids[None],
            use_cache=False,
            **attention.arguments(layout, self.model.config._attn_implementation),
        ).last_hidden_state[0]  # [T, H]
        counted = (batch.loss_weights != 0).nonzero()[:, 0]
        drawn, entropies = self.model.lm_head(
            hidden[layout.predecessors()[counted]], batch.token_ids[counted], temperature
        )
        zeros = torch.zeros(len(batch.token_ids), dtype=torch.float32, device=drawn.device)
        return zeros.index_put((counted,), drawn), zeros.index_put((counted,), entropies)


def load_model(path: Path, dtype: torch.dtype, attention_name: str) -> nn.Module:
    """The model at a Hugging Face folder, in `dtype`, ready for packed batches."""
    from transformers import AutoModelForCausalLM

    attention.register()
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=attention_name)
