"""A causal language model as the learner needs it: packed tokens in, log-probabilities out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlframe.model import attention
from rlframe.model.layout import Layout
from rlframe.types import TrainBatch

PREFIX = "model."  # of a parameter's name in `Policy`, before its name in a checkpoint


class SequenceParallel(Protocol):
    """The ranks that compute one micro-batch together, each T / s of its tokens; `learner/ulysses.py` is one."""

    def cut(self, batch: TrainBatch) -> tuple[Layout, slice, Tensor, Tensor]:
        """-> the whole batch's layout; this rank's range of [T], its token ids and its position ids."""
        ...

    def join(self, values: Tensor) -> Tensor:
        """[T] with this rank's values and 0 elsewhere -> [T] with the values of all ranks."""
        ...


class Policy(nn.Module):
    """A transformers model whose head answers only for tokens with a loss weight, and never with all logits at once."""

    def __init__(self, model: nn.Module, head: nn.Module, ulysses: SequenceParallel | None = None) -> None:
        """`head` replaces the model's `lm_head`: (hidden [N, H], token ids [N], temperature) -> two values [N].

        `LogprobHead` is one. `ulysses`: ranks that share this rank's batches; None: the rank has whole batches.
        """
        super().__init__()
        self.ulysses = ulysses
        self.model: Any = model  # transformers': .model, .lm_head, .config
        self.config = model.config  # DeepSpeed's AutoEP looks for the kind of model here
        self.model.lm_head = head

    def forward(self, batch: TrainBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """-> logprobs [T], entropies [T] in float32: of token t given the tokens before it in its sequence.

        Both are 0 where the loss weight is 0 (prompts, padding of a share): nothing is computed there. A prompt's
        last hidden state predicts the first token of each completion that shares it.
        """
        if self.ulysses:
            layout, rank_range, token_ids, position_ids = self.ulysses.cut(batch)
        else:
            layout, rank_range = Layout.of(batch.sequence_ids, batch.position_ids), slice(0, len(batch.token_ids))
            token_ids, position_ids = batch.token_ids, batch.position_ids
        hidden = self.model.model(
            input_ids=token_ids[None],
            position_ids=position_ids[None],
            use_cache=False,
            **attention.arguments(layout, self.model.config._attn_implementation),
        ).last_hidden_state[0]  # [tokens of this rank, H]
        targets = (batch.loss_weights != 0).nonzero()[:, 0]
        predecessors = layout.predecessors()[targets]
        on_this_rank = (predecessors >= rank_range.start) & (predecessors < rank_range.stop)
        targets, predecessors = targets[on_this_rank], predecessors[on_this_rank] - rank_range.start
        values = self.model.lm_head(hidden[predecessors], batch.token_ids[targets], temperature)
        zeros = torch.zeros(len(batch.token_ids), dtype=torch.float32, device=hidden.device)
        logprobs, entropies = (zeros.index_put((targets,), value) for value in values)
        return (self.ulysses.join(logprobs), self.ulysses.join(entropies)) if self.ulysses else (logprobs, entropies)


def load_model(path: Path, dtype: torch.dtype, attention_name: str) -> nn.Module:
    """The model at a Hugging Face folder, in `dtype`, ready for packed batches."""
    from transformers import AutoModelForCausalLM

    attention.register()
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=attention_name)
