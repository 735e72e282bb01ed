"""Ulysses sequence parallelism (Jacobs et al., 2023, arXiv:2309.14509): s neighbouring ranks hold one micro-batch.

Each has T / s of its tokens in every layer. For attention they exchange: each then has all T tokens, and 1 / s of the
heads: our attention runs under the layout of the whole batch. DeepSpeed's module does the exchange.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from rlframe.errors import RunFailed
from rlframe.model import attention
from rlframe.model.layout import Layout
from rlframe.training import PACKED_ATTENTION, TrainBatch


class Ulysses:
    """A rank's place in a group of `size` ranks that hold the same batches. Methods are its collectives."""

    def __init__(self, model: Any, *, rank: int, ranks: int, size: int) -> None:
        """Wraps this process's attention in the exchange, for `model` of transformers.

        Raises RunFailed or ValueError where the model's heads cannot be divided by `size`.
        """
        from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
        from transformers import AttentionInterface

        config = model.config.get_text_config(decoder=True)
        if hasattr(config, "kv_lora_rank"):
            raise RunFailed("learner.sequence_parallel: keys and values of this model's heads differ in size; use 1")
        if any(name.endswith("sinks") for name, _ in model.named_parameters()):
            raise RunFailed("learner.sequence_parallel: this model's heads have attention sinks; use 1")
        groups = [torch.distributed.new_group(range(first, first + size)) for first in range(0, ranks, size)]
        self.group: Any = groups[rank // size]
        self.place, self.size = rank % size, size
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
        """-> the whole batch's layout; this rank's range of [T], its token ids and its position ids.

        Filler tokens make the ranges equal: a last sequence that no loss reads.
        """
        missing = -len(batch.token_ids) % self.size
        filler = torch.arange(missing, device=batch.token_ids.device)
        token_ids, positions = torch.cat([batch.token_ids, filler]), torch.cat([batch.position_ids, filler])
        sequence_ids = torch.cat([batch.sequence_ids, batch.sequence_ids[-1] + 1 + 0 * filler])
        length = len(token_ids) // self.size
        rank_range = slice(self.place * length, (self.place + 1) * length)
        return Layout.of(sequence_ids, positions), rank_range, token_ids[rank_range], positions[rank_range]

    def join(self, values: Tensor) -> Tensor:
        """[T] with this rank's values and 0 elsewhere -> [T] with the values of all ranks."""
        return _Sum.apply(values, self.group)

    def once(self, sums: dict[str, float]) -> dict[str, float]:
        """Divides sums over a whole batch, which every rank of the group has, by their number; maxima stay."""
        return {name: value if name.endswith("_max") else value / self.size for name, value in sums.items()}


class _Sum(Function):
    """Every rank computes the same loss of the sum, so a rank's gradient is the sum's, and nothing is exchanged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: torch.distributed.ProcessGroup) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
