"""Ulysses sequence parallelism (Jacobs et al., 2023, arXiv:2309.14509): s neighbouring ranks hold one micro-batch.

Each has T / s of its tokens in every layer. For attention they exchange: each then has all T tokens, and 1 / s of the
heads, so attention is ours as ever, under the layout of the whole batch. DeepSpeed's module does the exchange.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from rlframe.errors import RunFailed
from rlframe.model import attention
from rlframe.model.layout import Layout
from rlframe.types import PACKED_ATTENTION, TrainBatch


class Ulysses:
    """A rank's place among the `size` that hold the same batches. Every method is a collective of those."""

    def __init__(self, model: Any, *, rank: int, ranks: int, size: int) -> None:
        """Puts the exchange around our attention in this process, for `model` (transformers').

        Raises RunFailed or ValueError where the model's heads cannot be divided so.
        """
        from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
        from transformers import AttentionInterface

        config = model.config
        if hasattr(config, "kv_lora_rank"):
            raise RunFailed("learner.sequence_parallel: keys and values of this model's heads differ in size; use 1")
        groups = [torch.distributed.new_group(range(first, first + size)) for first in range(0, ranks, size)]
        self.group, self.place, self.size = groups[rank // size], rank % size, size
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        exchanging = UlyssesSPAttentionHF(
            attn=attention.packed_attention,
            batch_size=1,
            attn_head_count=config.num_attention_heads,
            attn_head_size=head_dim,
            kv_head_count=config.num_key_value_heads,
            num_hidden_layers=config.num_hidden_layers,
            process_group=self.group,
            seq_length_is_variable=True,
        )
        AttentionInterface.register(PACKED_ATTENTION, exchanging)

    def cut(self, batch: TrainBatch) -> tuple[Layout, slice, Tensor, Tensor]:
        """-> the whole batch's layout, and this rank's part: its place in [T], token ids and position ids.

        What is missing for equal parts is a sequence of its own at the end, which nothing looks at.
        """
        missing = -len(batch.token_ids) % self.size
        filler = torch.arange(missing, device=batch.token_ids.device)
        token_ids, positions = torch.cat([batch.token_ids, filler]), torch.cat([batch.position_ids, filler])
        sequence_ids = torch.cat([batch.sequence_ids, batch.sequence_ids[-1] + 1 + 0 * filler])
        length = len(token_ids) // self.size
        own = slice(self.place * length, (self.place + 1) * length)
        return Layout.of(sequence_ids, positions), own, token_ids[own], positions[own]

    def join(self, values: Tensor) -> Tensor:
        """[T] that holds what this rank knows, 0 elsewhere -> [T] with what all know."""
        return _Sum.apply(values, self.group)

    def once(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums over a batch that each of the ranks has made whole -> the part that this rank adds to all ranks'."""
        return {name: value if name.endswith("_max") else value / self.size for name, value in sums.items()}


class _Sum(Function):
    """Every rank computes the same loss of the sum, so a rank's gradient is the sum's, and nothing is exchanged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: torch.distributed.ProcessGroup) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
